"""How sure we are of a difference between two arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from kdlib.seal import reference

__all__ = ["Interval", "paired_interval"]


class Interval(NamedTuple):
    """A mean with its confidence interval and the number of pairs."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Write as '+1.23 [+0.80, +1.66] (n = 10)'."""
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] (n = {self.n})"


@reference("04.paired_interval")
def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of the paired differences a - b with Student's t interval.

    d_i = a_i - b_i,   mean(d) +- t_{n-1} sd(d) / sqrt(n)

    Pairs share what may vary by luck (the seed: data, initial weights, order of batches), so that
    it cancels.

    Args:
        a: one number for each seed.
        b: the other arm, same seeds in the same order.
        confidence: of the interval.

    Raises:
        ValueError: lengths differ, fewer than two pairs, or confidence outside (0, 1).
    """
    if len(a) != len(b):
        raise ValueError(f"a and b must be pairs, got {len(a)} and {len(b)} numbers")
    if len(a) < 2:
        raise ValueError(f"an interval needs at least 2 pairs, got {len(a)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    from scipy.stats import t

    difference = torch.tensor([x - y for x, y in zip(a, b, strict=True)], dtype=torch.float64)
    n, mean = len(difference), difference.mean().item()
    half = t.ppf((1 + confidence) / 2, n - 1) * difference.std().item() / n**0.5
    return Interval(mean, float(mean - half), float(mean + half), n)
