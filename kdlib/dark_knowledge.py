"""What soft targets carry beyond the labels: omitted classes, ensembles, missing labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.seal import reference
from kdlib.divergences import kl_divergence
from kdlib.errors import (
    require_finite,
    require_fraction,
    require_probability,
    require_same_shape,
    require_targets,
    require_temperature,
    require_tensor,
)

__all__ = [
    "class_bias",
    "ensemble_soft_targets",
    "label_smoothing_loss",
    "merge_specialists",
    "transfer_loss",
]


@reference("03.class_bias")
def class_bias(logits: Tensor, class_index: int, share: float) -> float:
    """Find what to add to one class's logit so that it gets its share of the probability.

    mean_n softmax(z_n + b e_c)_c = share

    Hinton, Vinyals, Dean (2015, arXiv 1503.02531, section 3) raised the bias of a class that the
    student had never seen, by the amount that was best on the test set. This rule needs no labels:
    images as they come, and the share of them that belongs to the class. One number is sought and
    the left side grows with it, so bisection finds it.

    Args:
        logits: `(N, C)`, C >= 2.
        class_index: the class c.
        share: between 0 and 1, both excluded.

    Returns:
        b, a Python float, in logits (nats).

    Raises:
        ValueError: `share` is not inside (0, 1), there is no such class, or logits are not finite.
    """
    require_finite(logits, "logits")
    if logits.dim() != 2 or len(logits) == 0 or logits.shape[-1] < 2:
        raise ValueError(f"logits must have shape (N, C) with C >= 2, got {tuple(logits.shape)}")
    if not 0 <= class_index < logits.shape[-1]:
        raise ValueError(f"class_index must lie in 0..{logits.shape[-1] - 1}, got {class_index}")
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must lie inside (0, 1), got {share}")
    z = logits.detach().double()
    others = torch.cat([z[:, :class_index], z[:, class_index + 1 :]], dim=-1)
    lead = z[:, class_index] - others.logsumexp(dim=-1)  # (N,): log-odds of the class
    centre = math.log(share / (1 - share))
    low, high = centre - lead.max().item(), centre - lead.min().item()
    for _ in range(200):
        middle = (low + high) / 2
        if torch.sigmoid(lead + middle).mean() < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@reference("03.ensemble_soft_targets")
def ensemble_soft_targets(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Average what several teachers say, as probabilities.

    p^T = 1/M sum_m softmax(v_m / T)

    The mean of the distributions is the q with the smallest sum of KL(p_m || q); the softmax of
    the mean logits, their geometric mean, has the smallest sum of KL(q || p_m) (Hinton, Vinyals,
    Dean 2015, arXiv 1503.02531, section 5.4). The paper allows either as soft targets (section 1).

    Args:
        logits: the teachers' logits, `(M, ..., C)`.
        temperature: T > 0.

    Returns:
        `(..., C)`; each row sums to one.

    Raises:
        ValueError: fewer than two dimensions, no teacher, T <= 0, or logits are not finite.
    """
    require_finite(logits, "logits")
    require_temperature(temperature)
    if logits.dim() < 2 or len(logits) == 0:
        raise ValueError(f"logits must have shape (M, ..., C), got {tuple(logits.shape)}")
    return torch.softmax(logits / temperature, dim=-1).mean(dim=0)


@reference("03.label_smoothing_loss")
def label_smoothing_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.1) -> Tensor:
    """Label smoothing, written as distillation from a teacher that knows nothing.

    L = (1 - eps) CE(y, q) + eps (KL(u || q) + log C),   u = 1/C, mean over rows

    The same number as the cross-entropy with the targets (1 - eps) onehot + eps/C of Szegedy et
    al. (2015, arXiv 1512.00567, section 7), and so as `F.cross_entropy(..., label_smoothing=eps)`.

    Args:
        logits: `(B, C)`.
        targets: `(B,)`.
        smoothing: eps, between 0 and 1.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: eps outside [0, 1], targets that do not fit, or logits that are not finite.
    """
    require_finite(logits, "logits")
    require_targets(targets, logits)
    require_fraction(smoothing, "smoothing")
    hard = F.nll_loss(logits.log_softmax(dim=-1), targets)
    soft = kl_divergence(torch.zeros_like(logits), logits).mean()
    return (1 - smoothing) * hard + smoothing * (soft + math.log(logits.shape[-1]))


@reference("03.transfer_loss")
def transfer_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float = 2.0,
    alpha: float = 0.9,
) -> Tensor:
    """Distillation loss of a batch in which some rows have no label.

    L = alpha T^2 mean_B KL(p^T || q^T) + (1 - alpha) mean_{labelled} CE(y, q)

    The soft term is a mean over all rows, the hard term a mean over the rows with a label; without
    any the hard term is zero. Hinton, Vinyals, Dean (2015, arXiv 1503.02531): a transfer set may
    have no labels (section 1), or labels for all or some of it (section 2).

    Args:
        student_logits: `(B, C)`.
        teacher_logits: `(B, C)`, a constant.
        targets: `(B,)`; -1 stands for "no label".
        temperature: T > 0, for the soft term only.
        alpha: weight of the soft term, between 0 and 1.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: shapes differ, T <= 0, alpha outside [0, 1], a target below -1 or above C - 1,
            or logits that are not finite.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    require_temperature(temperature)
    require_fraction(alpha, "alpha")
    require_tensor(targets, "targets")
    labelled = targets != -1
    require_targets(targets.where(labelled, 0), student_logits)
    soft = kl_divergence(teacher_logits.detach(), student_logits, temperature).mean()
    loss = alpha * temperature**2 * soft
    if labelled.any():
        loss = loss + (1 - alpha) * F.cross_entropy(student_logits[labelled], targets[labelled])
    return loss


@reference("03.merge_specialists")
def merge_specialists(
    generalist: Tensor, specialists: Sequence[tuple[Sequence[int], Tensor]], steps: int = 200
) -> Tensor:
    """Merge a generalist with specialists that know a few classes and a dustbin.

    q = argmin KL(p^g || q) + sum_m KL(p^m || q)

    Hinton, Vinyals, Dean (2015, arXiv 1503.02531, equation 5): p^m is a distribution over the
    classes of specialist m and one dustbin, and q's probability of the dustbin is the sum over
    all classes in it. The paper descends the gradient of q's logits. Here: share out each dustbin
    among its classes in proportion to q, average all models, repeat; that is the EM algorithm, so
    no step raises the sum.

    Args:
        generalist: probabilities, `(N, C)`.
        specialists: for each its K classes and its probabilities `(N, K + 1)`, the dustbin last.
        steps: rounds.

    Returns:
        `(N, C)`; each row sums to one.

    Raises:
        ValueError: no distributions, shapes that do not fit, or classes that do not exist, repeat,
            or leave nothing for the dustbin.
    """
    require_probability(generalist, "generalist")
    for classes, probs in specialists:
        require_probability(probs, "specialists")
        inside = set(classes)
        if (
            len(inside) != len(classes)
            or not inside < set(range(generalist.shape[-1]))
            or probs.shape != (len(generalist), len(classes) + 1)
        ):
            raise ValueError(
                f"specialists must pair K of {generalist.shape[-1]} classes with probabilities "
                f"({len(generalist)}, K + 1), got {list(classes)} and {tuple(probs.shape)}"
            )
    merged = generalist
    for _ in range(steps if specialists else 0):
        total = generalist
        for classes, probs in specialists:
            full = merged.clone()
            full[:, list(classes)] = 0
            rest = full.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(full.dtype).tiny)
            full = full * probs[:, -1:] / rest
            full[:, list(classes)] = probs[:, :-1]
            total = total + full
        merged = total / (len(specialists) + 1)
    return merged
