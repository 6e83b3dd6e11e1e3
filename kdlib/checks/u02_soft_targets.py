"""Exercises of unit 02: soft targets (Hinton, Vinyals, Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import distill, losses
from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe


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


def _log_of_softmax(s, t):
    p = t.softmax(-1)
    return (p * (t.log_softmax(-1) - s.softmax(-1).log())).sum(-1).mean()


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
        Probe(
            "T = 20", "T = 20, alpha = 1", _batch(temperature=20.0, alpha=1.0), ("student_logits",)
        ),
        Probe(
            "T = 80", "T = 80, alpha = 1", _batch(temperature=80.0, alpha=1.0), ("student_logits",)
        ),
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
        law(
            "the gradient's scale does not depend on T",
            0.5,
            ("T = 20", "T = 80"),
            _scale_of_gradient,
        ),
        law(
            "zero at agreement, unmoved by constants",
            0.5,
            ("equal", "soft", "shifted"),
            _zero_and_shift,
        ),
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
            "logarithm of a softmax",
            _kd(_log_of_softmax),
            "Right for small logits. For large ones a probability underflows to zero and its "
            "logarithm is minus infinity; `log_softmax` never forms the probability.",
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
            _gradient_with(
                lambda s, t, T: ((s / T).softmax(-1) - (t / T).softmax(-1)) / T / len(s)
            ),
            "You divided by the number of rows. The exercise asks for each row's own gradient, "
            "before any mean over the batch.",
        ),
        Mistake(
            "temperature outside the softmax only",
            _gradient_with(lambda s, t, T: (s.softmax(-1) - t.softmax(-1)) / T),
            "Both softmaxes are at T = 1. This gradient has the softened probabilities.",
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
                    (
                        (s / T).exp() / (s / T).exp().sum(-1, keepdim=True)
                        - (t / T).exp() / (t / T).exp().sum(-1, keepdim=True)
                    )
                    / T
                )
            ),
            "Right for small logits, but `exp` of a number in the thousands is infinite. Unit 01 "
            "has the remedy.",
        ),
    ),
    minutes=10,
    difficulty=2,
)


# ------------------------------------------------------------------ 02.logit_matching_gradient


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
            _gradient_with(lambda s, t, T: ((s - t) - (s - t).mean(0)) / (s.shape[-1] * T**2)),
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


# ------------------------------------------------------------------ 02.distill_step


class _Spy(nn.Module):
    """A small network with BatchNorm and dropout that remembers how it was called."""

    def __init__(self, seed: int, hidden: int, dropout: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(5, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, 4),
            ).double()
        self.modes: list[str] = []
        self.graphs: list[bool] = []
        self.rows = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.modes.append("train" if self.training else "eval")
        self.graphs.append(torch.is_grad_enabled())
        self.rows += len(inputs)
        return self.net(inputs)


def _classroom(g: torch.Generator) -> Arguments:
    seed = int(torch.randint(10_000, (1,), generator=g))
    student, teacher = _Spy(seed, 6, 0.0), _Spy(seed + 1, 16, 0.5)
    teacher.train()
    student.eval()
    return {
        "student": student,
        "teacher": teacher,
        "inputs": _logits(g, 2, 12, 5, scale=1.0),
        "targets": torch.randint(4, (2, 12), generator=g),
        "optimizer": torch.optim.SGD(student.parameters(), lr=0.3),
        "temperature": 3.0,
        "alpha": 0.7,
    }


def _two_steps(answer, a: Arguments) -> dict:
    """Take two steps on two batches and write down everything that a step may disturb."""
    student, teacher = a["student"], a["teacher"]
    frozen = {k: v.clone() for k, v in teacher.state_dict().items()}
    out: dict = {}
    for number in (0, 1):
        rest = (a["optimizer"], a["temperature"], a["alpha"])
        loss = answer(student, teacher, a["inputs"][number], a["targets"][number], *rest)
        weights = torch.cat([p.detach().flatten() for p in student.parameters()])
        out[f"loss of step {number + 1}"] = loss
        out[f"student after step {number + 1}"] = weights
    out["loss is a plain number"] = type(loss) is float
    out["teacher's modes"] = ", ".join(dict.fromkeys(teacher.modes)) or "never called"
    out["student's modes"] = ", ".join(dict.fromkeys(student.modes)) or "never called"
    out["graph through the teacher"] = any(teacher.graphs)
    out["teacher has gradients"] = any(p.grad is not None for p in teacher.parameters())
    after = teacher.state_dict()
    out["teacher changed"] = any(not torch.equal(after[k], v) for k, v in frozen.items())
    return out


def _said(key: str, right: object, words: str):
    """Make a law that one recorded fact is as it should be."""

    def test(evidence: Evidence) -> str | None:
        if evidence.value("two steps", "teacher's modes") == "never called":
            return "The teacher was never asked."
        seen = evidence.value("two steps", key)
        return None if seen == right else words.format(seen=seen)

    return test


def _all_of(*tests):
    def test(evidence: Evidence) -> str | None:
        return next((words for t in tests if (words := t(evidence))), None)

    return test


def _step(
    teacher_mode="eval",
    student_mode="train",
    graph=False,
    zero=True,
    update=True,
    number=True,
    swap=False,
    detach=True,
    alpha_of=lambda a: a,
):
    """Assemble a training step with one thing wrong."""

    def step(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
        student.train(student_mode == "train")
        if teacher_mode == "eval":
            teacher.eval()
        with torch.set_grad_enabled(graph):
            teacher_logits = teacher(inputs)
        teacher_logits = teacher_logits.detach() if detach else teacher_logits
        student_logits = student(inputs)
        pair = (teacher_logits, student_logits) if swap else (student_logits, teacher_logits)
        q, p = (x / temperature for x in pair)
        hard = F.cross_entropy(student_logits, targets)
        a = alpha_of(alpha)
        loss = a * temperature**2 * _right(q, p) + (1 - a) * hard
        if zero:
            optimizer.zero_grad()
        loss.backward()
        if update:
            optimizer.step()
        return loss.item() if number else loss

    return step


DISTILL_STEP = Exercise(
    id="02.distill_step",
    title="One step of distillation",
    reference=distill.distill_step,
    probes=(Probe("two steps", "two steps on two batches of 12 rows", _classroom, run=_two_steps),),
    criteria=(
        law(
            "the teacher answers in eval mode",
            0.5,
            ("two steps",),
            _all_of(
                _said(
                    "teacher's modes",
                    "eval",
                    "The teacher was called in this mode: {seen}. With dropout and BatchNorm in "
                    "train mode it gives other answers than the ones it was chosen for.",
                ),
                _said(
                    "teacher changed",
                    False,
                    "After your steps the teacher is another network than before: its parameters "
                    "or BatchNorm statistics changed.",
                ),
            ),
        ),
        law(
            "no graph and no gradient for the teacher",
            0.5,
            ("two steps",),
            _all_of(
                _said(
                    "graph through the teacher",
                    False,
                    "Autograd records the teacher's forward pass. That costs the memory of all "
                    "its activations, for a gradient that nobody wants.",
                ),
                _said("teacher has gradients", False, "The teacher's parameters have gradients."),
            ),
        ),
        law(
            "the student answers in train mode",
            0.5,
            ("two steps",),
            _said("student's modes", "train", "The student was called in this mode: {seen}."),
        ),
        matches(
            "the loss of both steps", 1.0, "two steps", keys=("loss of step 1", "loss of step 2")
        ),
        matches(
            "the student after both steps",
            1.0,
            "two steps",
            keys=("student after step 1", "student after step 2"),
        ),
        law(
            "the loss is a plain number",
            0.5,
            ("two steps",),
            _said(
                "loss is a plain number",
                True,
                "You return a tensor. Whoever collects it in a list keeps its graph alive.",
            ),
        ),
    ),
    mistakes=(
        Mistake(
            "teacher in train mode",
            _step(teacher_mode="train"),
            "Nobody told the teacher to be in eval mode. Its dropout is on, and its BatchNorm uses "
            "this batch's statistics and updates its own, even under `no_grad`. (Some do it on "
            "purpose: clovaai/overhaul-distillation #37.)",
            "Sharpiless/yolov5-knowledge-distillation #5",
        ),
        Mistake(
            "graph kept through the teacher",
            _step(graph=True),
            "`detach` after the teacher's forward pass is too late to save memory: by then all of "
            "its activations have been kept. Do not let autograd record them in the first place.",
            "clovaai/overhaul-distillation #34, as a question",
        ),
        Mistake(
            "gradient into the teacher",
            _step(graph=True, detach=False),
            "The loss sends gradient into the teacher's parameters. `eval()` does not stop that: "
            "it only switches dropout and BatchNorm.",
            "haitongli/knowledge-distillation-pytorch #25, as a question",
        ),
        Mistake(
            "student in eval mode",
            _step(student_mode="eval"),
            "The student learns in eval mode: its BatchNorm statistics never move. Which mode has "
            "it been left in by the last evaluation?",
        ),
        Mistake(
            "gradients never cleared",
            _step(zero=False),
            "The second step goes wrong: the first step's gradient is still in it. PyTorch adds "
            "to `.grad`, it does not replace it.",
        ),
        Mistake(
            "no update",
            _step(update=False),
            "The student is the same after your step as before. Which call changes parameters?",
        ),
        Mistake(
            "student and teacher exchanged",
            _step(swap=True),
            "The loss gets the teacher's logits where it expects the student's. Only the hard "
            "term and a reversed divergence are left to learn from.",
            "keras-team/keras-io #257",
        ),
        Mistake(
            "hard labels only",
            _step(alpha_of=lambda a: 0.0),
            "Your step learns from the labels alone; the teacher's answer has no effect.",
        ),
        Mistake(
            "alpha the wrong way round",
            _step(alpha_of=lambda a: 1 - a),
            "Alpha weighs the hard term in your step. In this course it weighs the soft one.",
        ),
        Mistake(
            "the loss with its graph",
            _step(number=False),
            "You return the loss as a tensor that still holds the whole graph. A list of 10,000 "
            "of them keeps 10,000 batches of activations in memory.",
        ),
    ),
    minutes=15,
    difficulty=2,
)


# ------------------------------------------------------------------ 02.TeacherCache


def _library(g: torch.Generator) -> Arguments:
    seed = int(torch.randint(10_000, (1,), generator=g))
    teacher = _Spy(seed, 16, 0.5)
    teacher.train()
    inputs = _logits(g, 37, 5, scale=1.0)
    order = torch.randperm(37, generator=g)
    return {"teacher": teacher, "inputs": inputs, "batch_size": 8, "order": order}


def _two_epochs(answer, a: Arguments) -> dict:
    """Build the cache and read it in two different shuffled orders."""
    teacher = a["teacher"]
    cache = answer(teacher, a["inputs"], a["batch_size"])
    order = a["order"]
    first = [cache[chunk] for chunk in order.split(10)]
    again = [cache[chunk] for chunk in order.flip(0).split(7)]
    return {
        "first epoch": torch.cat(first),
        "second epoch": torch.cat(again),
        "length": len(cache),
        "rows sent through the teacher": teacher.rows,
        "teacher's modes": ", ".join(dict.fromkeys(teacher.modes)),
        "gradient": any(part.requires_grad for part in first + again),
    }


def _fact(key: str, right: object, words: str):
    def test(evidence: Evidence) -> str | None:
        seen = evidence.value("two epochs", key)
        return None if seen == right else words.format(seen=seen)

    return test


class _ByPosition:
    """Hands out the batches in the order in which the teacher saw them."""

    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            self.logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])
        self.next = 0

    def __len__(self):
        return len(self.logits)

    def __getitem__(self, indices):
        rows = (torch.arange(len(indices)) + self.next) % len(self.logits)
        self.next += len(indices)
        return self.logits[rows]


class _Sorted(_ByPosition):
    def __getitem__(self, indices):
        return self.logits[indices.sort().values]


class _NoCache:
    def __init__(self, teacher, inputs, batch_size=256):
        self.teacher, self.inputs = teacher.eval(), inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, indices):
        with torch.no_grad():
            return self.teacher(self.inputs[indices])


class _TrainMode(_ByPosition):
    def __init__(self, teacher, inputs, batch_size=256):
        with torch.no_grad():
            self.logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])

    def __getitem__(self, indices):
        return self.logits[indices]


class _WithGraph(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        self.logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])


class _Probabilities(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            self.logits = torch.cat([teacher(c).softmax(-1) for c in inputs.split(batch_size)])


class _LastBatchDropped(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            whole = len(inputs) // batch_size * batch_size
            found = torch.cat([teacher(c) for c in inputs[:whole].split(batch_size)])
        self.logits = torch.zeros(len(inputs), found.shape[-1], dtype=found.dtype)
        self.logits[:whole] = found


TEACHER_CACHE = Exercise(
    id="02.TeacherCache",
    title="A cache of the teacher's logits",
    reference=distill.TeacherCache,
    probes=(
        Probe("two epochs", "37 inputs read in two shuffled orders", _library, run=_two_epochs),
    ),
    criteria=(
        matches(
            "each index gets its own logits",
            1.5,
            "two epochs",
            keys=("first epoch", "second epoch", "length"),
        ),
        law(
            "the teacher runs once over the data, in eval mode",
            1.0,
            ("two epochs",),
            _all_of(
                _fact(
                    "rows sent through the teacher",
                    37,
                    "For 37 inputs read twice, {seen} rows went through the teacher.",
                ),
                _fact("teacher's modes", "eval", "The teacher was called in this mode: {seen}."),
            ),
        ),
        law(
            "nothing in it has a graph",
            0.5,
            ("two epochs",),
            _fact(
                "gradient", False, "What the cache gives out still hangs on the teacher's graph."
            ),
        ),
    ),
    mistakes=(
        Mistake(
            "looked up by position",
            _ByPosition,
            "Your cache hands out logits in the order in which the teacher saw the images, "
            "whatever it is asked for. As soon as the data are shuffled, every image is taught "
            "with another image's soft targets. Nothing crashes.",
            "haitongli/knowledge-distillation-pytorch #4, #9, #16 and #17",
        ),
        Mistake(
            "indices sorted",
            _Sorted,
            "Right rows, wrong order: what comes back is sorted by index, while the batch is not.",
        ),
        Mistake(
            "not a cache",
            _NoCache,
            "Right answers, but the teacher computes each of them anew in every epoch, which is "
            "the cost that a cache is there to save.",
        ),
        Mistake(
            "teacher in train mode",
            _TrainMode,
            "The logits you stored are those of a teacher with dropout on and with BatchNorm "
            "looking at the batch: a worse teacher, frozen for good.",
            "vrvlive/knowlege-distillation #2, as a question",
        ),
        Mistake(
            "the graph is cached too",
            _WithGraph,
            "The stored logits still hang on the teacher's graph, so every activation of every "
            "example stays in memory.",
        ),
        Mistake(
            "probabilities stored",
            _Probabilities,
            "You stored probabilities at T = 1. The logits can be softened to any temperature "
            "later; from probabilities the small ones are already rounded away.",
        ),
        Mistake(
            "last batch dropped",
            _LastBatchDropped,
            "The last examples have logits of zero: 37 is not a multiple of the batch size, and "
            "the remainder was never sent through the teacher.",
        ),
    ),
    minutes=15,
    difficulty=2,
)

EXERCISES: tuple[Exercise, ...] = (
    NEAR_MISSES,
    KD_LOSS,
    KD_GRADIENT,
    LOGIT_MATCHING,
    DISTILL_STEP,
    TEACHER_CACHE,
)
