"""06.attention_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u06_features.inputs import maps
from kdlib.losses import features


def _pair(
    images: int = 5,
    channels: tuple[int, int] = (3, 6),
    size: tuple[int, int] = (4, 5),
    teacher_size: tuple[int, int] | None = None,
    equal: str = "",
    near: float = 0.0,
    scale: float = 1.0,
    dead: str = "",
    dead_images: int | slice = 1,
    dtype: torch.dtype = torch.float64,
    strided: bool = False,
):
    """Build two feature maps: equal for "one" image or for "all", near, or dead for some."""

    def make(g: torch.Generator) -> Arguments:
        student = maps(g, images, channels[0], *size)
        teacher = maps(g, images, channels[1], *(teacher_size or size))
        if equal:
            same = slice(None) if equal == "all" else 1
            student[same] = teacher[same]
        if near:
            student = teacher + near * student
        for name, features_ in (("student", student), ("teacher", teacher)):
            if name in dead:
                features_[dead_images] = 0.0
        both = ((scale * student).to(dtype), (teacher / scale).to(dtype))
        if strided:
            both = tuple(x.to(memory_format=torch.channels_last) for x in both)
        return dict(zip(("student_features", "teacher_features"), both, strict=True))

    return make


def _scale_does_not_matter(evidence: Evidence) -> str | None:
    plain, scaled = (float(evidence.value(probe)) for probe in ("plain", "scaled"))
    if abs(plain - scaled) <= 1e-6 * max(1.0, abs(plain)):
        return None
    return (
        "With the student's features made three times larger and the teacher's three times "
        f"smaller, your loss goes from {plain:.4g} to {scaled:.4g}. Only where a layer looks "
        "should count."
    )


def _zero_at_home(evidence: Evidence) -> str | None:
    value = float(evidence.value("equal"))
    if not abs(value) < 1e-4:
        return f"Between equal features your loss is {value:.4g}."
    for probe in EQUAL:
        gradient = evidence.student[probe].gradients.get("student_features")
        if gradient is not None and not bool(gradient.isfinite().all()):
            return (
                f"On {evidence.probes[probe].about}, the value is right but its gradient is not "
                "finite: one such image turns the whole network into NaN."
            )
    return None


EQUAL = ("equal", "one equal")
DEAD = ("dead", "dead teacher", "both dead", "all dead")


def _alive(evidence: Evidence) -> str | None:
    for probe in DEAD:
        gradient = evidence.student[probe].gradients.get("student_features")
        if gradient is None or not bool(gradient.isfinite().all()):
            return (
                f"On {evidence.probes[probe].about}, the gradient that arrives at "
                "student_features is not finite."
            )
    return None


def _normal(energy):
    return F.normalize(energy.flatten(1), dim=1)


def _squares(f):
    return _normal(f.square().mean(1))


def _norm(difference):
    return torch.linalg.vector_norm(difference, dim=1).mean()


def _loss(of=_squares, rule=_norm, detach=True, strict=True):
    """Assemble an attention loss with one thing wrong."""

    def loss(student_features, teacher_features):
        if strict and student_features.shape[2:] != teacher_features.shape[2:]:
            raise ValueError("sizes differ")
        teacher = teacher_features.detach() if detach else teacher_features
        return rule(of(student_features) - of(teacher))

    return loss


def _no_guard(f):
    q = f.square().mean(1).flatten(1)
    return q / torch.linalg.vector_norm(q, dim=1, keepdim=True)


def _sums_to_one(f):
    q = f.square().mean(1).flatten(1)
    return q / q.sum(1, keepdim=True).clamp_min(1e-12)


ATTENTION_LOSS = Exercise(
    id="06.attention_loss",
    title="Attention transfer",
    reference=features.attention_loss,
    probes=(
        Probe(
            "plain",
            "5 images, 3 and 6 channels, maps of 4x5",
            _pair(),
            gradients=("student_features", "teacher_features"),
            sizes={"the number of images": 5, "the number of positions": 20},
        ),
        Probe(
            "other",
            "2 images, 4 and 2 channels, maps of 3x3",
            _pair(2, (4, 2), (3, 3)),
            sizes={"the number of images": 2, "the number of positions": 9},
        ),
        Probe("scaled", "the same features, scaled", _pair(scale=3.0)),
        Probe(
            "nearly equal",
            "nearly equal features",
            _pair(channels=(6, 6), near=0.003),
            atol=1e-5,  # a small number against a root of zero may be in it
        ),
        Probe(
            "equal",
            "equal features",
            _pair(channels=(6, 6), equal="all"),
            gradients=("student_features",),
        ),
        Probe(
            "one equal",
            "a batch in which one image has equal features",
            _pair(channels=(6, 6), equal="one"),
            gradients=("student_features",),
        ),
        Probe(
            "dead",
            "an image on which the student's layer is all zero",
            _pair(dead="student"),
            gradients=("student_features",),
        ),
        Probe(
            "dead teacher",
            "an image on which the teacher's layer is all zero",
            _pair(dead="teacher"),
            gradients=("student_features",),
        ),
        Probe(
            "both dead",
            "an image on which both layers are all zero",
            _pair(dead="student and teacher"),
            gradients=("student_features",),
        ),
        Probe(
            "all dead",
            "a batch on which both layers are all zero",
            _pair(dead="student and teacher", dead_images=slice(None)),
            gradients=("student_features",),
            atol=1e-5,
        ),
        Probe(
            "one image",
            "one image with one channel, in channels-last memory",
            _pair(1, (1, 3), (2, 5), strided=True),
            gradients=("student_features",),
        ),
        Probe(
            "float32",
            "float32 features, the student's in the thousands, the teacher's in thousandths",
            _pair(3, (4, 3), (3, 4), scale=1000.0, dtype=torch.float32),
            atol=1e-5,
        ),
        Probe("sizes", "maps of 4x5 and 2x5", _pair(size=(4, 5), teacher_size=(2, 5))),
        Probe("turned", "maps of 4x5 and 5x4", _pair(size=(4, 5), teacher_size=(5, 4))),
        Probe("one position", "maps of 4x5 and 1x1", _pair(size=(4, 5), teacher_size=(1, 1))),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "other", "nearly equal", "one image", "float32"),
        gradients("the gradient", 0.5, "plain", "one image", arguments=("student_features",)),
        side(gradients("the teacher is a constant", 0.5, "plain", arguments=("teacher_features",))),
        law("scale does not matter", 0.25, ("plain", "scaled"), _scale_does_not_matter),
        law("zero between equals", 0.25, EQUAL, _zero_at_home),
        matches("a dead map", 0.25, *DEAD),
        law("and its gradient", 0.25, DEAD, _alive),
        rejects("maps of two sizes are refused", 0.25, "sizes", "turned", "one position"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "squares averaged over all entries",
            _loss(rule=lambda d: d.square().mean()),
            "This is what the authors' code computes: the mean of squares over images and "
            "positions. The paper's equation has the norm of each image's difference.",
            "szagoruyko/attention-transfer #34",
        ),
        Mistake(
            "distance squared",
            _loss(rule=lambda d: d.square().sum(1).mean()),
            "You squared the distance. Near zero a square has no slope left; the norm still pulls.",
        ),
        Mistake(
            "summed over the batch",
            _loss(rule=lambda d: torch.linalg.vector_norm(d, dim=1).sum()),
            "Your loss grows with the number of images in the batch.",
        ),
        Mistake(
            "one norm for the whole batch",
            _loss(rule=torch.linalg.vector_norm),
            "You took a single norm over all images together. Each image has a distance of its "
            "own; the loss is their mean.",
        ),
        Mistake(
            "absolute values",
            _loss(of=lambda f: _normal(f.abs().mean(1))),
            "You averaged absolute values over the channels. The map of this exercise is made of "
            "squares, which give strong responses more weight.",
        ),
        Mistake(
            "squared after the mean",
            _loss(of=lambda f: _normal(f.mean(1).square())),
            "You averaged first and squared then. Two channels that respond with opposite signs "
            "cancel, as if nothing happened there.",
        ),
        Mistake(
            "the strongest channel",
            _loss(of=lambda f: _normal(f.square().amax(1))),
            "You kept the strongest channel at each position. The paper has that variant too; this "
            "exercise asks for the mean over channels.",
        ),
        Mistake(
            "not normalised",
            _loss(of=lambda f: f.square().mean(1).flatten(1)),
            "The maps are not normalised, so the loss mostly compares how large the two networks' "
            "activations are.",
        ),
        Mistake(
            "normalised over the batch",
            _loss(of=lambda f: F.normalize(f.square().mean(1).flatten(1), dim=0)),
            "You normalised over the images: each position has length one across the batch. Which "
            "dimension holds one image's map?",
        ),
        Mistake(
            "normalised to sum one",
            _loss(of=_sums_to_one),
            "Your maps sum to one. In the paper they have length one.",
        ),
        Mistake(
            "teacher not detached",
            _loss(detach=False),
            "A gradient arrives at the teacher's features.",
        ),
        Mistake(
            "root of zero",
            _loss(rule=lambda d: d.square().sum(1).sqrt().mean()),
            "The value is right everywhere. But the slope of a square root at zero is infinite, "
            "and infinity times zero is NaN: the first image on which both maps agree ends the "
            "training. PyTorch has norms that know about this.",
        ),
        Mistake(
            "division by zero",
            _loss(of=_no_guard),
            "A ReLU layer can be silent for an image. Its map then has length zero, and you divide "
            "by it.",
        ),
        Mistake(
            "sizes not compared",
            _loss(of=lambda f: _normal(f.square().mean(1))[:, :5], strict=True),
            "Only the first entries of the maps are compared; the rest of the image has no say.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
