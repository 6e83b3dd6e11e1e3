"""05.dist_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import gradients, law, matches, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u05_logit_structure.inputs import pick, without_targets
from kdlib.losses import structure as logits

EPS = 1e-8


def _undecided(g: torch.Generator) -> Arguments:
    """Build a student that says the same of every class and image."""
    arguments = without_targets((4, 8), (4, 7), temperature=2.0, beta=(0.5, 2.0), gamma=1.0)(g)
    student = torch.zeros_like(arguments["student_logits"])
    return {**arguments, "student_logits": student + pick(g, (-3.0, 3.0))}


def _one_undecided(g: torch.Generator) -> Arguments:
    """Build networks one of which says the same of every class of one image."""
    arguments = without_targets((4, 8), (4, 7), temperature=2.0, beta=(0.5, 2.0), gamma=1.5)(g)
    arguments["student_logits"][1] = 0.0
    arguments["teacher_logits"][2] = 0.0
    return arguments


def _probabilities_mixed(g: torch.Generator) -> Arguments:
    """Build a student whose probabilities are halfway between the teacher's and uniform ones."""
    arguments = without_targets(7, 5, temperature=3.0, beta=1.0, gamma=1.0)(g)
    p = (arguments["teacher_logits"] / 3.0).softmax(-1)
    arguments["student_logits"] = 3.0 * (0.5 * p + 0.5 / 5).log()
    return arguments


def _relations_only(evidence: Evidence) -> str | None:
    seen = float(evidence.value("halfway"))
    if abs(seen) < 1e-4:
        return None
    return (
        f"On {evidence.probes['halfway'].about}, you return {seen:.4g}. All relations are the "
        "teacher's there, since q = a p + b has correlation one with p, so the loss is zero."
    )


UNDECIDED = ("undecided", "one undecided", "one row")


def _finite(evidence: Evidence) -> str | None:
    for name in UNDECIDED:
        if not evidence.student[name].gradients["student_logits"].isfinite().all():
            return (
                f"On {evidence.probes[name].about}, the value is a number, but its gradient is "
                "not. Where does a root, or a division, meet a zero?"
            )
    return None


def _two_terms(evidence: Evidence) -> str | None:
    both, rows, columns = (float(evidence.value(k)) for k in ("both", "rows", "columns"))
    if abs(both - 2 * rows - 3 * columns) < 1e-6 * max(1.0, abs(both)):
        return None
    return (
        f"On the same logits you return {both:.4g} for beta = 2, gamma = 3, {rows:.4g} for (1, 0) "
        f"and {columns:.4g} for (0, 1). The first should be twice the second plus three times the "
        "third."
    )


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=-1, eps=EPS)


def _wrong(rule, detach=True, squared=True):
    """Assemble a wrong loss from `rule(q, p, beta, gamma)` on matrices of probabilities."""

    def loss(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
        teacher = teacher_logits.detach() if detach else teacher_logits
        q, p = ((x / temperature).softmax(-1) for x in (student_logits, teacher))
        return (temperature**2 if squared else 1) * rule(q, p, beta, gamma)

    return loss


def _mean(r):
    """Average one minus `r` along rows and along columns, and weigh the two."""
    return lambda q, p, beta, gamma: beta * (1 - r(q, p)).mean() + gamma * (1 - r(q.T, p.T)).mean()


def _on_logits(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    return temperature**2 * _mean(_pearson)(z, v, beta, gamma)


def _on_log_probabilities(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    z, v = ((x / temperature).log_softmax(-1) for x in (student_logits, teacher_logits.detach()))
    return temperature**2 * _mean(_pearson)(z, v, beta, gamma)


def _at_one(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = student_logits.softmax(-1), teacher_logits.detach().softmax(-1)
    return temperature**2 * _mean(_pearson)(q, p, beta, gamma)


def _softmax_per_column(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    rows = 1 - _pearson(z.softmax(-1), v.softmax(-1))
    columns = 1 - _pearson(z.softmax(0).T, v.softmax(0).T)
    return temperature**2 * (beta * rows.mean() + gamma * columns.mean())


def _uncentred(a, b):
    return F.cosine_similarity(a, b, dim=-1, eps=EPS)


def _no_epsilon(a, b):
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1) / (a.square().sum(-1).sqrt() * b.square().sum(-1).sqrt())


def _covariance(a, b):
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return (a * b).mean(-1)


def _flat(q, p, beta, gamma):
    return (beta + gamma) * (1 - _pearson(q.flatten(), p.flatten()))


def _sizes(rows: int, classes: int, temperature: float) -> dict[str, float]:
    return {
        "the number of rows": rows,
        "the number of classes": classes,
        "the temperature": temperature,
    }


DIST_LOSS = Exercise(
    id="05.dist_loss",
    title="Relations instead of equality",
    reference=logits.dist_loss,
    probes=(
        Probe(
            "both",
            "7 rows of 5 classes with T = 3, beta = 2, gamma = 3",
            without_targets(7, 5, temperature=3.0, beta=2.0, gamma=3.0),
            gradients=("student_logits", "teacher_logits"),
            sizes=_sizes(7, 5, 3.0),
        ),
        Probe(
            "rows",
            "beta = 1, gamma = 0 (the rows alone)",
            without_targets(7, 5, temperature=3.0, beta=1.0, gamma=0.0),
        ),
        Probe(
            "columns",
            "beta = 0, gamma = 1 (the columns alone)",
            without_targets(7, 5, temperature=3.0, beta=0.0, gamma=1.0),
        ),
        Probe(
            "other",
            "4 rows of 9 classes with T = 2, beta = gamma = 1",
            without_targets(4, 9, temperature=2.0, beta=1.0, gamma=1.0),
            sizes=_sizes(4, 9, 2.0),
        ),
        Probe(
            "halfway",
            "a student whose probabilities are the average of the teacher's and uniform ones",
            _probabilities_mixed,
        ),
        Probe(
            "undecided",
            "a student that finds all classes equally probable",
            _undecided,
            gradients=("student_logits",),
        ),
        Probe(
            "one undecided",
            "networks that find all classes of one image equally probable",
            _one_undecided,
            gradients=("student_logits",),
        ),
        Probe(
            "one row",
            "a batch of one image, whose columns are without spread",
            without_targets(1, (4, 7), temperature=2.0, beta=1.0, gamma=0.5),
            gradients=("student_logits",),
        ),
        Probe(
            "hot",
            "T = 150, where all probabilities are nearly equal",
            without_targets(7, 5, temperature=150.0, beta=1.0, gamma=1.0),
            atol=20.0,  # about 1e-8 in the denominator may be half of it
        ),
        Probe(
            "defaults",
            "a batch of some size, with T, beta and gamma left out",
            without_targets((3, 9), (3, 9), strided=True),
            gradients=("student_logits",),
        ),
        Probe(
            "raised",
            "float32 logits, all raised by 1,000",
            without_targets(
                (4, 9),
                (4, 9),
                offset=1000.0,
                dtype=torch.float32,
                temperature=3.0,
                beta=1.0,
                gamma=2.0,
            ),
            atol=5e-3,
        ),
    ),
    criteria=(
        matches("the rows' part", 0.75, "rows"),
        matches("the columns' part", 0.75, "columns"),
        matches("both together", 0.5, "both", "other", "hot", "defaults", "raised"),
        law("linear in both weights", 0.25, ("both", "rows", "columns"), _two_terms),
        law("zero where all relations are right", 0.5, ("halfway",), _relations_only),
        gradients("the student's gradient", 0.5, "both", "defaults", arguments=("student_logits",)),
        side(gradients("the teacher is a constant", 0.25, "both", arguments=("teacher_logits",))),
        matches("no spread, no correlation", 0.25, *UNDECIDED),
        law("an undecided student gives no NaN", 0.25, UNDECIDED, _finite),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "not centred",
            _wrong(_mean(_uncentred)),
            "This is the cosine of the probabilities themselves. They are all positive, so it is "
            "large for any two rows. Pearson's correlation is the cosine of what?",
        ),
        Mistake(
            "correlation of logits",
            _on_logits,
            "You correlate logits. The relations are between probabilities, which is why T "
            "matters here.",
        ),
        Mistake(
            "correlation of log-probabilities",
            _on_log_probabilities,
            "You correlate log-probabilities, and those of classes that both think impossible "
            "dominate. The relations are between probabilities.",
        ),
        Mistake(
            "rows only, twice",
            _wrong(lambda q, p, beta, gamma: (beta + gamma) * (1 - _pearson(q, p)).mean()),
            "Both of your terms look along the rows. The second looks along the columns: one "
            "class, all the images of the batch.",
        ),
        Mistake(
            "rows and columns exchanged",
            _wrong(lambda q, p, beta, gamma: _mean(_pearson)(q.T, p.T, beta, gamma)),
            "Your beta weighs the columns and your gamma the rows. Beta is for the relations "
            "between the classes of one image.",
        ),
        Mistake(
            "one correlation of the whole matrix",
            _wrong(_flat),
            "You correlate the two matrices as one long vector. Each row, and each column, has "
            "a correlation of its own.",
        ),
        Mistake(
            "summed",
            _wrong(
                lambda q, p, beta, gamma: (
                    beta * (1 - _pearson(q, p)).sum() + gamma * (1 - _pearson(q.T, p.T)).sum()
                )
            ),
            "You sum over the rows and over the columns. Both are means, or gamma would depend on "
            "the number of classes and beta on the batch.",
        ),
        Mistake(
            "covariance",
            _wrong(_mean(_covariance)),
            "You do not divide by the deviations. A covariance shrinks when the student is "
            "unsure; a correlation does not.",
        ),
        Mistake(
            "correlation, not one minus it",
            _wrong(
                lambda q, p, beta, gamma: (
                    beta * _pearson(q, p).mean() + gamma * _pearson(q.T, p.T).mean()
                )
            ),
            "Descending along your loss makes the student contradict the teacher. What is it zero "
            "for when the two agree?",
        ),
        Mistake(
            "no T squared",
            _wrong(_mean(_pearson), squared=False),
            "The factor T squared is missing.",
        ),
        Mistake(
            "no temperature in the softmax",
            _at_one,
            "Your probabilities are at T = 1.",
        ),
        Mistake(
            "another softmax for the columns",
            _softmax_per_column,
            "For the columns you take a softmax over the batch. The matrix is one and the same; "
            "only the direction in which you look changes.",
        ),
        Mistake(
            "zero divided by zero",
            _wrong(_mean(_no_epsilon)),
            "A student that finds all classes equally probable has rows without any spread, and "
            "0/0 is NaN. A small number in the denominator makes that correlation zero; mind "
            "the square root's gradient at zero, too.",
        ),
        Mistake(
            "teacher not detached",
            _wrong(_mean(_pearson), detach=False),
            "A gradient arrives at the teacher's logits.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
