"""04.ece."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib import evaluation
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw


def _sure_of(confidence: Tensor, right: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Give logits whose largest probability is `confidence`, and targets that make `right` true."""
    rows = len(confidence)
    others = ((1 - confidence) / (classes - 1)).log()[:, None].expand(rows, classes).clone()
    others[:, 0] = confidence.log()
    return others, torch.where(right, 0, 1)


def _spread(rows: int, classes: int, bins: int, low: float = 0.35):
    """Confidences all over the range, and an accuracy that is the same for all of them."""

    def make(g: torch.Generator) -> Arguments:
        confidence = low + (0.99 - low) * torch.rand(rows, generator=g, dtype=torch.float64)
        right = torch.rand(rows, generator=g, dtype=torch.float64) < 0.65
        logits, targets = _sure_of(confidence, right, classes)
        order = torch.randperm(classes, generator=g)
        logits, targets = logits[:, order], order.argsort()[targets]
        return {"logits": logits + draw(g, rows, 1), "targets": targets, "bins": bins}

    return make


def _on_the_edge(g: torch.Generator) -> Arguments:
    """Two equal logits: the confidence is exactly 1/2. The rest is sure to the last digit."""
    wobble = draw(g, 1, 1, scale=1.0)
    half = torch.zeros(6, 2, dtype=torch.float64) + wobble
    sure = torch.tensor([[900.0, -900.0]], dtype=torch.float64).repeat(4, 1) + wobble
    middle = torch.tensor([[0.7, 0.3]], dtype=torch.float64).log().repeat(5, 1) + wobble
    targets = torch.tensor([1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1])
    return {"logits": torch.cat([half, sure, middle]), "targets": targets, "bins": 4}


def _ece(
    confidence=lambda z, y: z.softmax(-1).amax(-1),
    index=lambda c, b: (c * b).ceil().long().clamp(1, b) - 1,
    combine=lambda n, gap: (n * gap.abs()).sum() / n.sum(),
    skip_empty=True,
    bins_of=lambda b: b,
):
    """Assemble a wrong ECE from one wrong part."""

    def wrong(logits, targets, bins=15):
        bins = bins_of(bins)
        sure = confidence(logits, targets)
        right = (logits.argmax(-1) == targets).double()
        where = index(sure, bins)
        count, gaps = [], []
        for b in range(bins):
            rows = where == b
            if rows.any() or not skip_empty:
                count.append(rows.sum().double())
                gaps.append(right[rows].mean() - sure[rows].mean())
        return combine(torch.stack(count), torch.stack(gaps)).item()

    return wrong


def _per_example(logits, targets, bins=15):
    right = (logits.argmax(-1) == targets).double()
    return (right - logits.softmax(-1).amax(-1)).abs().mean().item()


def _equal_mass(logits, targets, bins=15):
    sure, order = logits.softmax(-1).amax(-1).sort()
    right = (logits.argmax(-1) == targets).double()[order]
    parts = zip(sure.tensor_split(bins), right.tensor_split(bins), strict=True)
    gaps = [(r.mean() - c.mean()).abs() * len(c) for c, r in parts if len(c)]
    return (torch.stack(gaps).sum() / len(sure)).item()


ECE = Exercise(
    id="04.ece",
    title="Expected calibration error",
    reference=evaluation.ece,
    probes=(
        Probe("plain", "200 rows of 4 classes in 10 bins", _spread(200, 4, 10)),
        Probe("few bins", "150 rows of 3 classes in 3 bins", _spread(150, 3, 3)),
        Probe("empty bins", "9 rows of 5 classes in 15 bins", _spread(9, 5, 15, 0.5)),
        Probe("edges", "confidences of exactly 1/2 and 1 among others, in 4 bins", _on_the_edge),
    ),
    criteria=(
        matches("the mean gap", 1.25, "plain", "few bins"),
        matches("empty bins do no harm", 0.75, "empty bins"),
        matches("what lies on an edge", 0.5, "edges"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "bins not weighted",
            _ece(combine=lambda n, gap: gap.abs().mean()),
            "Each bin counts the same in your mean, whether it holds one image or a thousand. "
            "Weigh each by the share of images in it.",
        ),
        Mistake(
            "gaps with their sign",
            _ece(combine=lambda n, gap: ((n * gap).sum() / n.sum()).abs()),
            "Your bins cancel each other: one where the network is too sure makes up for one where "
            "it is too modest. Take the absolute value in each bin, before the mean.",
        ),
        Mistake(
            "squared gaps",
            _ece(combine=lambda n, gap: ((n * gap.square()).sum() / n.sum()).sqrt()),
            "You average the squares of the gaps and take the root. The ECE averages their "
            "absolute values.",
        ),
        Mistake(
            "the largest gap",
            _ece(combine=lambda n, gap: gap.abs().max()),
            "This is the gap of the worst bin: the *maximum* calibration error of the same paper.",
        ),
        Mistake(
            "one image for each bin",
            _per_example,
            "You compare each image's confidence with its own 0 or 1. A network that is right on "
            "70 % of the images for which it says 70 % would not get zero. Average within a bin "
            "first.",
        ),
        Mistake(
            "probability of the true class",
            _ece(confidence=lambda z, y: z.softmax(-1)[torch.arange(len(y)), y]),
            "Your confidence is the probability of the true class. Confidence is what the network "
            "says of its own prediction, right or wrong: its largest probability.",
        ),
        Mistake(
            "bins of equal size",
            _equal_mass,
            "Your bins hold the same number of images each. That is another good measure, but "
            "here the bins have the same width.",
        ),
        Mistake(
            "bins open on the right",
            _ece(index=lambda c, b: (c * b).floor().long().clamp(0, b - 1)),
            "A confidence that lies on an edge falls into your upper bin. Here a bin holds its "
            "right edge, not its left one.",
        ),
        Mistake(
            "certainty falls out",
            _ece(index=lambda c, b: (c * b).floor().long()),
            "Images with a confidence of exactly 1 land in no bin at all, and one on an edge falls "
            "into the upper bin. For a sure teacher those are most of the images.",
        ),
        Mistake(
            "empty bins give NaN",
            _ece(skip_empty=False),
            "A bin without images has no mean: 0/0 is NaN, and NaN spreads. What weight does such "
            "a bin have?",
        ),
        Mistake(
            "always 15 bins",
            _ece(bins_of=lambda b: 15),
            "Your number of bins is fixed; the argument `bins` has no effect.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
