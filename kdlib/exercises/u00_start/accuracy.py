"""00.accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib import evaluation
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw
from kdlib.exercises.u00_start.numbers import A_TENSOR, number, python_float


def _classified(
    targets: list[int],
    right: tuple[int, int],
    scale: float = 1.0,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float64,
):
    """Logits that are largest at the target in some of the rows, of `right[0]` to `right[1]`."""

    def make(g: torch.Generator) -> Arguments:
        y, classes = torch.tensor(targets), max(targets) + 1
        logits, hits = draw(g, len(y), classes, scale=scale), between(g, *right)
        winner = torch.where(torch.arange(len(y)) < hits, y, (y + 1) % classes)
        logits[torch.arange(len(y)), winner] = logits.amax(-1) + 0.5
        order = torch.randperm(len(y), generator=g)
        return {"logits": (logits[order] + shift).to(dtype), "targets": y[order]}

    return make


def _many(g: torch.Generator) -> Arguments:
    """Leave the last class without a row, right or predicted; the strides are turned round."""
    rows, classes = between(g, 150, 350), between(g, 3, 4)
    targets = torch.randint(classes - 1, (rows,), generator=g)
    logits = draw(g, classes, rows)
    logits[-1] -= 100.0
    return {"logits": logits.T, "targets": targets}


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.argmax(-1) == targets).double()


def _mean_of_classes(logits: Tensor, targets: Tensor) -> float:
    hits = _hits(logits, targets)
    return torch.stack([hits[targets == c].mean() for c in targets.unique()]).mean().item()


ACCURACY = Exercise(
    id="00.accuracy",
    title="Accuracy",
    reference=evaluation.accuracy,
    probes=(
        Probe(
            "plain",
            "20 rows of 5 classes, half of them of class 0",
            _classified([0] * 10 + [1, 2, 3, 4, 1, 2, 3, 4, 1, 2], (11, 16)),
            run=number,
        ),
        Probe("square", "6 rows of 6 classes", _classified([0, 1, 2, 3, 4, 5], (4, 5)), run=number),
        Probe("many", "some hundred rows, none of them of the last class", _many, run=number),
        Probe(
            "all right",
            "8 rows that are all right",
            _classified([0, 1, 2, 3] * 2, (8, 8)),
            run=number,
        ),
        Probe("one row", "a single row", _classified([2], (0, 1)), run=number),
        Probe(
            "below zero",
            "float32 logits that are all near -30000",
            _classified([0, 1, 2, 2, 1, 0, 2], (1, 6), 5.0, -30_000.0, torch.float32),
            run=number,
        ),
    ),
    criteria=(
        matches(
            "the share of right rows",
            1.0,
            "plain",
            "square",
            "many",
            "all right",
            "one row",
            "below zero",
            keys=("value",),
        ),
        python_float(0.5, "plain"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "argmax over the batch",
            lambda logits, targets: (logits.argmax(0) == targets).double().mean().item(),
            "You look for the best row of each class. A prediction is the best class of a row.",
        ),
        Mistake(
            "percent",
            lambda logits, targets: 100 * _hits(logits, targets).mean().item(),
            "That is in percent. A fraction between 0 and 1 is asked for; `{:.1%}` prints it well.",
        ),
        Mistake(
            "a count",
            lambda logits, targets: _hits(logits, targets).sum().item(),
            "You count the rows that are right, so a larger test set gives a larger number.",
        ),
        Mistake(
            "divided by the number of entries",
            lambda logits, targets: _hits(logits, targets).sum().item() / logits.numel(),
            "You divide by rows times classes. How many predictions are there?",
        ),
        Mistake(
            "error rate",
            lambda logits, targets: 1 - _hits(logits, targets).mean().item(),
            "That is the share of rows that are wrong.",
        ),
        Mistake(
            "smallest logit",
            lambda logits, targets: (logits.argmin(-1) == targets).double().mean().item(),
            "You predict the class with the smallest logit.",
        ),
        Mistake(
            "values compared with indices",
            lambda logits, targets: (logits.amax(-1) == targets).double().mean().item(),
            "You compare the largest logit itself with the target. The target is an index.",
        ),
        Mistake(
            "mean probability of the true class",
            lambda logits, targets: logits.softmax(-1).gather(-1, targets[:, None]).mean().item(),
            "That is the mean probability of the true class. Accuracy asks only whether it is the "
            "largest one of its row.",
        ),
        Mistake(
            "mean over the classes",
            _mean_of_classes,
            "You average the accuracies of the classes, so a rare class weighs as much as a "
            "frequent one. Useful, and called balanced accuracy; here every row counts once.",
        ),
        Mistake(
            "a tensor",
            lambda logits, targets: _hits(logits, targets).mean(),
            A_TENSOR,
        ),
    ),
    minutes=6,
    difficulty=1,
)
