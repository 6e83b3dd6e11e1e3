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

__all__ = ["GPT", "GPTConfig"]

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
    `kdlib.losses.shift_and_mask`.
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
