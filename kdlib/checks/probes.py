"""What the probes of several exercises are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def draw(g: torch.Generator, *shape: int, scale: float = 3.0) -> Tensor:
    """Draw float64 numbers from a normal distribution: logits, as a rule."""
    return torch.randn(*shape, generator=g, dtype=torch.float64) * scale


def between(g: torch.Generator, low: int, high: int) -> int:
    """Draw a whole number from `low` to `high`, both included: a size, as a rule."""
    return int(torch.randint(low, high + 1, (), generator=g))


def number(g: torch.Generator, low: float, high: float) -> float:
    """Draw a number between `low` and `high`, of two decimals: a temperature, a weight."""
    return round(low + (high - low) * float(torch.rand(1, generator=g)), 2)


def positive(temperature: float) -> None:
    """Refuse a temperature that is not positive, as every known mistake but one does."""
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


class Diary(list):
    """A list that a deep copy shares: what a copy of a network does is written down, too."""

    def __deepcopy__(self, memo: dict) -> Diary:
        """Give itself."""
        return self


class Spy(nn.Module):
    """A small network with BatchNorm and dropout that remembers how it was called.

    Its inputs are `(B, ...)` with `inputs` numbers in each row.

    Attributes:
        modes: "train" or "eval", for each call.
        graphs: whether autograd recorded it, for each call.
        batches: how many rows went through it, for each call.
    """

    def __init__(
        self, seed: int, hidden: int, dropout: float, inputs: int = 5, classes: int = 4
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, classes),
            ).double()
        self.modes: list[str] = Diary()
        self.graphs: list[bool] = Diary()
        self.batches: list[int] = Diary()

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the logits, and write down the call."""
        self.modes.append("train" if self.training else "eval")
        self.batches.append(len(inputs))
        logits = self.net(inputs.flatten(1))
        self.graphs.append(logits.requires_grad)
        return logits

    @property
    def rows(self) -> int:
        """How many rows went through it in all."""
        return sum(self.batches)

    @property
    def seen_modes(self) -> str:
        """The modes it was called in, each once: "eval", "train, eval" or "never called"."""
        return ", ".join(dict.fromkeys(self.modes)) or "never called"
