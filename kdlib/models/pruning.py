"""Depth pruning: which layers of a decoder matter, and a copy that keeps only some of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from operator import index

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.seal import reference

__all__ = ["block_influence", "keep_layers"]


@reference("16.block_influence")
def block_influence(hidden: Sequence[Tensor], mask: Tensor) -> Tensor:
    """How much each layer turns the hidden states: one minus the mean cosine of before and after.

    BI_l = 1 - mean over the tokens t that count of cos(h_{l,t}, h_{l+1,t})

    Men et al. 2024, arXiv 2403.03853 (ShortGPT), equation (1). 0 for a layer that only scales, up
    to 2 for one that turns every state round.

    Args:
        hidden: the L + 1 hidden states `(B, T, D)` before the first layer, between the layers, and
            after the last one.
        mask: `(B, T)`, boolean: the tokens that count. What stands in the others, NaN too, does
            not matter.

    Returns:
        `(L,)`, without unit.

    Raises:
        ValueError: fewer than two hidden states, shapes that do not fit, or no token that counts.
    """
    if len(hidden) < 2:
        raise ValueError(f"hidden must hold the states around a layer, got {len(hidden)} of them")
    for state in hidden:
        if state.shape[:-1] != mask.shape:
            raise ValueError(
                f"each hidden state must have shape {(*mask.shape, 'D')} to fit the mask, "
                f"got {tuple(state.shape)}"
            )
    if not bool(mask.any()):
        raise ValueError("mask must let at least one token count, got none")
    states = [state[mask] for state in hidden]  # (N, D) each
    return torch.stack([1 - F.cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(states)])


@reference("16.keep_layers")
def keep_layers(model: nn.Module, keep: Sequence[int]) -> nn.Module:
    """Give a copy of a decoder that has only the layers named, in their old order.

    The decoder is laid out as transformers lays it out: `model.model.layers` is a `ModuleList`,
    each layer's `self_attn.layer_idx` is its own place in the cache of keys and values, and
    `model.config.num_hidden_layers` says how many there are. All three fit again in the copy.

    Args:
        model: stays as it is, and shares nothing with the copy.
        keep: the layers' numbers, from 0, in any order.

    Raises:
        ValueError: no layer, a layer twice, or one that the model does not have.
    """
    depth = len(model.model.layers)
    kept = sorted(index(number) for number in keep)
    if not kept or len(set(kept)) < len(kept) or kept[0] < 0 or kept[-1] >= depth:
        raise ValueError(f"keep must name different layers of 0..{depth - 1}, got {list(keep)}")
    student = copy.deepcopy(model)
    student.model.layers = nn.ModuleList(student.model.layers[number] for number in kept)
    for place, layer in enumerate(student.model.layers):
        layer.self_attn.layer_idx = place
    student.config.num_hidden_layers = len(kept)
    return student
