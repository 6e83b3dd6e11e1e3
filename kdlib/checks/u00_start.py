"""Exercises of unit 00: one tiny function to learn the loop, then accuracy, NLL and calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import divergences, evaluation
from kdlib.checks.criteria import law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Criterion, Evidence, Exercise, Mistake, Probe
from kdlib.checks.seal import reference


def _logits(g: torch.Generator, *shape: int, scale: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64) * scale


# ------------------------------------------------------------------ 00.softmax_with_temperature


def _tempered(*shape: int, temperature: float = 1.0, offset: float = 0.0):
    def make(g: torch.Generator) -> Arguments:
        rows = torch.arange(shape[-2], dtype=torch.float64)[:, None] - 1
        return {"logits": _logits(g, *shape) + offset * rows, "temperature": temperature}

    return make


def _positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def _wrong_softmax(formula: Callable[[Tensor, float], Tensor]):
    """Assemble a wrong answer that at least refuses a temperature that is not positive."""

    def softmax_with_temperature(logits: Tensor, temperature: float) -> Tensor:
        _positive(temperature)
        return formula(logits, temperature)

    return softmax_with_temperature


def _exp_ratio(scaled: Tensor, other: Tensor | None = None) -> Tensor:
    return scaled.exp() / (scaled if other is None else other).exp().sum(-1, keepdim=True)


def _in_place(logits: Tensor, temperature: float) -> Tensor:
    logits /= temperature
    return logits.softmax(-1)


SOFTMAX = Exercise(
    id="00.softmax_with_temperature",
    title="Softmax with a temperature",
    reference=divergences.softmax,
    probes=(
        Probe("T = 1", "4 rows of 10 classes at T = 1", _tempered(4, 10)),
        Probe("T = 4", "4 rows of 10 classes at T = 4", _tempered(4, 10, temperature=4.0)),
        Probe("T = 0.5", "3 rows of 5 classes at T = 0.5", _tempered(3, 5, temperature=0.5)),
        Probe(
            "sequence",
            "logits of shape (2, 3, 5) at T = 2",
            _tempered(2, 3, 5, temperature=2.0),
        ),
        Probe(
            "large",
            "rows whose logits lie near -2000, 0 and 2000",
            _tempered(3, 6, temperature=2.0, offset=2000.0),
        ),
        Probe("zero", "a temperature of 0", _tempered(3, 5, temperature=0.0)),
        Probe("negative", "a temperature of -1", _tempered(3, 5, temperature=-1.0)),
    ),
    criteria=(
        matches("the probabilities", 0.5, "T = 1", "T = 4", "T = 0.5", "sequence"),
        matches("large logits", 0.5, "large"),
        rejects("a temperature that is not positive", 0.5, "zero", "negative"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "softmax over the batch",
            _wrong_softmax(lambda z, t: (z / t).softmax(0)),
            "Your columns sum to one, not your rows: examples compete with one another instead of "
            "classes. Which dimension holds the classes?",
        ),
        Mistake(
            "classes taken to be dimension 1",
            _wrong_softmax(lambda z, t: (z / t).softmax(1)),
            "Right for a table, wrong for logits with one dimension more. Count the dimension of "
            "the classes from the end.",
        ),
        Mistake(
            "multiplied by the temperature",
            _wrong_softmax(lambda z, t: (z * t).softmax(-1)),
            "Your distribution gets sharper as T rises. A higher T has to make it softer.",
        ),
        Mistake(
            "temperature left out",
            _wrong_softmax(lambda z, t: z.softmax(-1)),
            "Your result is the same at every temperature. Where does the formula divide by T?",
        ),
        Mistake(
            "divided after the softmax",
            _wrong_softmax(lambda z, t: z.softmax(-1) / t),
            "Your rows do not sum to one. The temperature acts on the logits, before anything is "
            "exponentiated.",
        ),
        Mistake(
            "temperature in the numerator alone",
            _wrong_softmax(lambda z, t: _exp_ratio(z / t, z)),
            "The numerator knows about T and the sum below it does not, so your rows do not sum "
            "to one.",
        ),
        Mistake(
            "the exponential overflows",
            _wrong_softmax(lambda z, t: _exp_ratio(z / t)),
            "The formula is right on paper; in floating point exp(1000) is infinity and exp(-1000) "
            "is zero. What can you subtract from all logits of a row without changing the result?",
        ),
        Mistake(
            "one maximum for the whole batch",
            _wrong_softmax(lambda z, t: _exp_ratio(z / t - (z / t).max())),
            "You subtract the largest logit of the whole batch. In a row that lies far below it, "
            "every exponential is zero. Each row needs its own maximum.",
        ),
        Mistake(
            "log-probabilities",
            _wrong_softmax(lambda z, t: (z / t).log_softmax(-1)),
            "Your numbers are negative: these are logarithms of probabilities.",
        ),
        Mistake(
            "logits divided in place",
            _wrong_softmax(_in_place),
            "`/=` writes into the caller's tensor. Called twice, your function divides twice.",
        ),
        Mistake(
            "temperature not checked",
            lambda logits, temperature: (logits / temperature).softmax(-1),
            "At T = 0 you return NaN and at T = -1 the least likely class wins, both without a "
            "word. Refuse such a temperature.",
        ),
    ),
    minutes=8,
    difficulty=1,
)


# ------------------------------------------------------------------ numbers


def _number(answer: Callable, arguments: Arguments) -> dict[str, Any]:
    """Give the result as a plain number where it is one, and the kind of object it was."""
    result = answer(*arguments.values())
    kind = "float" if isinstance(result, float) else type(result).__name__
    single = isinstance(result, Tensor) and result.dim() == 0
    return {"value": result.item() if single else result, "kind": kind}


def _python_float(points: float, probe: str) -> Criterion:
    def test(evidence: Evidence) -> str | None:
        kind = evidence.value(probe, "kind")
        if kind == "float":
            return None
        return f"You return an object of type {kind}; a Python float is asked for."

    return law("a Python float", points, (probe,), test)


_A_TENSOR = (
    "The number is right and still wrapped in a tensor. A table, a plot or JSON wants a plain "
    "number; which method of a tensor takes it out?"
)

# ------------------------------------------------------------------ 00.accuracy


def _classified(targets: list[int], right: int):
    """Logits that are largest at the target in the first `right` rows only; rows then shuffled."""

    def make(g: torch.Generator) -> Arguments:
        y = torch.tensor(targets)
        logits = _logits(g, len(y), max(targets) + 1, scale=1.0)
        winner = torch.where(torch.arange(len(y)) < right, y, (y + 1) % (max(targets) + 1))
        logits[torch.arange(len(y)), winner] = logits.amax(-1) + 0.5
        order = torch.randperm(len(y), generator=g)
        return {"logits": logits[order], "targets": y[order]}

    return make


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
            _classified([0] * 10 + [1, 2, 3, 4, 1, 2, 3, 4, 1, 2], right=13),
            run=_number,
        ),
        Probe("square", "6 rows of 6 classes", _classified([0, 1, 2, 3, 4, 5], 4), run=_number),
        Probe(
            "all right", "8 rows that are all right", _classified([0, 1, 2, 3] * 2, 8), run=_number
        ),
    ),
    criteria=(
        matches("the share of right rows", 1.0, "plain", "square", "all right", keys=("value",)),
        _python_float(0.5, "plain"),
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
            _A_TENSOR,
        ),
    ),
    minutes=6,
    difficulty=1,
)


# ------------------------------------------------------------------ 00.nll


def _labelled(rows: int, classes: int, scale: float = 3.0):
    def make(g: torch.Generator) -> Arguments:
        targets = torch.randint(classes, (rows,), generator=g)
        return {"logits": _logits(g, rows, classes, scale=scale), "targets": targets}

    return make


def _of_target(values: Tensor, targets: Tensor) -> Tensor:
    return values.gather(-1, targets[:, None]).squeeze(-1)


def _sizes(rows: int, classes: int) -> dict[str, float]:
    return {"the number of rows": rows, "the number of classes": classes}


NLL = Exercise(
    id="00.nll",
    title="Negative log-likelihood",
    reference=evaluation.nll,
    probes=(
        Probe(
            "plain", "16 rows of 10 classes", _labelled(16, 10), run=_number, sizes=_sizes(16, 10)
        ),
        Probe("few", "5 rows of 3 classes", _labelled(5, 3), run=_number, sizes=_sizes(5, 3)),
        Probe(
            "certain",
            "32 rows of a model that is sure of itself and mostly wrong (logits in the thousands)",
            _labelled(32, 10, scale=2000.0),
            run=_number,
        ),
    ),
    criteria=(
        matches("the mean over the rows, in nats", 1.0, "plain", "few", keys=("value",)),
        matches("certain and wrong", 1.0, "certain", keys=("value",)),
        _python_float(0.5, "plain"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "a sum",
            lambda logits, targets: F.cross_entropy(logits, targets, reduction="sum").item(),
            "Your number grows with the number of rows. A mean over the rows is asked for.",
        ),
        Mistake(
            "mean over rows and classes",
            lambda logits, targets: F.cross_entropy(logits, targets).item() / logits.shape[-1],
            "You divide by the number of entries. Each row adds one number, of its true class.",
        ),
        Mistake(
            "log of a softmax that underflows",
            lambda logits, targets: -_of_target(logits.softmax(-1), targets).log().mean().item(),
            "On certain and wrong rows the probability of the true class is too small for floating "
            "point, becomes zero, and its logarithm is minus infinity. Which function gives the "
            "logarithm without passing through the probability?",
        ),
        Mistake(
            "probabilities clamped",
            lambda logits, targets: (
                -_of_target(logits.softmax(-1), targets).clamp(min=1e-12).log().mean().item()
            ),
            "No infinity any more, and a wrong number instead: a floor under the probability puts "
            "a ceiling on how much a certain mistake costs.",
        ),
        Mistake(
            "sign",
            lambda logits, targets: -F.cross_entropy(logits, targets).item(),
            "Your number is negative: that is the log-likelihood itself.",
        ),
        Mistake(
            "base 2",
            lambda logits, targets: F.cross_entropy(logits, targets).item() / 0.6931471805599453,
            "That is in bits. The course counts in nats, with the natural logarithm.",
        ),
        Mistake(
            "probabilities for log-probabilities",
            lambda logits, targets: F.nll_loss(logits.softmax(-1), targets).item(),
            "You average probabilities; no logarithm is taken. In spite of its name `F.nll_loss` "
            "takes none either, it expects log-probabilities.",
        ),
        Mistake(
            "softmax twice",
            lambda logits, targets: F.cross_entropy(logits.softmax(-1), targets).item(),
            "`F.cross_entropy` takes logits and normalises them itself. You gave it probabilities, "
            "so they went through a softmax a second time.",
        ),
        Mistake(
            "softmax over the batch",
            lambda logits, targets: F.nll_loss(logits.log_softmax(0), targets).item(),
            "You normalise over the rows. It is the classes of one row that share a probability "
            "of one.",
        ),
        Mistake(
            "logits not normalised",
            lambda logits, targets: F.nll_loss(logits, targets).item(),
            "You average the logits of the true classes. Adding a constant to a row changes your "
            "number, but not the distribution.",
        ),
        Mistake(
            "log of the mean",
            lambda logits, targets: -_of_target(logits.softmax(-1), targets).mean().log().item(),
            "You average the probabilities first and take the logarithm afterwards. The two do not "
            "commute: one certain mistake has to be expensive.",
        ),
        Mistake("a tensor", lambda logits, targets: F.cross_entropy(logits, targets), _A_TENSOR),
    ),
    minutes=10,
    difficulty=1,
)


# ------------------------------------------------------------------ 00.fit_temperature


def _miscalibrated(grid: tuple[float, ...], factor: float, rows: int = 400, classes: int = 5):
    """Logits that are calibrated when divided by `factor`, and a grid of temperatures."""

    def make(g: torch.Generator) -> Arguments:
        calibrated = _logits(g, rows, classes, scale=1.5)
        targets = torch.multinomial(calibrated.softmax(-1), 1, generator=g).squeeze(-1)
        return {
            "logits": calibrated * factor,
            "targets": targets,
            "temperatures": torch.tensor(grid, dtype=torch.float64),
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
    scores = torch.stack([_hits(logits / t, targets).mean() for t in temperatures])
    return temperatures[scores.argmax()].item()


def _each_row(logits: Tensor, targets: Tensor, temperatures: Tensor) -> float:
    rows = [F.cross_entropy(logits / t, targets, reduction="none") for t in temperatures]
    return temperatures[torch.stack(rows).argmin(0)].mean().item()


_GRID = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

FIT_TEMPERATURE = Exercise(
    id="00.fit_temperature",
    title="Temperature scaling",
    reference=fit_temperature,
    probes=(
        Probe(
            "over-confident",
            "400 rows of an over-confident model",
            _miscalibrated(_GRID, 2.0),
            run=_number,
        ),
        Probe(
            "under-confident",
            "400 rows of an under-confident model",
            _miscalibrated(_GRID, 0.5),
            run=_number,
        ),
        Probe(
            "unsorted",
            "temperatures that are not in order",
            _miscalibrated((4.0, 0.5, 8.0, 1.0, 2.0, 0.25), 2.0),
            run=_number,
        ),
        Probe(
            "edge",
            "a grid whose last temperature is the best",
            _miscalibrated((0.5, 1.0, 2.0), 4.0),
            run=_number,
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
        matches("temperatures in any order", 0.5, "unsorted", keys=("value",)),
        matches("the best one at the end", 0.5, "edge", keys=("value",)),
        _python_float(0.5, "over-confident"),
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
            _A_TENSOR,
        ),
    ),
    minutes=10,
    difficulty=2,
)

EXERCISES: tuple[Exercise, ...] = (SOFTMAX, ACCURACY, NLL, FIT_TEMPERATURE)
