"""Sampling from a language model, a batch at a time, with its cache of keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kdlib.models.gpt import GPT

__all__ = ["generate"]


@torch.no_grad()
def generate(
    model: GPT,
    prompts: Tensor,
    length: int,
    temperature: float = 1.0,
    eos: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue prompts token by token, each drawn from softmax(z / T).

    Args:
        model: in whatever mode it is.
        prompts: `(B, P)`, all of one length.
        length: how many tokens to add.
        temperature: T; 0 takes the most probable token each time (greedy).
        eos: the token that ends a row; after it the row holds `eos` only.
        generator: of the random numbers.

    Returns:
        `(B, P + n)` with n <= length: less where every row has ended.

    Raises:
        ValueError: a negative temperature, no prompt, or more tokens than the context has.
    """
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if prompts.dim() != 2 or prompts.shape[1] == 0:
        raise ValueError(f"prompts must have shape (B, P) with P >= 1, got {tuple(prompts.shape)}")
    cache, rows, new = model.new_cache(), prompts, prompts
    ended = torch.zeros(len(prompts), 1, dtype=torch.bool, device=prompts.device)
    for _ in range(length):
        logits = model(new, cache)[:, -1]  # (B, V)
        if temperature == 0:
            new = logits.argmax(-1, keepdim=True)
        else:
            new = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        if eos is not None:
            new = new.masked_fill(ended, eos)
            ended = ended | (new == eos)
        rows = torch.cat([rows, new], dim=1)
        if eos is not None and bool(ended.all()):
            break
    return rows
