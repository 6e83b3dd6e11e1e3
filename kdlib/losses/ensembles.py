"""Soft targets from many teachers: ensembles and specialists."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdlib.errors import (
    require_finite,
    require_probability,
    require_temperature,
)
from kdlib.seal import reference

__all__ = ["ensemble_soft_targets", "merge_specialists"]


@reference("03.ensemble_soft_targets")
def ensemble_soft_targets(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Average what several teachers say, as probabilities.

    p^T = 1/M sum_m softmax(v_m / T)

    The mean of the distributions is the q with the smallest sum of KL(p_m || q); the softmax of
    the mean logits, their geometric mean, has the smallest sum of KL(q || p_m) (Hinton, Vinyals,
    Dean 2015, arXiv 1503.02531, section 5.4). The paper allows either as soft targets (section 1).

    Args:
        logits: the teachers' logits, `(M, ..., C)`.
        temperature: T > 0.

    Returns:
        `(..., C)`; each row sums to one.

    Raises:
        ValueError: fewer than two dimensions, no teacher, T <= 0, or logits are not finite.
    """
    require_finite(logits, "logits")
    require_temperature(temperature)
    if logits.dim() < 2 or len(logits) == 0:
        raise ValueError(f"logits must have shape (M, ..., C), got {tuple(logits.shape)}")
    return torch.softmax(logits / temperature, dim=-1).mean(dim=0)


@reference("03.merge_specialists")
def merge_specialists(
    generalist: Tensor, specialists: Sequence[tuple[Sequence[int], Tensor]], steps: int = 200
) -> Tensor:
    """Merge a generalist with specialists that know a few classes and a dustbin.

    q = argmin KL(p^g || q) + sum_m KL(p^m || q)

    Hinton, Vinyals, Dean (2015, arXiv 1503.02531, equation 5): p^m is a distribution over the
    classes of specialist m and one dustbin, and q's probability of the dustbin is the sum over
    all classes in it. The paper descends the gradient of q's logits. Here: share out each dustbin
    among its classes in proportion to q, average all models, repeat; that is the EM algorithm, so
    no step raises the sum.

    Args:
        generalist: probabilities, `(N, C)`.
        specialists: for each its K classes and its probabilities `(N, K + 1)`, the dustbin last.
        steps: rounds.

    Returns:
        `(N, C)`; each row sums to one.

    Raises:
        ValueError: no distributions, shapes that do not fit, or classes that do not exist, repeat,
            or leave nothing for the dustbin.
    """
    require_probability(generalist, "generalist")
    for classes, probs in specialists:
        require_probability(probs, "specialists")
        inside = set(classes)
        if (
            len(inside) != len(classes)
            or not inside < set(range(generalist.shape[-1]))
            or probs.shape != (len(generalist), len(classes) + 1)
        ):
            raise ValueError(
                f"specialists must pair K of {generalist.shape[-1]} classes with probabilities "
                f"({len(generalist)}, K + 1), got {list(classes)} and {tuple(probs.shape)}"
            )
    merged = generalist
    for _ in range(steps if specialists else 0):
        total = generalist
        for classes, probs in specialists:
            full = merged.clone()
            full[:, list(classes)] = 0
            rest = full.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(full.dtype).tiny)
            full = full * probs[:, -1:] / rest
            full[:, list(classes)] = probs[:, :-1]
            total = total + full
        merged = total / (len(specialists) + 1)
    return merged
