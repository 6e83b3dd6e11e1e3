"""00.softmax_with_temperature."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdlib.checks.criteria import matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw, positive
from kdlib.losses import divergences


def _tempered(
    *shape: int,
    temperature: float = 1.0,
    scale: float = 3.0,
    offset: float = 0.0,
    dtype: torch.dtype = torch.float64,
):
    def make(g: torch.Generator) -> Arguments:
        logits = draw(g, *shape, scale=scale)
        if offset:
            logits += offset * (torch.arange(shape[-2])[:, None] - 1)
        return {"logits": logits.to(dtype), "temperature": temperature}

    return make


def _another_batch(g: torch.Generator) -> Arguments:
    """Draw the sizes and the temperature; the logits are a view with its strides turned round."""
    rows, classes = between(g, 2, 9), between(g, 2, 9)
    temperature = between(g, 12, 90) / 10
    return {"logits": draw(g, classes, rows).T, "temperature": temperature}


def _negative(g: torch.Generator) -> Arguments:
    return _tempered(3, 5, temperature=-between(g, 2, 40) / 10)(g)


def _wrong_softmax(formula: Callable[[Tensor, float], Tensor]):
    """Assemble a wrong answer that at least refuses a temperature that is not positive."""

    def softmax_with_temperature(logits: Tensor, temperature: float) -> Tensor:
        positive(temperature)
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
        Probe("vector", "logits of shape (7,) at T = 3", _tempered(7, temperature=3.0)),
        Probe("another batch", "a batch of another size, at another T", _another_batch),
        Probe(
            "large",
            "rows whose logits lie near -2000, 0 and 2000",
            _tempered(3, 6, temperature=2.0, offset=2000.0),
        ),
        Probe(
            "float32",
            "float32 logits in the thousands",
            _tempered(3, 6, temperature=2.0, scale=1000.0, dtype=torch.float32),
            atol=1e-3,  # where z/T is taken apart before it is subtracted
        ),
        Probe(
            "cold",
            "small logits at T = 0.002",
            _tempered(3, 6, temperature=0.002, scale=0.003),
        ),
        Probe("zero", "a temperature of 0", _tempered(3, 5, temperature=0.0)),
        Probe("negative", "a temperature below 0", _negative),
    ),
    criteria=(
        matches(
            "the probabilities",
            0.5,
            "T = 1",
            "T = 4",
            "T = 0.5",
            "sequence",
            "vector",
            "another batch",
            "cold",
        ),
        matches("large logits", 0.5, "large", "float32"),
        rejects("a temperature that is not positive", 0.5, "zero", "negative", given=True),
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
            "normalised over everything",
            _wrong_softmax(lambda z, t: (z / t).exp() / (z / t).exp().sum()),
            "All your numbers together sum to one, not those of each row. Over which dimension "
            "does the sum in the formula run?",
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
