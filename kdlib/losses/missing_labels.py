"""What soft targets teach where labels are missing: a transfer set, a class nobody showed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.errors import (
    require_finite,
    require_fraction,
    require_same_shape,
    require_targets,
    require_temperature,
    require_tensor,
)
from kdlib.losses.divergences import kl_divergence
from kdlib.seal import reference

__all__ = [
    "class_bias",
    "transfer_loss",
]


@reference("03.class_bias")
def class_bias(logits: Tensor, class_index: int, share: float) -> float:
    """Find what to add to one class's logit so that it gets its share of the probability.

    mean_n softmax(z_n + b e_c)_c = share

    Hinton, Vinyals, Dean (2015, arXiv 1503.02531, section 3) raised the bias of a class that the
    student had never seen, by the amount that was best on the test set. This rule needs no labels:
    images as they come, and the share of them that belongs to the class. One number is sought and
    the left side grows with it, so bisection finds it.

    Args:
        logits: `(N, C)`, C >= 2.
        class_index: the class c.
        share: between 0 and 1, both excluded.

    Returns:
        b, a Python float, in logits (nats).

    Raises:
        ValueError: `share` is not inside (0, 1), there is no such class, or logits are not finite.
    """
    require_finite(logits, "logits")
    if logits.dim() != 2 or len(logits) == 0 or logits.shape[-1] < 2:
        raise ValueError(f"logits must have shape (N, C) with C >= 2, got {tuple(logits.shape)}")
    if not 0 <= class_index < logits.shape[-1]:
        raise ValueError(f"class_index must lie in 0..{logits.shape[-1] - 1}, got {class_index}")
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must lie inside (0, 1), got {share}")
    z = logits.detach().double()
    others = torch.cat([z[:, :class_index], z[:, class_index + 1 :]], dim=-1)
    lead = z[:, class_index] - others.logsumexp(dim=-1)  # (N,): log-odds of the class
    centre = math.log(share / (1 - share))
    low, high = centre - lead.max().item(), centre - lead.min().item()
    for _ in range(200):
        middle = (low + high) / 2
        if torch.sigmoid(lead + middle).mean() < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@reference("03.transfer_loss")
def transfer_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float = 2.0,
    alpha: float = 0.9,
) -> Tensor:
    """Distillation loss of a batch in which some rows have no label.

    L = alpha T^2 mean_B KL(p^T || q^T) + (1 - alpha) mean_{labelled} CE(y, q)

    The soft term is a mean over all rows, the hard term a mean over the rows with a label; without
    any the hard term is zero. Hinton, Vinyals, Dean (2015, arXiv 1503.02531): a transfer set may
    have no labels (section 1), or labels for all or some of it (section 2).

    Args:
        student_logits: `(B, C)`.
        teacher_logits: `(B, C)`, a constant.
        targets: `(B,)`; -1 stands for "no label".
        temperature: T > 0, for the soft term only.
        alpha: weight of the soft term, between 0 and 1.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: shapes differ, T <= 0, alpha outside [0, 1], a target below -1 or above C - 1,
            or logits that are not finite.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    require_temperature(temperature)
    require_fraction(alpha, "alpha")
    require_tensor(targets, "targets")
    labelled = targets != -1
    require_targets(targets.where(labelled, 0), student_logits)
    soft = kl_divergence(teacher_logits.detach(), student_logits, temperature).mean()
    loss = alpha * temperature**2 * soft
    if labelled.any():
        loss = loss + (1 - alpha) * F.cross_entropy(student_logits[labelled], targets[labelled])
    return loss
