"""07.sp_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Exercise, Mistake, Probe
from kdlib.exercises.u07_relations.inputs import flat, nested, pair, same_rows, scale_law
from kdlib.losses import relations


def _gram(z):
    return z @ z.mT


def _rows(g):
    return F.normalize(g, dim=1)


def _mean_square(difference):
    return difference.square().mean()


def _similarity(
    of=_gram, norm=_rows, rule=_mean_square, flatten=flat, detach=True, cut=False, strict=True
):
    """Assemble a similarity-preserving loss with one thing wrong."""

    def loss(student_features, teacher_features):
        if strict:
            same_rows(student_features, teacher_features)
        teacher = teacher_features.detach() if detach else teacher_features
        student = student_features.detach() if cut else student_features
        return rule(norm(of(flatten(teacher))) - norm(of(flatten(student))))

    return loss


def _no_guard(g):
    return g / torch.linalg.vector_norm(g, dim=1, keepdim=True)


def _whole(g):
    return g / torch.linalg.vector_norm(g)


SP_LOSS = Exercise(
    id="07.sp_loss",
    title="Who resembles whom",
    reference=relations.sp_loss,
    probes=(
        Probe(
            "plain",
            "a small batch, the teacher wider than the student",
            pair(),
            gradients=("student_features", "teacher_features"),
        ),
        Probe("scaled", "the same features, scaled", pair(scale=1e4)),
        Probe("maps", "feature maps (B, C, H, W) that are not contiguous", pair(maps=True)),
        Probe("few rows", "batches of one row, two rows and more", pair(), run=nested(1, 2)),
        Probe("width 1", "a student of width 1", pair(width=1)),
        Probe(
            "dead",
            "a batch in which one row of the student is zero, and another of the teacher",
            pair(dead=True),
        ),
        Probe("small", "float32 features times 0.001", pair(scale=1e-3, single=True), atol=1e-6),
        Probe("large", "float32 features times 1000", pair(scale=1e3, single=True), atol=1e-6),
        Probe("batches", "batches of two sizes", pair(rows=(3, 3), teacher_rows=5)),
        Probe("one against many", "1 row and 3 rows", pair(rows=(1, 1), teacher_rows=3)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "few rows", "width 1"),
        gradients("the student's gradient", 0.5, "plain", arguments=("student_features",)),
        side(
            gradients("the teacher is a constant", 0.25, "plain", arguments=("teacher_features",))
        ),
        matches("feature maps", 0.25, "maps"),
        law("scale does not matter", 0.25, ("plain", "scaled"), scale_law),
        matches("float32, small and large", 0.25, "small", "large"),
        matches("a row of zeros", 0.5, "dead"),
        rejects("batches that differ are refused", 0.25, "batches", "one against many"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "rows of sum one",
            _similarity(norm=lambda g: F.normalize(g, p=1, dim=1)),
            "You divided each row by the sum of its absolute values, `F.normalize(g, 1)`: the "
            "second argument is the norm, not the dimension. The paper's norm is the length.",
            "torchdistill 1.1.5, SPKDLoss",
        ),
        Mistake(
            "one norm for the matrix",
            _similarity(norm=_whole),
            "You divided the whole matrix by one number. Then an image with large features has a "
            "large say. Each row has a norm of its own.",
        ),
        Mistake(
            "images normalised first",
            _similarity(of=lambda z: _gram(F.normalize(z, dim=1)), norm=lambda g: g),
            "You normalised the features and multiplied then: cosines. The equation multiplies "
            "first and normalises the rows of the product.",
            "HobbitLong/RepDistiller #45, as a question",
        ),
        Mistake(
            "cosines, then rows",
            _similarity(of=lambda z: _gram(F.normalize(z, dim=1))),
            "You normalised twice: the features before the product and the rows after it. Only "
            "the second is in the equation.",
        ),
        Mistake(
            "not normalised",
            _similarity(norm=lambda g: g),
            "The similarity matrices are compared as they are, so the loss mostly says how large "
            "the two networks' features are.",
        ),
        Mistake(
            "divided by B once",
            _similarity(rule=lambda d: d.square().sum(1).mean()),
            "You averaged over rows and summed within them. The matrix has B times B entries: by "
            "how many does the equation divide?",
        ),
        Mistake(
            "summed",
            _similarity(rule=lambda d: d.square().sum()),
            "Your loss grows with the batch: nothing divides it.",
        ),
        Mistake(
            "not squared",
            _similarity(rule=lambda d: torch.linalg.vector_norm(d) / len(d) ** 2),
            "You took the Frobenius norm itself. The equation has its square.",
        ),
        Mistake(
            "absolute differences",
            _similarity(rule=lambda d: d.abs().mean()),
            "You averaged absolute differences. The squared norm is made of squares.",
        ),
        Mistake(
            "channels in place of images",
            _similarity(of=lambda z: z.mT @ z),
            "Your matrix has a row for each feature, so two widths do not fit together. Which "
            "product gives a row for each image?",
        ),
        Mistake(
            "only dimension 1 flattened away",
            _similarity(flatten=lambda x: x if x.dim() == 2 else x.mean(dim=(2, 3))),
            "Right for (B, D). Of feature maps you kept the mean over positions alone. The loss "
            "compares all of an image's entries: flatten them into one row.",
        ),
        Mistake(
            "view",
            _similarity(flatten=lambda x: x.view(len(x), -1)),
            "`view` needs features that lie in memory without gaps. A slice or a transpose of a "
            "tensor does not; which operation copies when it has to?",
        ),
        Mistake(
            "division by zero",
            _similarity(norm=_no_guard),
            "A network can be silent for an image. That row of the matrix has length zero, and "
            "you divide by it.",
        ),
        Mistake(
            "teacher not detached",
            _similarity(detach=False),
            "A gradient arrives at the teacher's features.",
        ),
        Mistake(
            "student detached",
            _similarity(cut=True),
            "The value is right and nobody learns: no gradient arrives at the student.",
        ),
        Mistake(
            "batches not compared",
            _similarity(strict=False),
            "One row against three goes through by broadcasting, and other sizes stop somewhere "
            "inside PyTorch. Say yourself what does not fit.",
        ),
    ),
    minutes=12,
    difficulty=1,
)
