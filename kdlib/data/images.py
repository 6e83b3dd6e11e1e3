"""Real data without a download: Fashion-MNIST at 14x14 (a subset ships) and digits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kdlib.assets import verified

__all__ = ["FASHION_CLASSES", "Split", "digits", "fashion_mnist", "pool"]

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MEAN, STD = 0.286, 0.353  # of the 28x28 training images, in units of full white


class Split(NamedTuple):
    """Images and their classes.

    Attributes:
        inputs: `(N, 1, side, side)`, float32, standardised.
        targets: `(N,)`, int64.
        class_names: in the order of the indices.
    """

    inputs: Tensor
    targets: Tensor
    class_names: tuple[str, ...]


def pool(images: Tensor) -> Tensor:
    """Average 2x2 blocks and round: uint8 `(N, 28, 28) -> (N, 14, 14)`."""
    blocks = images.reshape(len(images), 14, 2, 14, 2).to(torch.int32).sum(dim=(2, 4))
    return ((blocks + 2) // 4).to(torch.uint8)


def fashion_mnist(
    train: bool = True,
    n: int | None = None,
    seed: int = 0,
    source: Literal["embedded", "torchvision"] = "embedded",
    root: str | Path = "data",
    download: bool = True,
) -> Split:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747, MIT licence) at 14x14.

    Args:
        train: the training part (20,000 images ship, 2,000 of each class) or the 10,000 test
            images.
        n: a random subset of this size, drawn with `seed`; all when None.
        seed: of the subset.
        source: "embedded", or "torchvision" for all 60,000 training images.
        root: where torchvision keeps its files.
        download: whether torchvision may fetch what is missing.

    Returns:
        Standardised images with their classes.

    Raises:
        ValueError: `n` is larger than the split, or `source` is unknown.
    """
    if source == "embedded":
        import numpy as np

        with np.load(verified("fashion_mnist_14.npz")) as file:
            part = "train" if train else "test"
            pixels = torch.from_numpy(file[f"{part}_images"])
            targets = torch.from_numpy(file[f"{part}_targets"]).long()
    elif source == "torchvision":
        from torchvision.datasets import FashionMNIST

        full = FashionMNIST(str(root), train=train, download=download)
        pixels, targets = pool(full.data), full.targets.long()
    else:
        raise ValueError(f"source must be 'embedded' or 'torchvision', got {source!r}")
    inputs = ((pixels.float() / 255 - MEAN) / STD)[:, None]
    return _subset(Split(inputs, targets, FASHION_CLASSES), n, seed)


def digits(train: bool = True, n: int | None = None, seed: int = 0) -> Split:
    """Handwritten digits at 8x8 from scikit-learn: 1,200 to train on, 597 to test on.

    Args:
        train: which part of a fixed split, stratified by class.
        n: a random subset of this size; all when None.
        seed: of the subset.

    Returns:
        Images in [0, 1] with their classes.

    Raises:
        ValueError: `n` is larger than the split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    parts = train_test_split(
        range(len(data.target)), train_size=1200, stratify=data.target, random_state=0
    )
    keep = torch.tensor(parts[0 if train else 1])
    inputs = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    names = tuple(str(i) for i in range(10))
    split = Split(inputs[keep], torch.tensor(data.target).long()[keep], names)
    return _subset(split, n, seed)


def _subset(split: Split, n: int | None, seed: int) -> Split:
    if n is None:
        return split
    if not 0 < n <= len(split.targets):
        raise ValueError(f"n must lie in 1..{len(split.targets)}, got {n}")
    keep = torch.randperm(len(split.targets), generator=torch.Generator().manual_seed(seed))[:n]
    return Split(split.inputs[keep], split.targets[keep], split.class_names)
