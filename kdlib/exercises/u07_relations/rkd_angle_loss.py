"""07.rkd_angle_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Exercise, Mistake, Probe
from kdlib.exercises.u07_relations.inputs import (
    finite_law,
    flat,
    nested,
    pair,
    same_rows,
    scale_law,
)
from kdlib.losses import relations


def _unit(e):
    return F.normalize(e, dim=-1)


def _differences(z):
    return z[None] - z[:, None]


def _angle(
    lines=_differences,
    norm=_unit,
    combine=lambda e: e @ e.mT,
    rule=F.smooth_l1_loss,
    flatten=flat,
    detach=True,
    strict=True,
):
    """Assemble an angle loss with one thing wrong."""

    def loss(student_features, teacher_features):
        if strict:
            same_rows(student_features, teacher_features)
        teacher = teacher_features.detach() if detach else teacher_features
        s, t = (combine(norm(lines(flatten(x)))) for x in (student_features, teacher))
        return rule(s, t)

    return loss


def _triangles(s, t):
    n = len(s)
    i = torch.arange(n)
    distinct = (i[:, None] != i)[:, :, None] & (i[:, None] != i)[None] & (i[:, None] != i)[:, None]
    if not distinct.any():
        return s.sum() * 0.0
    return F.smooth_l1_loss(s[distinct], t[distinct])


def _by_root(e):
    return e / e.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)


RKD_ANGLE_LOSS = Exercise(
    id="07.rkd_angle_loss",
    title="The corners of triangles",
    reference=relations.rkd_angle_loss,
    probes=(
        Probe(
            "plain",
            "a small batch, the teacher wider than the student",
            pair(),
            gradients=("student_features", "teacher_features"),
        ),
        Probe("scaled", "the same features, scaled", pair(scale=1e4)),
        Probe("maps", "feature maps (B, C, H, W) that are not contiguous", pair(maps=True)),
        Probe("few rows", "batches of one, two, three rows and more", pair(), run=nested(1, 2, 3)),
        Probe("width 1", "a student of width 1, whose cosines are 1 and -1", pair(width=1)),
        Probe(
            "twins",
            "a batch in which two rows of the student are equal",
            pair(twins=True),
            gradients=("student_features",),
        ),
        Probe("small", "float32 features times 0.001", pair(scale=1e-3, single=True), atol=3e-6),
        Probe("large", "float32 features times 1000", pair(scale=1e3, single=True), atol=3e-6),
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
        matches("two equal rows", 0.25, "twins"),
        law(
            "two equal rows: the gradient",
            0.25,
            ("twins",),
            finite_law("twins", "a batch in which two rows of the student are equal"),
        ),
        rejects("batches that differ are refused", 0.25, "batches", "one against many"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "seen from the origin",
            _angle(lines=lambda z: z),
            "Your cosines are those between the images' feature vectors, as seen from the origin. "
            "The corner of each angle is an image of the batch: subtract it first.",
        ),
        Mistake(
            "not normalised",
            _angle(norm=lambda e: e),
            "Your products are of differences of any length. A cosine is a product of directions, "
            "which have length one.",
        ),
        Mistake(
            "normalised along the images",
            _angle(norm=lambda e: F.normalize(e, dim=1)),
            "You normalised along the images, so that each feature has length one over the batch. "
            "Which dimension holds the direction?",
        ),
        Mistake(
            "corners summed first",
            _angle(combine=lambda e: torch.einsum("jid,jkd->ik", e, e) / len(e)),
            "You averaged over the corners before you compared, and have B times B numbers. Each "
            "corner of each triangle is compared on its own: B times B times B.",
        ),
        Mistake(
            "degrees of arc",
            _angle(combine=lambda e: (e @ e.mT).clamp(-1, 1).acos()),
            "You compared the angles themselves. The paper compares their cosines, which spares "
            "it the slope of `acos`, infinite at 1 and -1.",
        ),
        Mistake(
            "mean squared error",
            _angle(rule=F.mse_loss),
            "You squared the differences. Smooth L1 is half a square near zero and a straight "
            "line beyond one.",
        ),
        Mistake(
            "half the squared error",
            _angle(rule=lambda s, t: F.mse_loss(s, t) / 2),
            "Right while no two cosines differ by more than one. They can differ by two, and "
            "there the Huber loss is a straight line.",
        ),
        Mistake(
            "absolute differences",
            _angle(rule=F.l1_loss),
            "You averaged absolute differences. Near zero the Huber loss is a square.",
        ),
        Mistake(
            "summed",
            _angle(rule=lambda s, t: F.smooth_l1_loss(s, t, reduction="sum")),
            "Your loss grows with the third power of the batch.",
        ),
        Mistake(
            "averaged over triangles alone",
            _angle(rule=_triangles),
            "You averaged over triples of three different images. That is a fair loss; the "
            "authors' code, and the weight of 50 that goes with it, divide by all B x B x B.",
        ),
        Mistake(
            "division by zero",
            _angle(norm=lambda e: e / torch.linalg.vector_norm(e, dim=-1, keepdim=True)),
            "From an image to itself there is no direction: you divide zero by zero, and the NaN "
            "is everywhere. What does `F.normalize` do there?",
        ),
        Mistake(
            "root before the clamp",
            _angle(norm=_by_root),
            "The value is right, and every gradient is NaN: the root is taken at zero before the "
            "clamp can help. Clamp first, or let PyTorch take the norm.",
        ),
        Mistake(
            "view",
            _angle(flatten=lambda x: x.view(len(x), -1)),
            "`view` needs features that lie in memory without gaps. Which operation copies when "
            "it has to?",
        ),
        Mistake(
            "teacher not detached",
            _angle(detach=False),
            "A gradient arrives at the teacher's features.",
        ),
        Mistake(
            "batches not compared",
            _angle(strict=False),
            "One row against three goes through by broadcasting, and other sizes stop somewhere "
            "inside PyTorch. Say yourself what does not fit.",
        ),
    ),
    minutes=15,
    difficulty=3,
)
