"""04.paired_interval."""

from __future__ import annotations

import torch
from scipy.stats import norm, t

from kdlib import evaluation
from kdlib.checks.criteria import law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import between, number

# accuracies around 80 are known to 4e-6 in float32, and two seeds make that 25 times larger
FLOAT32 = 2e-4


def _seeds(
    low: int,
    high: int,
    confidence: tuple[float, float] | None = None,
    lost: tuple[int, int] = (0, 0),
):
    """Build two arms that share the luck of a seed: it varies more than their difference.

    Args:
        low: the least number of seeds.
        high: the largest.
        confidence: what it is drawn between; none leaves the default.
        lost: how many runs each arm has lost.
    """

    def make(g: torch.Generator) -> Arguments:
        n = between(g, low, high)
        luck = 80 + 3 * torch.randn(n, generator=g, dtype=torch.float64)
        gain = 0.6 + 0.8 * torch.randn(n, generator=g, dtype=torch.float64)
        arms = {"a": (luck + gain).tolist()[lost[0] :], "b": luck.tolist()[lost[1] :]}
        return arms | ({"confidence": number(g, *confidence)} if confidence else {})

    return make


def _named(answer, a: Arguments):
    found = answer(*a.values())
    if isinstance(found, tuple | list) and len(found) >= 3:
        found = [x.double() if isinstance(x, torch.Tensor) else x for x in found]
        return dict(zip(("mean", "low", "high"), found, strict=False))
    return found


def _around_the_mean(evidence: Evidence) -> str | None:
    mean, low, high = (
        float(evidence.value("less sure", k) or 0.0) for k in ("mean", "low", "high")
    )
    low95, high95 = (float(evidence.value("few", k) or 0.0) for k in ("low", "high"))
    if not low < mean < high:
        return f"Your interval from {low:.4g} to {high:.4g} does not hold its mean, {mean:.4g}."
    if high95 - low95 <= high - low:
        return (
            f"Your interval at 95 % is {high95 - low95:.4g} wide, and {high - low:.4g} at less. "
            "To be surer, an interval has to be wider."
        )
    return None


def _interval(
    sign=1,
    spread=lambda d, a, b: d.std() / len(d) ** 0.5,
    quantile=lambda c, n: t.ppf((1 + c) / 2, n - 1),
    order=lambda x: x,
    check=True,
):
    """Assemble a wrong interval from one wrong part."""

    def wrong(a, b, confidence=0.95):
        if check and (len(a) != len(b) or len(a) < 2):
            raise ValueError("needs pairs")
        n = min(len(a), len(b))
        x, y = (torch.tensor(order(list(v)[:n]), dtype=torch.float64) for v in (a, b))
        d = sign * (x - y)
        half = float(quantile(confidence, n)) * spread(d, x, y).item()
        return d.mean().item(), d.mean().item() - half, d.mean().item() + half

    return wrong


PAIRED_INTERVAL = Exercise(
    id="04.paired_interval",
    title="A paired interval",
    reference=evaluation.paired_interval,
    probes=(
        Probe("few", "4 to 8 seeds, 95 %", _seeds(4, 8), run=_named, atol=FLOAT32),
        Probe(
            "less sure",
            "the same at 60 to 90 %",
            _seeds(4, 8, (0.6, 0.9)),
            run=_named,
            atol=FLOAT32,
        ),
        Probe("many", "15 to 25 seeds, 95 %", _seeds(15, 25), run=_named, atol=FLOAT32),
        Probe("2 seeds", "2 seeds, 95 %", _seeds(2, 2), run=_named, atol=FLOAT32),
        Probe("1 seed", "a single seed", _seeds(1, 1)),
        Probe("0 seeds", "no seed at all", _seeds(1, 1, lost=(1, 1))),
        Probe("a too short", "4 numbers for a and 5 for b", _seeds(5, 5, lost=(1, 0))),
        Probe("b too short", "6 numbers for a and 4 for b", _seeds(6, 6, lost=(0, 2))),
        Probe("b alone", "5 numbers for a and 1 for b", _seeds(5, 5, lost=(0, 4))),
    ),
    criteria=(
        matches("the mean difference", 0.5, "few", "many", keys=("mean",)),
        matches("the interval", 0.75, "few", "many", keys=("low", "high")),
        matches("two seeds", 0.5, "2 seeds"),
        law("surer means wider", 0.25, ("few", "less sure"), _around_the_mean),
        matches("another confidence", 0.25, "less sure"),
        rejects(
            "one seed, or no pairs, is refused",
            0.5,
            *("1 seed", "0 seeds", "a too short", "b too short", "b alone"),
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "not paired",
            _interval(spread=lambda d, x, y: ((x.var() + y.var()) / len(x)).sqrt()),
            "Your interval adds up the spread of both arms, as if their seeds had nothing to do "
            "with each other. What the two runs of a seed share (images, initial weights, order of "
            "batches) cancels in their difference: use the spread of the differences.",
        ),
        Mistake(
            "the normal quantile",
            _interval(quantile=lambda c, n: norm.ppf((1 + c) / 2)),
            "Your quantile is the normal one, 1.96 at 95 %. It belongs to a spread that is known; "
            "yours is estimated from a few seeds, and with two of them that makes a factor of six.",
        ),
        Mistake(
            "n degrees of freedom",
            _interval(quantile=lambda c, n: t.ppf((1 + c) / 2, n)),
            "Your quantile has n degrees of freedom. One is spent on the mean.",
        ),
        Mistake(
            "one side only",
            _interval(quantile=lambda c, n: t.ppf(c, n - 1)),
            "Your quantile leaves out 5 % on each side, 10 % in all. Share the 5 % between the two "
            "sides.",
        ),
        Mistake(
            "the spread of one seed",
            _interval(spread=lambda d, x, y: d.std()),
            "Your interval says where the next seed may fall. How much does the *mean* of n seeds "
            "vary?",
        ),
        Mistake(
            "spread divided by n",
            _interval(spread=lambda d, x, y: d.std(correction=0) / len(d) ** 0.5),
            "Your standard deviation divides by n. Around a mean that comes from the same numbers, "
            "divide by n - 1 (`torch.std` does, `numpy.std` does not).",
        ),
        Mistake(
            "divided by n, not its root",
            _interval(spread=lambda d, x, y: d.std() / len(d)),
            "Your interval shrinks as 1/n. The mean of n independent numbers does not settle down "
            "that fast.",
        ),
        Mistake(
            "b - a",
            _interval(sign=-1),
            "Your difference is b - a. A positive result should mean that a is the better one.",
        ),
        Mistake(
            "pairs sorted apart",
            _interval(order=sorted),
            "The numbers were sorted before they were subtracted, so that the worst seed of one "
            "arm is compared with the worst of the other. Pairs are runs with the same seed.",
        ),
        Mistake(
            "always 95 %",
            _interval(quantile=lambda c, n: t.ppf(0.975, n - 1)),
            "Your confidence is fixed; the argument has no effect.",
        ),
        Mistake(
            "anything is taken",
            _interval(check=False),
            "From one seed there is no spread to estimate, and lists of two lengths are no pairs. "
            "Raise a ValueError that says what was given.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
