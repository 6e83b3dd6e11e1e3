"""Checks of arguments: a `ValueError` that names the argument, what was given and expected."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

__all__ = [
    "require_finite",
    "require_fraction",
    "require_probability",
    "require_same_shape",
    "require_targets",
    "require_temperature",
]


def require_tensor(value: object, name: str) -> Tensor:
    """Give `value` back if it is a tensor, raise `TypeError` otherwise."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    return value


def require_finite(logits: Tensor, name: str) -> None:
    """Refuse anything but a floating-point tensor of at least one dimension without NaN or inf."""
    require_tensor(logits, name)
    if not logits.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {logits.dtype}")
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{name} must have shape (..., C) with C >= 1, got {tuple(logits.shape)}")
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits)).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries")


def require_same_shape(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Refuse two tensors whose shapes differ."""
    require_tensor(a, names[0])
    require_tensor(b, names[1])
    if a.shape != b.shape:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same shape, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def require_temperature(temperature: float) -> None:
    """Refuse a temperature that is not a positive finite number."""
    if not isinstance(temperature, Real) or isinstance(temperature, bool):
        raise TypeError(f"temperature must be a number, got {type(temperature).__name__}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def require_fraction(value: float, name: str) -> None:
    """Refuse a number outside [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")


def require_probability(probs: Tensor, name: str) -> None:
    """Refuse rows that are negative or do not sum to one."""
    require_finite(probs, name)
    if bool((probs < 0).any()):
        raise ValueError(f"{name} must not be negative, got {probs.min().item():.4g}")
    sums = probs.sum(dim=-1)
    off = (sums - 1).abs().max().item() if sums.numel() else 0.0
    if off > (1e-2 if probs.dtype in (torch.float16, torch.bfloat16) else 1e-4):
        raise ValueError(f"{name} must sum to one in each row, got a row that is off by {off:.4g}")


def require_targets(targets: Tensor, logits: Tensor) -> None:
    """Refuse class indices that do not fit `(..., C)` logits, and batches without a row."""
    require_tensor(targets, "targets")
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be class indices of dtype int64, got {targets.dtype}")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets must have shape {tuple(logits.shape[:-1])} to fit logits of shape "
            f"{tuple(logits.shape)}, got {tuple(targets.shape)}"
        )
    if targets.numel() == 0:
        raise ValueError("targets must hold at least one row, got none")
    low, high, classes = targets.min().item(), targets.max().item(), logits.shape[-1]
    if low < 0 or high >= classes:
        raise ValueError(f"targets must lie in 0..{classes - 1}, got {low}..{high}")
