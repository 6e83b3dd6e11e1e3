"""02.kd_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib import losses
from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import between, positive
from kdlib.exercises.u02_soft_targets.inputs import another_batch, batch, sizes, soft_term, without


def _negative(g: torch.Generator) -> Arguments:
    return batch(temperature=-between(g, 2, 40) / 10, alpha=1.0, equal=True)(g)


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
        positive(temperature)
        soft_term = soft(student_logits / temperature, teacher_logits.detach() / temperature)
        return mix(soft_term, hard(student_logits, targets), temperature, alpha)

    return loss


def _mean_over_classes(s, t):
    return F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="mean")


def _sum_over_rows(s, t):
    return F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="sum")


def _reverse(s, t):
    return soft_term(t, s)


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
    return soft_term(t, t)


def _teacher_only(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    positive(temperature)
    soft = soft_term(student_logits, teacher_logits.detach() / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def _student_only(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    positive(temperature)
    soft = soft_term(student_logits / temperature, teacher_logits.detach())
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def _hard_at_temperature(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    positive(temperature)
    student = student_logits / temperature
    soft = soft_term(student, teacher_logits.detach() / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student, targets)


def _not_detached(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    positive(temperature)
    soft = soft_term(student_logits / temperature, teacher_logits / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def _takes_any_temperature(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    soft = soft_term(student_logits / temperature, teacher_logits.detach() / temperature)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


KD_LOSS = Exercise(
    id="02.kd_loss",
    title="The distillation loss",
    reference=losses.kd_loss,
    probes=(
        Probe(
            "soft",
            "8 rows of 10 classes with T = 4 and alpha = 1 (the soft term alone)",
            batch(alpha=1.0),
            sizes=sizes(8, 10, 4.0),
        ),
        Probe(
            "soft, other sizes",
            "5 rows of 4 classes with T = 2.5 and alpha = 1",
            batch(5, 4, 2.5, 1.0),
            sizes=sizes(5, 4, 2.5),
        ),
        Probe("hard", "alpha = 0 (the hard term alone), T = 4", batch(alpha=0.0)),
        Probe(
            "mixed",
            "8 rows of 10 classes with T = 4 and alpha = 0.9",
            batch(),
            gradients=("student_logits", "teacher_logits"),
        ),
        Probe(
            "default",
            "a batch of another size, without temperature and alpha",
            without(another_batch, "temperature", "alpha"),
        ),
        Probe(
            "another batch",
            "a batch of another size, at another T and alpha",
            another_batch,
            gradients=("student_logits", "teacher_logits"),
        ),
        Probe("one row", "a single row of 2 classes, T = 0.5", batch(1, 2, 0.5)),
        Probe(
            "T = 20", "T = 20, alpha = 1", batch(temperature=20.0, alpha=1.0), ("student_logits",)
        ),
        Probe(
            "T = 80", "T = 80, alpha = 1", batch(temperature=80.0, alpha=1.0), ("student_logits",)
        ),
        Probe("equal", "a student equal to the teacher", batch(alpha=1.0, equal=True)),
        Probe("shifted", "logits with a constant added to each row", batch(alpha=1.0, shift=7.0)),
        Probe(
            "large",
            "logits in the thousands, T = 1",
            batch(temperature=1.0, scale=3000.0),
            gradients=("student_logits",),
        ),
        Probe("float32", "float32 logits", batch(dtype=torch.float32)),
        Probe(
            "large float32",
            "float32 logits in the thousands, T = 2",
            batch(5, 3, 2.0, 0.5, scale=1000.0, dtype=torch.float32),
        ),
        Probe("T = 0", "T = 0", batch(temperature=0.0)),
        Probe("T < 0", "a temperature below 0", _negative),
    ),
    criteria=(
        matches("the soft term", 1.0, "soft", "soft, other sizes"),
        matches(
            "the hard term and the mixture",
            0.5,
            "hard",
            "mixed",
            "default",
            "another batch",
            "one row",
        ),
        gradients(
            "the student's gradient",
            0.5,
            "mixed",
            "another batch",
            "large",
            arguments=("student_logits",),
        ),
        side(
            gradients(
                "the teacher is a constant",
                0.5,
                "mixed",
                "another batch",
                arguments=("teacher_logits",),
            )
        ),
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
        matches("large logits, float32", 0.5, "large", "float32", "large float32"),
        rejects("a temperature that is not positive is refused", 0.5, "T = 0", "T < 0", given=True),
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
            _kd(soft_term, mix=lambda s, h, T, a: a * s + (1 - a) * h),
            "The soft term lacks its factor T squared. Its gradient falls as 1/T^2, so at T = 4 "
            "it counts a sixteenth of what alpha says.",
            "IntelLabs/distiller #122",
        ),
        Mistake(
            "T squared on the hard term too",
            _kd(soft_term, mix=lambda s, h, T, a: T**2 * (a * s + (1 - a) * h)),
            "The factor T squared makes up for the soft term's small gradient. The hard term is "
            "computed at T = 1 and needs no such help.",
        ),
        Mistake(
            "divided by T squared",
            _kd(soft_term, mix=lambda s, h, T, a: a * s / T**2 + (1 - a) * h),
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
            "For large logits a probability underflows to zero and its "
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
            "squared differences of logits",
            _kd(lambda s, t: (s - t).square().sum(-1).mean()),
            "You compare logits, not distributions. A constant added to a row changes your loss "
            "and no probability. Section 2.5 says when the two come close.",
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
            _kd(soft_term, mix=lambda s, h, T, a: (1 - a) * T**2 * s + a * h),
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
