"""07.rkd_distance_loss."""

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


def _distances(z):
    return torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")


def _pairs_mean(d):
    return d.sum() / (len(d) * (len(d) - 1))


def _safe(mean):
    return torch.where(mean > 0, mean, torch.ones_like(mean))


def _distance(
    of=_distances,
    mean=_pairs_mean,
    rule=F.smooth_l1_loss,
    flatten=flat,
    detach=True,
    few=True,
    strict=True,
    shared=False,
):
    """Assemble a distance loss with one thing wrong."""

    def loss(student_features, teacher_features):
        if strict:
            same_rows(student_features, teacher_features)
        if few and len(student_features) < 2:
            raise ValueError("a distance needs two rows")
        teacher = teacher_features.detach() if detach else teacher_features
        d, t = of(flatten(student_features)), of(flatten(teacher))
        scale = _safe(mean(t))
        return rule(d / (scale if shared else _safe(mean(d))), t / scale)

    return loss


def _root_of_zero(z):
    return (z[:, None] - z[None]).square().sum(-1).sqrt()


def _root_before_clamp(z):
    return (z[:, None] - z[None]).square().sum(-1).sqrt().clamp(min=1e-12)


def _off_diagonal(d, t):
    keep = ~torch.eye(len(d), dtype=torch.bool)
    return F.smooth_l1_loss(d[keep], t[keep])


def _cosine_distances(z):
    unit = F.normalize(z, dim=1)
    return 1 - unit @ unit.mT


RKD_DISTANCE_LOSS = Exercise(
    id="07.rkd_distance_loss",
    title="Near and far",
    reference=relations.rkd_distance_loss,
    probes=(
        Probe(
            "plain",
            "a small batch, the teacher wider than the student",
            pair(),
            gradients=("student_features", "teacher_features"),
        ),
        Probe("scaled", "the same features, scaled", pair(scale=1e4), atol=1e-7),
        Probe("maps", "feature maps (B, C, H, W) that are not contiguous", pair(maps=True)),
        Probe("few rows", "batches of two rows, three rows and more", pair(), run=nested(2, 3)),
        Probe("many", "a batch of twenty rows and more", pair(rows=(20, 29))),
        Probe("width 1", "a student of width 1", pair(width=1)),
        Probe(
            "twins",
            "a batch in which two rows of the student are equal",
            pair(twins=True),
            gradients=("student_features",),
            atol=3e-6,
        ),
        Probe(
            "collapsed",
            "a batch in which all rows of the student are equal",
            pair(collapsed=True),
            gradients=("student_features",),
        ),
        Probe("small", "float32 features times 0.001", pair(scale=1e-3, single=True), atol=3e-6),
        Probe("large", "float32 features times 1000", pair(scale=1e3, single=True), atol=3e-6),
        Probe("batches", "batches of two sizes", pair(rows=(3, 3), teacher_rows=5)),
        Probe("one row", "a batch of a single row", pair(rows=(1, 1))),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "few rows", "many", "width 1"),
        gradients("the student's gradient", 0.5, "plain", arguments=("student_features",)),
        side(
            gradients("the teacher is a constant", 0.25, "plain", arguments=("teacher_features",))
        ),
        matches("feature maps", 0.25, "maps"),
        law("scale does not matter", 0.25, ("plain", "scaled"), scale_law),
        matches("float32, small and large", 0.25, "small", "large"),
        matches("two equal rows", 0.25, "twins"),
        gradients("two equal rows: the gradient", 0.25, "twins"),
        law(
            "a collapsed student",
            0.25,
            ("collapsed",),
            finite_law("collapsed", "a batch in which all rows of the student are equal"),
        ),
        rejects("batches that differ are refused", 0.25, "batches"),
        rejects("a single row is refused", 0.25, "one row"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "mean with the diagonal",
            _distance(mean=lambda d: d.mean()),
            "Your mean distance counts each image's distance from itself, which is zero. In a "
            "batch of 4 that is every fourth entry. Between how many pairs is there a distance?",
        ),
        Mistake(
            "equal rows left out of the mean",
            _distance(mean=lambda d: d[d > 0].mean() if (d > 0).any() else d.sum()),
            "Right until two images have the same features: you drop their distance from the mean "
            "because it is zero. They are a pair like any other; only the diagonal is not.",
        ),
        Mistake(
            "not divided by the mean",
            _distance(mean=lambda d: torch.ones_like(d[0, 0])),
            "The distances are compared as they are. A wider network has larger ones, so the "
            "student is taught the teacher's scale.",
        ),
        Mistake(
            "the teacher's mean for both",
            _distance(shared=True),
            "You divided the student's distances by the teacher's mean. Each network has a scale "
            "of its own.",
        ),
        Mistake(
            "divided by the largest distance",
            _distance(mean=lambda d: d.max()),
            "You divided by the largest distance. One odd image then sets the scale for all; the "
            "paper takes the mean.",
        ),
        Mistake(
            "mean without its gradient",
            _distance(mean=lambda d: _pairs_mean(d).detach()),
            "The value is right, the gradient is not: you hold the student's mean distance "
            "constant. It moves when the student does.",
        ),
        Mistake(
            "squared distances",
            _distance(of=lambda z: _distances(z).square()),
            "You compared squared distances, which are ruled by the far pairs. Take the root.",
        ),
        Mistake(
            "cosine distances",
            _distance(of=_cosine_distances),
            "You took one minus the cosine. The distance of this loss is Euclidean.",
        ),
        Mistake(
            "mean squared error",
            _distance(rule=F.mse_loss),
            "You squared the differences. Smooth L1 is half a square near zero and a straight "
            "line beyond one.",
        ),
        Mistake(
            "half the squared error",
            _distance(rule=lambda d, t: F.mse_loss(d, t) / 2),
            "Right while no two relative distances differ by more than one. Beyond that the Huber "
            "loss grows in a straight line, so that an odd image does not rule the batch.",
        ),
        Mistake(
            "absolute differences",
            _distance(rule=F.l1_loss),
            "You averaged absolute differences. Near zero the Huber loss is a square.",
        ),
        Mistake(
            "summed",
            _distance(rule=lambda d, t: F.smooth_l1_loss(d, t, reduction="sum")),
            "Your loss grows with the number of pairs.",
        ),
        Mistake(
            "averaged over pairs alone",
            _distance(rule=_off_diagonal),
            "You left the diagonal out of the last mean as well. That is a fair loss, B/(B-1) "
            "times this one; the authors' code, and the weight of 25 that goes with it, divide by "
            "all B times B entries.",
        ),
        Mistake(
            "root of zero",
            _distance(of=_root_of_zero),
            "The value is right, and every gradient is NaN: on the diagonal you take the root of "
            "zero, whose slope is infinite. Keep the root away from zero, or take a distance "
            "function that knows.",
        ),
        Mistake(
            "root before the clamp",
            _distance(of=_root_before_clamp),
            "You clamp after the root. The value is as you wanted; the backward pass still goes "
            "through a root at zero and makes NaN: infinity times the clamp's zero. What has to "
            "come first?",
        ),
        Mistake(
            "view",
            _distance(flatten=lambda x: x.view(len(x), -1)),
            "`view` needs features that lie in memory without gaps. Which operation copies when "
            "it has to?",
        ),
        Mistake(
            "teacher not detached",
            _distance(detach=False),
            "A gradient arrives at the teacher's features.",
        ),
        Mistake(
            "a single row not refused",
            _distance(few=False),
            "One image has no distance to anybody, and you return a number all the same. The last "
            "batch of an epoch can be that small.",
        ),
        Mistake(
            "batches not compared",
            _distance(strict=False),
            "Batches of two sizes stop somewhere inside PyTorch. Say yourself what does not fit.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
