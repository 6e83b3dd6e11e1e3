"""Unit 01: forward KL covers, reverse KL seeks.

One Gaussian is fitted to a mixture of two, on a grid, by gradient descent on three divergences.
Within a seed all three have the same mixture, start and number of updates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib.evaluation import paired_interval
from kdlib.evidence import headline, store
from kdlib.losses import generalized_jsd, kl_divergence

SEEDS = range(20)
STEPS = 600
GRID = torch.linspace(-8, 8, 801, dtype=torch.float64)
DIVERGENCES = {
    "forward KL(p || q)": lambda p, q: kl_divergence(p, q),
    "reverse KL(q || p)": lambda p, q: kl_divergence(q, p),
    "Jensen-Shannon, beta = 0.5": lambda p, q: generalized_jsd(p, q, 0.5),
}


def normal(mean: Tensor | float, std: Tensor | float) -> Tensor:
    """Give the log-density on the grid, up to the constant that a softmax removes."""
    return -0.5 * ((GRID - mean) / std) ** 2


def mixture(seed: int) -> tuple[Tensor, float, float]:
    """Draw two modes: the log-density on the grid, and the means."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(5, generator=g, dtype=torch.float64)
    left, right = -2 - u[0], 2 + u[1]
    stds = 0.5 + 0.3 * u[2:4]
    weight = 0.35 + 0.3 * u[4]
    parts = torch.stack(
        [normal(left, stds[0]).log_softmax(0), normal(right, stds[1]).log_softmax(0)]
    )
    return (
        torch.logsumexp(parts + torch.stack([weight, 1 - weight]).log()[:, None], 0),
        left.item(),
        right.item(),
    )


def fitted(divergence, target: Tensor, seed: int, steps: int = STEPS) -> tuple[float, float]:
    """Fit mean and standard deviation by Adam from a random start."""
    g = torch.Generator().manual_seed(1000 + seed)
    mean = (4 * torch.rand((), generator=g, dtype=torch.float64) - 2).requires_grad_(True)
    log_std = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_std], 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        divergence(target, normal(mean, log_std.exp())).backward()
        optimizer.step()
    return mean.item(), log_std.exp().item()


def valley_mass(mean: float, std: float, left: float, right: float) -> float:
    """Share of the fit that lies in the middle third between the modes, where p has almost none."""
    q = normal(mean, std).softmax(0)
    third = (right - left) / 3
    inside = (left + third < GRID) & (right - third > GRID)
    return q[inside].sum().item()


def main() -> None:
    """Fit for every seed and store raw numbers and intervals."""
    torch.set_num_threads(1)
    arms: dict[str, dict[str, list[float]]] = {
        name: {"std": [], "valley": []} for name in DIVERGENCES
    }
    target_valley = []
    for seed in SEEDS:
        target, left, right = mixture(seed)
        third = (right - left) / 3
        inside = (left + third < GRID) & (right - third > GRID)
        target_valley.append(target.softmax(0)[inside].sum().item())
        for name, divergence in DIVERGENCES.items():
            mean, std = fitted(divergence, target, seed)
            arms[name]["std"].append(round(std, 4))
            arms[name]["valley"].append(round(valley_mass(mean, std, left, right), 5))
    reverse = arms["reverse KL(q || p)"]
    differences = {
        name: {
            key: [round(v, 4) for v in paired_interval(arm[key], reverse[key])[:3]] for key in arm
        }
        for name, arm in arms.items()
        if arm is not reverse
    }
    for name, found in differences.items():
        print(name, found)
    store(
        "u01_mode_seeking",
        {
            "claim": "standard deviation and share in the valley of the fit, against reverse KL",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "valley_of_the_target": [round(v, 5) for v in target_valley],
            "arms": arms,
            "differences": differences,
        },
        headlines=[
            headline(claim, differences["forward KL(p || q)"][key], unit, "20 mixtures", places=2)
            for claim, key, unit in (
                ("forward KL fits a wider Gaussian to two modes than reverse KL", "std", "std"),
                ("and puts more of its mass where the target has almost none", "valley", "of 1"),
            )
        ],
    )


if __name__ == "__main__":
    main()
