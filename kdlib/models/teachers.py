"""Teachers that ship: trained once by a recipe, loaded as constants."""

from __future__ import annotations

import json
from collections.abc import Callable

from torch import nn

from kdlib.assets import manifest, verified
from kdlib.models.gpt import GPT, GPTConfig
from kdlib.models.vision import FashionTeacher

__all__ = ["load_teacher", "teacher_info"]

_FILES: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "fashion_cnn": ("fashion_cnn.safetensors", FashionTeacher),
    "austen_gpt": (
        "austen_gpt.safetensors",
        lambda: GPT(GPTConfig(width=192, layers=4, heads=6, context=256)),
    ),
    "translators_gpt": (
        "translators_gpt.safetensors",
        lambda: GPT(GPTConfig(vocabulary=14, width=64, layers=2, heads=4, context=16)),
    ),
    "shell_gpt": (
        "shell_gpt.safetensors",
        lambda: GPT(GPTConfig(vocabulary=12, width=32, layers=2, heads=4, context=32)),
    ),
}


def load_teacher(name: str = "fashion_cnn") -> nn.Module:
    """Load a shipped teacher in eval mode, its parameters without gradient.

    Args:
        name: "fashion_cnn" (Fashion-MNIST at 14x14), "austen_gpt" (the bytes of six novels),
            "translators_gpt" (`kdlib.data.translators`) or "shell_gpt"
            (`kdlib.data.shell_game`; it errs); see `teacher_info`.

    Returns:
        `(B, 1, 14, 14) -> (B, 10)`, or a `kdlib.models.GPT`, `(B, T) -> (B, T, V)`; float32.

    Raises:
        ValueError: there is no such teacher, or its file is damaged.
    """
    from safetensors.torch import load_file

    file, factory = _lookup(name)
    model = factory()
    weights = load_file(verified(file))
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    )
    return model.eval().requires_grad_(False)


def teacher_info(name: str = "fashion_cnn") -> dict:
    """Say what a teacher is: its recipe, seed, quality and what it was trained on."""
    from safetensors import safe_open

    file, _ = _lookup(name)
    with safe_open(verified(file), framework="pt") as opened:
        facts = json.loads(opened.metadata()["kdlib"])
    return {**facts, "bytes": manifest()[file]["bytes"]}


def _lookup(name: str) -> tuple[str, Callable[[], nn.Module]]:
    if name not in _FILES:
        raise ValueError(f"no teacher {name!r}; there are {sorted(_FILES)}")
    return _FILES[name]
