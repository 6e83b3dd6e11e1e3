"""01.log_softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdlib.checks.criteria import law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import positive
from kdlib.exercises.u01_divergences.inputs import ROUNDED, one_network, tenths, turned
from kdlib.losses import divergences


def _sums_to_one(evidence: Evidence) -> str | None:
    sums = evidence.value("plain").exp().sum(-1)
    worst = sums[(sums - 1).abs().argmax()].item()
    if abs(worst - 1) < 1e-6:
        return None
    return f"The probabilities behind one of your rows sum to {worst:.4g}. They have to sum to 1."


def _staircase(g: torch.Generator) -> Arguments:
    arguments = one_network(1.0)(g)
    steps = 2000.0 * torch.arange(len(arguments["logits"]))[:, None]
    return {**arguments, "logits": arguments["logits"] - steps}


def _another_batch(g: torch.Generator) -> Arguments:
    return {**turned(g, "logits"), "temperature": tenths(g, 5, 90)}


def _default(g: torch.Generator) -> Arguments:
    return turned(g, "logits")


def _negative(g: torch.Generator) -> Arguments:
    return one_network(tenths(g, -40, -2))(g)


def _log_softmax_with(rule):
    def log_softmax(logits, temperature=1.0):
        positive(temperature)
        return rule(logits, temperature)

    return log_softmax


def _less(z: Tensor, maximum: Tensor, dim: int = -1) -> Tensor:
    return (z - maximum) - (z - maximum).exp().sum(dim=dim, keepdim=True).log()


def _stable(z: Tensor, dim: int = -1) -> Tensor:
    return _less(z, z.amax(dim=dim, keepdim=True), dim)


LOG_SOFTMAX = Exercise(
    id="01.log_softmax",
    title="Log-probabilities that never overflow",
    reference=divergences.log_softmax,
    probes=(
        Probe("plain", "6 rows of 7 classes, T = 2.5", one_network()),
        Probe("T = 1", "6 rows of 7 classes, T = 1", one_network(1.0)),
        Probe("default", "a batch of another size, without a temperature", _default),
        Probe("another batch", "a batch of another size, at another T", _another_batch),
        Probe("one row", "a single row of 2 classes, T = 0.5", one_network(0.5, rows=1, classes=2)),
        Probe("one class", "rows of a single class", one_network(1.5, rows=3, classes=1)),
        Probe("large", "logits in the thousands, T = 1", one_network(1.0, 3000.0)),
        Probe(
            "very negative",
            "logits that are all near -5000, T = 1",
            one_network(1.0, shift=-5000.0),
        ),
        Probe("far apart", "rows that lie thousands below each other", _staircase),
        Probe(
            "float32",
            "float32 logits in the thousands, T = 2",
            one_network(2.0, 1000.0, dtype=torch.float32),
            atol=ROUNDED,
        ),
        Probe("small", "float32 logits near 0.001", one_network(1.0, 1e-3, dtype=torch.float32)),
        Probe("T = 0", "T = 0", one_network(0.0)),
        Probe("T < 0", "a temperature below 0", _negative),
    ),
    criteria=(
        matches(
            "the value",
            1.0,
            "plain",
            "T = 1",
            "default",
            "another batch",
            "one row",
            "one class",
            "small",
        ),
        law("probabilities sum to one", 0.5, ("plain",), _sums_to_one),
        matches("large logits", 1.0, "large", "very negative", "far apart", "float32"),
        rejects("a temperature that is not positive is refused", 0.5, "T = 0", "T < 0", given=True),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "no maximum subtracted",
            _log_softmax_with(lambda z, T: z / T - (z / T).exp().sum(-1, keepdim=True).log()),
            "For large logits `exp` overflows to infinity, and for very "
            "negative ones the sum underflows to zero. Adding a constant to a row changes nothing "
            "about the result: which constant makes the largest exponent zero?",
        ),
        Mistake(
            "one maximum for all rows",
            _log_softmax_with(lambda z, T: _less(z / T, (z / T).max())),
            "You subtract the largest logit of the whole batch. In a row that lies far below it "
            "every `exp` is zero, and so is their sum. Each row needs its own maximum.",
        ),
        Mistake(
            "logarithm of a finished softmax",
            _log_softmax_with(lambda z, T: _stable(z / T).exp().log()),
            "You form the probability first and take its logarithm after. A probability below "
            "about 1e-308 is zero in floating point, and its logarithm is minus infinity.",
        ),
        Mistake(
            "softmax over the batch",
            _log_softmax_with(lambda z, T: _stable(z / T, dim=0)),
            "Your columns sum to one, not your rows. Classes are the last dimension.",
        ),
        Mistake(
            "multiplied by the temperature",
            _log_softmax_with(lambda z, T: _stable(z * T)),
            "You multiply by T, which sharpens the distribution. A high temperature makes it soft.",
        ),
        Mistake(
            "temperature ignored",
            _log_softmax_with(lambda z, T: _stable(z)),
            "Your result does not depend on the temperature.",
        ),
        Mistake(
            "temperature after the softmax",
            _log_softmax_with(lambda z, T: _stable(z) / T),
            "You divide the log-probabilities by T. The logits have to be divided, before they are "
            "normalised; yours no longer sum to one.",
        ),
        Mistake(
            "logarithm to base 2",
            _log_softmax_with(lambda z, T: _stable(z / T) / math.log(2)),
            "Your numbers are bits. This course counts in nats: natural logarithms.",
        ),
        Mistake(
            "probabilities",
            _log_softmax_with(lambda z, T: _stable(z / T).exp()),
            "You return probabilities; their logarithms are asked for.",
        ),
        Mistake(
            "any temperature is taken",
            lambda logits, temperature=1.0: _stable(logits / temperature),
            "T = 0 divides by zero. Raise a ValueError that says what was given.",
        ),
    ),
    minutes=12,
    difficulty=1,
    forbids=(
        "log_softmax",
        "softmax",
        "softmin",
        "logsumexp",
        "logcumsumexp",
        "cross_entropy",
        "special_log_softmax",
        "special_softmax",
        "special_logsumexp",
    ),
)
