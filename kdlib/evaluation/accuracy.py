"""How good a network is, and how large."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.errors import require_finite, require_targets
from kdlib.seal import reference

__all__ = [
    "ModelSize",
    "accuracy",
    "model_size",
    "nll",
    "pass_at_k",
    "predict",
]


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, batch_size: int = 100) -> Tensor:
    """Run a network over a whole data set in eval mode and without gradient.

    The network's train or eval mode is the same afterwards as before.

    Args:
        model: `(B, ...) -> (B, C)`.
        inputs: `(N, ...)`.
        batch_size: rows for each forward pass.

    Returns:
        Logits, `(N, C)`.

    Raises:
        ValueError: `inputs` is empty.
    """
    if len(inputs) == 0:
        raise ValueError("inputs must hold at least one example, got 0")
    before = model.training
    model.eval()
    try:
        return torch.cat([model(chunk) for chunk in inputs.split(batch_size)])
    finally:
        model.train(before)


@reference("00.accuracy")
def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of rows whose largest logit is that of the true class, between 0 and 1.

    Args:
        logits: `(..., C)`.
        targets: `(...,)`.

    Raises:
        ValueError: targets that do not fit.
    """
    require_targets(targets, logits)
    return (logits.argmax(dim=-1) == targets).double().mean().item()


@reference("00.nll")
def nll(logits: Tensor, targets: Tensor) -> float:
    """Mean negative log-likelihood of the true class, in nats.

    NLL = - mean_n log q_n(y_n)

    Args:
        logits: `(..., C)`.
        targets: `(...,)`.

    Raises:
        ValueError: targets that do not fit, or logits that are not finite.
    """
    require_finite(logits, "logits")
    require_targets(targets, logits)
    rows = logits.reshape(-1, logits.shape[-1]).double()
    return F.cross_entropy(rows, targets.reshape(-1)).item()


class ModelSize(NamedTuple):
    """What a network weighs: numbers, and bytes at the precision they are held in."""

    parameters: int
    bytes: int


def model_size(model: nn.Module) -> ModelSize:
    """Count a network's parameters, and the bytes that they take."""
    parameters = list(model.parameters())
    return ModelSize(
        sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)
    )


@reference("13.pass_at_k")
def pass_at_k(correct: Tensor, k: int) -> float:
    """Share of problems that at least one of k samples solves, estimated without bias.

    pass@k = mean over problems of  1 - C(n - c, k) / C(n, k)
           = mean over problems of  1 - prod_{i = n - c + 1}^{n} (1 - k / i)

    n samples of a problem were drawn and c of them are right; the fraction is the probability that
    k of the n, drawn without replacement, are all wrong. The product needs no large binomials.
    Chen et al. 2021, arXiv 2107.03374, section 2.1.

    Args:
        correct: `(P, n)`, boolean: which samples of which problem are right.
        k: 1 to n.

    Raises:
        ValueError: no problem, a tensor that is not boolean, or k outside 1..n.
    """
    if correct.dtype != torch.bool or correct.dim() != 2 or len(correct) == 0:
        raise ValueError(
            "correct must be boolean of shape (P, n) with P >= 1, "
            f"got {correct.dtype} of shape {tuple(correct.shape)}"
        )
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k must lie in 1..{n}, the samples of a problem; got {k}")
    i = torch.arange(1, n + 1, dtype=torch.float64)
    wrong = n - correct.sum(dim=1, keepdim=True)  # (P, 1)
    none_right = torch.where(i > wrong, 1 - k / i, 1.0).prod(dim=1)  # zero where wrong < k
    return (1 - none_right).mean().item()
