"""05.dkd_loss."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u05_logit_structure.inputs import batch, parts, split
from kdlib.losses import structure as logits


def _linear(evidence: Evidence) -> str | None:
    """Alpha and beta each weigh one half: the loss is linear in them."""
    both, first, second = (
        float(evidence.value(name)) for name in ("both", "target only", "rest only")
    )
    if abs(both - 2.0 * first - 3.0 * second) < 1e-6 * max(1.0, abs(both)):
        return None
    return (
        f"On the same rows you return {both:.4g} for alpha = 2, beta = 3, but {first:.4g} for "
        f"(1, 0) and {second:.4g} for (0, 1). Twice the one and three times the other should add "
        "up to the first."
    )


def _says_why(evidence: Evidence) -> str | None:
    seen = evidence.student["two classes"]
    if seen.error_type != "ValueError":
        return "Nothing is refused, so no reason is given."
    if len(seen.error.split()) > 1:
        return None
    return f"The reason that your ValueError gives is {seen.error!r}. What would help the caller?"


def _refuse(student_logits):
    if student_logits.shape[-1] < 3:
        raise ValueError("needs three classes")


def _wrong(rule, refuse=True, detach=True):
    """Assemble a wrong loss from `rule(tckd, nckd, alpha, beta, T, rest)`, rest being 1 - p_y."""

    def loss(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
        if refuse:
            _refuse(student_logits)
        teacher = teacher_logits.detach() if detach else teacher_logits
        s, t = student_logits / temperature, teacher / temperature
        tckd, nckd = parts(s, t, targets)
        return rule(tckd, nckd, alpha, beta, temperature, split(t, targets)[0][:, 1].exp())

    return loss


def _swapped_networks(
    student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0
):
    _refuse(student_logits)
    s, t = student_logits / temperature, teacher_logits.detach() / temperature
    tckd, nckd = parts(t, s, targets)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def _at_one(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    _refuse(student_logits)
    tckd, nckd = parts(student_logits, teacher_logits.detach(), targets)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def _four_times(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    _refuse(student_logits)
    tckd, nckd = parts(student_logits / 4, teacher_logits.detach() / 4, targets)
    return 16 * (alpha * tckd + beta * nckd).mean()


DKD_LOSS = Exercise(
    id="05.dkd_loss",
    title="Decoupled distillation",
    reference=logits.dkd_loss,
    probes=(
        Probe(
            "both",
            "7 rows of 10 classes with T = 3, alpha = 2, beta = 3",
            batch(temperature=3.0, alpha=2.0, beta=3.0),
            gradients=("student_logits", "teacher_logits"),
            sizes={"the number of rows": 7, "the temperature": 3},
        ),
        Probe("target only", "alpha = 1, beta = 0", batch(temperature=3.0, alpha=1.0, beta=0.0)),
        Probe("rest only", "alpha = 0, beta = 1", batch(temperature=3.0, alpha=0.0, beta=1.0)),
        Probe(
            "other",
            "5 rows of 4 classes with T = 2, alpha = 1, beta = 8",
            batch(5, 4, temperature=2.0, alpha=1.0, beta=8.0),
            sizes={"the number of rows": 5, "the temperature": 2},
        ),
        Probe(
            "certain",
            "a teacher whose p_y is 1 in floating point, T = 1",
            batch(certain=3000.0, temperature=1.0, alpha=1.0, beta=8.0),
        ),
        Probe(
            "two classes",
            "two classes",
            batch((2, 7), 2, temperature=3.0, alpha=2.0, beta=3.0),
        ),
        Probe("one class", "one class", batch((2, 7), 1, temperature=3.0, alpha=2.0, beta=3.0)),
        Probe(
            "three classes",
            "one row of three classes, with T, alpha and beta left out",
            batch(1, 3),
        ),
        Probe(
            "defaults",
            "a batch of some size, with T, alpha and beta left out",
            batch((2, 9), (4, 12), strided=True),
            gradients=("student_logits",),
        ),
        Probe(
            "float32",
            "float32 logits in the thousands",
            batch(
                (2, 9), (4, 7), 1000.0, dtype=torch.float32, temperature=3.0, alpha=0.5, beta=2.0
            ),
            gradients=("student_logits",),
            atol=1e-3,
        ),
    ),
    criteria=(
        matches("the value", 1.0, "both", "other", "three classes", "defaults"),
        law("linear in both weights", 0.25, ("both", "target only", "rest only"), _linear),
        gradients("the student's gradient", 0.5, "both", "defaults", arguments=("student_logits",)),
        side(gradients("the teacher is a constant", 0.25, "both", arguments=("teacher_logits",))),
        matches("a certain teacher does no harm", 0.5, "certain", "float32"),
        rejects("two classes are refused", 0.25, "two classes", "one class"),
        law("with the reason", 0.25, (), _says_why),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "no T squared",
            _wrong(lambda a, b, x, y, T, r: (x * a + y * b).mean()),
            "Both halves shrink as 1/T^2, as the whole does. Without the factor, T would change "
            "the weight against the hard labels.",
        ),
        Mistake(
            "T squared on one half",
            _wrong(lambda a, b, x, y, T, r: (x * a + y * T**2 * b).mean()),
            "One half of your loss lacks its factor T squared, so alpha and beta no longer mean "
            "the same thing.",
        ),
        Mistake(
            "alpha and beta exchanged",
            _wrong(lambda a, b, x, y, T, r: T**2 * (y * a + x * b).mean()),
            "Alpha weighs the rest and beta the target in your loss. It is the other way round.",
        ),
        Mistake(
            "still coupled",
            _wrong(lambda a, b, x, y, T, r: T**2 * (x * a + y * r * b).mean()),
            "Your NCKD still carries 1 - p_y, the factor that decoupling is to remove: an image "
            "of which the teacher is certain teaches nothing about the rest.",
        ),
        Mistake(
            "beta divided by its sum with alpha",
            _wrong(lambda a, b, x, y, T, r: T**2 * (x * a + y * b).mean() / (x + y)),
            "Your weights are scaled to sum to one. The paper's are not; beta = 8 means eight.",
        ),
        Mistake(
            "summed over rows",
            _wrong(lambda a, b, x, y, T, r: T**2 * (x * a + y * b).sum()),
            "Your loss grows with the batch: it is a sum over the rows instead of a mean.",
        ),
        Mistake(
            "student and teacher exchanged",
            _swapped_networks,
            "The divergences run from the student to the teacher. Which of the two comes first in "
            "`split_kd`?",
        ),
        Mistake(
            "temperature outside only",
            _at_one,
            "You multiply by T squared, but the halves are taken at T = 1.",
        ),
        Mistake(
            "always T = 4",
            _four_times,
            "Your loss does not change with `temperature`. Did you leave the halves at their "
            "default?",
        ),
        Mistake(
            "teacher not detached",
            _wrong(lambda a, b, x, y, T, r: T**2 * (x * a + y * b).mean(), detach=False),
            "A gradient arrives at the teacher's logits.",
        ),
        Mistake(
            "takes two classes",
            _wrong(lambda a, b, x, y, T, r: T**2 * (x * a + y * b).mean(), refuse=False),
            "With two classes your loss returns a number. NCKD is zero there, whatever the student "
            "does: beta weighs nothing, and nobody would notice. Say so with a ValueError.",
            "megvii-research/mdistiller #60",
        ),
    ),
    minutes=8,
    difficulty=1,
)
