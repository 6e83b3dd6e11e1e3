"""One short training loop for every experiment on images, the same for all arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.bar import bar
from kdlib.errors import require_finite, require_targets
from kdlib.seal import reference

__all__ = ["History", "accumulation_step", "fit", "fit_tokens"]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class History:
    """What happened: the loss of every step (nats)."""

    losses: list[float] = field(default_factory=list)


def fit(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    teacher_logits: Tensor | None = None,
    loss_fn: Loss | None = None,
    temperature: float = 2.0,
    alpha: float = 0.9,
    label_smoothing: float = 0.0,
    steps: int = 640,
    batch_size: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
    progress: bool | None = None,
) -> History:
    """Train `model` for a fixed number of steps: AdamW, one-cycle schedule, shuffled epochs.

    Without teacher logits the loss is cross-entropy; with them it is `kdlib.losses.kd_loss`, or
    only its soft term where there are no targets; `loss_fn` replaces either. Two runs with the
    same seed see the same batches in the same order.

    Args:
        model: `(B, ...) -> (B, C)`; trained in place, in eval mode afterwards.
        inputs: `(N, ...)`.
        targets: `(N,)` class indices, or None for unlabelled inputs; -1 is left to `loss_fn`.
        teacher_logits: `(N, C)`, row i belongs to input i.
        loss_fn: `loss_fn(student_logits, teacher_logits, targets)` -> scalar.
        temperature: of the soft term.
        alpha: weight of the soft term.
        label_smoothing: for the cross-entropy loss alone.
        steps: updates; the budget.
        batch_size: rows for each update, at most N.
        lr: the schedule's peak.
        seed: of the order of the examples.
        progress: a bar; by default in a notebook or terminal only.

    Returns:
        The losses.

    Raises:
        ValueError: nothing to learn from, lengths that differ, bad targets or logits, label
            smoothing with another loss, a loss that is no scalar.
        FloatingPointError: the loss is NaN or infinite; says at which step.
    """
    if targets is None and teacher_logits is None:
        raise ValueError("fit needs targets or teacher_logits, got neither")
    for name, given in (("targets", targets), ("teacher_logits", teacher_logits)):
        if given is not None and len(given) != len(inputs):
            raise ValueError(f"{name} must have {len(inputs)} rows, as inputs; got {len(given)}")
    if not 0 < batch_size <= len(inputs):
        raise ValueError(f"batch_size must lie in 1..{len(inputs)}, got {batch_size}")
    if steps < 1 or lr <= 0:
        raise ValueError(f"steps must be at least 1 and lr positive, got {steps} and {lr}")
    if label_smoothing and (teacher_logits is not None or loss_fn is not None):
        raise ValueError("label_smoothing is for the cross-entropy loss alone, got another loss")
    if teacher_logits is not None:
        require_finite(teacher_logits, "teacher_logits")
        teacher_logits = teacher_logits.detach()
    checked = targets  # a loss of the caller's own may know rows without a label, marked -1
    if loss_fn is not None and targets is not None:
        checked = targets.where(targets != -1, 0)
    loss_fn = loss_fn or _default_loss(temperature, alpha, label_smoothing)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=max(steps, 10), pct_start=0.2
    )
    history, queue = History(), torch.empty(0, dtype=torch.long)
    model.train()
    for step in bar(range(steps), progress):
        if len(queue) < batch_size:
            queue = torch.randperm(len(inputs), generator=generator)
        batch, queue = queue[:batch_size], queue[batch_size:]
        student_logits = model(inputs[batch])
        y = None if targets is None else targets[batch]
        if step == 0 and targets is not None:  # all of them: a later batch could hold the bad one
            require_targets(
                checked, student_logits[:1].expand(len(targets), *student_logits.shape[1:])
            )
        loss = loss_fn(student_logits, None if teacher_logits is None else teacher_logits[batch], y)
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss_fn must return a scalar tensor, got {got}")
        history.losses.append(loss.item())
        if not math.isfinite(history.losses[-1]):
            raise FloatingPointError(
                f"the loss is {history.losses[-1]} at step {step}; "
                f"lower lr (now {lr:g}) or look at the loss"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    return history


def fit_tokens(
    model: nn.Module,
    draw: Callable[[torch.Generator], Any],
    loss_fn: Callable[[nn.Module, Any], Tensor],
    *,
    steps: int,
    lr: float = 3e-3,
    seed: int = 0,
    progress: bool | None = None,
) -> History:
    """Train a language model for a fixed number of steps: AdamW, warm-up and cosine, clipping.

    Two runs with the same seed draw the same batches in the same order.

    Args:
        model: trained in place, in eval mode afterwards.
        draw: gives the next batch, from a generator that depends on `seed` alone.
        loss_fn: `loss_fn(model, batch)` -> scalar; it runs the student, and the teacher if any.
        steps: updates; the budget.
        lr: the schedule's peak, reached after a tenth of the steps; it ends at a tenth of it.
        seed: of the batches.
        progress: a bar; by default in a notebook or terminal only.

    Returns:
        The losses.

    Raises:
        ValueError: `steps` < 1 or `lr` <= 0.
        FloatingPointError: the loss is NaN or infinite; says at which step.
    """
    if steps < 1 or lr <= 0:
        raise ValueError(f"steps must be at least 1 and lr positive, got {steps} and {lr}")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr, betas=(0.9, 0.98), weight_decay=1e-2, fused=True
    )
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: min(1.0, (i + 1) / warm) * (0.55 + 0.45 * math.cos(math.pi * i / steps)),
    )
    history = History()
    model.train()
    for step in bar(range(steps), progress):
        loss = loss_fn(model, draw(generator))
        history.losses.append(loss.item())
        if not math.isfinite(history.losses[-1]):
            raise FloatingPointError(
                f"the loss is {history.losses[-1]} at step {step}; "
                f"lower lr (now {lr:g}) or look at the loss"
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    return history


@reference("11.accumulation_step")
def accumulation_step(
    model: nn.Module,
    micro_batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
) -> float:
    """Make one update from several micro-batches, the same as from one large batch.

    L = 1/N sum_k sum_{t valid in k} - log q(y_t | y_<t),   N = valid tokens of all micro-batches

    The mean of the micro-batches' means is another number whenever they hold different numbers of
    valid tokens.

    Args:
        model: `(B, T) -> (B, T, V)`.
        micro_batches: (inputs, targets, mask), each `(B, T)`; B and T may differ between them.
        optimizer: of the model's parameters; gradients are cleared first.

    Returns:
        The loss before the update, in nats per token.

    Raises:
        ValueError: no micro-batch, or none with a valid token.
    """
    from kdlib.losses import sequence_nll

    count = sum(int(mask.sum()) for _, _, mask in micro_batches)
    if count == 0:
        raise ValueError("micro_batches must hold at least one valid token, got none")
    optimizer.zero_grad()
    total = 0.0
    for inputs, targets, mask in micro_batches:
        if not bool(mask.any()):
            continue
        loss = sequence_nll(model(inputs), targets, mask, denominator=count)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def _default_loss(temperature: float, alpha: float, label_smoothing: float) -> Loss:
    from kdlib.losses import kd_loss, kl_divergence

    def loss(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        if teacher_logits is None:
            return F.cross_entropy(student_logits, targets, label_smoothing=label_smoothing)
        if targets is None:
            return (
                temperature**2 * kl_divergence(teacher_logits, student_logits, temperature).mean()
            )
        return kd_loss(student_logits, teacher_logits, targets, temperature, alpha)

    return loss
