"""04.exhibit_3: a loss that compares a network with itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib import museum
from kdlib.checks.criteria import law, matches, tidy
from kdlib.checks.exercise import Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u04_trust.exhibit_1 import classroom, weighed
from kdlib.exercises.u04_trust.watch import both

T = 3.0


def _learns_from_the_teacher(evidence: Evidence) -> str | None:
    soft, hard, rest = (float(evidence.value("3 steps", k)) for k in ("soft", "hard", "neither"))
    if not evidence.value("3 steps", "trained"):
        return "Your script left the student as it was."
    if abs(soft) < 1e-6 and rest < 1e-4:
        return (
            "The soft term does not move the student: its weight in the student's gradient is "
            "zero. All that is learned comes from the labels."
        )
    if rest > 1e-4:
        return (
            "The gradient that reaches the student's outputs is no mixture of KL(p || q) at T = 3 "
            "and the cross-entropy with the labels."
        )
    if abs(soft - 0.9) > 1e-4 or abs(hard - 0.1) > 1e-4:
        return (
            f"The soft term weighs {soft:.3g} in the student's gradient, the hard one {hard:.3g}. "
            "That is not what the script says."
        )
    return None


def _script(soft_loss, label_weight=0.1, said=lambda s: s):
    """Assemble the script with another soft loss: `soft_loss(student's logits, teacher's)`."""

    def script(student, teacher, images, labels, steps, seed=0):
        optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
        history = []
        student.train()
        teacher.eval()
        for rows in museum.batches(len(images), steps, seed):
            with torch.no_grad():
                large_logits = teacher(images[rows])
            output = student(images[rows])
            soft = soft_loss(output, large_logits)
            loss = 0.9 * 9.0 * soft + label_weight * F.cross_entropy(output, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(said(soft).item())
        return history

    return script


def _kl(log_q, p):
    return F.kl_div(log_q, p, reduction="batchmean")


def _right(z, v):
    return _kl((z / T).log_softmax(-1), (v / T).softmax(-1))


EXHIBIT_3 = Exercise(
    id="04.exhibit_3",
    title="Exhibit 3",
    reference=museum.exhibit_3,
    probes=(Probe("3 steps", "some steps on images of 4 classes", classroom(4), run=weighed(T)),),
    criteria=(
        both(
            law(
                "the student learns from the teacher", 0.75, ("3 steps",), _learns_from_the_teacher
            ),
            matches("", 0, "3 steps", keys=("gradient at the outputs",)),
        ),
        matches("the student it trains", 0.25, "3 steps", keys=("student",)),
        matches("the soft losses it returns", 0.25, "3 steps", keys=("returned",)),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "as found",
            museum.found_3,
            "This is the script as found, or does what it does: the soft loss that it returns is "
            "zero in every step. A divergence is zero when its two sides are equal. Whose logits "
            "stand on which side?",
            "labmlai/annotated_deep_learning_paper_implementations #66",
        ),
        Mistake(
            "the student detached",
            _script(lambda z, v: _right(z.detach(), v)),
            "The soft loss is not zero any more, and still teaches nothing: no gradient goes from "
            "it to the student. It is the teacher that is a constant.",
        ),
        Mistake(
            "the zero painted over",
            _script(lambda z, v: _right(v, v) + 1e-3),
            "You keep the loss away from zero with a constant. A constant has no gradient; the "
            "student learns nothing more than before.",
        ),
        Mistake(
            "the two networks exchanged",
            _script(lambda z, v: _kl((v / T).log_softmax(-1), (z / T).softmax(-1))),
            "Now both networks take part, in each other's place: this is KL(q || p).",
            "keras-team/keras-io #257",
        ),
        Mistake(
            "temperature on the teacher only",
            _script(lambda z, v: _kl(z.log_softmax(-1), (v / T).softmax(-1))),
            "The student's logits take part now, but not at the temperature of the teacher's.",
        ),
        Mistake(
            "probabilities for log-probabilities",
            _script(lambda z, v: _kl((z / T).softmax(-1), (v / T).softmax(-1))),
            "The first argument of `F.kl_div` has to be log-probabilities.",
            "microsoft/ProDA #20 and #43",
        ),
        Mistake(
            "the labels weigh more instead",
            _script(lambda z, v: _right(v, v), label_weight=1.0),
            "Accuracy comes back when the labels weigh more, and so does the impression that "
            "something is distilled. The soft term is as dead as before.",
        ),
    ),
    minutes=5,
    difficulty=1,
    seconds=5.0,
)
