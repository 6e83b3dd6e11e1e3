"""01.kl_divergence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import positive
from kdlib.exercises.u01_divergences.inputs import ROUNDED, tenths, turned, two_networks
from kdlib.losses import divergences


def _kl_with(rule):
    def kl_divergence(teacher_logits, student_logits, temperature=1.0):
        positive(temperature)
        return rule(teacher_logits / temperature, student_logits / temperature)

    return kl_divergence


def _kl(v: Tensor, z: Tensor) -> Tensor:
    return (v.softmax(-1) * (v.log_softmax(-1) - z.log_softmax(-1))).sum(-1)


def _takes_any_temperature(teacher_logits, student_logits, temperature=1.0):
    return _kl(teacher_logits / temperature, student_logits / temperature)


def _kl_squared(teacher_logits, student_logits, temperature=1.0):
    positive(temperature)
    return temperature**2 * _takes_any_temperature(teacher_logits, student_logits, temperature)


def _kl_teacher_only(teacher_logits, student_logits, temperature=1.0):
    positive(temperature)
    return _kl(teacher_logits / temperature, student_logits)


def _kl_ignored(teacher_logits, student_logits, temperature=1.0):
    positive(temperature)
    return _kl(teacher_logits, student_logits)


def _another_batch(g: torch.Generator) -> Arguments:
    return {**_default(g), "temperature": tenths(g, 5, 90)}


def _default(g: torch.Generator) -> Arguments:
    return turned(g, "teacher_logits", "student_logits")


def _negative(g: torch.Generator) -> Arguments:
    return two_networks(equal=True, temperature=tenths(g, -40, -2))(g)


def _zero_and_never_negative(evidence: Evidence) -> str | None:
    home = evidence.value("equal").abs().max().item()
    if home > 1e-9:
        return (
            f"For equal distributions one of your rows is {home:.4g}. A divergence is zero there."
        )
    low = evidence.value("plain").min().item()
    return (
        None if low >= -1e-9 else f"One of your rows is {low:.4g}. A divergence is never negative."
    )


KL = Exercise(
    id="01.kl_divergence",
    title="KL from teacher to student",
    reference=divergences.kl_divergence,
    probes=(
        Probe(
            "plain",
            "6 rows of 7 classes, T = 2",
            two_networks(temperature=2.0),
            ("student_logits", "teacher_logits"),
        ),
        Probe("T = 1", "6 rows of 7 classes, T = 1", two_networks(temperature=1.0)),
        Probe("default", "a batch of another size, without a temperature", _default),
        Probe("another batch", "a batch of another size, at another T", _another_batch),
        Probe(
            "one row",
            "a single row of 2 classes, T = 0.5",
            two_networks(rows=1, classes=2, temperature=0.5),
        ),
        Probe("equal", "a student equal to the teacher", two_networks(equal=True, temperature=2.0)),
        Probe(
            "large",
            "logits in the thousands, T = 1",
            two_networks(3000.0, temperature=1.0),
            ("student_logits",),
        ),
        Probe(
            "float32",
            "float32 logits in the thousands, T = 2",
            two_networks(1000.0, dtype=torch.float32, temperature=2.0),
            atol=ROUNDED,
        ),
        Probe("T = 0", "T = 0", two_networks(temperature=0.0)),
        Probe("T < 0", "a temperature below 0", _negative),
    ),
    criteria=(
        matches(
            "the value of each row",
            0.75,
            "plain",
            "T = 1",
            "default",
            "another batch",
            "one row",
        ),
        gradients("the gradient of both", 0.5, "plain", "large"),
        law(
            "zero at agreement, never negative",
            0.5,
            ("equal", "plain"),
            _zero_and_never_negative,
        ),
        matches("large logits", 0.5, "large", "float32"),
        rejects("a temperature that is not positive is refused", 0.5, "T = 0", "T < 0", given=True),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the wrong way round",
            _kl_with(lambda v, z: _kl(z, v)),
            "You compute KL(q || p). Forward KL weighs the log-ratio with the teacher's "
            "probabilities; with `F.kl_div` the student comes first, the teacher second.",
        ),
        Mistake(
            "log_target forgotten",
            _kl_with(
                lambda v, z: F.kl_div(z.log_softmax(-1), v.log_softmax(-1), reduction="none").sum(
                    -1
                )
            ),
            "`F.kl_div` takes its second argument for probabilities unless `log_target=True` is "
            "given. Yours are log-probabilities, so it takes the logarithm of a negative number.",
        ),
        Mistake(
            "probabilities for log-probabilities",
            _kl_with(lambda v, z: F.kl_div(z.softmax(-1), v.softmax(-1), reduction="none").sum(-1)),
            "`F.kl_div` wants the student's *log*-probabilities. Given probabilities it returns a "
            "number all the same, and one that can be negative.",
            "microsoft/ProDA #20, sebastian-hofstaetter/matchmaker #18",
        ),
        Mistake(
            "mean over classes",
            _kl_with(lambda v, z: _kl(v, z) / v.shape[-1]),
            "You average over the classes. A divergence is an expectation: a sum weighted by p.",
            "facebookresearch/deit #61",
        ),
        Mistake(
            "mean over the batch",
            _kl_with(lambda v, z: _kl(v, z).mean()),
            "You return one number for the batch; one for each row is asked for.",
        ),
        Mistake(
            "the teacher's entropy is missing",
            _kl_with(lambda v, z: -(v.softmax(-1) * z.log_softmax(-1)).sum(-1)),
            "This is the cross-entropy. It has the same gradient, but it is not zero when student "
            "and teacher agree: the teacher's own entropy is left.",
        ),
        Mistake(
            "logarithm of a softmax",
            _kl_with(
                lambda v, z: (v.softmax(-1) * (v.softmax(-1).log() - z.softmax(-1).log())).sum(-1)
            ),
            "For large logits a probability that underflows has the logarithm minus "
            "infinity, and zero times infinity is NaN.",
        ),
        Mistake(
            "logits taken for log-probabilities",
            _kl_with(lambda v, z: (v.softmax(-1) * (v - z)).sum(-1)),
            "You subtract logits. They differ from log-probabilities by a constant in each row, "
            "and teacher and student have different ones.",
        ),
        Mistake(
            "logarithm to base 2",
            _kl_with(lambda v, z: _kl(v, z) / math.log(2)),
            "Your numbers are bits. This course counts in nats: natural logarithms.",
        ),
        Mistake(
            "multiplied by T squared",
            _kl_squared,
            "The factor T squared belongs to the training loss of unit 02. The divergence itself "
            "has none.",
        ),
        Mistake(
            "temperature on the teacher only",
            _kl_teacher_only,
            "Only the teacher is softened. A student that agrees with it at every temperature "
            "would still be told that it is wrong.",
        ),
        Mistake(
            "temperature ignored",
            _kl_ignored,
            "At T = 1 you are right, and at every other temperature you return the same.",
        ),
        Mistake(
            "teacher detached",
            _kl_with(lambda v, z: _kl(v.detach(), z)),
            "No gradient arrives at the first argument. With a teacher that is a constant that is "
            "as well; here either argument may be the one that learns.",
        ),
        Mistake(
            "any temperature is taken",
            _takes_any_temperature,
            "T = 0 divides by zero. Raise a ValueError that says what was given.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
