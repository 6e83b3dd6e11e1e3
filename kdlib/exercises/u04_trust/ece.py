"""04.ece."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib import evaluation
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw


def _sure_of(confidence: Tensor, right: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Give logits whose largest probability is `confidence`, and targets that make `right` true."""
    rows = len(confidence)
    others = ((1 - confidence) / (classes - 1)).log()[:, None].expand(rows, classes).clone()
    others[:, 0] = confidence.log()
    return others, torch.where(right, 0, 1)


def _spread(
    rows: tuple[int, int],
    classes: tuple[int, int],
    bins: tuple[int, int] | None,
    low: float = 0.35,
):
    """Confidences all over the range, and an accuracy that is the same for all of them."""

    def make(g: torch.Generator) -> Arguments:
        n, c = between(g, *rows), between(g, *classes)
        confidence = low + (0.99 - low) * torch.rand(n, generator=g, dtype=torch.float64)
        right = torch.rand(n, generator=g, dtype=torch.float64) < 0.65
        logits, targets = _sure_of(confidence, right, c)
        order = torch.randperm(c, generator=g)
        logits, targets = logits[:, order], order.argsort()[targets]
        made = {"logits": logits + draw(g, n, 1), "targets": targets}
        return made | ({"bins": between(g, *bins)} if bins else {})

    return make


def _on_the_edge(g: torch.Generator) -> Arguments:
    """Two equal logits: the confidence is exactly 1/2. Others are sure to the last digit.

    The three groups are wrong in turn: mostly wrong, mostly right, all but one right.
    """
    half, sure, middle = between(g, 5, 9), between(g, 3, 6), between(g, 6, 9)
    wobble = draw(g, 1, 1, scale=1.0)
    share = 0.6 + 0.1 * torch.rand(1, generator=g, dtype=torch.float64)
    logits = torch.cat(
        [
            torch.zeros(half, 2, dtype=torch.float64),
            torch.tensor([[900.0, -900.0]], dtype=torch.float64).repeat(sure, 1),
            torch.stack([share, 1 - share], dim=1).log().repeat(middle, 1),
        ]
    )
    targets = torch.zeros(len(logits), dtype=torch.long)
    targets[1:half] = targets[half] = targets[-1] = 1
    order = torch.randperm(len(logits), generator=g)
    return {"logits": (logits + wobble)[order], "targets": targets[order], "bins": 4}


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


def _between(above, below):
    """Assemble an ECE with other edges: which confidences lie in a bin from `low` to `high`."""

    def wrong(logits, targets, bins=15):
        sure, total = logits.softmax(-1).amax(-1), 0.0
        right = (logits.argmax(-1) == targets).double()
        for b in range(bins):
            rows = above(sure, b / bins) & below(sure, (b + 1) / bins)
            if rows.any():
                total += (right[rows] - sure[rows]).sum().abs().item()
        return total / len(targets)

    return wrong


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
        Probe("plain", "150 to 250 rows in 8 to 12 bins", _spread((150, 250), (3, 6), (8, 12))),
        Probe("few bins", "rows of 3 classes in 2 to 4 bins", _spread((100, 150), (3, 3), (2, 4))),
        Probe("default", "bins as they are by default", _spread((150, 250), (4, 6), None)),
        Probe("empty bins", "8 to 12 rows in 15 bins", _spread((8, 12), (5, 5), (15, 15), 0.5)),
        Probe("one row", "a single row", _spread((1, 1), (4, 4), (5, 5))),
        Probe("one bin", "5,000 rows in a single bin", _spread((5001, 5003), (3, 6), (1, 1))),
        Probe("edges", "confidences of exactly 1/2 and 1 among others, in 4 bins", _on_the_edge),
    ),
    criteria=(
        matches("the mean gap", 1.25, "plain", "few bins", "one bin", "default"),
        matches("empty bins do no harm", 0.75, "empty bins", "one row"),
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
            "edges in no bin",
            _between(torch.gt, torch.lt),
            "Both edges of your bins are open: a confidence that lies on one, 1 among them, "
            "belongs to no bin. Which of the two edges does a bin hold?",
        ),
        Mistake(
            "edges in two bins",
            _between(torch.ge, torch.le),
            "Both edges of your bins are closed: a confidence that lies on one is counted twice, "
            "in the bin below and in the bin above.",
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
