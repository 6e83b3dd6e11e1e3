"""On-policy distillation: the student writes, and the teacher marks every token that it wrote.

Notation as in `kdlib.losses.sequences`: p the teacher, a constant; q the student; y a sequence of
tokens, y_<t what stands before token t; all in nats. Two objectives are kept apart here:

    sequence level   KL(q || p) = E_{y ~ q} sum_t [log q(y_t | y_<t) - log p(y_t | y_<t)]
    token level      E_{y ~ q} sum_t KL(q(. | y_<t) || p(. | y_<t)), prefixes taken as given

Their values are equal. Their gradients are not: the first one also knows that what the student
writes now decides which prefixes it will have to continue.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.decoding import generate
from kdlib.errors import require_fraction, require_same_shape, require_tensor
from kdlib.losses import kl_divergence, mask_until_eos, valid_rows
from kdlib.seal import reference

__all__ = [
    "TAIDSchedule",
    "all_sequences",
    "divergence_by_position",
    "on_policy_batch",
    "per_token_loss",
    "reverse_kl_surrogate",
    "table_logits",
    "taid_loss",
    "token_log_probs",
]


@reference("12.taid_loss")
def taid_loss(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, t: float) -> Tensor:
    """Temporally adaptive interpolated distillation (Shing et al. 2025, TAID, arXiv 2501.16937).

    L = 1/N sum_{valid} KL(p_t || q),   p_t = softmax((1 - t) z' + t v)

    z' are the student's own logits, taken as a constant, v the teacher's: a target that starts near
    the student and moves to the teacher as t goes to 1. The mixture is one of logits.

    Args:
        student_logits: z, `(B, T, V)`.
        teacher_logits: v, `(B, T, V)`, a constant.
        mask: `(B, T)`, boolean.
        t: between 0 (the student itself: no loss) and 1 (forward KL).

    Returns:
        A scalar in nats per token.

    Raises:
        ValueError: shapes that do not fit, no valid token, t outside [0, 1], a valid logit not
            finite.
    """
    require_fraction(t, "t")
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    named = ("student_logits", student_logits), ("teacher_logits", teacher_logits.detach())
    z, v = valid_rows(mask, *named)
    target = (1.0 - t) * z.detach() + t * v
    return kl_divergence(target, z).mean()


class TAIDSchedule:
    """How TAID's t grows: with the steps, and faster while the loss falls (arXiv 2501.16937).

    change = (loss before - loss) / loss before
    m <- beta m + (1 - beta) change
    t <- min(end, max(start + (end - start) progress, t + alpha sigmoid(m) (1 - t)))

    Written from the authors' code (SakanaAI/TAID, taid.py), whose defaults these are.

    Attributes:
        t: the present value.
    """

    def __init__(
        self, start: float = 0.4, end: float = 1.0, alpha: float = 5e-4, beta: float = 0.99
    ) -> None:
        for name, value in (("start", start), ("end", end), ("alpha", alpha), ("beta", beta)):
            require_fraction(value, name)
        self.start, self.end, self.alpha, self.beta = start, end, alpha, beta
        self.t, self.momentum, self.before = start, 0.0, math.inf

    def step(self, loss: float, progress: float) -> float:
        """Take the loss of a step and the share of steps done (0 to 1); give the next t."""
        if math.isfinite(self.before):
            change = (self.before - loss) / (self.before + 1e-15)
            self.momentum = self.beta * self.momentum + (1 - self.beta) * change
            more = self.alpha * (1 - self.t) / (1 + math.exp(-self.momentum))
            floor = self.start + (self.end - self.start) * progress
            self.t = min(self.end, max(floor, self.t + more))
        self.before = loss
        return self.t


@reference("12.on_policy_batch")
@torch.no_grad()
def on_policy_batch(
    student: nn.Module,
    rows: Tensor,
    prompt_length: int,
    fraction: float,
    eos: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Give one batch of generalised knowledge distillation (GKD, arXiv 2306.13649, algorithm 1).

    With probability lambda the whole batch is the student's own: it continues the prompts by
    sampling at temperature 1. Otherwise the batch is the data's. No gradient goes through sampling.

    Args:
        student: a `kdlib.models.GPT`; samples in eval mode, and is left in the mode it came in.
        rows: the data, `(B, T)`, prompts of one length with their continuations, filled with `eos`.
        prompt_length: tokens of each row that are given, at least 1.
        fraction: lambda, between 0 and 1.
        eos: the token that ends a row.
        generator: of all random numbers: one to choose, the others to sample.

    Returns:
        Rows `(B, T)`, filled with `eos`, and a boolean mask `(B, T - 1)` of the targets
        `rows[:, 1:]` that count: those after the prompt, up to the first EOS and that too.

    Raises:
        ValueError: `fraction` outside [0, 1], or a prompt that leaves nothing to write.
    """
    require_fraction(fraction, "fraction")
    T = rows.shape[1]
    if not 1 <= prompt_length < T:
        raise ValueError(f"prompt_length must lie in 1..{T - 1}, got {prompt_length}")
    if torch.rand((), generator=generator).item() < fraction:
        before = student.training
        student.eval()
        prompts = rows[:, :prompt_length]
        rows = generate(student, prompts, T - prompt_length, 1.0, eos, generator)
        student.train(before)
        rows = F.pad(rows, (0, T - rows.shape[1]), value=eos)
    mask = torch.zeros(len(rows), T - 1, dtype=torch.bool, device=rows.device)
    mask[:, prompt_length - 1 :] = mask_until_eos(rows[:, prompt_length:], eos)
    return rows, mask


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Give log q(y_t | y_<t) of the tokens that were written: `(B, T, V), (B, T) -> (B, T)`."""
    return logits.log_softmax(dim=-1).gather(-1, targets[..., None])[..., 0]


def _scored(student_log_probs: Tensor, teacher_log_probs: Tensor, mask: Tensor) -> Tensor:
    """Check, and give log p - log q of every token as a constant; zero where the mask is off."""
    names = ("student_log_probs", "teacher_log_probs")
    require_same_shape(student_log_probs, teacher_log_probs, names)
    if student_log_probs.dim() != 2:
        raise ValueError(f"{names[0]} must have shape (B, T), got {tuple(student_log_probs.shape)}")
    pair = zip(names, (student_log_probs, teacher_log_probs), strict=True)
    for name, seen in zip(names, valid_rows(mask, *pair), strict=True):
        if not bool(torch.isfinite(seen).all()):
            raise ValueError(f"{name} must be finite where the mask is on")
    difference = teacher_log_probs.detach() - student_log_probs.detach()
    return torch.where(mask, difference, torch.zeros_like(difference))


@reference("12.reverse_kl_surrogate")
def reverse_kl_surrogate(
    student_log_probs: Tensor, teacher_log_probs: Tensor, mask: Tensor
) -> Tensor:
    """A loss whose expected gradient is that of the sequence-level reverse KL.

    S = 1/B sum_b sum_{t valid} G_t log q(y_t)
    G_t = sum_{t' >= t} [log q(y_t') - log p(y_t')],   a constant: what the rest of the row costs

    For y ~ q the mean of the gradient of S is the gradient of KL(q || p) over whole sequences; the
    value of S means nothing. MiniLLM (Gu et al. 2023, arXiv 2306.08543) starts from
    the same gradient.

    Args:
        student_log_probs: of the tokens that the student sampled, `(B, T)`.
        teacher_log_probs: of the same tokens, `(B, T)`, a constant.
        mask: `(B, T)`, boolean; anything may stand where it is False.

    Returns:
        A scalar: summed over tokens, a mean over rows.

    Raises:
        ValueError: shapes that do not fit, no valid token, or a valid entry not finite.
    """
    cost = -_scored(student_log_probs, teacher_log_probs, mask)
    to_go = cost.flip(1).cumsum(1).flip(1)
    log_q = torch.where(mask, student_log_probs, torch.zeros_like(student_log_probs))
    return (to_go * log_q).sum(dim=1).mean()


@reference("12.per_token_loss")
def per_token_loss(student_log_probs: Tensor, teacher_log_probs: Tensor, mask: Tensor) -> Tensor:
    """The per-token on-policy loss: a policy gradient that looks no further than its own token.

    L = -1/N sum_{t valid} A_t log q(y_t),   A_t = -(log q(y_t) - log p(y_t))

    A_t is a constant. Each token is rewarded for what the teacher thinks of it alone (discount 0).
    For y ~ q the mean of its gradient is that of the token-level reverse KL with the prefixes taken
    as given, not that of the sequence level.

    Arguments and errors as `reverse_kl_surrogate`; the result is a mean over valid tokens.
    """
    advantage = _scored(student_log_probs, teacher_log_probs, mask)
    log_q = torch.where(mask, student_log_probs, torch.zeros_like(student_log_probs))
    return -(advantage * log_q).sum() / mask.sum()


@torch.no_grad()
def divergence_by_position(
    student: nn.Module, teacher: nn.Module, rows: Tensor, start: int, reverse: bool = True
) -> Tensor:
    """Measure how far the two are apart at each position of given rows, `(T - start,)` in nats.

    Entry k is the mean over rows of KL(q || p) (KL(p || q) unless `reverse`) for the token at
    position start + k, after the prefix that the row has. Rows of the data show what training saw;
    rows of the student's own show what it will meet.

    Args:
        student: `(B, T) -> (B, T, V)`.
        teacher: likewise.
        rows: `(N, T)`.
        start: the first position that is looked at, at least 1.
        reverse: which way round.
    """
    require_tensor(rows, "rows")
    total, T = 0.0, rows.shape[1]
    if not 1 <= start < T:
        raise ValueError(f"start must lie in 1..{T - 1}, got {start}")
    for chunk in rows.split(64):
        z, v = (model(chunk[:, :-1])[:, start - 1 :] for model in (student, teacher))
        total = total + (kl_divergence(z, v) if reverse else kl_divergence(v, z)).sum(dim=0)
    return total / len(rows)


def all_sequences(vocabulary: int, length: int, eos: int) -> Tensor:
    """List every row of `length` tokens, `(N, T)`: after the first `eos` there is nothing else."""
    rows = torch.tensor(list(itertools.product(range(vocabulary), repeat=length)))
    after = ~mask_until_eos(rows, eos)
    return rows[(~after | (rows == eos)).all(dim=1)]


def table_logits(table: Tensor, rows: Tensor) -> Tensor:
    """Read a language model that is a table, one row of logits for each prefix: `(N, T, V)`.

    Args:
        table: `(1 + V + ... + V^(T-1), V)`: the empty prefix, then all of one token, and so on.
        rows: token ids, `(N, T)`.
    """
    V, T = table.shape[1], rows.shape[1]
    index, first, found = torch.zeros_like(rows[:, 0]), 0, []
    for t in range(T):
        found.append(table[first + index])
        first += V**t
        index = index * V + rows[:, t]
    return torch.stack(found, dim=1)
