"""A small GPT in one file: configuration, model, and generation with a cache of keys and values.

Decoder-only, pre-norm, rotary positions (Su et al. 2021, arXiv 2104.09864), RMSNorm (Zhang and
Sennrich 2019, arXiv 1910.07467), tied embeddings. In the spirit of nanoGPT: made to be read.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GPT", "GPTConfig", "beam_search", "generate"]

Cache = list[dict[str, Tensor]]


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT.

    Attributes:
        vocabulary: number of tokens, V.
        width: of the residual stream, D.
        layers: number of blocks.
        heads: of attention; D / heads must be even.
        context: the most positions that one call may see.
    """

    vocabulary: int = 257
    width: int = 64
    layers: int = 2
    heads: int = 4
    context: int = 256

    def __post_init__(self) -> None:
        """Refuse a width that does not split into heads of even size."""
        if min(self.vocabulary, self.width, self.layers, self.heads, self.context) < 1:
            raise ValueError(f"every size must be at least 1, got {self}")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of 2 x heads, got {self.width} and {self.heads}"
            )


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turn each pair of features by an angle that grows with position, `(B, H, T, D)`."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angle = positions[:, None] * rates  # (T, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Block(nn.Module):
    """Attention, then an MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        d, self.heads = config.width, config.heads
        self.norm1, self.norm2 = nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.up = nn.Linear(d, 4 * d, bias=False)
        self.down = nn.Linear(4 * d, d, bias=False)

    def forward(
        self, x: Tensor, positions: Tensor, allowed: Tensor | None, cache: dict | None
    ) -> Tensor:
        """`(B, T, D) -> (B, T, D)`; `allowed` (B, 1, T, T) replaces the causal mask."""
        B, T, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, positions), rotate(k, positions)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache["k"], k], 2), torch.cat([cache["v"], v], 2)
            cache["k"], cache["v"] = k, v
        y = F.scaled_dot_product_attention(q, k, v, allowed, is_causal=allowed is None and T > 1)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A language model: `(B, T)` token ids -> `(B, T, V)` logits of the token after each.

    `logits[:, t]` predicts token t + 1: the shift is the caller's, see
    `kdlib.sequence_losses.shift_and_mask`.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        self._initialise()

    def _initialise(self) -> None:
        """Draw weights with standard deviation 1/sqrt(fan in): 0.02 is too small for a tiny net."""
        residual = 0.5 / math.sqrt(2 * self.config.layers)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("out.weight", "down.weight"))
                gain = residual if last else 0.5 if "embedding" in name else 1.0
                nn.init.normal_(weight, std=gain * weight.shape[1] ** -0.5)

    def forward(
        self,
        ids: Tensor,
        cache: Cache | None = None,
        segments: Tensor | None = None,
        hidden: bool = False,
    ) -> Tensor:
        """Give the logits.

        Args:
            ids: `(B, T)`, int64.
            cache: as many dicts as there are blocks, empty at first; `ids` continue what it holds.
            segments: `(B, T)`; a token sees earlier tokens of its own segment only, so that several
                documents can be packed into one row, or padding kept out on the left. Rotary
                positions know distances only: packed or alone, a document gets the same logits.
            hidden: True gives the `(B, T, D)` before the last matrix instead.

        Raises:
            ValueError: more positions than the context has, or segments together with a cache.
        """
        before = cache[0]["k"].shape[2] if cache and cache[0] else 0
        T = ids.shape[1]
        if before + T > self.config.context:
            raise ValueError(f"the context has {self.config.context} tokens, got {before + T}")
        if cache is not None and (segments is not None or (before and T > 1)):
            raise ValueError("a cache takes no segments, and after the prompt one token at a time")
        allowed = None
        if segments is not None:
            causal = torch.ones(T, T, dtype=torch.bool, device=ids.device).tril()
            allowed = (causal & (segments[:, :, None] == segments[:, None, :]))[:, None]
        positions = torch.arange(before, before + T, device=ids.device)
        x = self.embedding(ids) * self.config.width**0.5
        for number, block in enumerate(self.blocks):
            x = block(x, positions, allowed, None if cache is None else cache[number])
        x = self.norm(x)
        return x if hidden else F.linear(x, self.embedding.weight)

    def new_cache(self) -> Cache:
        """Give an empty cache for `forward`."""
        return [{} for _ in self.blocks]

    def facts(self) -> dict[str, int]:
        """Give the configuration as plain data, for a file's metadata."""
        return asdict(self.config)


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


@torch.no_grad()
def beam_search(
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
