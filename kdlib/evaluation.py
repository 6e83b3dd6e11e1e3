"""How good a student is, how faithful, how calibrated, and how sure we are of the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.checks.seal import reference
from kdlib.errors import require_finite, require_same_shape, require_targets

__all__ = [
    "Fidelity",
    "Interval",
    "ModelSize",
    "accuracy",
    "agreement",
    "bits_per_byte",
    "ece",
    "fidelity",
    "fit_temperature",
    "model_size",
    "nll",
    "paired_interval",
    "pass_at_k",
    "predict",
    "predictive_kl",
    "reliability_bins",
]


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, batch_size: int = 1000) -> Tensor:
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


class Fidelity(NamedTuple):
    """How faithful a student is: share of equal predictions, and predictive KL in nats."""

    agreement: float
    predictive_kl: float


@reference("04.fidelity")
def fidelity(student_logits: Tensor, teacher_logits: Tensor) -> Fidelity:
    """Give both numbers of Stanton et al. 2021 (arXiv 2106.05945): agreement and predictive KL.

    A = mean_n [argmax q_n = argmax p_n],   D = mean_n KL(p_n || q_n)   at T = 1

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`.

    Raises:
        ValueError: shapes differ, or logits are not finite.
    """
    return Fidelity(
        agreement(student_logits, teacher_logits), predictive_kl(teacher_logits, student_logits)
    )


@reference("04.fidelity")
def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """Share of rows on which both predict the same class (Stanton et al. 2021, arXiv 2106.05945).

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    return (student_logits.argmax(-1) == teacher_logits.argmax(-1)).double().mean().item()


@reference("04.fidelity")
def predictive_kl(teacher_logits: Tensor, student_logits: Tensor) -> float:
    """Mean KL(p || q) of the predictions at T = 1, in nats: the other half of fidelity.

    Args:
        teacher_logits: `(..., C)`.
        student_logits: `(..., C)`.

    Raises:
        ValueError: shapes differ, or logits are not finite.
    """
    from kdlib.divergences import kl_divergence

    return kl_divergence(teacher_logits.double(), student_logits.double()).mean().item()


class Bins(NamedTuple):
    """Predictions by confidence: counts, mean confidence and accuracy of each bin."""

    count: Tensor
    confidence: Tensor
    accuracy: Tensor


@reference("04.ece")
def reliability_bins(logits: Tensor, targets: Tensor, bins: int = 15) -> Bins:
    """Sort predictions into equal-width bins of confidence, for a reliability diagram.

    Args:
        logits: `(N, C)`.
        targets: `(N,)`.
        bins: how many.

    Returns:
        Tensors `(bins,)`; empty bins hold NaN in confidence and accuracy.

    Raises:
        ValueError: `bins` < 1, targets that do not fit, or logits that are not finite.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    require_finite(logits, "logits")
    require_targets(targets, logits)
    confidence, predicted = logits.double().softmax(-1).reshape(-1, logits.shape[-1]).max(-1)
    right = (predicted == targets.reshape(-1)).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    count = torch.bincount(index, minlength=bins).double()
    return Bins(
        count,
        torch.bincount(index, confidence, minlength=bins) / count,
        torch.bincount(index, right, minlength=bins) / count,
    )


@reference("04.ece")
def ece(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al. 2017, arXiv 1706.04599).

    ECE = sum_b |B_b| / N * |accuracy(B_b) - confidence(B_b)|

    Args:
        logits: `(N, C)`.
        targets: `(N,)`.
        bins: how many.

    Raises:
        ValueError: as `reliability_bins`.
    """
    found = reliability_bins(logits, targets, bins)
    gap = (found.accuracy - found.confidence).abs().nan_to_num(0.0)
    return (found.count * gap).sum().item() / found.count.sum().item()


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Find the temperature with the smallest NLL (Guo et al. 2017, arXiv 1706.04599).

    T* = argmin_T NLL(z / T, y)

    NLL is convex in 1/T, so Brent's bounded search over log T in [-5, 5] finds it; where none
    is best (every row right, or labels that contradict the logits) it ends at a bound.

    Args:
        logits: `(N, C)`.
        targets: `(N,)`.

    Raises:
        ValueError: targets that do not fit, or logits that are not finite.
    """
    require_finite(logits, "logits")
    require_targets(targets, logits)
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: nll(logits.double() / math.e**log_t, targets),
        bounds=(-5.0, 5.0),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(math.e**found.x)


class Interval(NamedTuple):
    """A mean with its confidence interval and the number of pairs."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Write as '+1.23 [+0.80, +1.66] (n = 10)'."""
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] (n = {self.n})"


@reference("04.paired_interval")
def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of the paired differences a - b with Student's t interval.

    d_i = a_i - b_i,   mean(d) +- t_{n-1} sd(d) / sqrt(n)

    Pairs share what may vary by luck (the seed: data, initial weights, order of batches), so that
    it cancels.

    Args:
        a: one number for each seed.
        b: the other arm, same seeds in the same order.
        confidence: of the interval.

    Raises:
        ValueError: lengths differ, fewer than two pairs, or confidence outside (0, 1).
    """
    if len(a) != len(b):
        raise ValueError(f"a and b must be pairs, got {len(a)} and {len(b)} numbers")
    if len(a) < 2:
        raise ValueError(f"an interval needs at least 2 pairs, got {len(a)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    from scipy.stats import t

    difference = torch.tensor([x - y for x, y in zip(a, b, strict=True)], dtype=torch.float64)
    n, mean = len(difference), difference.mean().item()
    half = t.ppf((1 + confidence) / 2, n - 1) * difference.std().item() / n**0.5
    return Interval(mean, float(mean - half), float(mean + half), n)


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


@reference("11.bits_per_byte")
def bits_per_byte(logits: Tensor, targets: Tensor, mask: Tensor, token_bytes: Tensor) -> float:
    """Code length per byte of text: the measure that does not depend on the tokenizer.

    BPB = sum_{t valid} - log2 q(y_t | y_<t)  /  sum_{t valid} bytes(y_t)

    A nat per token buys more text in a vocabulary of long tokens than in one of short ones; a byte
    of text is a byte of text. Both sums run over the whole text: a mean of the rows' ratios is not
    the ratio of the sums. A special token such as EOS costs bits and has no bytes.

    Args:
        logits: `(B, T, V)`.
        targets: `(B, T)`.
        mask: `(B, T)`, boolean.
        token_bytes: `(V,)`, bytes of text that each token stands for.

    Returns:
        Bits per byte.

    Raises:
        ValueError: shapes that do not fit, no valid token, or no byte among them.
    """
    from kdlib.sequence_losses import valid_rows

    z, y = valid_rows(mask, ("logits", logits), ("targets", targets))
    if token_bytes.shape != logits.shape[-1:]:
        raise ValueError(
            f"token_bytes must have shape ({logits.shape[-1]},), got {tuple(token_bytes.shape)}"
        )
    count = int(token_bytes[y].sum())
    if count == 0:
        raise ValueError("the valid targets must hold at least one byte of text, got none")
    return F.cross_entropy(z.double(), y, reduction="sum").item() / math.log(2) / count


@torch.no_grad()
def text_bits_per_byte(model: nn.Module, ids: Tensor, length: int = 256, rows: int = 256) -> float:
    """Bits per byte of a byte-level language model on a text, without EOS.

    The text is cut into rows of `length` bytes; each is scored from its second byte on.

    Args:
        model: `(B, T) -> (B, T, V)`; its mode is the same afterwards as before.
        ids: `(N,)`, bytes.
        length: of a row.
        rows: at most so many rows are used.

    Raises:
        ValueError: the text is shorter than one row.
    """
    rows = min(rows, len(ids) // length)
    if rows < 1 or length < 2:
        raise ValueError(f"the text must hold a row of {length} >= 2 bytes, got {len(ids)}")
    cut = ids[: rows * length].view(rows, length)
    before = model.training
    model.eval()
    nats = sum(
        F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten(), reduction="sum").item()
        for x in cut.split(32)
    )
    model.train(before)
    return nats / (rows * (length - 1)) / math.log(2)


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
