"""Beam search for one prompt, without a cache: the algorithm and nothing else.

`kdlib.gpt.beam_search` does the same for a batch, with a cache of keys and values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdlib.checks.seal import reference

__all__ = ["beam_search"]


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
