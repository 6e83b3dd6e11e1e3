"""Losses on reasoning traces: what follows the prompt is learned, the prompt is not."""

from __future__ import annotations

from torch import Tensor

from kdlib.losses.sequences import sequence_nll, shift_and_mask
from kdlib.seal import reference

__all__ = ["sft_loss", "step_by_step_loss"]


@reference("13.sft_loss")
def sft_loss(logits: Tensor, ids: Tensor, prompt_lengths: Tensor, lengths: Tensor) -> Tensor:
    """Supervised fine-tuning: NLL of the completions alone, a mean over their tokens.

    L = - 1/N sum_b sum_{t = P_b}^{L_b - 1} log q(x_bt | x_b,<t),   N = sum_b (L_b - P_b)

    Row b has P_b tokens of prompt and L_b in all, its EOS among them (positions count from 0).

    Args:
        logits: `(B, T, V)`; those at position t are for token t + 1.
        ids: `(B, T)`, filled on the right with anything, EOS included.
        prompt_lengths: `(B,)`.
        lengths: `(B,)`.

    Returns:
        A scalar in nats per token.

    Raises:
        ValueError: shapes do not fit, or there is no completion in the batch.
    """
    _, targets, mask = shift_and_mask(ids, lengths, prompt_lengths)
    return sequence_nll(logits[:, :-1], targets, mask)


@reference("13.step_by_step_loss")
def step_by_step_loss(
    label_logits: Tensor,
    label_targets: Tensor,
    rationale_logits: Tensor,
    rationale_targets: Tensor,
    weight: float = 1.0,
) -> Tensor:
    """Distilling step-by-step: the answer and the rationale as two tasks of one student.

    L = L_label + lambda L_rationale, each a mean over its own tokens

    Hsieh et al. 2023, arXiv 2305.02301. (Their published code weighs the two as alpha and
    1 - alpha, which is the same up to a factor.)

    Args:
        label_logits: `(B, T, V)`, already those that predict the targets.
        label_targets: `(B, T)`, -100 where a token does not count.
        rationale_logits: `(B, S, V)`.
        rationale_targets: `(B, S)`, -100 where a token does not count.
        weight: lambda >= 0.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: shapes do not fit, a task without a token, or a negative weight.
    """
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    label, rationale = (
        sequence_nll(logits, targets.clamp(min=0), targets != -100)
        for logits, targets in (
            (label_logits, label_targets),
            (rationale_logits, rationale_targets),
        )
    )
    return label + weight * rationale
