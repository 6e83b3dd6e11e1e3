"""Make `fashion_mnist_14.npz` from the original files (Debian's dataset-fashion-mnist)."""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch

from kdlib.assets import FOLDER, register
from kdlib.data import pool

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def read_idx(file: Path) -> torch.Tensor:
    """Read an IDX file of images `(N, 28, 28)` or labels `(N,)`, uint8."""
    with gzip.open(file) as stream:
        raw = np.frombuffer(stream.read(), np.uint8)
    images = raw[3] == 3
    data = torch.from_numpy(raw[16 if images else 8 :].copy())
    return data.reshape(-1, 28, 28) if images else data


def originals(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the pooled images and labels of 'train' or 't10k'."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    return pool(images), read_idx(folder / f"{part}-labels-idx1-ubyte.gz")


def subset(images: torch.Tensor, targets: torch.Tensor, each: int = 2000):
    """Keep the first `each` images of every class, in file order."""
    keep = torch.cat([(targets == c).nonzero().flatten()[:each] for c in range(10)]).sort().values
    return images[keep], targets[keep]


def main() -> None:
    """Write the file and its manifest entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEBIAN)
    folder = parser.parse_args().folder
    train = subset(*originals(folder, "train"))
    test = originals(folder, "t10k")
    name = "fashion_mnist_14.npz"
    np.savez_compressed(
        FOLDER / name,
        train_images=train[0].numpy(),
        train_targets=train[1].numpy(),
        test_images=test[0].numpy(),
        test_targets=test[1].numpy(),
    )
    register(
        name,
        licence="MIT",
        source="Fashion-MNIST, Zalando SE, arXiv 1708.07747",
        recipe="python -m kdlib.recipes.fashion_data",
    )
    print(f"{name}: {(FOLDER / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
