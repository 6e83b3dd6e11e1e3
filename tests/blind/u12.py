"""Wrong answers to unit 12, written from the notebook's text."""

import math

import torch
import torch.nn.functional as F

from kdlib.decoding import generate
from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _kl(log_a, log_b):
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def _logs(student_logits, teacher_logits, mask):
    return (
        F.log_softmax(teacher_logits[mask].detach(), -1),
        F.log_softmax(student_logits[mask], -1),
    )


def _mixture(log_p, log_q, share):
    return torch.logaddexp(log_p + math.log(share), log_q + math.log(1 - share))


def _jsd(log_p, log_q, beta):
    if beta == 0:
        return _kl(log_p, log_q)
    if beta == 1:
        return _kl(log_q, log_p)
    log_m = _mixture(log_p, log_q, beta)
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def _unit(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in 0..1, got {value}")


@wrong("12.jsd", "beta weighs the student", "beta weighs the teacher")
def beta_for_the_student(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _jsd(log_p, log_q, 1 - beta).mean()


@wrong("12.jsd", "ends exchanged, the inside right", "0 is KL(p || q), 1 is KL(q || p)")
def ends_exchanged(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _jsd(log_p, log_q, 1 - beta if beta in (0, 1) else beta).mean()


@wrong("12.jsd", "the formula at the ends: zero", "the two ends follow the convention")
def zero_at_the_ends(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    log_m = torch.logaddexp(
        log_p + math.log(max(beta, 1e-12)), log_q + math.log(max(1 - beta, 1e-12))
    )
    return (beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)).mean()


@wrong("12.jsd", "the convention near the ends, too", "at the ends alone")
def convention_near_the_ends(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    beta = 0 if beta < 0.05 else 1 if beta > 0.95 else beta
    return _jsd(log_p, log_q, beta).mean()


@wrong("12.jsd", "mixes log-probabilities", "the mixture is one of probabilities")
def mixed_logs(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    if beta in (0, 1):
        return _jsd(log_p, log_q, beta).mean()
    log_m = beta * log_p + (1 - beta) * log_q
    return (beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)).mean()


@wrong("12.jsd", "weights exchanged in the mixture alone", "m = beta p + (1 - beta) q")
def mixture_exchanged(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    if beta in (0, 1):
        return _jsd(log_p, log_q, beta).mean()
    log_m = _mixture(log_p, log_q, 1 - beta)
    return (beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)).mean()


@wrong("12.jsd", "probabilities with an epsilon", "the logits may be in the thousands")
def outside_log_space(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    p = teacher_logits[mask].detach().softmax(-1) + 1e-9
    q = student_logits[mask].softmax(-1) + 1e-9
    return _jsd(p.log(), q.log(), beta).mean()


@wrong("12.jsd", "masks with torch.where after the divergence", "nor your gradient")
def where_afterwards(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p = F.log_softmax(teacher_logits.detach(), -1)
    log_q = F.log_softmax(student_logits, -1)
    return torch.where(mask, _jsd(log_p, log_q, beta), 0.0).sum() / mask.sum()


@wrong("12.jsd", "a mean over all positions", "the tokens that count")
def mean_over_positions(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _jsd(log_p, log_q, beta).sum() / mask.numel()


@wrong("12.jsd", "refuses the ends", "a beta outside 0..1 raises, the ends do not")
def ends_refused(student_logits, teacher_logits, mask, beta=0.5):
    if not 0 < beta < 1:
        raise ValueError(f"beta must be in (0, 1), got {beta}")
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _jsd(log_p, log_q, beta).mean()


@wrong("12.jsd", "the teacher's graph is kept", "the teacher is a constant")
def teacher_learns(student_logits, teacher_logits, mask, beta=0.5):
    _unit("beta", beta)
    log_p = F.log_softmax(teacher_logits[mask], -1)
    return _jsd(log_p, F.log_softmax(student_logits[mask], -1), beta).mean()


def _alpha(alpha):
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must be in [0, 1), got {alpha}")


def _skew(log_p, log_q, alpha):
    return _kl(log_p, log_q if alpha == 0 else _mixture(log_p, log_q, alpha))


@wrong("12.skew_kl", "alpha is the student's share", "alpha p + (1 - alpha) q")
def share_exchanged(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    if alpha == 0:
        return _kl(log_p, log_q).mean()
    return _kl(log_p, _mixture(log_p, log_q, 1 - alpha)).mean()


@wrong("12.skew_kl", "KL from the mixture", "KL(p || mixture)")
def from_the_mixture(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    log_m = log_q if alpha == 0 else _mixture(log_p, log_q, alpha)
    return _kl(log_m, log_p).mean()


@wrong("12.skew_kl", "skew reverse KL", "the teacher in front")
def skew_reverse(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _skew(log_q, log_p, alpha).mean()


@wrong("12.skew_kl", "alpha = 1 is allowed", "1 is refused with a ValueError")
def one_allowed(student_logits, teacher_logits, mask, alpha=0.1):
    _unit("alpha", alpha)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    if alpha == 1:
        return (log_q * 0).sum()
    return _skew(log_p, log_q, alpha).mean()


@wrong("12.skew_kl", "alpha = 0 is refused", "0 gives the forward KL")
def zero_refused(student_logits, teacher_logits, mask, alpha=0.1):
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _skew(log_p, log_q, alpha).mean()


@wrong("12.skew_kl", "negative alpha passes", "alpha lies in [0, 1)")
def negative_passes(student_logits, teacher_logits, mask, alpha=0.1):
    if alpha >= 1:
        raise ValueError(f"alpha must be below one, got {alpha}")
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _skew(log_p, log_q, max(alpha, 0)).mean()


@wrong("12.skew_kl", "mixes logits", "alpha p + (1 - alpha) q")
def mixed_logits(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    v, z = teacher_logits[mask].detach(), student_logits[mask]
    log_m = F.log_softmax(alpha * v + (1 - alpha) * z, -1)
    return _kl(F.log_softmax(v, -1), log_m).mean()


@wrong("12.skew_kl", "straight through: gradient of the student alone", "through the mixture")
def straight_through(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    log_m = log_q if alpha == 0 else _mixture(log_p, log_q, alpha)
    return _kl(log_p, log_q + (log_m - log_q).detach()).mean()


@wrong("12.skew_kl", "mean of row means", "a mean over the tokens that count")
def skew_row_means(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    rows = []
    for z, v, m in zip(student_logits, teacher_logits, mask, strict=True):
        if m.any():
            rows.append(_skew(*_logs(z, v, m), alpha).mean())
    return torch.stack(rows).mean()


@wrong("12.skew_kl", "log of a mixture of probabilities, clamped", "logits in the thousands")
def clamped_mixture(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    m = (alpha * log_p.exp() + (1 - alpha) * log_q.exp()).clamp_min(1e-8)
    return _kl(log_p, m.log()).mean()


@wrong("12.skew_kl", "alpha ignored: 0.1 of the paper", "alpha is an argument")
def paper_alpha(student_logits, teacher_logits, mask, alpha=0.1):
    _alpha(alpha)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _skew(log_p, log_q, 0.1 if alpha else 0).mean()


def _taid(z, v, t, own=None):
    own = z.detach() if own is None else own
    log_t = F.log_softmax((1 - t) * own + t * v.detach(), -1)
    return _kl(log_t, F.log_softmax(z, -1))


@wrong("12.taid_loss", "the student in the target is not detached", "z' is a constant")
def target_follows(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    z = student_logits[mask]
    return _taid(z, teacher_logits[mask], t, own=z).mean()


@wrong("12.taid_loss", "t is the student's share", "(1 - t) z' + t v")
def t_reversed(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    return _taid(student_logits[mask], teacher_logits[mask], 1 - t).mean()


@wrong("12.taid_loss", "mixes probabilities", "the mixture is one of logits")
def taid_probabilities(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    p_t = t * log_p.exp() + (1 - t) * log_q.exp().detach()
    return (torch.xlogy(p_t, p_t) - p_t * log_q).sum(-1).mean()


@wrong("12.taid_loss", "mixes log-probabilities and does not normalise", "a softmax of the mixture")
def not_normalised(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    log_p, log_q = _logs(student_logits, teacher_logits, mask)
    return _kl((1 - t) * log_q.detach() + t * log_p, log_q).mean()


@wrong("12.taid_loss", "cross-entropy for KL", "at t = 0 value and gradient are zero")
def taid_cross_entropy(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    z = student_logits[mask]
    p_t = ((1 - t) * z.detach() + t * teacher_logits[mask].detach()).softmax(-1)
    return -(p_t * F.log_softmax(z, -1)).sum(-1).mean()


@wrong("12.taid_loss", "reverse", "KL(p_t || q)")
def taid_reverse(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    z = student_logits[mask]
    log_t = F.log_softmax((1 - t) * z.detach() + t * teacher_logits[mask].detach(), -1)
    return _kl(F.log_softmax(z, -1), log_t).mean()


@wrong("12.taid_loss", "starts at 0.4 whatever t is", "t is an argument")
def never_below(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    return _taid(student_logits[mask], teacher_logits[mask], max(t, 0.4)).mean()


@wrong("12.taid_loss", "any t passes", "a t outside 0..1 raises a ValueError")
def any_t(student_logits, teacher_logits, mask, t):
    return _taid(student_logits[mask], teacher_logits[mask], min(max(t, 0.0), 1.0)).mean()


@wrong("12.taid_loss", "the padding set to zero, and counted", "a mean over the tokens that count")
def padding_counted(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    v = teacher_logits.masked_fill(~mask[..., None], 0.0)
    z = student_logits.masked_fill(~mask[..., None], 0.0)
    return _taid(z, v, t).mean()


@wrong("12.taid_loss", "divides by the rows", "a mean over the tokens that count")
def per_row(student_logits, teacher_logits, mask, t):
    _unit("t", t)
    return _taid(student_logits[mask], teacher_logits[mask], t).sum() / len(mask)


def _until_eos(part, eos):
    return (part == eos).cumsum(1) - (part == eos).long() == 0


def _mask(rows, prompt_length, eos):
    before = torch.zeros(len(rows), prompt_length - 1, dtype=torch.bool)
    return torch.cat([before, _until_eos(rows[:, prompt_length:], eos)], 1)


def _write(student, rows, prompt_length, eos, generator, temperature=1.0):
    mode, width = student.training, rows.shape[1]
    student.eval()
    with torch.no_grad():
        rows = generate(
            student, rows[:, :prompt_length], width - prompt_length, temperature, eos, generator
        )
    student.train(mode)
    return F.pad(rows, (0, width - rows.shape[1]), value=eos)


def _coin(fraction, generator):
    return torch.rand(1, generator=generator).item() < fraction


@wrong("12.on_policy_batch", "the coin reversed", "with probability `fraction` the student")
def coin_reversed(student, rows, prompt_length, fraction, eos, generator):
    if not _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, generator)
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "a coin for each row", "one coin for the batch")
def coin_for_each_row(student, rows, prompt_length, fraction, eos, generator):
    own = torch.rand(len(rows), generator=generator) < fraction
    if own.any():
        rows = rows.clone()
        rows[own] = _write(student, rows[own], prompt_length, eos, generator)
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "the global random numbers for the coin", "from `generator`")
def global_coin(student, rows, prompt_length, fraction, eos, generator):
    if torch.rand(1).item() < fraction:
        rows = _write(student, rows, prompt_length, eos, generator)
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "generator not handed on", "sampling from `generator`")
def sampling_ungoverned(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, None)
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "greedy", "sampling at temperature 1")
def greedy(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, generator, temperature=0.0)
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "leaves the student in train mode", "in the mode in which it came")
def left_training(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, generator)
        student.train()
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "writes in the mode it came in", "the student writes in eval mode")
def writes_as_it_comes(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        width = rows.shape[1]
        with torch.no_grad():
            rows = generate(
                student, rows[:, :prompt_length], width - prompt_length, 1.0, eos, generator
            )
        rows = F.pad(rows, (0, width - rows.shape[1]), value=eos)
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "not filled up", "rows (B, T)")
def not_filled(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        mode = student.training
        student.eval()
        with torch.no_grad():
            rows = generate(
                student,
                rows[:, :prompt_length],
                rows.shape[1] - prompt_length,
                1.0,
                eos,
                generator,
            )
        student.train(mode)
    return rows, _mask(rows, prompt_length, eos)


@wrong("12.on_policy_batch", "filled up with zeros", "fill up with `eos`")
def filled_with_zeros(student, rows, prompt_length, fraction, eos, generator):
    width = rows.shape[1]
    if _coin(fraction, generator):
        mode = student.training
        student.eval()
        with torch.no_grad():
            rows = generate(
                student, rows[:, :prompt_length], width - prompt_length, 1.0, eos, generator
            )
        student.train(mode)
    mask = F.pad(_mask(rows, prompt_length, eos), (0, width - rows.shape[1]))
    return F.pad(rows, (0, width - rows.shape[1])), mask


@wrong("12.on_policy_batch", "the EOS is not marked", "up to the first EOS and that too")
def eos_unmarked(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, generator)
    return rows, _mask(rows, prompt_length, eos) & (rows[:, 1:] != eos)


@wrong("12.on_policy_batch", "the mask one column late", "targets rows[:, 1:]")
def mask_one_late(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, generator)
    before = torch.zeros(len(rows), prompt_length, dtype=torch.bool)
    after = _until_eos(rows[:, prompt_length:], eos)[:, :-1]
    return rows, torch.cat([before, after], 1)


@wrong("12.on_policy_batch", "looks for EOS from the row's start", "tokens after the prompt")
def eos_in_the_prompt(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, generator)
    mask = _until_eos(rows, eos)[:, 1:]
    mask[:, : prompt_length - 1] = False
    return rows, mask


@wrong("12.on_policy_batch", "all of the data's rows count", "up to the first EOS, data's rows too")
def data_rows_whole(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows = _write(student, rows, prompt_length, eos, generator)
        return rows, _mask(rows, prompt_length, eos)
    mask = torch.ones_like(rows[:, 1:], dtype=torch.bool)
    mask[:, : prompt_length - 1] = False
    return rows, mask


@wrong("12.on_policy_batch", "writes into the data", "rows are data; return the rows")
def writes_into_the_data(student, rows, prompt_length, fraction, eos, generator):
    if _coin(fraction, generator):
        rows[:] = _write(student, rows, prompt_length, eos, generator)
    return rows, _mask(rows, prompt_length, eos)


def _cost(student_log_probs, teacher_log_probs, mask):
    q = student_log_probs.masked_fill(~mask, 0.0)
    return q, (q - teacher_log_probs.masked_fill(~mask, 0.0)).detach()


def _to_the_end(cost):
    return cost.flip(1).cumsum(1).flip(1)


@wrong("12.reverse_kl_surrogate", "sums from the left", "G_t: from t on")
def from_the_left(student_log_probs, teacher_log_probs, mask):
    q, cost = _cost(student_log_probs, teacher_log_probs, mask)
    return (cost.cumsum(1) * q).sum(1).mean()


@wrong("12.reverse_kl_surrogate", "G_t without the token itself", "t' >= t")
def without_itself(student_log_probs, teacher_log_probs, mask):
    q, cost = _cost(student_log_probs, teacher_log_probs, mask)
    return ((_to_the_end(cost) - cost) * q).sum(1).mean()


@wrong("12.reverse_kl_surrogate", "G not detached", "G_t is a constant")
def not_detached(student_log_probs, teacher_log_probs, mask):
    q = student_log_probs.masked_fill(~mask, 0.0)
    cost = q - teacher_log_probs.detach().masked_fill(~mask, 0.0)
    return (_to_the_end(cost) * q).sum(1).mean()


@wrong("12.reverse_kl_surrogate", "mean over tokens", "a mean over rows")
def mean_over_tokens(student_log_probs, teacher_log_probs, mask):
    q, cost = _cost(student_log_probs, teacher_log_probs, mask)
    return (_to_the_end(cost) * q).sum() / mask.sum()


@wrong("12.reverse_kl_surrogate", "the sign of a reward", "log q - log p")
def sign_of_a_reward(student_log_probs, teacher_log_probs, mask):
    q, cost = _cost(student_log_probs, teacher_log_probs, mask)
    return -(_to_the_end(cost) * q).sum(1).mean()


@wrong(
    "12.reverse_kl_surrogate", "multiplies by the mask after subtracting", "minus infinity there"
)
def masked_by_product(student_log_probs, teacher_log_probs, mask):
    cost = ((student_log_probs - teacher_log_probs) * mask).detach()
    return (_to_the_end(cost) * student_log_probs * mask).sum(1).mean()


@wrong("12.reverse_kl_surrogate", "charges tokens that do not count", "the sum over counted tokens")
def prompt_charged(student_log_probs, teacher_log_probs, mask):
    _, cost = _cost(student_log_probs, teacher_log_probs, mask)
    return (_to_the_end(cost) * student_log_probs).sum(1).mean()


@wrong("12.reverse_kl_surrogate", "the naive estimate", "the gradient of what is written")
def naive(student_log_probs, teacher_log_probs, mask):
    q = student_log_probs.masked_fill(~mask, 0.0)
    return (q - teacher_log_probs.detach().masked_fill(~mask, 0.0)).sum(1).mean()


@wrong("12.reverse_kl_surrogate", "G divided by the tokens left", "G_t is a sum")
def mean_to_the_end(student_log_probs, teacher_log_probs, mask):
    q, cost = _cost(student_log_probs, teacher_log_probs, mask)
    left = _to_the_end(mask.to(q.dtype)).clamp(min=1)
    return (_to_the_end(cost) / left * q).sum(1).mean()


@wrong("12.per_token_loss", "the sign of the advantage", "L = -mean A log q, A = -(log q - log p)")
def advantage_sign(student_log_probs, teacher_log_probs, mask):
    q, p = student_log_probs[mask], teacher_log_probs[mask]
    return -((q - p).detach() * q).mean()


@wrong("12.per_token_loss", "the advantage with its graph", "A_t a constant")
def advantage_with_graph(student_log_probs, teacher_log_probs, mask):
    q, p = student_log_probs[mask], teacher_log_probs[mask].detach()
    return ((q - p) * q).mean()


@wrong("12.per_token_loss", "mean over rows", "a mean over the tokens that count")
def token_loss_per_row(student_log_probs, teacher_log_probs, mask):
    q, p = student_log_probs[mask], teacher_log_probs[mask]
    return ((q - p).detach() * q).sum() / len(mask)


@wrong("12.per_token_loss", "mean over all positions", "the tokens that count")
def over_all_positions(student_log_probs, teacher_log_probs, mask):
    q, p = student_log_probs[mask], teacher_log_probs[mask]
    return ((q - p).detach() * q).sum() / mask.numel()


@wrong("12.per_token_loss", "multiplies by the mask", "padding: minus infinity")
def product_mask(student_log_probs, teacher_log_probs, mask):
    cost = (student_log_probs - teacher_log_probs).detach()
    return (cost * student_log_probs * mask).sum() / mask.sum()


@wrong("12.per_token_loss", "charges what follows, too", "each token for itself alone")
def what_follows(student_log_probs, teacher_log_probs, mask):
    q, cost = _cost(student_log_probs, teacher_log_probs, mask)
    return (_to_the_end(cost) * q).sum() / mask.sum()


@wrong("12.per_token_loss", "subtracts the mean advantage", "A_t as it stands")
def baseline(student_log_probs, teacher_log_probs, mask):
    q, p = student_log_probs[mask], teacher_log_probs[mask]
    cost = (q - p).detach()
    return ((cost - cost.mean()) * q).mean()


@wrong("12.per_token_loss", "differentiates log q - log p", "A_t log q")
def direct(student_log_probs, teacher_log_probs, mask):
    return (student_log_probs[mask] - teacher_log_probs[mask].detach()).mean()


@wrong("12.per_token_loss", "the teacher is not detached", "A_t a constant: no gradient to it")
def teacher_in_the_graph(student_log_probs, teacher_log_probs, mask):
    q, p = student_log_probs[mask], teacher_log_probs[mask]
    return ((q.detach() - p) * q).mean()


@wrong("12.per_token_loss", "clips the advantage", "A_t as it stands")
def clipped(student_log_probs, teacher_log_probs, mask):
    q, p = student_log_probs[mask], teacher_log_probs[mask]
    return ((q - p).detach().clamp(-5, 5) * q).mean()
