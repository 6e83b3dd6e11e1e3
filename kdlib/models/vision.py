"""The networks of the vision units: small enough to train in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CNN", "MLP", "FashionTeacher", "ThinDeep", "seeded"]


def seeded(seed: int, factory, *args, **kwargs) -> nn.Module:
    """Build a network whose initial weights depend on `seed` alone.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(*args, **kwargs)


class MLP(nn.Sequential):
    """One hidden layer with ReLU, `(B, 1, side, side) -> (B, classes)`.

    Args:
        hidden: units in the hidden layer.
        pixels: inputs after flattening.
        classes: outputs.
    """

    def __init__(self, hidden: int = 64, pixels: int = 196, classes: int = 10) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )


class CNN(nn.Sequential):
    """Two convolutions of stride 2, then linear: the student, `(B, 1, 14, 14) -> (B, classes)`.

    Args:
        width: channels of the first convolution; the second has twice as many.
        classes: outputs.
    """

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 16, classes),
        )


class FashionTeacher(nn.Module):
    """Six 3x3 convolutions with BatchNorm in three stages, global mean, linear.

    `(B, 1, 14, 14) -> (B, classes)`; the spatial size goes 14, 7, 4.

    Args:
        width: channels of the first stage; later stages have twice and four times as many.
        classes: outputs.
        dropout: before the last layer.
    """

    def __init__(self, width: int = 32, classes: int = 10, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for out, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for step in (stride, 1):
                layers += [
                    nn.Conv2d(channels, out, 3, stride=step, padding=1, bias=False),
                    nn.BatchNorm2d(out),
                    nn.ReLU(),
                ]
                channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of a batch of standardised images."""
        return self.head(self.features(images))


class ThinDeep(nn.Module):
    """Three stages of narrow 3x3 convolutions: the shape of a FitNet (arXiv 1412.6550).

    `(B, 1, 14, 14) -> (B, classes)`; like `FashionTeacher`, the spatial size goes 14, 7, 4.

    Args:
        width: channels of the first stage; later stages have twice and four times as many.
        depth: convolutions in each stage.
        classes: outputs.
        norm: BatchNorm after each convolution (the paper is older than BatchNorm).
    """

    def __init__(
        self, width: int = 8, depth: int = 3, classes: int = 10, norm: bool = True
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 1
        for out, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            layers: list[nn.Module] = []
            for step in (stride, *[1] * (depth - 1)):
                layers.append(nn.Conv2d(channels, out, 3, stride=step, padding=1, bias=not norm))
                layers += [nn.BatchNorm2d(out)] if norm else []
                layers.append(nn.ReLU())
                channels = out
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of a batch of standardised images."""
        return self.head(self.stages(images))
