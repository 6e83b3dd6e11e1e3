"""Exercises of unit 02: soft targets (Hinton, Vinyals, Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import distill, losses
from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Criterion, Evidence, Exercise, Mistake, Probe

LOG = dict(dim=-1)


def _logits(g: torch.Generator, *shape: int, scale: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64) * scale


def _positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


# ------------------------------------------------------------------ 02.near_misses


def _labelled(rows: int, classes: int, scale: float = 3.0):
    def make(g: torch.Generator) -> Arguments:
        logits = _logits(g, rows, classes, scale=scale)
        # every class occurs, and some more often than others
        targets = torch.cat([torch.arange(classes), torch.arange(classes) ** 2 % classes])
        return {"logits": logits, "targets": targets[torch.randperm(rows, generator=g)]}

    return make


def _one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    return F.one_hot(targets, logits.shape[-1]).to(logits.dtype)


def _rest(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.masked_fill(_one_hot(logits, targets).bool(), float("-inf")).softmax(-1)


def _true_class_left_in(logits, targets):
    one_hot = _one_hot(logits, targets)
    return one_hot.T @ logits.softmax(-1) / one_hot.sum(0)[:, None]


def _not_renormalised(logits, targets):
    one_hot = _one_hot(logits, targets)
    return one_hot.T @ (logits.softmax(-1) * (1 - one_hot)) / one_hot.sum(0)[:, None]


def _renormalised_last(logits, targets):
    table = _not_renormalised(logits, targets)
    return table / table.sum(-1, keepdim=True)


def _one_minus_p(logits, targets):
    one_hot = _one_hot(logits, targets)
    probs = logits.softmax(-1)
    wrong = probs * (1 - one_hot) / (1 - (probs * one_hot).sum(-1, keepdim=True))
    return one_hot.T @ wrong / one_hot.sum(0)[:, None]


def _rows_are_predictions(logits, targets):
    return (_one_hot(logits, targets).T @ _rest(logits, targets)).T / _one_hot(logits, targets).sum(
        0
    )


def _over_all_examples(logits, targets):
    return _one_hot(logits, targets).T @ _rest(logits, targets) / len(targets)


NEAR_MISSES = Exercise(
    id="02.near_misses",
    title="Which wrong classes are nearly right",
    reference=distill.near_misses,
    probes=(
        Probe("plain", "12 examples of 6 classes", _labelled(12, 6)),
        Probe("few classes", "6 examples of 3 classes", _labelled(6, 3)),
        Probe(
            "certain",
            "a teacher so certain that the true class has probability 1 in floating point",
            lambda g: _certain(g),
        ),
    ),
    criteria=(
        matches("the table", 1.5, "plain", "few classes"),
        matches("a certain teacher does no harm", 1.0, "certain"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "the true class is still in",
            _true_class_left_in,
            "Your diagonal is not zero, and the true class swallows most of each row. "
            "Which entry of each row has to go before you look at what is left?",
        ),
        Mistake(
            "rows not renormalised",
            _not_renormalised,
            "You took the true class out, but what is left of a row no longer sums to one, so a "
            "confident example counts less than a hesitant one.",
        ),
        Mistake(
            "renormalised after averaging",
            _renormalised_last,
            "The order matters: share out each example's own remainder first, then average over "
            "the examples. Averaging first lets the few hesitant examples decide everything.",
        ),
        Mistake(
            "divided by 1 - p of the true class",
            _one_minus_p,
            "Right on paper, and off wherever the teacher is certain: there 1 - p loses all its "
            "digits to rounding, or is exactly zero. Take the true class out of the logits "
            "instead, before the softmax.",
        ),
        Mistake(
            "rows and columns exchanged",
            _rows_are_predictions,
            "Your table is transposed: row i is to hold what the teacher says about examples "
            "whose true class is i.",
        ),
        Mistake(
            "averaged over all examples",
            _over_all_examples,
            "Each row has to be divided by the number of examples of its own class, not by the "
            "number of all examples.",
        ),
    ),
    minutes=12,
    difficulty=2,
)


def _certain(g: torch.Generator) -> Arguments:
    arguments = _labelled(12, 6)(g)
    arguments["logits"] += 60 * _one_hot(arguments["logits"], arguments["targets"])
    return arguments


# ------------------------------------------------------------------ 02.kd_loss


def _batch(
    rows: int = 8,
    classes: int = 10,
    temperature: float = 4.0,
    alpha: float = 0.9,
    scale: float = 3.0,
    equal: bool = False,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float64,
):
    def make(g: torch.Generator) -> Arguments:
        student, teacher = (_logits(g, rows, classes, scale=scale) for _ in range(2))
        targets = torch.randint(classes, (rows,), generator=g)
        teacher = student.clone() if equal else teacher
        ramp = shift * torch.arange(1, rows + 1, dtype=torch.float64)[:, None]
        return {
            "student_logits": (student + ramp).to(dtype),
            "teacher_logits": (teacher - ramp).to(dtype),
            "targets": targets,
            "temperature": temperature,
            "alpha": alpha,
        }

    return make


def _sizes(rows: int, classes: int, temperature: float) -> dict[str, float]:
    return {
        "the number of rows": rows,
        "the number of classes": classes,
        "the temperature": temperature,
    }


def _scale_of_gradient(evidence: Evidence) -> str | None:
    cool = evidence.student["T = 20"].gradients.get("student_logits")
    hot = evidence.student["T = 80"].gradients.get("student_logits")
    if cool is None or hot is None:
        return "No gradient arrives at student_logits."
    ratio = (hot.norm() / cool.norm()).item()
    if 0.5 < ratio < 2.0:
        return None
    change = f"shrinks {1 / ratio:.3g}-fold" if ratio < 1 else f"grows {ratio:.3g}-fold"
    return (
        f"From T = 20 to T = 80 your gradient {change}. At high temperatures it has to stay about "
        "as large as it was, or the temperature would silently change the weight of the soft term."
    )


def _zero_and_shift(evidence: Evidence) -> str | None:
    equal = evidence.value("equal")
    if abs(float(equal)) > 1e-9:
        return (
            f"With the student equal to the teacher and alpha = 1, you return {float(equal):.4g}. "
            "A divergence between two equal distributions is zero."
        )
    plain, shifted = float(evidence.value("soft")), float(evidence.value("shifted"))
    if abs(plain - shifted) > 1e-6 * max(1.0, abs(plain)):
        return (
            f"Your soft term goes from {plain:.4g} to {shifted:.4g} when a constant is added to "
            "all logits of a row. The distribution does not change, so the loss must not either."
        )
    return None


def _kd(soft, hard=F.cross_entropy, mix=None):
    """Assemble a wrong loss from a wrong part: `soft(z_s/T, z_t/T)` or another `hard` or `mix`."""
    mix = mix or (lambda s, h, T, a: a * T**2 * s + (1 - a) * h)

    def loss(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
        _positive(temperature)
        soft_term = soft(student_logits / temperature, teacher_logits.detach() / temperature)
        return mix(soft_term, hard(student_logits, targets), temperature, alpha)

    return loss


def _right(s, t):
    return F.kl_div(s.log_softmax(-1), t.log_softmax(-1), reduction="batchmean", log_target=True)


def _mean_over_classes(s, t):
    return F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="mean")


def _sum_over_rows(s, t):
    return F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="sum")


def _reverse(s, t):
    return _right(t, s)


def _probabilities(s, t):
    return F.kl_div(s.softmax(-1), t.softmax(-1), reduction="batchmean")


def _log_target_forgotten(s, t):
    return F.kl_div(s.log_softmax(-1), t.log_softmax(-1), reduction="batchmean")


def _over_the_batch(s, t):
    return F.kl_div(s.log_softmax(0), t.softmax(0), reduction="batchmean")


def _soft_cross_entropy(s, t):
    return -(t.softmax(-1) * s.log_softmax(-1)).sum(-1).mean()


def _same_logits_twice(s, t):
    return _right(t, t)


def _teacher_only(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = _right(student_logits, teacher_logits.detach() / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def _student_only(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = _right(student_logits / temperature, teacher_logits.detach())
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def _hard_at_temperature(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    student = student_logits / temperature
    soft = _right(student, teacher_logits.detach() / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student, targets)


def _not_detached(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = _right(student_logits / temperature, teacher_logits / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def _takes_any_temperature(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    soft = _right(student_logits / temperature, teacher_logits.detach() / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


KD_LOSS = Exercise(
    id="02.kd_loss",
    title="The distillation loss",
    reference=losses.kd_loss,
    probes=(
        Probe(
            "soft",
            "8 rows of 10 classes with T = 4 and alpha = 1 (the soft term alone)",
            _batch(alpha=1.0),
            sizes=_sizes(8, 10, 4.0),
        ),
        Probe(
            "soft, other sizes",
            "5 rows of 4 classes with T = 2.5 and alpha = 1",
            _batch(5, 4, 2.5, 1.0),
            sizes=_sizes(5, 4, 2.5),
        ),
        Probe("hard", "alpha = 0 (the hard term alone), T = 4", _batch(alpha=0.0)),
        Probe(
            "mixed",
            "8 rows of 10 classes with T = 4 and alpha = 0.9",
            _batch(),
            gradients=("student_logits", "teacher_logits"),
        ),
        Probe("T = 20", "T = 20, alpha = 1", _batch(temperature=20.0, alpha=1.0), ("student_logits",)),
        Probe("T = 80", "T = 80, alpha = 1", _batch(temperature=80.0, alpha=1.0), ("student_logits",)),
        Probe("equal", "a student equal to the teacher", _batch(alpha=1.0, equal=True)),
        Probe("shifted", "logits with a constant added to each row", _batch(alpha=1.0, shift=7.0)),
        Probe("large", "logits in the thousands, T = 1", _batch(temperature=1.0, scale=3000.0)),
        Probe("float32", "float32 logits", _batch(dtype=torch.float32)),
        Probe("T = 0", "T = 0", _batch(temperature=0.0)),
    ),
    criteria=(
        matches("the soft term", 1.0, "soft", "soft, other sizes"),
        matches("the hard term and the mixture", 0.5, "hard", "mixed"),
        gradients("the student's gradient", 0.5, "mixed", arguments=("student_logits",)),
        gradients("the teacher is a constant", 0.5, "mixed", arguments=("teacher_logits",)),
        law("the gradient's scale does not depend on T", 0.5, ("T = 20", "T = 80"), _scale_of_gradient),
        law("zero at agreement, unmoved by constants", 0.5, ("equal", "soft", "shifted"), _zero_and_shift),
        matches("large logits, float32", 0.5, "large", "float32"),
        rejects("T = 0 is refused", 0.5, "T = 0"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "mean over classes",
            _kd(_mean_over_classes),
            "Your soft term is the right one divided by the number of classes: "
            "`reduction='mean'` averages over classes too. With 10 classes the soft term counts "
            "a tenth, with 1,000 a thousandth.",
            "facebookresearch/deit #61 and #116, HikariTJU/LD #74",
        ),
        Mistake(
            "summed over rows",
            _kd(_sum_over_rows),
            "Your soft term grows with the batch: it is summed over the rows, while the hard term "
            "is a mean. Doubling the batch would double its weight.",
        ),
        Mistake(
            "no T squared",
            _kd(_right, mix=lambda s, h, T, a: a * s + (1 - a) * h),
            "The soft term lacks its factor T squared. Its gradient falls as 1/T^2, so at T = 4 "
            "it counts a sixteenth of what alpha says.",
            "IntelLabs/distiller #122",
        ),
        Mistake(
            "T squared on the hard term too",
            _kd(_right, mix=lambda s, h, T, a: T**2 * (a * s + (1 - a) * h)),
            "The factor T squared makes up for the soft term's small gradient. The hard term is "
            "computed at T = 1 and needs no such help.",
        ),
        Mistake(
            "divided by T squared",
            _kd(_right, mix=lambda s, h, T, a: a * s / T**2 + (1 - a) * h),
            "The gradient of the soft term already falls as 1/T^2. Do you want to make that up, "
            "or to do it again?",
        ),
        Mistake(
            "KL the wrong way round",
            _kd(_reverse),
            "This is KL(q || p), from the teacher to the student. `F.kl_div(input, target)` "
            "computes KL(target || input): the student's log-probabilities come first.",
        ),
        Mistake(
            "probabilities for log-probabilities",
            _kd(_probabilities),
            "The first argument of `F.kl_div` has to be log-probabilities, and it does not notice "
            "when it gets probabilities: the loss is still a number, and can be negative.",
            "microsoft/ProDA #20 and #43, sebastian-hofstaetter/matchmaker #18",
        ),
        Mistake(
            "log_target forgotten",
            _kd(_log_target_forgotten),
            "You pass the teacher's log-probabilities to `F.kl_div`, which takes them for "
            "probabilities unless `log_target=True` says otherwise.",
        ),
        Mistake(
            "softmax over the batch",
            _kd(_over_the_batch),
            "Your softmax runs over the rows instead of the classes. Which `dim` sums to one?",
        ),
        Mistake(
            "cross-entropy in place of the KL",
            _kd(_soft_cross_entropy),
            "Your soft term is the cross-entropy H(p, q). Its gradient is right, since it differs "
            "from the KL by the teacher's entropy, a constant. But it is not zero when the "
            "student has learned everything, and this exercise asks for the KL.",
        ),
        Mistake(
            "the same logits on both sides",
            _kd(_same_logits_twice),
            "Your soft term is zero whatever the student says: the same logits stand on both "
            "sides of the divergence. Training would go on, on the hard labels alone.",
            "labmlai/annotated_deep_learning_paper_implementations #66",
        ),
        Mistake(
            "temperature on the teacher only",
            _teacher_only,
            "Only the teacher's logits are divided by T. A student that is compared at T = 1 can "
            "agree with the softened teacher only by being less sure of everything.",
        ),
        Mistake(
            "temperature on the student only",
            _student_only,
            "Only the student's logits are divided by T, so the dark knowledge in the teacher's "
            "small probabilities stays dark.",
        ),
        Mistake(
            "temperature in the hard term",
            _hard_at_temperature,
            "Your hard term sees the student's logits divided by T. Hard labels are compared with "
            "the prediction that will be used: the one at T = 1.",
        ),
        Mistake(
            "alpha the wrong way round",
            _kd(_right, mix=lambda s, h, T, a: (1 - a) * T**2 * s + a * h),
            "Alpha weighs the hard term in your loss and 1 - alpha the soft one. In this course "
            "alpha is the weight of the soft term; papers differ, so look each time.",
        ),
        Mistake(
            "teacher not detached",
            _not_detached,
            "A gradient arrives at the teacher's logits. If the teacher's parameters are in an "
            "optimiser, it will be pulled towards its student.",
        ),
        Mistake(
            "any temperature is taken",
            _takes_any_temperature,
            "T = 0 divides by zero and gives NaN, which you would find an hour into training. "
            "Raise a ValueError that says what was given.",
        ),
    ),
    minutes=20,
    difficulty=2,
)


# ------------------------------------------------------------------ 02.kd_gradient


def _pair(
    rows: int = 6,
    classes: int = 10,
    temperature: float = 3.0,
    scale: float = 3.0,
    equal: bool = False,
    shift: float = 0.0,
):
    def make(g: torch.Generator) -> Arguments:
        batch = _batch(rows, classes, temperature, 1.0, scale, equal, shift)(g)
        return {k: batch[k] for k in ("student_logits", "teacher_logits", "temperature")}

    return make


def _rows_sum_to_zero(evidence: Evidence) -> str | None:
    sums = evidence.value("plain").sum(-1).abs().max().item()
    if sums < 1e-6:
        return None
    return (
        f"One of your rows sums to {sums:.4g}. A step along the gradient must not move all logits "
        "of a row together, since that would change no probability."
    )


def _gradient_with(rule):
    def gradient(student_logits, teacher_logits, temperature):
        return rule(student_logits, teacher_logits, temperature)

    return gradient


KD_GRADIENT = Exercise(
    id="02.kd_gradient",
    title="The gradient in closed form",
    reference=losses.kd_gradient,
    probes=(
        Probe("plain", "6 rows of 10 classes, T = 3", _pair(), sizes=_sizes(6, 10, 3.0)),
        Probe("other", "4 rows of 5 classes, T = 7", _pair(4, 5, 7.0), sizes=_sizes(4, 5, 7.0)),
        Probe("T = 1", "T = 1", _pair(temperature=1.0)),
        Probe("equal", "a student equal to the teacher", _pair(equal=True)),
        Probe("large", "logits in the thousands", _pair(temperature=1.0, scale=3000.0)),
    ),
    criteria=(
        matches("the value", 1.5, "plain", "other", "T = 1"),
        law("each row sums to zero", 0.5, ("plain",), _rows_sum_to_zero),
        matches("no overflow on large logits", 0.5, "large"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "no 1/T",
            _gradient_with(lambda s, t, T: (s / T).softmax(-1) - (t / T).softmax(-1)),
            "You differentiated with respect to z/T. The logits are z, so the chain rule owes you "
            "one more factor.",
        ),
        Mistake(
            "1/T squared",
            _gradient_with(lambda s, t, T: ((s / T).softmax(-1) - (t / T).softmax(-1)) / T**2),
            "One factor 1/T comes from the chain rule. The second one appears only at high "
            "temperature, from the softmax itself; it is not to be written down.",
        ),
        Mistake(
            "multiplied by T",
            _gradient_with(lambda s, t, T: T * ((s / T).softmax(-1) - (t / T).softmax(-1))),
            "This is the gradient of T^2 KL. The exercise asks for that of the KL alone.",
        ),
        Mistake(
            "sign turned round",
            _gradient_with(lambda s, t, T: ((t / T).softmax(-1) - (s / T).softmax(-1)) / T),
            "Your gradient points the other way: descending along it would drive the student away "
            "from the teacher.",
        ),
        Mistake(
            "mean over rows",
            _gradient_with(lambda s, t, T: ((s / T).softmax(-1) - (t / T).softmax(-1)) / T / len(s)),
            "You divided by the number of rows. The exercise asks for each row's own gradient, "
            "before any mean over the batch.",
        ),
        Mistake(
            "temperature outside the softmax only",
            _gradient_with(lambda s, t, T: (s.softmax(-1) - t.softmax(-1)) / T),
            "Both softmaxes are at T = 1. The probabilities in this gradient are the softened ones.",
        ),
        Mistake(
            "softmax of the difference",
            _gradient_with(lambda s, t, T: ((s - t) / T).softmax(-1) / T),
            "A difference of two softmaxes is not the softmax of a difference.",
        ),
        Mistake(
            "exp without subtracting the maximum",
            _gradient_with(
                lambda s, t, T: (
                    (s / T).exp() / (s / T).exp().sum(-1, keepdim=True)
                    - (t / T).exp() / (t / T).exp().sum(-1, keepdim=True)
                )
                / T
            ),
            "Right for small logits, but `exp` of a number in the thousands is infinite. Unit 01 "
            "has the remedy.",
        ),
    ),
    minutes=10,
    difficulty=2,
)


# ------------------------------------------------------------------ 02.logit_matching_gradient


def _approaches(evidence: Evidence) -> str | None:
    have = evidence.value("hot")
    arguments = evidence.probes["hot"].make(torch.Generator().manual_seed(0))
    del arguments
    exact = evidence.expected["hot"].value
    error = ((have - exact).norm() / exact.norm()).item()
    if error < 1e-6:
        return None
    return (
        f"At T = 1000 your rows differ from the limit by {error:.2g} of its length; "
        "there the two should be one."
    )


LOGIT_MATCHING = Exercise(
    id="02.logit_matching_gradient",
    title="The limit of high temperature",
    reference=losses.logit_matching_gradient,
    probes=(
        Probe("plain", "6 rows of 10 classes, T = 3", _pair(), sizes=_sizes(6, 10, 3.0)),
        Probe("other", "4 rows of 5 classes, T = 7", _pair(4, 5, 7.0), sizes=_sizes(4, 5, 7.0)),
        Probe("shifted", "logits with a constant added to each row", _pair(shift=7.0)),
        Probe("equal", "a student equal to the teacher", _pair(equal=True)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "other"),
        matches("a constant added to a row changes nothing", 0.5, "shifted"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "logits not centred",
            _gradient_with(lambda s, t, T: (s - t) / (s.shape[-1] * T**2)),
            "Equation 4 of the paper holds for logits whose mean is zero in each row. Yours are "
            "used as they come, so a constant added to a row changes the result.",
        ),
        Mistake(
            "one T too few",
            _gradient_with(lambda s, t, T: _centred(s - t) / (s.shape[-1] * T)),
            "One factor 1/T comes from the chain rule, a second from exp(z/T) being about "
            "1 + z/T. You have one of them.",
        ),
        Mistake(
            "the number of classes is missing",
            _gradient_with(lambda s, t, T: _centred(s - t) / T**2),
            "At high temperature every probability is near 1/N. That N is missing.",
        ),
        Mistake(
            "divided by rows, not classes",
            _gradient_with(lambda s, t, T: _centred(s - t) / (len(s) * T**2)),
            "N in the equation is the number of classes, not of rows.",
        ),
        Mistake(
            "centred over the batch",
            _gradient_with(
                lambda s, t, T: ((s - t) - (s - t).mean(0)) / (s.shape[-1] * T**2)
            ),
            "You subtract the mean of each class over the batch. Centre each row over its classes.",
        ),
        Mistake(
            "sign turned round",
            _gradient_with(lambda s, t, T: _centred(t - s) / (s.shape[-1] * T**2)),
            "Your gradient points the other way: it would drive the logits apart.",
        ),
    ),
    minutes=8,
    difficulty=1,
)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)
