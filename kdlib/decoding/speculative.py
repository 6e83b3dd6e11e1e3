"""Speculative decoding: a small model drafts tokens, the large one checks them in a single pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdlib.errors import require_finite, require_fraction, require_same_shape
from kdlib.seal import reference

__all__ = ["accept_draft", "acceptance", "generate", "speedup"]


@reference("16.accept_draft")
def accept_draft(drafted: Tensor, q: Tensor, p: Tensor, uniforms: Tensor) -> Tensor:
    """Decide how many drafted tokens stay, and add one token of the large model's own.

    Token x_t stays if u_t q_t(x_t) < p_t(x_t), that is with probability min(1, p/q). At the first
    one that does not, a token is drawn from max(0, p_t - q_t), normalised, and the rest is
    dropped. If all stay, one more is drawn from p_G. The tokens are then distributed exactly as
    the large model's own. Leviathan et al. 2022, arXiv 2211.17192, algorithm 1.

    Args:
        drafted: `(G,)`, tokens drawn from the rows of q.
        q: `(G, V)`, the draft's probabilities.
        p: `(G + 1, V)`, the large model's, with one row more: after the last drafted token.
        uniforms: `(G + 1,)`, numbers in [0, 1). The first G decide about the drafted tokens. The
            last draws the added token: the first whose cumulative probability exceeds it.

    Returns:
        `(n + 1,)`, the n tokens that stay and the added one, 0 <= n <= G.

    Raises:
        ValueError: shapes that do not fit.
    """
    G, V = q.shape
    if p.shape != (G + 1, V) or drafted.shape != (G,) or uniforms.shape != (G + 1,):
        raise ValueError(
            f"for q of shape {(G, V)}, p must be {(G + 1, V)}, drafted {(G,)} and uniforms "
            f"{(G + 1,)}, got {tuple(p.shape)}, {tuple(drafted.shape)}, {tuple(uniforms.shape)}"
        )
    rest = p[G]
    stay = G
    for t, x in enumerate(drafted.tolist()):
        if uniforms[t] * q[t, x] >= p[t, x]:
            rest, stay = (p[t] - q[t]).clamp(min=0), t
            break
    cumulative = rest.cumsum(0)
    added = torch.searchsorted(cumulative, uniforms[G] * cumulative[-1], right=True)
    return torch.cat([drafted[:stay], added.clamp(max=V - 1).view(1)])


@reference("16.acceptance")
def acceptance(
    p_logits: Tensor, q_logits: Tensor, mask: Tensor, temperature: float = 1.0
) -> Tensor:
    """Probability that a drafted token stays: alpha = mean over tokens of sum_i min(p_i, q_i).

    It is one minus the total variation distance of the two distributions at temperature T.
    Leviathan et al. 2022, arXiv 2211.17192, theorem 3.5 and corollary 3.6.

    Args:
        p_logits: `(B, T, V)`, the large model's.
        q_logits: `(B, T, V)`, the draft's.
        mask: `(B, T)`, boolean: the tokens that count.
        temperature: T, of both.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: shapes that do not fit, T that is not positive, or no token that counts.
    """
    require_same_shape(p_logits, q_logits, ("p_logits", "q_logits"))
    if mask.shape != p_logits.shape[:-1]:
        raise ValueError(
            f"mask must have shape {tuple(p_logits.shape[:-1])}, got {tuple(mask.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if not bool(mask.any()):
        raise ValueError("mask must let at least one token count, got none")
    require_finite(p_logits[mask], "p_logits")
    require_finite(q_logits[mask], "q_logits")
    p = (p_logits[mask] / temperature).softmax(-1)
    q = (q_logits[mask] / temperature).softmax(-1)
    return torch.minimum(p, q).sum(-1).mean()


def speedup(alpha: float, drafted: int, cost: float) -> float:
    """Expected speed against plain decoding: (1 - alpha^(G+1)) / ((1 - alpha) (G c + 1)).

    Leviathan et al. 2022, arXiv 2211.17192, theorem 3.8; it takes for granted that checking G + 1
    tokens takes the large model as long as one.

    Args:
        alpha: probability that a drafted token stays.
        drafted: G, tokens drafted for each check.
        cost: c, time of one pass of the draft over time of one pass of the large model.
    """
    require_fraction(alpha, "alpha")
    if drafted < 1 or cost < 0:
        raise ValueError(f"drafted must be >= 1 and cost >= 0, got {drafted} and {cost}")
    tokens = drafted + 1 if alpha == 1 else (1 - alpha ** (drafted + 1)) / (1 - alpha)
    return tokens / (drafted * cost + 1)


@torch.no_grad()
def generate(
    target: Callable[[Tensor], Tensor],
    draft: Callable[[Tensor], Tensor],
    prompt: Tensor,
    length: int,
    drafted: int = 4,
    generator: torch.Generator | None = None,
    accept: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = accept_draft,
) -> tuple[Tensor, int, int]:
    """Continue a prompt by drafting and checking, without a cache: to count, not to be fast.

    Args:
        target: `(1, T) -> (1, T, V)` logits of the large model.
        draft: the same of the small one.
        prompt: `(P,)`.
        length: how many tokens to add at least.
        drafted: G, tokens for each check.
        generator: of the random numbers.
        accept: what decides, see `accept_draft`.

    Returns:
        The tokens, prompt included; how many drafted tokens were looked at; how many stayed.
        One that stands behind a refused token was not looked at.
    """
    row, looked, stayed = prompt, 0, 0
    while len(row) < len(prompt) + length:
        tokens, rows = row, []
        for _ in range(drafted):
            rows.append(draft(tokens[None])[0, -1].float().softmax(-1))
            new = torch.multinomial(rows[-1], 1, generator=generator)
            tokens = torch.cat([tokens, new])
        p = target(tokens[None])[0, len(row) - 1 :].float().softmax(-1)  # (G + 1, V)
        uniforms = torch.rand(drafted + 1, generator=generator, device=prompt.device)
        kept = accept(tokens[len(row) :], torch.stack(rows), p, uniforms)
        looked += min(len(kept), drafted)
        stayed += len(kept) - 1
        row = torch.cat([row, kept])
    return row, looked, stayed
