"""Divergences between two categorical distributions that are given by their logits.

Notation: p is the teacher, q the student, p^T = softmax(z / T). Every function works on the last
dimension of `(..., C)` tensors, returns one number per row `(...,)` and counts in nats (natural
logarithms). Half-precision inputs are accumulated in float32; float64 stays float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib.errors import (
    require_finite,
    require_probability,
    require_same_shape,
    require_temperature,
)
from kdlib.seal import reference

__all__ = [
    "entropy",
    "generalized_jsd",
    "kl_divergence",
    "log_softmax",
    "soft_cross_entropy",
    "softmax",
    "total_variation",
]


def _accumulate(logits: Tensor, name: str) -> Tensor:
    """Check `logits` and raise float16 or bfloat16 to float32."""
    require_finite(logits, name)
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


@reference("01.log_softmax")
def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities at a temperature, stable for logits of any size.

    log q_i = z_i/T - m - log sum_j exp(z_j/T - m),   m = max_j z_j/T

    Args:
        logits: `(..., C)`.
        temperature: T > 0.

    Returns:
        `(..., C)` in nats.

    Raises:
        ValueError: T is not a positive finite number, or the logits are not finite.
    """
    require_temperature(temperature)
    scaled = _accumulate(logits, "logits") / temperature
    shifted = scaled - scaled.amax(dim=-1, keepdim=True).detach()
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


@reference("00.softmax_with_temperature")
def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities at a temperature (Hinton, Vinyals, Dean 2015, arXiv 1503.02531, equation 1).

    q_i = exp(z_i/T) / sum_j exp(z_j/T)

    Args:
        logits: `(..., C)`.
        temperature: T > 0; a higher T gives a softer distribution.

    Returns:
        `(..., C)`, rows sum to one.

    Raises:
        ValueError: T is not a positive finite number, or the logits are not finite.
    """
    require_temperature(temperature)
    return torch.softmax(_accumulate(logits, "logits") / temperature, dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each row: how undecided the distribution is.

    H(q) = - sum_i q_i log q_i,   between 0 and log C nats

    Args:
        logits: `(..., C)`.

    Returns:
        `(...,)` in nats.

    Raises:
        ValueError: the logits are not finite.
    """
    log_q = torch.log_softmax(_accumulate(logits, "logits"), dim=-1)
    return -(log_q.exp() * log_q).sum(dim=-1)


@reference("01.soft_cross_entropy")
def soft_cross_entropy(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Cross-entropy of each row against a whole distribution instead of one class.

    H(p, q) = - sum_i p_i log q_i

    With a one-hot p this is the usual classification loss.

    Args:
        logits: the student's, `(..., C)`.
        target_probs: p, `(..., C)`, rows sum to one.

    Returns:
        `(...,)` in nats.

    Raises:
        ValueError: shapes differ, logits are not finite, or a row of `target_probs` is no
            distribution.
    """
    require_same_shape(logits, target_probs, ("logits", "target_probs"))
    require_probability(target_probs, "target_probs")
    return -(target_probs * torch.log_softmax(_accumulate(logits, "logits"), dim=-1)).sum(dim=-1)


@reference("01.kl_divergence")
def kl_divergence(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """Forward KL divergence of each row, from the student q to the teacher p.

    KL(p^T || q^T) = sum_i p_i^T (log p_i^T - log q_i^T) >= 0

    It is zero exactly when both agree, it is not symmetric, and
    `torch.nn.functional.kl_div(log q, log p, log_target=True)` takes its arguments the other way
    round.

    Args:
        teacher_logits: `(..., C)`.
        student_logits: `(..., C)`.
        temperature: T > 0, applied to both.

    Returns:
        `(...,)` in nats.

    Raises:
        ValueError: shapes differ, T <= 0, or logits are not finite.
    """
    require_same_shape(teacher_logits, student_logits, ("teacher_logits", "student_logits"))
    require_temperature(temperature)
    log_p = torch.log_softmax(_accumulate(teacher_logits, "teacher_logits") / temperature, dim=-1)
    log_q = torch.log_softmax(_accumulate(student_logits, "student_logits") / temperature, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


@reference("01.generalized_jsd")
def generalized_jsd(
    teacher_logits: Tensor, student_logits: Tensor, beta: float, temperature: float = 1.0
) -> Tensor:
    """Generalised Jensen-Shannon divergence of each row (Agarwal et al. 2023, arXiv 2306.13649).

    JSD_beta(p || q) = beta KL(p || m) + (1 - beta) KL(q || m),   m = beta p + (1 - beta) q

    The mixture is one of probabilities, taken here in log space with `logsumexp`. The value tends
    to zero at both ends of beta, while JSD_beta / beta tends to KL(p || q) as beta goes to 0.

    Args:
        teacher_logits: `(..., C)`.
        student_logits: `(..., C)`.
        beta: weight of the teacher, strictly between 0 and 1.
        temperature: T > 0, applied to both.

    Returns:
        `(...,)` in nats.

    Raises:
        ValueError: shapes differ, beta is outside (0, 1), T <= 0, or logits are not finite.
    """
    require_same_shape(teacher_logits, student_logits, ("teacher_logits", "student_logits"))
    require_temperature(temperature)
    if not 0.0 < beta < 1.0:
        raise ValueError(
            f"beta must lie strictly between 0 and 1, got {beta}; "
            "the limits are forward and reverse KL, see kl_divergence"
        )
    log_p = torch.log_softmax(_accumulate(teacher_logits, "teacher_logits") / temperature, dim=-1)
    log_q = torch.log_softmax(_accumulate(student_logits, "student_logits") / temperature, dim=-1)
    weights = torch.tensor([beta, 1.0 - beta], dtype=log_p.dtype, device=log_p.device).log()
    log_m = torch.logaddexp(log_p + weights[0], log_q + weights[1])
    forward = (log_p.exp() * (log_p - log_m)).sum(dim=-1)
    backward = (log_q.exp() * (log_q - log_m)).sum(dim=-1)
    return beta * forward + (1.0 - beta) * backward


@reference("01.total_variation")
def total_variation(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Total variation distance of each row: the mass that would have to move.

    TV(p, q) = 1/2 sum_i |p_i - q_i|,   between 0 and 1, symmetric

    Pinsker's inequality bounds it by the KL divergence: TV <= sqrt(KL(p || q) / 2).

    Args:
        teacher_logits: `(..., C)`.
        student_logits: `(..., C)`.

    Returns:
        `(...,)`, no unit.

    Raises:
        ValueError: shapes differ, or logits are not finite.
    """
    require_same_shape(teacher_logits, student_logits, ("teacher_logits", "student_logits"))
    p = torch.softmax(_accumulate(teacher_logits, "teacher_logits"), dim=-1)
    q = torch.softmax(_accumulate(student_logits, "student_logits"), dim=-1)
    return 0.5 * (p - q).abs().sum(dim=-1)
