"""06.fsp_matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u06_features.inputs import maps
from kdlib.losses import features


def _pair(
    first: tuple[int, ...],
    second: tuple[int, ...],
    roll: int = 0,
    factor: float = 1.0,
    dtype: torch.dtype = torch.float64,
    strided: bool = False,
):
    """Build two feature maps; `roll` moves the positions of both in the same way."""

    def make(g: torch.Generator) -> Arguments:
        both = (maps(g, *first), maps(g, *second))
        if roll:
            both = (x.flatten(2).roll(roll, -1).reshape(x.shape) for x in both)
        if strided:
            both = (x.to(memory_format=torch.channels_last) for x in both)
        both = (factor * x.to(dtype) for x in both)
        return dict(zip(("first", "second"), both, strict=True))

    return make


def _positions_are_a_set(evidence: Evidence) -> str | None:
    plain, moved = evidence.value("plain"), evidence.value("moved")
    gap = (plain - moved).abs().max().item()
    if gap <= 1e-9 * max(1.0, plain.abs().max().item()):
        return None
    return (
        "When the positions of both maps are moved around in the same way, your matrix changes by "
        f"up to {gap:.4g}. It sums over positions, so their order cannot matter."
    )


def _smaller(a, b, pool=F.adaptive_max_pool2d):
    size = [min(x, y) for x, y in zip(a.shape[2:], b.shape[2:], strict=True)]
    return pool(a, size), pool(b, size)


def _product(a, b):
    return torch.einsum("nchw,ndhw->ncd", a, b)


def _matrix(rule, fit=_smaller, strict=True):
    """Assemble an FSP matrix with one thing wrong: rule(first, second) after the sizes agree."""

    def matrix(first, second):
        if strict and len(first) != len(second):
            raise ValueError("batches differ")
        return rule(*fit(first, second))

    return matrix


def _right(a, b):
    return _product(a, b) / a[0, 0].numel()


def _mixed(a, b):
    n, c, h, w = a.shape
    return a.reshape(n * c, h * w) @ b.reshape(-1, h * w).T / (h * w)


def _scrambled(a, b):
    n, _, h, w = a.shape
    return a.flatten(2) @ b.reshape(n, h * w, -1) / (h * w)


def _cosine(a, b):
    return _product(*(F.normalize(x.flatten(2), dim=2).reshape(x.shape) for x in (a, b)))


FSP_MATRIX = Exercise(
    id="06.fsp_matrix",
    title="The flow between two layers",
    reference=features.fsp_matrix,
    probes=(
        Probe(
            "plain",
            "5 images, 3 and 4 channels, maps of 6x7",
            _pair((5, 3, 6, 7), (5, 4, 6, 7)),
            gradients=("first", "second"),
            sizes={
                "the number of positions": 42,
                "the number of channels of the first layer": 3,
                "the number of images": 5,
            },
        ),
        Probe(
            "other",
            "4 images, 2 and 5 channels, maps of 3x3",
            _pair((4, 2, 3, 3), (4, 5, 3, 3)),
            sizes={
                "the number of positions": 9,
                "the number of channels of the first layer": 2,
                "the number of images": 4,
            },
        ),
        Probe(
            "moved",
            "the same maps with their positions moved",
            _pair((5, 3, 6, 7), (5, 4, 6, 7), 11),
        ),
        Probe("first larger", "maps of 8x6 and 4x3", _pair((3, 2, 8, 6), (3, 4, 4, 3))),
        Probe("second larger", "maps of 4x3 and 8x6", _pair((3, 2, 4, 3), (3, 4, 8, 6))),
        Probe(
            "uneven",
            "maps of 7x5 and 3x4, which divide nothing",
            _pair((2, 2, 7, 5), (2, 3, 3, 4)),
        ),
        Probe(
            "crosswise",
            "maps of 8x3 and 4x5",
            _pair((2, 2, 8, 3), (2, 4, 4, 5)),
            gradients=("first", "second"),
        ),
        Probe(
            "one image",
            "one image with one channel in the first layer, in channels-last memory",
            _pair((1, 1, 3, 5), (1, 4, 3, 5), strided=True),
        ),
        Probe(
            "float32",
            "float32 maps in the thousands",
            _pair((3, 4, 3, 5), (3, 2, 3, 5), factor=1000.0, dtype=torch.float32),
        ),
        Probe("batches", "1 image and 3 images", _pair((1, 2, 4, 4), (3, 4, 4, 4))),
        Probe("other batches", "3 images and 1 image", _pair((3, 2, 4, 4), (1, 4, 4, 4))),
        Probe("odd batches", "2 images and 3 images", _pair((2, 2, 4, 4), (3, 4, 4, 4))),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "other", "one image", "float32"),
        gradients("the gradient of both layers", 0.5, "plain", "crosswise"),
        law("positions have no order", 0.25, ("plain", "moved"), _positions_are_a_set),
        matches("maps of two sizes", 0.5, "first larger", "second larger", "uneven", "crosswise"),
        rejects("batches that differ are refused", 0.25, "batches", "other batches", "odd batches"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "not divided by the positions",
            _matrix(_product),
            "You summed over the positions and stopped there. Then a map of 14x14 counts four "
            "times as much as one of 7x7.",
        ),
        Mistake(
            "divided by the channels too",
            _matrix(lambda a, b: _right(a, b) / a.shape[1]),
            "You divided by channels times height times width, as style transfer often does. The "
            "FSP matrix is a mean over positions alone.",
            "sunshineatnoon/LinearStyleTransfer #17, as a question",
        ),
        Mistake(
            "images mixed",
            _matrix(_mixed),
            "Your matrix has a row for each channel of each image: images are multiplied with one "
            "another. Each image has a matrix of its own.",
            "udacity/deep-learning-v2-pytorch #167",
        ),
        Mistake(
            "averaged over the batch",
            _matrix(lambda a, b: _right(a, b).mean(0)),
            "You averaged the matrices of all images. The loss compares them image by image.",
        ),
        Mistake(
            "transposed",
            _matrix(lambda a, b: _right(b, a)),
            "Rows and columns are exchanged: rows belong to the first layer.",
        ),
        Mistake(
            "one layer with itself",
            _matrix(lambda a, b: _right(a, a)),
            "You multiplied the first layer with itself. That is the Gram matrix of style "
            "transfer; here the second layer comes in.",
        ),
        Mistake(
            "entries scrambled",
            _matrix(_scrambled),
            "`reshape` to (B, HW, C) does not move the channels to the end. It cuts the same row "
            "of numbers into other pieces. Which operation exchanges two dimensions?",
        ),
        Mistake(
            "cosines",
            _matrix(_cosine),
            "You normalised each channel first, so your entries are cosines. Here the size of the "
            "features counts.",
        ),
        Mistake(
            "average-pooled",
            _matrix(_right, fit=lambda a, b: _smaller(a, b, F.adaptive_avg_pool2d)),
            "Right for maps of one size. Where they differ, the paper pools the larger one with "
            "the maximum. (Blowing the smaller one up comes to the same as your average.)",
        ),
        Mistake(
            "batches that broadcast",
            _matrix(lambda a, b: a.flatten(2) @ b.flatten(2).mT / a[0, 0].numel(), strict=False),
            "One image against three goes through by broadcasting. Nobody means that.",
        ),
    ),
    minutes=10,
    difficulty=2,
)
