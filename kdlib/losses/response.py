"""Losses on the response of a network: its logits.

The teacher is a constant everywhere: no gradient reaches `teacher_logits`. Reductions are means
over rows, never over classes. Notation as in `kdlib.losses.divergences`.
"""

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
)
from kdlib.losses.divergences import kl_divergence, softmax
from kdlib.seal import reference

__all__ = [
    "kd_gradient",
    "kd_loss",
    "label_smoothing_loss",
    "logit_matching_gradient",
    "logit_matching_loss",
]


@reference("02.kd_loss")
def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> Tensor:
    """Distillation loss of Hinton, Vinyals, Dean (2015, arXiv 1503.02531, section 2).

    L = alpha T^2 KL(p^T || q^T) + (1 - alpha) CE(y, q),   mean over rows

    The paper describes the two terms and the factor T^2 in words; writing the soft term as a KL
    instead of a cross-entropy changes the value by the teacher's entropy and no gradient.

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`, a constant.
        targets: class indices, `(...,)`.
        temperature: T > 0, for the soft term only.
        alpha: weight of the soft term, between 0 and 1.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: shapes differ, T <= 0, alpha outside [0, 1], a target outside 0..C-1, no rows,
            or logits that are not finite.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    require_temperature(temperature)
    require_fraction(alpha, "alpha")
    require_targets(targets, student_logits)
    soft = kl_divergence(teacher_logits.detach(), student_logits, temperature).mean()
    rows = student_logits.reshape(-1, student_logits.shape[-1]).to(soft.dtype)
    hard = F.cross_entropy(rows, targets.reshape(-1))
    return alpha * temperature**2 * soft + (1.0 - alpha) * hard


@reference("02.kd_gradient")
def kd_gradient(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Gradient of the soft term with respect to the student's logits, in closed form.

    d KL(p^T || q^T) / d z_i = (q_i^T - p_i^T) / T

    Hinton, Vinyals, Dean 2015, arXiv 1503.02531, equation 2. One row's gradient, without the
    factor T^2 and without the mean over rows.

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`.
        temperature: T > 0.

    Returns:
        `(..., C)`; each row sums to zero.

    Raises:
        ValueError: shapes differ, T <= 0, or logits are not finite.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    require_temperature(temperature)
    q, p = softmax(student_logits, temperature), softmax(teacher_logits, temperature)
    return (q - p) / temperature


@reference("02.logit_matching_gradient")
def logit_matching_gradient(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """What `kd_gradient` tends to at high temperature.

    (z_i - v_i) / (N T^2),   N classes, both rows of logits centred on zero first

    Hinton, Vinyals, Dean 2015, arXiv 1503.02531, equations 3 and 4 (z the student, v the teacher).

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`.
        temperature: T > 0.

    Returns:
        `(..., C)`.

    Raises:
        ValueError: shapes differ, or T <= 0.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    require_temperature(temperature)
    difference = student_logits - teacher_logits
    centred = difference - difference.mean(dim=-1, keepdim=True)
    return centred / (student_logits.shape[-1] * temperature**2)


def logit_matching_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Half the squared distance of the logits (Ba and Caruana 2014, arXiv 1312.6184).

    L = 1/2 ||z_s - z_t||^2,   mean over rows

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`, a constant.

    Returns:
        A scalar, in squared logits.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    return 0.5 * (student_logits - teacher_logits.detach()).square().sum(dim=-1).mean()


@reference("03.label_smoothing_loss")
def label_smoothing_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.1) -> Tensor:
    """Label smoothing, written as distillation from a teacher that knows nothing.

    L = (1 - eps) CE(y, q) + eps (KL(u || q) + log C),   u = 1/C, mean over rows

    The same number as the cross-entropy with the targets (1 - eps) onehot + eps/C of Szegedy et
    al. (2015, arXiv 1512.00567, section 7), and so as `F.cross_entropy(..., label_smoothing=eps)`.

    Args:
        logits: `(B, C)`.
        targets: `(B,)`.
        smoothing: eps, between 0 and 1.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: eps outside [0, 1], targets that do not fit, or logits that are not finite.
    """
    require_finite(logits, "logits")
    require_targets(targets, logits)
    require_fraction(smoothing, "smoothing")
    hard = F.nll_loss(logits.log_softmax(dim=-1), targets)
    soft = kl_divergence(torch.zeros_like(logits), logits).mean()
    return (1 - smoothing) * hard + smoothing * (soft + math.log(logits.shape[-1]))
