"""06.hint_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.checks.criteria import gradients, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.exercises.u06_features.inputs import maps
from kdlib.losses import features


def _pair(
    images: int,
    student: tuple[int, ...],
    teacher: tuple[int, ...],
    gives: int = 0,
    factor: float = 1.0,
    dtype: torch.dtype = torch.float64,
    strided: bool = False,
):
    """Build both feature maps and a 1x1 regressor between them."""

    def make(g: torch.Generator) -> Arguments:
        regressor = nn.Conv2d(student[0], gives or teacher[0], 1).double()
        with torch.no_grad():
            for parameter in regressor.parameters():
                parameter.copy_(draw(g, *parameter.shape, scale=0.5))
        both = (maps(g, images, *shape) for shape in (student, teacher))
        if strided:
            both = (x.to(memory_format=torch.channels_last) for x in both)
        s, t = (factor * x.to(dtype) for x in both)
        regressor = regressor.to(dtype).train(not strided)
        return {"student_features": s, "teacher_features": t, "regressor": regressor}

    return make


def _learn(answer, a: Arguments) -> torch.Tensor:
    """Give the gradient that arrives at the regressor's weight; zero where none does."""
    loss, weight = answer(*a.values()), a["regressor"].weight
    if not loss.requires_grad:
        return torch.zeros_like(weight)
    return torch.autograd.grad(loss.sum(), weight, allow_unused=True, materialize_grads=True)[0]


def _smaller(a, b, pool=F.adaptive_avg_pool2d):
    size = [min(x, y) for x, y in zip(a.shape[2:], b.shape[2:], strict=True)]
    return pool(a, size), pool(b, size)


def _larger(a, b):
    size = [max(x, y) for x, y in zip(a.shape[2:], b.shape[2:], strict=True)]
    return F.interpolate(a, size), F.interpolate(b, size)


def _cropped(a, b):
    h, w = (min(x, y) for x, y in zip(a.shape[2:], b.shape[2:], strict=True))
    return a[..., :h, :w], b[..., :h, :w]


def _half_square(difference):
    return 0.5 * difference.square().sum(dim=(1, 2, 3)).mean()


def _hint(rule=_half_square, fit=_smaller, detach=True, cut=False, strict=True):
    """Assemble a hint loss with one thing wrong."""

    def loss(student_features, teacher_features, regressor):
        guess = regressor(student_features.detach() if cut else student_features)
        hint = teacher_features.detach() if detach else teacher_features
        if strict and guess.shape[:2] != hint.shape[:2]:
            raise ValueError("channels differ")
        guess, hint = fit(guess, hint)
        return rule(guess - hint)

    return loss


HINT_LOSS = Exercise(
    id="06.hint_loss",
    title="The hint and the regressor",
    reference=features.hint_loss,
    probes=(
        Probe(
            "plain",
            "5 images, 3 channels regressed to 4, maps of 6x7",
            _pair(5, (3, 6, 7), (4, 6, 7)),
            gradients=("student_features", "teacher_features"),
            sizes={"the number of images": 5, "the number of features of an image": 168},
        ),
        Probe(
            "small",
            "2 images, 2 channels regressed to 3, maps of 2x2",
            _pair(2, (2, 2, 2), (3, 2, 2)),
            sizes={"the number of images": 2, "the number of features of an image": 12},
        ),
        Probe(
            "learn",
            "the gradient that the regressor gets",
            _pair(5, (3, 6, 7), (4, 6, 7)),
            run=_learn,
        ),
        Probe(
            "student larger",
            "a student's map of 8x8, a teacher's of 4x4",
            _pair(3, (2, 8, 8), (5, 4, 4)),
        ),
        Probe(
            "teacher larger",
            "a student's map of 4x3, a teacher's of 8x6",
            _pair(3, (2, 4, 3), (5, 8, 6)),
        ),
        Probe(
            "uneven",
            "a student's map of 7x5, a teacher's of 3x4, which divide nothing",
            _pair(2, (2, 7, 5), (3, 3, 4)),
        ),
        Probe(
            "crosswise",
            "a student's map of 8x3, a teacher's of 4x5",
            _pair(2, (3, 8, 3), (2, 4, 5)),
            gradients=("student_features", "teacher_features"),
        ),
        Probe(
            "one image",
            "one image in channels-last memory, with as many channels in both",
            _pair(1, (3, 4, 5), (3, 4, 5), strided=True),
        ),
        Probe(
            "float32",
            "float32 features in the thousands",
            _pair(2, (2, 4, 3), (3, 4, 3), factor=1000.0, dtype=torch.float32),
        ),
        Probe(
            "channels",
            "a regressor that gives 1 channel where the teacher has 4",
            _pair(3, (2, 4, 4), (4, 4, 4), gives=1),
        ),
        Probe(
            "more channels",
            "a regressor that gives 4 channels where the teacher has 1",
            _pair(3, (2, 4, 4), (1, 4, 4), gives=4),
        ),
        Probe(
            "other channels",
            "a regressor that gives 3 channels where the teacher has 4",
            _pair(3, (2, 4, 4), (4, 4, 4), gives=3),
        ),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "small", "one image", "float32"),
        matches(
            "maps of two sizes", 0.5, "student larger", "teacher larger", "uneven", "crosswise"
        ),
        matches("the regressor learns", 0.5, "learn"),
        gradients("the student learns, the teacher does not", 0.75, "plain", "crosswise"),
        rejects(
            "channels that differ are refused", 0.25, "channels", "more channels", "other channels"
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "averaged over features",
            _hint(lambda d: 0.5 * d.square().mean()),
            "You averaged over channels and positions too. A squared distance is a sum over them; "
            "the mean is over images. (Public code often takes `nn.MSELoss()` here: the same "
            "direction, a weight that is hundreds of times smaller.)",
        ),
        Mistake(
            "averaged over positions",
            _hint(lambda d: 0.5 * d.square().sum(1).mean()),
            "You summed over channels, then averaged over images and positions. The distance "
            "between two feature maps is a sum over all of their entries.",
        ),
        Mistake(
            "summed over the batch",
            _hint(lambda d: 0.5 * d.square().sum()),
            "Your loss grows with the batch. What happens to the step when the batch is doubled?",
        ),
        Mistake(
            "the half is missing",
            _hint(lambda d: d.square().sum(dim=(1, 2, 3)).mean()),
            "Twice too large: look at the number in front of the norm.",
        ),
        Mistake(
            "distance not squared",
            _hint(lambda d: 0.5 * d.square().sum(dim=(1, 2, 3)).sqrt().mean()),
            "You averaged distances, not their squares.",
        ),
        Mistake(
            "absolute differences",
            _hint(lambda d: 0.5 * d.abs().sum(dim=(1, 2, 3)).mean()),
            "You summed absolute differences. The hint loss is built from squares.",
        ),
        Mistake(
            "teacher not detached",
            _hint(detach=False),
            "A gradient arrives at the teacher's features. The teacher would learn to be easy to "
            "imitate.",
        ),
        Mistake(
            "student's features detached",
            _hint(cut=True),
            "The student gets no gradient: only the regressor learns, on features that never "
            "change. The loss falls all the same, which is what makes this one hard to see.",
            "Syencil/mobile-yolov5-pruning-distillation #83",
        ),
        Mistake(
            "the smaller map blown up",
            _hint(fit=_larger),
            "You enlarged the smaller map. That invents entries, and counts each of them. Bring "
            "the larger one down instead.",
        ),
        Mistake(
            "the larger map cropped",
            _hint(fit=_cropped),
            "You cut a corner out of the larger map, so two different parts of the image are "
            "compared.",
        ),
        Mistake(
            "max-pooled",
            _hint(fit=lambda a, b: _smaller(a, b, F.adaptive_max_pool2d)),
            "You pooled with the maximum. The exercise asks for averages, which treat large and "
            "small values alike.",
        ),
        Mistake(
            "channels that broadcast",
            _hint(strict=False),
            "With a regressor that gives one channel, yours compares that channel with each of the "
            "teacher's, by broadcasting, and says nothing.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
