"""Does a network's confidence mean what it says?"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kdlib.errors import require_finite, require_targets
from kdlib.evaluation.accuracy import nll
from kdlib.seal import reference

__all__ = ["ece", "fit_temperature", "reliability_bins"]


class Bins(NamedTuple):
    """Predictions by confidence: counts, mean confidence and accuracy of each bin."""

    count: Tensor
    confidence: Tensor
    accuracy: Tensor


@reference("04.ece")
def reliability_bins(logits: Tensor, targets: Tensor, bins: int = 15) -> Bins:
    """Sort predictions into equal-width bins of confidence, for a reliability diagram.

    Args:
        logits: `(N, C)`.
        targets: `(N,)`.
        bins: how many.

    Returns:
        Tensors `(bins,)`; empty bins hold NaN in confidence and accuracy.

    Raises:
        ValueError: `bins` < 1, targets that do not fit, or logits that are not finite.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    require_finite(logits, "logits")
    require_targets(targets, logits)
    confidence, predicted = logits.double().softmax(-1).reshape(-1, logits.shape[-1]).max(-1)
    right = (predicted == targets.reshape(-1)).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    count = torch.bincount(index, minlength=bins).double()
    return Bins(
        count,
        torch.bincount(index, confidence, minlength=bins) / count,
        torch.bincount(index, right, minlength=bins) / count,
    )


@reference("04.ece")
def ece(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al. 2017, arXiv 1706.04599).

    ECE = sum_b |B_b| / N * |accuracy(B_b) - confidence(B_b)|

    Args:
        logits: `(N, C)`.
        targets: `(N,)`.
        bins: how many.

    Raises:
        ValueError: as `reliability_bins`.
    """
    found = reliability_bins(logits, targets, bins)
    gap = (found.accuracy - found.confidence).abs().nan_to_num(0.0)
    return (found.count * gap).sum().item() / found.count.sum().item()


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Find the temperature with the smallest NLL (Guo et al. 2017, arXiv 1706.04599).

    T* = argmin_T NLL(z / T, y)

    NLL is convex in 1/T, so Brent's bounded search over log T in [-5, 5] finds it; where none
    is best (every row right, or labels that contradict the logits) it ends at a bound.

    Args:
        logits: `(N, C)`.
        targets: `(N,)`.

    Raises:
        ValueError: targets that do not fit, or logits that are not finite.
    """
    require_finite(logits, "logits")
    require_targets(targets, logits)
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: nll(logits.double() / math.e**log_t, targets),
        bounds=(-5.0, 5.0),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(math.e**found.x)
