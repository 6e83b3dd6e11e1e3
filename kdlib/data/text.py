"""Text without a download: six novels of Jane Austen, and bytes as tokens.

A token is a byte: V = 257, where 256 is the end of a text (EOS). The same token fills the end of
short rows (pad = EOS), as in many real models, so a mask is made from lengths, never from ids.
"""

from __future__ import annotations

import functools
import lzma
from typing import NamedTuple

import torch
from torch import Tensor

from kdlib.assets import verified

__all__ = ["EOS", "VOCABULARY", "Batch", "austen", "decode", "encode", "pad", "windows"]

EOS = 256
VOCABULARY = 257
PIECES, HELD_OUT = 40, (10, 30)


def encode(text: str, end: bool = False) -> Tensor:
    """Give the UTF-8 bytes of a text as token ids, `(T,)`, with EOS at the end if asked."""
    return torch.tensor([*text.encode("utf-8"), *([EOS] if end else [])], dtype=torch.long)


def decode(ids: Tensor) -> str:
    """Give the text of token ids `(T,)` up to the first EOS; broken UTF-8 shows as �."""
    row = ids.tolist()
    return bytes(row[: row.index(EOS)] if EOS in row else row).decode("utf-8", errors="replace")


class Batch(NamedTuple):
    """Rows of different lengths in one tensor.

    Attributes:
        ids: `(B, T)`, int64, filled with EOS on the right.
        lengths: `(B,)`, tokens of each row that count, its own EOS among them.
    """

    ids: Tensor
    lengths: Tensor


def pad(rows: list[Tensor], fill: int = EOS) -> Batch:
    """Put rows `(T_i,)` into one tensor, filled on the right.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)
    return Batch(ids, torch.tensor([len(row) for row in rows]))


@functools.cache
def _novels() -> Tensor:
    raw = lzma.decompress(verified("austen.txt.xz").read_bytes())
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def austen(train: bool = True, n: int | None = None) -> Tensor:
    """Six novels of Jane Austen (public domain): 3.7 MB to train on, 0.2 MB held out.

    The text is cut into 40 equal pieces, and pieces 10 and 30 are held out. Paragraphs are single
    lines.

    Args:
        train: which part.
        n: only the first n bytes; all when None.

    Returns:
        Token ids, `(N,)`, int64.

    Raises:
        ValueError: `n` is larger than the part.
    """
    text = _novels()
    edges = [i * len(text) // PIECES for i in range(PIECES + 1)]
    part = torch.cat(
        [text[edges[i] : edges[i + 1]] for i in range(PIECES) if (i in HELD_OUT) != train]
    )
    if n is not None and not 0 < n <= len(part):
        raise ValueError(f"n must lie in 1..{len(part)}, got {n}")
    return part[:n].long()


def windows(ids: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    """Cut `count` windows of `length` + 1 tokens out of `ids` (N,) at random places.

    Returns:
        `(count, length + 1)`: inputs are `[:, :-1]`, targets `[:, 1:]`.

    Raises:
        ValueError: the text is shorter than a window.
    """
    if len(ids) <= length:
        raise ValueError(f"a window needs {length + 1} tokens, got {len(ids)}")
    start = torch.randint(len(ids) - length, (count, 1), generator=generator)
    return ids[start + torch.arange(length + 1)]
