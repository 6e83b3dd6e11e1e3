"""04.fidelity."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from kdlib import evaluation
from kdlib.checks.criteria import matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw


def _pair(
    rows: tuple[int, int],
    classes: tuple[int, int],
    scale: float = 2.0,
    dtype: torch.dtype = torch.float64,
    offset: float = 0.0,
):
    """Build logits whose predictions agree on about half of the rows, on one for certain."""

    def make(g):
        n, c = between(g, *rows), between(g, *classes)
        teacher = draw(g, c, n, scale=scale).T  # not contiguous
        student = 0.5 * teacher + draw(g, n, c, scale=0.6 * scale)
        student[0] = teacher[0].flip(-1) + 0.1 * scale
        student[1:2] = 0.4 * teacher[1:2]
        both = {"student_logits": student, "teacher_logits": teacher}
        return {name: (logits + offset).to(dtype) for name, logits in both.items()}

    return make


def _shapes(student: tuple[int, int], teacher: tuple[int, int]):
    def make(g):
        return {"student_logits": draw(g, *student), "teacher_logits": draw(g, *teacher)}

    return make


def _both(answer, a: Arguments):
    """Name the two numbers, so that the student reads which of them is wrong."""
    found = answer(*a.values())
    if isinstance(found, tuple | list) and len(found) == 2:
        return {"agreement": found[0], "predictive KL": found[1]}
    return found


def _same(s, t):
    return (s.argmax(-1) == t.argmax(-1)).double().mean().item()


def _kl(s, t):
    return F.kl_div(s.log_softmax(-1), t.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def _fidelity(same=_same, kl=lambda s, t: _kl(s, t).mean().item()):
    """Assemble a wrong answer from one wrong half."""

    def wrong(student_logits, teacher_logits):
        if student_logits.shape != teacher_logits.shape:
            raise ValueError("shapes differ")
        return same(student_logits, teacher_logits), kl(student_logits, teacher_logits)

    return wrong


def _underflows(s, t):
    p, q = t.softmax(-1), s.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1).mean().item()


def _where_they_agree(s, t):
    rows = s.argmax(-1) == t.argmax(-1)
    return _kl(s[rows], t[rows]).mean().item()


def _any_shape(student_logits, teacher_logits):
    c = min(student_logits.shape[-1], teacher_logits.shape[-1])
    s, t = student_logits[..., :c], teacher_logits[..., :c]
    return _same(s, t), _kl(s, t).mean().item()


def _exchanged(student_logits, teacher_logits):
    return _fidelity()(student_logits, teacher_logits)[::-1]


SMALL = ("plain", "other sizes", "one row")

FIDELITY = Exercise(
    id="04.fidelity",
    title="Agreement and predictive KL",
    reference=evaluation.fidelity,
    probes=(
        Probe("plain", "some rows of 4 to 8 classes", _pair((20, 40), (4, 8)), run=_both),
        Probe("other sizes", "some rows of 2 or 3 classes", _pair((9, 20), (2, 3)), run=_both),
        Probe("one row", "a single row", _pair((1, 1), (3, 6)), run=_both),
        Probe("offset", "logits around 1000", _pair((20, 40), (4, 8), offset=1000.0), run=_both),
        Probe("large", "logits in the thousands", _pair((6, 12), (4, 6), 2000.0), run=_both),
        Probe(
            "large float32",
            "float32 logits in the thousands",
            _pair((6, 12), (4, 6), 2000.0, torch.float32),
            run=_both,
            atol=1e-3,
        ),
        Probe(
            "two widths",
            "5 classes for the teacher, 3 for the student",
            _shapes((4, 3), (4, 5)),
        ),
        Probe("two lengths", "4 rows for the teacher, 1 for the student", _shapes((1, 5), (4, 5))),
    ),
    criteria=(
        matches("the agreement", 0.5, "plain", "other sizes", "offset", keys=("agreement",)),
        matches("the predictive KL", 0.75, *SMALL, keys=("predictive KL",)),
        matches("large logits", 0.25, "large", "large float32"),
        rejects("two widths are refused", 0.25, "two widths", "two lengths"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "KL the wrong way round",
            _fidelity(kl=lambda s, t: _kl(t, s).mean().item()),
            "This is KL(q || p). The teacher is what the student is measured against: the mean is "
            "taken under the teacher's probabilities.",
        ),
        Mistake(
            "mean over classes",
            _fidelity(kl=lambda s, t: _kl(s, t).mean().item() / s.shape[-1]),
            "Your KL is divided by the number of classes as well. Sum over the classes of a row, "
            "then take the mean over the rows.",
            "facebookresearch/deit #61",
        ),
        Mistake(
            "summed over rows",
            _fidelity(kl=lambda s, t: _kl(s, t).sum().item()),
            "Your KL grows with the size of the test set. What does it say of one image?",
        ),
        Mistake(
            "in bits",
            _fidelity(kl=lambda s, t: _kl(s, t).mean().item() / math.log(2)),
            "Your KL is in bits, base 2. This course counts in nats.",
        ),
        Mistake(
            "agreement in percent",
            _fidelity(same=lambda s, t: 100 * _same(s, t)),
            "Your agreement lies between 0 and 100. Return the share, between 0 and 1.",
        ),
        Mistake(
            "agreement as a count",
            _fidelity(same=lambda s, t: _same(s, t) * len(s)),
            "You count the rows on which both predict the same class. Which share of all is that?",
        ),
        Mistake(
            "agreement weighted by confidence",
            _fidelity(
                same=lambda s, t: (
                    ((s.argmax(-1) == t.argmax(-1)) * t.softmax(-1).amax(-1)).mean().item()
                )
            ),
            "You weigh each row by how sure the teacher is. Each image counts the same here.",
        ),
        Mistake(
            "KL where they agree",
            _fidelity(kl=_where_they_agree),
            "Your KL leaves out the rows on which the two disagree: the very rows that make a "
            "student unfaithful.",
        ),
        Mistake(
            "logarithm of a softmax",
            _fidelity(kl=_underflows),
            "Right for small logits. For large ones a probability underflows to zero, and its "
            "logarithm is minus infinity; `log_softmax` never forms the probability.",
        ),
        Mistake(
            "probabilities for log-probabilities",
            _fidelity(
                kl=lambda s, t: F.kl_div(s.softmax(-1), t.softmax(-1), reduction="batchmean").item()
            ),
            "The first argument of `F.kl_div` has to be log-probabilities, and it does not notice "
            "when it gets probabilities: your divergence is negative.",
            "microsoft/ProDA #20 and #43",
        ),
        Mistake(
            "the two numbers exchanged",
            _exchanged,
            "Both numbers are right, in the wrong order: agreement comes first.",
        ),
        Mistake(
            "two widths are taken",
            _any_shape,
            "A student with 3 classes and a teacher with 5 cannot be compared class by class. "
            "Broadcasting or cutting hides that; raise a ValueError that says both shapes.",
        ),
    ),
    minutes=8,
    difficulty=1,
)
