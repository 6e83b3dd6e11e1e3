"""00.fit_temperature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw
from kdlib.exercises.u00_start.numbers import A_TENSOR, number, python_float
from kdlib.seal import reference

_GRID = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def _miscalibrated(
    *places: int,
    best: int,
    rows: int = 400,
    classes: int = 5,
    times: float = 1.0,
    dtype: torch.dtype = torch.float64,
):
    """Logits for which `_GRID[best]` is about right, and those `places` of the grid in their order.

    All temperatures are multiplied by a number of the generator's, so that none is known before.
    """

    def make(g: torch.Generator) -> Arguments:
        grid = torch.tensor(_GRID, dtype=torch.float64) * between(g, 80, 125) / 100
        calibrated = draw(g, rows, classes, scale=1.5)
        targets = torch.multinomial(calibrated.softmax(-1), 1, generator=g).squeeze(-1)
        return {
            "logits": (calibrated * grid[best] * times).to(dtype),
            "targets": targets,
            "temperatures": grid[list(places)].to(dtype),
        }

    return make


def _curve(logits: Tensor, targets: Tensor, temperatures: Tensor) -> Tensor:
    """NLL at each temperature, `(K,)`."""
    return torch.stack([F.cross_entropy(logits / t, targets) for t in temperatures])


def _best_on_grid(logits: Tensor, targets: Tensor, temperatures: Tensor) -> float:
    return temperatures[_curve(logits, targets, temperatures).argmin()].item()


@reference("00.fit_temperature")
def fit_temperature(logits: Tensor, targets: Tensor, temperatures: Tensor) -> float:
    """Pick from a grid the temperature with the smallest NLL (Guo et al. 2017, arXiv 1706.04599).

    T* = argmin_{T in grid} NLL(z / T, y)

    Args:
        logits: `(N, C)`.
        targets: `(N,)`.
        temperatures: `(K,)`, positive, in any order.

    Returns:
        One of `temperatures`.
    """
    return min(temperatures.tolist(), key=lambda t: F.cross_entropy(logits / t, targets).item())


def _first_rise(logits: Tensor, targets: Tensor, temperatures: Tensor) -> float:
    best, lowest = temperatures[0], float("inf")
    for temperature, value in zip(
        temperatures, _curve(logits, targets, temperatures).tolist(), strict=True
    ):
        if value > lowest:
            break
        best, lowest = temperature, value
    return best.item()


def _highest_accuracy(logits: Tensor, targets: Tensor, temperatures: Tensor) -> float:
    scores = torch.stack(
        [((logits / t).argmax(-1) == targets).double().mean() for t in temperatures]
    )
    return temperatures[scores.argmax()].item()


def _each_row(logits: Tensor, targets: Tensor, temperatures: Tensor) -> float:
    rows = [F.cross_entropy(logits / t, targets, reduction="none") for t in temperatures]
    return temperatures[torch.stack(rows).argmin(0)].mean().item()


FIT_TEMPERATURE = Exercise(
    id="00.fit_temperature",
    title="Temperature scaling",
    reference=fit_temperature,
    probes=(
        Probe(
            "over-confident",
            "400 rows of an over-confident model",
            _miscalibrated(0, 1, 2, 3, 4, 5, best=3),
            run=number,
        ),
        Probe(
            "under-confident",
            "400 rows of an under-confident model",
            _miscalibrated(0, 1, 2, 3, 4, 5, best=1),
            run=number,
        ),
        Probe(
            "unsorted",
            "temperatures that are not in order",
            _miscalibrated(4, 1, 5, 2, 3, 0, best=3),
            run=number,
        ),
        Probe(
            "edge",
            "a grid whose last temperature is the best",
            _miscalibrated(1, 2, 3, best=4),
            run=number,
        ),
        Probe(
            "front",
            "a falling grid whose first temperature is the best",
            _miscalibrated(5, 4, 3, 2, 1, best=5),
            run=number,
        ),
        Probe(
            "too cold",
            "logits in the thousands, for which every temperature is far too cold",
            _miscalibrated(0, 1, 2, 3, 4, 5, best=5, times=5000.0),
            run=number,
        ),
        Probe(
            "one",
            "a single temperature, and rows of two classes",
            _miscalibrated(2, best=4, rows=50, classes=2),
            run=number,
        ),
        Probe(
            "float32",
            "float32 logits, and as many temperatures as classes",
            _miscalibrated(3, 2, 4, 1, 5, best=4, dtype=torch.float32),
            run=number,
        ),
    ),
    criteria=(
        matches(
            "over-confident and under-confident models",
            1.0,
            "over-confident",
            "under-confident",
            keys=("value",),
        ),
        matches("temperatures in any order", 0.5, "unsorted", "float32", keys=("value",)),
        matches("the best one at an end", 0.5, "edge", "front", "too cold", "one", keys=("value",)),
        python_float(0.5, "over-confident"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "the position",
            lambda logits, targets, temperatures: float(
                _curve(logits, targets, temperatures).argmin()
            ),
            "You return where the best temperature stands in the grid, not the temperature.",
        ),
        Mistake(
            "the smallest NLL itself",
            lambda logits, targets, temperatures: (
                _curve(logits, targets, temperatures).min().item()
            ),
            "You return the smallest NLL. Which temperature gave it?",
        ),
        Mistake(
            "the largest NLL",
            lambda logits, targets, temperatures: temperatures[
                _curve(logits, targets, temperatures).argmax()
            ].item(),
            "You pick the temperature that explains the labels worst. A smaller NLL is better.",
        ),
        Mistake(
            "the highest accuracy",
            _highest_accuracy,
            "Accuracy cannot choose: dividing all logits of a row by T leaves the largest one the "
            "largest, so every temperature ties and you get the first of the grid.",
        ),
        Mistake(
            "multiplied by the temperature",
            lambda logits, targets, temperatures: (
                _best_on_grid(logits, targets, 1 / temperatures) ** -1
            ),
            "You multiply the logits by T, so you soften where you should sharpen. In this course "
            "T divides.",
        ),
        Mistake(
            "stops at the first rise",
            _first_rise,
            "You stop as soon as the NLL rises. That needs a grid in order; this one is not.",
        ),
        Mistake(
            "a temperature for each row",
            _each_row,
            "You let every row choose its own temperature and average the choices. A row that is "
            "right always wants the coldest one. One temperature serves all rows together.",
        ),
        Mistake(
            "a tensor",
            lambda logits, targets, temperatures: temperatures[
                _curve(logits, targets, temperatures).argmin()
            ],
            A_TENSOR,
        ),
    ),
    minutes=10,
    difficulty=2,
)
