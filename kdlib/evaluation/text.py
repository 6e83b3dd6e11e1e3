"""How well a language model predicts a text, whatever its tokens are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.seal import reference

__all__ = ["bits_per_byte", "text_bits_per_byte"]


@reference("11.bits_per_byte")
def bits_per_byte(logits: Tensor, targets: Tensor, mask: Tensor, token_bytes: Tensor) -> float:
    """Code length per byte of text: the measure that does not depend on the tokenizer.

    BPB = sum_{t valid} - log2 q(y_t | y_<t)  /  sum_{t valid} bytes(y_t)

    A nat per token buys more text in a vocabulary of long tokens than in one of short ones; a byte
    of text is a byte of text. Both sums run over the whole text: a mean of the rows' ratios is not
    the ratio of the sums. A special token such as EOS costs bits and has no bytes.

    Args:
        logits: `(B, T, V)`.
        targets: `(B, T)`.
        mask: `(B, T)`, boolean.
        token_bytes: `(V,)`, bytes of text that each token stands for.

    Returns:
        Bits per byte.

    Raises:
        ValueError: shapes that do not fit, no valid token, or no byte among them.
    """
    from kdlib.losses import valid_rows

    z, y = valid_rows(mask, ("logits", logits), ("targets", targets))
    if token_bytes.shape != logits.shape[-1:]:
        raise ValueError(
            f"token_bytes must have shape ({logits.shape[-1]},), got {tuple(token_bytes.shape)}"
        )
    count = int(token_bytes[y].sum())
    if count == 0:
        raise ValueError("the valid targets must hold at least one byte of text, got none")
    return F.cross_entropy(z.double(), y, reduction="sum").item() / math.log(2) / count


@torch.no_grad()
def text_bits_per_byte(model: nn.Module, ids: Tensor, length: int = 256, rows: int = 256) -> float:
    """Bits per byte of a byte-level language model on a text, without EOS.

    The text is cut into rows of `length` bytes; each is scored from its second byte on.

    Args:
        model: `(B, T) -> (B, T, V)`; its mode is the same afterwards as before.
        ids: `(N,)`, bytes.
        length: of a row.
        rows: at most so many rows are used.

    Raises:
        ValueError: the text is shorter than one row.
    """
    rows = min(rows, len(ids) // length)
    if rows < 1 or length < 2:
        raise ValueError(f"the text must hold a row of {length} >= 2 bytes, got {len(ids)}")
    cut = ids[: rows * length].view(rows, length)
    before = model.training
    model.eval()
    nats = sum(
        F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten(), reduction="sum").item()
        for x in cut.split(32)
    )
    model.train(before)
    return nats / (rows * (length - 1)) / math.log(2)
