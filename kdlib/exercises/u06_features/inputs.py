"""Feature maps and small convolutional networks for the probes."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from kdlib.checks.probes import Diary, draw


def maps(g: torch.Generator, *shape: int) -> Tensor:
    """Draw feature maps (B, C, H, W) whose channels and images differ in size."""
    images, channels = shape[:2]
    size = torch.linspace(0.5, 2.0, images * channels, dtype=torch.float64)
    return draw(g, *shape, scale=1.0) * size.reshape(images, channels, 1, 1) + 0.3


class ConvSpy(nn.Module):
    """Convolution, BatchNorm, ReLU and a head with dropout; remembers how it was called."""

    def __init__(self, seed: int, channels: int, dropout: float, inplace: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(1, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=inplace),
                nn.Dropout(dropout),
            ).double()
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(channels * 16, 3)).double()
            nn.init.uniform_(self.body[1].weight, 0.5, 1.5)
            nn.init.uniform_(self.body[1].bias, -0.5, 0.5)
        self.modes: list[str] = Diary()
        self.graphs: list[bool] = Diary()

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of (B, 1, 4, 4) images, and write down the call."""
        self.modes.append("train" if self.training else "eval")
        logits = self.head(self.body(images))
        self.graphs.append(logits.requires_grad)
        return logits

    @property
    def seen_modes(self) -> str:
        """The modes it was called in, each once."""
        return ", ".join(dict.fromkeys(self.modes)) or "never called"


def hooks_on(*networks: nn.Module) -> int:
    """Count the forward hooks that are on these networks."""
    return sum(len(m._forward_hooks) for network in networks for m in network.modules())


def weights(*modules: nn.Module) -> Tensor:
    """Give all parameters in one vector."""
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


@functools.cache
def warm_up() -> None:
    """Step once: the first optimiser imports much of PyTorch, which is not the student's time."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.Adam([parameter]).step()
