"""Structure within the logits: the target against the rest, correlations, standardised logits.

The teacher is a constant everywhere: no gradient reaches `teacher_logits`. Notation as in
`kdlib.losses.divergences`; y is the label, a hat stands for a distribution over all classes but y.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.errors import (
    require_finite,
    require_fraction,
    require_same_shape,
    require_targets,
    require_temperature,
)
from kdlib.losses.divergences import kl_divergence, softmax
from kdlib.seal import reference

__all__ = [
    "Split",
    "dist_loss",
    "dkd_loss",
    "pearson",
    "split_kd",
    "standardise",
    "standardised_kd",
]


class Split(NamedTuple):
    """The two halves of a distillation loss, one number for each row, in nats."""

    tckd: Tensor
    nckd: Tensor


def _pair(student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Check both, raise half precision to float32 and make the teacher a constant."""
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    both = (("student_logits", student_logits), ("teacher_logits", teacher_logits))
    for name, logits in both:
        require_finite(logits, name)
    half = (torch.float16, torch.bfloat16)
    z, v = (x.float() if x.dtype in half else x for _, x in both)
    return z, v.detach()


@reference("05.split_kd")
def split_kd(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float = 4.0
) -> Split:
    """Split KL(p^T || q^T) into the target's part and the rest's part.

    TCKD = KL(b_p || b_q),   b = (p_y, 1 - p_y)
    NCKD = KL(p^ || q^),     p^_j = p_j / (1 - p_y) for j != y
    KL(p || q) = TCKD + (1 - p_y) NCKD

    All at temperature T, without the factor T^2. Zhao et al. 2022, arXiv 2203.08679. Computed from
    logits alone: b is the softmax of (z_y, logsumexp of the others) and p^ that of the others, so
    that a row whose p_y rounds to one does no harm.

    Args:
        student_logits: `(..., C)`, C >= 2. With C = 2 the second part is zero whatever is given.
        teacher_logits: `(..., C)`, a constant.
        targets: class indices y, `(...,)`.
        temperature: T > 0.

    Returns:
        TCKD and NCKD, each `(...,)` in nats.

    Raises:
        ValueError: shapes differ, T <= 0, fewer than two classes, a target outside 0..C-1, no rows,
            or logits that are not finite.
    """
    z, v = _pair(student_logits, teacher_logits)
    require_temperature(temperature)
    require_targets(targets, z)
    if z.shape[-1] < 2:
        raise ValueError(f"student_logits must have at least two classes, got {z.shape[-1]}")
    y = targets[..., None]
    others = torch.arange(z.shape[-1] - 1, device=z.device)
    others = others + (others >= y)  # (..., C - 1): every class but y
    binary, rest = [], []
    for logits in (v / temperature, z / temperature):
        rest.append(logits.gather(-1, others))
        binary.append(torch.cat([logits.gather(-1, y), rest[-1].logsumexp(-1, True)], dim=-1))
    return Split(kl_divergence(*binary), kl_divergence(*rest))


@reference("05.dkd_loss")
def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Decoupled distillation loss (Zhao et al. 2022, arXiv 2203.08679).

    L = T^2 (alpha TCKD + beta NCKD),   mean over rows

    The soft term only; the authors add cross-entropy with the labels at weight one. It is plain
    distillation when alpha = 1 and beta = 1 - p_y, which differs from row to row.

    Args:
        student_logits: `(..., C)`, C >= 3.
        teacher_logits: `(..., C)`, a constant.
        targets: class indices, `(...,)`.
        temperature: T > 0.
        alpha: weight of the target's part.
        beta: weight of the rest's part.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: as `split_kd`, or fewer than three classes: with two, NCKD is zero and `beta`
            means nothing.
    """
    tckd, nckd = split_kd(student_logits, teacher_logits, targets, temperature)
    if student_logits.shape[-1] < 3:
        raise ValueError("dkd_loss needs at least 3 classes; with 2 the NCKD is always zero")
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def pearson(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Correlation along the last dimension.

    r = sum_i (a_i - mean a)(b_i - mean b) / (|a - mean a| |b - mean b| + eps)

    Args:
        a: `(..., N)`.
        b: `(..., N)`.
        eps: keeps a constant row's correlation at zero instead of 0/0.

    Returns:
        `(...,)`, between -1 and 1.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(a, b, ("a", "b"))
    a, b = (x - x.mean(dim=-1, keepdim=True) for x in (a, b))
    return (a * b).sum(dim=-1) / (a.norm(dim=-1) * b.norm(dim=-1) + eps)


@reference("05.dist_loss")
def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 4.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """Correlations instead of equality: DIST (Huang et al. 2022, arXiv 2205.10536).

    L = T^2 [beta mean_n (1 - r(p_n., q_n.)) + gamma mean_c (1 - r(p_.c, q_.c))]

    with r Pearson's correlation; p and q at temperature T are matrices of B rows and C columns.

    Args:
        student_logits: `(B, C)`.
        teacher_logits: `(B, C)`, a constant.
        temperature: T > 0.
        beta: weight of the relations between classes, one correlation for each row.
        gamma: weight of the relations between images, one correlation for each column.

    Returns:
        A scalar, between 0 and 2 T^2 (beta + gamma).

    Raises:
        ValueError: not `(B, C)`, shapes differ, T <= 0, or logits that are not finite.
    """
    z, v = _pair(student_logits, teacher_logits)
    if z.dim() != 2:
        raise ValueError(f"student_logits must have shape (B, C), got {tuple(z.shape)}")
    q, p = softmax(z, temperature), softmax(v, temperature)
    inter = 1 - pearson(q, p).mean()
    intra = 1 - pearson(q.T, p.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


@reference("05.standardise")
def standardise(logits: Tensor) -> Tensor:
    """Logits with mean zero and standard deviation one in each row.

    z <- (z - mean z) / (std z + 1e-7),   std with C - 1 in the denominator

    Sun et al. 2024, arXiv 2403.01427; that the standard deviation is the unbiased one, and the
    1e-7, are in the authors' code.

    Args:
        logits: `(..., C)`, C >= 2.

    Returns:
        `(..., C)`; a constant row gives zeros.

    Raises:
        ValueError: fewer than two classes, or logits that are not finite.
    """
    require_finite(logits, "logits")
    if logits.shape[-1] < 2:
        raise ValueError(f"logits must have at least two classes, got {logits.shape[-1]}")
    z = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return (z - z.mean(dim=-1, keepdim=True)) / (z.std(dim=-1, keepdim=True) + 1e-7)


@reference("05.standardised_kd")
def standardised_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float = 2.0,
    alpha: float = 0.9,
) -> Tensor:
    """Distillation loss on standardised logits (Sun et al. 2024, arXiv 2403.01427).

    L = alpha T^2 KL(softmax(s(v)/T) || softmax(s(z)/T)) + (1 - alpha) CE(y, softmax(z))

    with s = `standardise`. The hard term sees the student's own logits.

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`, a constant.
        targets: class indices, `(...,)`.
        temperature: T > 0, what the paper calls the base temperature.
        alpha: weight of the soft term, between 0 and 1.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: shapes differ, T <= 0, alpha outside [0, 1], fewer than two classes, a target
            outside 0..C-1, no rows, or logits that are not finite.
    """
    z, v = _pair(student_logits, teacher_logits)
    require_temperature(temperature)
    require_fraction(alpha, "alpha")
    require_targets(targets, z)
    soft = kl_divergence(standardise(v), standardise(z), temperature).mean()
    hard = F.cross_entropy(z.reshape(-1, z.shape[-1]), targets.reshape(-1))
    return alpha * temperature**2 * soft + (1.0 - alpha) * hard
