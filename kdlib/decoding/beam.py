"""Beam search: for one prompt the algorithm and nothing else, for a batch with a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdlib.seal import reference

if TYPE_CHECKING:
    from kdlib.models.gpt import GPT

__all__ = ["beam_search", "beam_search_batch"]


@reference("11.beam_search")
@torch.no_grad()
def beam_search(
    next_logits: Callable[[Tensor], Tensor], prompt: Tensor, length: int, beams: int, eos: int
) -> tuple[Tensor, float]:
    """Look for the continuation y of highest probability, `beams` prefixes at a time.

    score(y) = sum_t log q(y_t | prompt, y_<t)

    Every prefix is extended by every token, and the `beams` extensions with the highest scores
    stay. A prefix that has ended competes on with its score unchanged. One beam is greedy decoding.
    No length penalty.

    Args:
        next_logits: `(K, T) -> (K, V)`, the logits of the token after each row.
        prompt: `(P,)`.
        length: the most tokens to add.
        beams: K.
        eos: the token that ends a row.

    Returns:
        The best row, prompt included and cut after its first new EOS, and its score in nats.

    Raises:
        ValueError: `beams` or `length` < 1.
    """
    if beams < 1 or length < 1:
        raise ValueError(f"beams and length must be at least 1, got {beams} and {length}")
    rows = prompt[None]
    scores = torch.zeros(1, dtype=torch.float64)
    ended = torch.zeros(1, dtype=torch.bool)
    for _ in range(length):
        log_q = next_logits(rows).double().log_softmax(dim=-1)  # (K, V)
        log_q[ended] = float("-inf")
        log_q[ended, eos] = 0.0
        everything = (scores[:, None] + log_q).flatten()
        scores, best = everything.topk(min(beams, int((everything > float("-inf")).sum())))
        parent, token = best // log_q.shape[-1], best % log_q.shape[-1]
        rows = torch.cat([rows[parent], token[:, None]], dim=1)
        ended = ended[parent] | (token == eos)
        if bool(ended.all()):
            break
    row = rows[0]
    stop = (row[len(prompt) :] == eos).nonzero()
    end = len(row) if len(stop) == 0 else len(prompt) + int(stop[0]) + 1
    return row[:end], scores[0].item()


@reference("11.beam_search")
@torch.no_grad()
def beam_search_batch(
    model: GPT, prompts: Tensor, length: int, beams: int = 4, eos: int | None = None
) -> tuple[Tensor, Tensor]:
    """Find a continuation of high probability for each prompt: breadth-first, `beams` wide.

    Keeps the `beams` prefixes with the largest log-probability after every token; a prefix that has
    ended keeps its score. No length penalty, so short continuations are favoured.
    `beams` = 1 is greedy decoding.

    Args:
        model: in whatever mode it is.
        prompts: `(B, P)`, all of one length.
        length: the most tokens to add.
        beams: K, how many prefixes are kept.
        eos: the token that ends a row.

    Returns:
        The best rows, `(B, P + n)`, filled with `eos` after the first one, and the log-probability
        of what was added, `(B,)` in nats.
    """
    if beams < 1:
        raise ValueError(f"beams must be at least 1, got {beams}")
    B, device = len(prompts), prompts.device
    first = torch.arange(B, device=device)[:, None] * beams  # row of each prompt's first beam
    rows = prompts.repeat_interleave(beams, dim=0)  # (B K, P)
    scores = torch.full((B, beams), float("-inf"), device=device)
    scores[:, 0] = 0.0  # at first all beams are the same prompt
    ended = torch.zeros(B * beams, dtype=torch.bool, device=device)
    cache, new = model.new_cache(), rows
    for _ in range(length):
        log_q = model(new, cache)[:, -1].log_softmax(-1)  # (B K, V)
        V = log_q.shape[-1]
        if eos is not None:
            log_q[ended] = float("-inf")
            log_q[ended, eos] = 0.0
        scores, best = (scores.view(-1, 1) + log_q).view(B, beams * V).topk(beams)
        parent = (first + best // V).flatten()
        new = (best % V).view(-1, 1)
        rows = torch.cat([rows[parent], new], dim=1)
        for layer in cache:
            layer["k"], layer["v"] = layer["k"][parent], layer["v"][parent]
        if eos is not None:
            ended = ended[parent] | (new[:, 0] == eos)
            if bool(ended.all()):
                break
    return rows.view(B, beams, -1)[:, 0], scores[:, 0]
