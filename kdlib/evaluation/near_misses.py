"""Which wrong answers a network finds nearly right."""

from __future__ import annotations

from torch import Tensor, nn

from kdlib.errors import require_finite, require_targets
from kdlib.seal import reference

__all__ = ["near_misses"]


@reference("02.near_misses")
def near_misses(logits: Tensor, targets: Tensor) -> Tensor:
    """Which wrong classes a network finds nearly right, for each true class.

    M[i, j] = mean over the examples of class i of p_j / (1 - p_i),   M[i, i] = 0

    What is left of each row's probability when the true class is taken out, shared among the
    wrong ones. Computed as a softmax over the wrong classes alone, so that a teacher that is
    certain (p_i = 1 in floating point) does no harm.

    Args:
        logits: the teacher's, `(N, C)`.
        targets: the true classes, `(N,)`; each class occurs at least once.

    Returns:
        `(C, C)`; each row sums to one.

    Raises:
        ValueError: shapes differ, logits are not finite, or a class has no example.
    """
    require_finite(logits, "logits")
    require_targets(targets, logits)
    one_hot = nn.functional.one_hot(targets, logits.shape[-1])
    counts = one_hot.sum(dim=0)
    if (counts == 0).any():
        missing = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"targets must contain every class, got none of {missing}")
    wrong = logits.masked_fill(one_hot.bool(), float("-inf")).softmax(dim=-1)
    return one_hot.T.to(wrong.dtype) @ wrong / counts[:, None]
