"""Losses over tokens: shift and mask are explicit, and every mean is one over valid tokens.

Shapes: logits `(B, T, V)`, targets and mask `(B, T)`. A mask is True where a token counts; whatever
stands elsewhere, NaN included, is left out before anything is computed and changes neither value
nor gradient. A mean over valid tokens is the same however rows are padded or packed; for gradient
accumulation pass `denominator`, the valid tokens of all micro-batches together.

Notation as in `kdlib.losses.divergences`: p the teacher, a constant; q the student; all in nats.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.errors import require_fraction, require_same_shape, require_temperature, require_tensor
from kdlib.losses.divergences import generalized_jsd, kl_divergence
from kdlib.seal import reference

__all__ = [
    "cached_kd",
    "jsd",
    "mask_until_eos",
    "reverse_kl",
    "sequence_level_kd",
    "sequence_nll",
    "shift_and_mask",
    "skew_kl",
    "skew_reverse_kl",
    "valid_rows",
    "word_level_kd",
]


@reference("11.shift_and_mask")
def shift_and_mask(
    ids: Tensor, lengths: Tensor, prompt_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Split padded rows into what the model reads, what it should say next, and what counts.

    inputs = ids[:, :-1],   targets = ids[:, 1:],   mask[b, t] = (t + 1 < lengths[b])

    The mask comes from the lengths. Comparing ids with the padding token would drop every true end
    of text where padding and end are the same token.

    Args:
        ids: `(B, T)`, filled on the right with anything.
        lengths: `(B,)`, tokens of each row that are real, the closing EOS among them.
        prompt_lengths: `(B,)`; the first so many tokens of a row are read but not learned.

    Returns:
        inputs, targets and a boolean mask, each `(B, T - 1)`.

    Raises:
        ValueError: shapes do not fit, a length outside 1..T, or T < 2.
    """
    require_tensor(ids, "ids")
    require_tensor(lengths, "lengths")
    if ids.dim() != 2 or ids.shape[1] < 2:
        raise ValueError(f"ids must have shape (B, T) with T >= 2, got {tuple(ids.shape)}")
    for name, given in (("lengths", lengths), ("prompt_lengths", prompt_lengths)):
        if given is None:
            continue
        if given.shape != ids.shape[:1]:
            raise ValueError(f"{name} must have shape ({len(ids)},), got {tuple(given.shape)}")
        if len(ids) and not 1 <= int(given.min()) <= int(given.max()) <= ids.shape[1]:
            raise ValueError(
                f"{name} must lie in 1..{ids.shape[1]}, got {given.min()}..{given.max()}"
            )
    position = torch.arange(1, ids.shape[1], device=ids.device)  # of each target, (T - 1,)
    mask = position < lengths[:, None]
    if prompt_lengths is not None:
        mask = mask & (position >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


@reference("11.sequence_level_kd")
def mask_until_eos(ids: Tensor, eos: int) -> Tensor:
    """Say which generated tokens count, `(B, T) -> (B, T)`: all up to the first EOS, and that too.

    A row without EOS counts whole: it was cut off.
    """
    after = (ids == eos).long().cumsum(dim=1) - (ids == eos).long()
    return after == 0


def valid_rows(mask: Tensor, *named: tuple[str, Tensor]) -> list[Tensor]:
    """Check a mask `(B, T)` and give the valid rows `(N, ...)` of each tensor `(B, T, ...)`.

    Raises:
        ValueError: the mask is not boolean, fits a tensor not, or counts no token.
    """
    require_tensor(mask, "mask")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True where a token counts; got {mask.dtype}")
    for name, given in named:
        require_tensor(given, name)
        if given.shape[: mask.dim()] != mask.shape:
            raise ValueError(
                f"mask must have shape {tuple(given.shape[: mask.dim()])} to fit {name}, "
                f"got {tuple(mask.shape)}"
            )
    if not bool(mask.any()):
        raise ValueError("mask must count at least one token, got none")
    return [given[mask] for _, given in named]


def _mean(values: Tensor, denominator: float | Tensor | None) -> Tensor:
    """Give the mean over valid tokens, or their sum over a denominator that is given."""
    return values.mean() if denominator is None else values.sum() / denominator


def sequence_nll(
    student_logits: Tensor,
    targets: Tensor,
    mask: Tensor,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of the targets, a mean over valid tokens.

    L = - 1/N sum_{t valid} log q(y_t | y_<t)

    With targets that the teacher wrote this is sequence-level distillation (Kim and Rush 2016,
    arXiv 1606.07947); with those of the data it is ordinary training.

    Args:
        student_logits: `(B, T, V)`, already those that predict the targets.
        targets: `(B, T)`.
        mask: `(B, T)`, boolean.
        denominator: N; the number of valid tokens here when None.

    Returns:
        A scalar in nats per token.

    Raises:
        ValueError: shapes that do not fit, or no valid token.
    """
    logits, y = valid_rows(mask, ("student_logits", student_logits), ("targets", targets))
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return _mean(F.cross_entropy(logits, y, reduction="none"), denominator)


@reference("11.sequence_level_kd")
def sequence_level_kd(
    student: Callable[[Tensor], Tensor], prompts: Tensor, outputs: Tensor, eos: int
) -> Tensor:
    """Sequence-level distillation: NLL of what the teacher wrote, given the prompt.

    L = - 1/N sum_{t valid} log q(y_t | x, y_<t),   y = teacher's output

    Kim and Rush 2016, arXiv 1606.07947: the teacher's distribution over whole
    sequences is replaced by its beam search's result. Valid are the tokens of the output up to its
    first EOS and that EOS itself: a student that is not taught to stop never does.

    Args:
        student: `(B, T)` ids -> `(B, T, V)` logits of the token after each.
        prompts: `(B, P)`, all of one length.
        outputs: `(B, N)`, filled with `eos` after the first one.
        eos: the token that ends an output, and fills it.

    Returns:
        A scalar in nats per token.

    Raises:
        ValueError: not the same number of prompts and outputs, or none, or one of them is empty.
    """
    if len(prompts) != len(outputs) or 0 in (*prompts.shape, *outputs.shape):
        raise ValueError(
            "prompts and outputs must be (B, P) and (B, N) with P, N >= 1, "
            f"got {tuple(prompts.shape)} and {tuple(outputs.shape)}"
        )
    rows = torch.cat([prompts, outputs], dim=1)
    logits = student(rows[:, :-1])[:, prompts.shape[1] - 1 :]  # (B, N, V)
    return sequence_nll(logits, outputs, mask_until_eos(outputs, eos))


def _pair(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> list[Tensor]:
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    named = ("student_logits", student_logits), ("teacher_logits", teacher_logits.detach())
    return valid_rows(mask, *named)


@reference("11.word_level_kd")
def word_level_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Word-level distillation: the forward KL of every next-token distribution.

    L = T^2 / N sum_{t valid} KL(p_t^T || q_t^T)

    Kim and Rush 2016, arXiv 1606.07947, write it as a cross-entropy at T = 1; the
    difference is the teacher's entropy, which has no gradient. T^2 as in `kdlib.losses.kd_loss`.

    Args:
        student_logits: `(B, T, V)`.
        teacher_logits: `(B, T, V)`, a constant.
        mask: `(B, T)`, boolean.
        temperature: T > 0.
        denominator: N; the number of valid tokens here when None.

    Returns:
        A scalar in nats per token.

    Raises:
        ValueError: shapes that do not fit, no valid token, T <= 0, or a valid logit not finite.
    """
    require_temperature(temperature)
    z, v = _pair(student_logits, teacher_logits, mask)
    return temperature**2 * _mean(kl_divergence(v, z, temperature), denominator)


def reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Reverse KL of every next-token distribution: it punishes what the teacher would not say.

    L = 1/N sum_{t valid} KL(q_t^T || p_t^T)

    Arguments, result and errors as `word_level_kd`; no factor T^2.
    """
    require_temperature(temperature)
    z, v = _pair(student_logits, teacher_logits, mask)
    return _mean(kl_divergence(z, v, temperature), denominator)


@reference("12.jsd")
def jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    beta: float = 0.5,
    temperature: float = 1.0,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Generalised Jensen-Shannon divergence over tokens (Agarwal et al. 2023, arXiv 2306.13649).

    L = 1/N sum_{t valid} [beta KL(p_t || m_t) + (1 - beta) KL(q_t || m_t)],
    m = beta p + (1 - beta) q

    beta weighs the teacher. At the ends, where the divergence itself is zero, the convention of
    GKD's public implementation holds: beta = 0 is the forward KL(p || q), beta = 1 the reverse.

    Arguments, result and errors as `word_level_kd`; beta between 0 and 1; no factor T^2.
    """
    require_fraction(beta, "beta")
    require_temperature(temperature)
    z, v = _pair(student_logits, teacher_logits, mask)
    if beta == 0.0:
        values = kl_divergence(v, z, temperature)
    elif beta == 1.0:
        values = kl_divergence(z, v, temperature)
    else:
        values = generalized_jsd(v, z, beta, temperature)
    return _mean(values, denominator)


def _skewed(a: Tensor, b: Tensor, alpha: float, denominator: float | Tensor | None) -> Tensor:
    """Give KL(a || alpha a + (1 - alpha) b) from logits, the mixture taken in log space."""
    log_a, log_b = (x.float() if x.dtype != torch.float64 else x for x in (a, b))
    log_a, log_b = log_a.log_softmax(-1), log_b.log_softmax(-1)
    weights = torch.tensor([alpha, 1.0 - alpha], dtype=log_a.dtype, device=log_a.device).log()
    log_m = torch.logaddexp(log_a + weights[0], log_b + weights[1])
    return _mean((log_a.exp() * (log_a - log_m)).sum(-1), denominator)


@reference("12.skew_kl")
def skew_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    alpha: float = 0.1,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Skew KL over tokens (Ko et al. 2024, DistiLLM, arXiv 2402.03898).

    L = 1/N sum_{t valid} KL(p_t || alpha p_t + (1 - alpha) q_t)

    A little of the teacher in the student's place keeps the ratio p / q, and with it the gradient,
    bounded. alpha = 0 is the forward KL.

    Arguments, result and errors as `word_level_kd`; alpha in [0, 1).
    """
    if not 0.0 <= alpha < 1.0:
        raise ValueError(f"alpha must lie in [0, 1), got {alpha}")
    z, v = _pair(student_logits, teacher_logits, mask)
    return _skewed(v, z, alpha, denominator)


def skew_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    alpha: float = 0.1,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Skew reverse KL over tokens (Ko et al. 2024, DistiLLM, arXiv 2402.03898).

    L = 1/N sum_{t valid} KL(q_t || alpha q_t + (1 - alpha) p_t)

    Arguments, result and errors as `skew_kl`; alpha = 0 is the reverse KL.
    """
    if not 0.0 <= alpha < 1.0:
        raise ValueError(f"alpha must lie in [0, 1), got {alpha}")
    z, v = _pair(student_logits, teacher_logits, mask)
    return _skewed(z, v, alpha, denominator)


@reference("16.cached_kd")
def cached_kd(logits: Tensor, tokens: Tensor, log_probs: Tensor, mask: Tensor) -> Tensor:
    """Forward KL against a teacher of whom only the K most probable tokens were kept.

    sum_{i in K} p_i (log p_i - log q_i) + p_r (log p_r - log q_r), p_r = 1 - sum_{i in K} p_i

    a mean over the positions that count. All the other tokens are one event of probability p_r, so
    the loss is a KL divergence between distributions over K + 1 events: never negative, at most
    the full KL (merging events cannot raise it), and equal to it for K = V.

    Args:
        logits: `(B, T, V)`, the student's.
        tokens: `(B, T, K)`, int64: the teacher's K most probable tokens at the same position.
        log_probs: `(B, T, K)`, their log-probabilities, of a softmax over all V.
        mask: `(B, T)`, boolean: the positions that count. The others may hold NaN.

    Returns:
        A scalar, in nats per token. Without a position that counts it is 0, with a zero gradient.

    Raises:
        ValueError: shapes that do not fit.
    """
    B, T, V = logits.shape
    if tokens.shape != log_probs.shape or tokens.shape[:2] != (B, T) or mask.shape != (B, T):
        raise ValueError(
            f"for logits of shape {(B, T, V)}, tokens and log_probs must both be {(B, T, 'K')} and "
            f"mask {(B, T)}, got {tuple(tokens.shape)}, {tuple(log_probs.shape)} and "
            f"{tuple(mask.shape)}"
        )
    z, kept, log_p = logits[mask], tokens[mask], log_probs[mask].to(logits.dtype)
    log_q = z.gather(-1, kept) - z.logsumexp(-1, keepdim=True)
    p = log_p.exp()
    terms = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)
    if kept.shape[-1] < V:
        p_rest = (1 - p.sum(-1)).clamp(min=0)  # cached numbers are rounded
        log_q_rest = z.scatter(-1, kept, float("-inf")).logsumexp(-1) - z.logsumexp(-1)
        terms = terms + torch.special.xlogy(p_rest, p_rest) - p_rest * log_q_rest
    return terms.sum() / max(1, len(terms))
