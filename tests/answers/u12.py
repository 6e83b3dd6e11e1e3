"""Right answers to unit 12 that look different from the reference and from each other."""

import math

import torch
import torch.nn.functional as F

from kdlib.decoding import generate
from kdlib.losses import kl_divergence


def _between(value, name, open_end=False):
    if not 0 <= value <= 1 or (open_end and value == 1):
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")


def _kl(log_a, log_b):
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def jsd_logaddexp(student_logits, teacher_logits, mask, beta=0.5):
    _between(beta, "beta")
    log_q = student_logits[mask].log_softmax(-1)
    log_p = teacher_logits[mask].detach().log_softmax(-1)
    if beta == 0:
        return _kl(log_p, log_q).mean()
    if beta == 1:
        return _kl(log_q, log_p).mean()
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return (beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)).mean()


def jsd_kl_div(student_logits, teacher_logits, mask, beta=0.5):
    _between(beta, "beta")
    v = torch.where(mask[..., None], teacher_logits.detach(), 0.0)
    z = torch.where(mask[..., None], student_logits, 0.0)
    p, q = v.log_softmax(-1), z.log_softmax(-1)

    def kl(a, b):
        return F.kl_div(b, a, reduction="none", log_target=True).sum(-1)

    if beta in (0, 1):
        rows = kl(p, q) if beta == 0 else kl(q, p)
    else:
        weights = torch.tensor([beta, 1 - beta], dtype=p.dtype).log()
        m = torch.stack([p + weights[0], q + weights[1]]).logsumexp(0)
        rows = beta * kl(p, m) + (1 - beta) * kl(q, m)
    return (rows * mask).sum() / mask.sum()


def jsd_entropies(student_logits, teacher_logits, mask, beta=0.5):
    """JSD = H(m) - beta H(p) - (1 - beta) H(q)."""
    _between(beta, "beta")
    z, v = student_logits[mask], teacher_logits[mask].detach()
    if beta == 0:
        return kl_divergence(v, z).mean()
    if beta == 1:
        return kl_divergence(z, v).mean()
    p, q = v.softmax(-1), z.softmax(-1)
    log_p, log_q = v.log_softmax(-1), z.log_softmax(-1)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    h = -(beta * p + (1 - beta) * q) * log_m + beta * p * log_p + (1 - beta) * q * log_q
    return h.sum(-1).mean()


def jsd_loop(student_logits, teacher_logits, mask, beta=0.5):
    if beta < 0 or beta > 1:
        raise ValueError(f"beta is {beta}")
    total, count = 0.0, 0
    for b, t in mask.nonzero().tolist():
        z, v = student_logits[b, t], teacher_logits[b, t].detach()
        log_q, log_p = z - z.logsumexp(0), v - v.logsumexp(0)
        if beta == 0:
            total = total + log_p.exp() @ (log_p - log_q)
        elif beta == 1:
            total = total + log_q.exp() @ (log_q - log_p)
        else:
            log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
            total = total + beta * (log_p.exp() @ (log_p - log_m))
            total = total + (1 - beta) * (log_q.exp() @ (log_q - log_m))
        count += 1
    return total / count


def skew_logaddexp(student_logits, teacher_logits, mask, alpha=0.1):
    _between(alpha, "alpha", open_end=True)
    log_q = student_logits[mask].log_softmax(-1)
    log_p = teacher_logits[mask].detach().log_softmax(-1)
    if alpha == 0:
        return _kl(log_p, log_q).mean()
    log_m = torch.logaddexp(log_p + math.log(alpha), log_q + math.log(1 - alpha))
    return _kl(log_p, log_m).mean()


def skew_kl_div(student_logits, teacher_logits, mask, alpha=0.1):
    _between(alpha, "alpha", open_end=True)
    fill = mask[..., None]
    log_q = student_logits.masked_fill(~fill, 0.0).log_softmax(-1)
    log_p = teacher_logits.detach().masked_fill(~fill, 0.0).log_softmax(-1)
    weights = torch.tensor([alpha, 1 - alpha], dtype=log_p.dtype).log()
    log_m = torch.stack([log_p + weights[0], log_q + weights[1]]).logsumexp(0)
    rows = F.kl_div(log_m, log_p, reduction="none", log_target=True).sum(-1)
    return rows[mask].mean()


def skew_ratio(student_logits, teacher_logits, mask, alpha=0.1):
    """- E_p log(alpha + (1 - alpha) q / p)."""
    _between(alpha, "alpha", open_end=True)
    log_q = student_logits[mask].log_softmax(-1)
    log_p = teacher_logits[mask].detach().log_softmax(-1)
    if alpha == 0:
        return _kl(log_p, log_q).mean()
    ratio = F.softplus(log_q - log_p + math.log((1 - alpha) / alpha)) + math.log(alpha)
    return -(log_p.exp() * ratio.masked_fill(log_p.exp() == 0, 0.0)).sum(-1).mean()


def skew_loop(student_logits, teacher_logits, mask, alpha=0.1):
    if alpha >= 1 or alpha < 0:
        raise ValueError(f"alpha must be below 1, got {alpha}")
    found = []
    for z, v in zip(student_logits[mask], teacher_logits[mask].detach(), strict=True):
        log_q, log_p = z.log_softmax(0), v.log_softmax(0)
        small = log_p + (math.log(alpha) if alpha else -math.inf)
        log_m = torch.logaddexp(small, log_q + math.log(1 - alpha))
        found.append(torch.dot(log_p.exp(), log_p - log_m))
    return torch.stack(found).mean()


def taid_plain(student_logits, teacher_logits, mask, t):
    _between(t, "t")
    z, v = student_logits[mask], teacher_logits[mask].detach()
    target = ((1 - t) * z.detach() + t * v).log_softmax(-1)
    return _kl(target, z.log_softmax(-1)).mean()


def taid_kl_div(student_logits, teacher_logits, mask, t):
    _between(t, "t")
    z = student_logits.masked_fill(~mask[..., None], 0.0)
    with torch.no_grad():
        v = teacher_logits.masked_fill(~mask[..., None], 0.0)
        target = torch.lerp(z, v, t).log_softmax(-1)
    rows = F.kl_div(z.log_softmax(-1), target, reduction="none", log_target=True).sum(-1)
    return (rows * mask).sum() / mask.sum()


def taid_cross_entropy_minus_entropy(student_logits, teacher_logits, mask, t):
    _between(t, "t")
    z, v = student_logits[mask], teacher_logits[mask].detach()
    target = (z.detach() + t * (v - z.detach())).softmax(-1)
    entropy = -torch.special.xlogy(target, target).sum(-1)
    return (F.cross_entropy(z, target, reduction="none") - entropy).mean()


def taid_kdlib(student_logits, teacher_logits, mask, t):
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}")
    z, v = student_logits[mask], teacher_logits[mask].detach()
    return kl_divergence(z.detach() * (1 - t) + v * t, z).sum() / mask.sum()


def _mask(rows, P, eos):
    found = torch.zeros(len(rows), rows.shape[1] - 1, dtype=torch.bool)
    for b, row in enumerate(rows[:, P:].tolist()):
        count = row.index(eos) + 1 if eos in row else len(row)
        found[b, P - 1 : P - 1 + count] = True
    return found


def batch_generate(student, rows, prompt_length, fraction, eos, generator):
    if torch.rand((), generator=generator) < fraction:
        before = student.training
        student.eval()
        new = generate(
            student,
            rows[:, :prompt_length],
            rows.shape[1] - prompt_length,
            1.0,
            eos,
            generator,
        )
        student.train(before)
        missing = rows.shape[1] - new.shape[1]
        rows = torch.cat([new, torch.full((len(rows), missing), eos)], dim=1)
    return rows, _mask(rows, prompt_length, eos)


def batch_loop(student, rows, prompt_length, fraction, eos, generator):
    rows, T = rows.clone(), rows.shape[1]
    if fraction > 0 and torch.rand(1, generator=generator).item() <= fraction:
        was = student.training
        student.train(False)
        with torch.no_grad():
            ended = torch.zeros(len(rows), dtype=torch.bool)
            for t in range(prompt_length, T):
                q = student(rows[:, :t])[:, -1].softmax(-1)
                new = torch.multinomial(q, 1, generator=generator)[:, 0]
                rows[:, t] = torch.where(ended, eos, new)
                ended |= rows[:, t] == eos
        student.train(was)
    y = rows[:, 1:]
    written = torch.arange(1, T) >= prompt_length
    over = ((y == eos) & written).cumsum(1) - ((y == eos) & written).long()
    return rows, written & (over == 0)


@torch.no_grad()
def batch_gumbel(student, rows, prompt_length, fraction, eos, generator):
    own = torch.bernoulli(torch.tensor(float(fraction)), generator=generator).bool()
    if own:
        mode = student.training
        student.eval()
        out = rows[:, :prompt_length]
        while out.shape[1] < rows.shape[1]:
            z = student(out)[:, -1]
            gumbel = -(-torch.rand(z.shape, generator=generator).clamp_min(1e-30).log()).log()
            out = torch.cat([out, (z + gumbel).argmax(-1, keepdim=True)], dim=1)
        student.train(mode)
        rows = out
        tail = rows[:, prompt_length:]
        after = ((tail == eos).cumsum(1) - (tail == eos).long()) > 0
        rows = torch.cat([rows[:, :prompt_length], tail.masked_fill(after, eos)], dim=1)
    return rows, _mask(rows, prompt_length, eos)


def batch_lengths(student, rows, prompt_length, fraction, eos, generator):
    T = rows.shape[1]
    if torch.rand([], generator=generator).item() < fraction:
        training = student.training
        with torch.inference_mode():
            new = generate(
                student.eval(), rows[:, :prompt_length], T - prompt_length, 1.0, eos, generator
            )
        student.train(training)
        rows = F.pad(new.clone(), (0, T - new.shape[1]), value=eos)
    tail = rows[:, prompt_length:] == eos
    first = torch.where(tail.any(1), tail.int().argmax(1) + 1, tail.shape[1])
    position = torch.arange(1, T)
    mask = (position >= prompt_length) & (position < prompt_length + first[:, None])
    return rows, mask


def surrogate_to_go(student_log_probs, teacher_log_probs, mask):
    log_q = student_log_probs.masked_fill(~mask, 0.0)
    log_p = teacher_log_probs.detach().masked_fill(~mask, 0.0)
    cost = (log_q - log_p).detach()
    to_go = cost.sum(1, keepdim=True) - cost.cumsum(1) + cost
    return (to_go * log_q).sum(1).mean()


def surrogate_whole_return(student_log_probs, teacher_log_probs, mask):
    """Plain REINFORCE: every token pays for the whole row."""
    log_q = torch.where(mask, student_log_probs, 0.0)
    log_p = torch.where(mask, teacher_log_probs.detach(), 0.0)
    cost = (log_q - log_p).sum(1).detach()
    return (cost * log_q.sum(1)).sum() / len(mask)


def surrogate_minillm(student_log_probs, teacher_log_probs, mask):
    """With MiniLLM's R_t - 1: the 1 has mean zero."""
    log_q = student_log_probs.masked_fill(~mask, 0.0)
    reward = (teacher_log_probs.detach().masked_fill(~mask, 0.0) - log_q).detach()
    R = reward.flip(1).cumsum(1).flip(1)
    return -((R - 1) * log_q).sum(1).mean()


def surrogate_importance(student_log_probs, teacher_log_probs, mask):
    """The ratio q / q' at q' = q has the gradient of log q."""
    total = 0.0
    for log_q, log_p, valid in zip(student_log_probs, teacher_log_probs, mask, strict=True):
        log_q, log_p = log_q[valid], log_p[valid].detach()
        ratio = (log_q - log_q.detach()).exp()
        for t in range(len(log_q)):
            total = total + ratio[t] * (log_q[t:] - log_p[t:]).sum().detach()
    return total / len(mask)


def token_plain(student_log_probs, teacher_log_probs, mask):
    log_q, log_p = student_log_probs[mask], teacher_log_probs[mask].detach()
    advantage = -(log_q - log_p).detach()
    return -(advantage * log_q).mean()


def token_squares(student_log_probs, teacher_log_probs, mask):
    """Half the squared difference has the same gradient."""
    difference = student_log_probs[mask] - teacher_log_probs[mask].detach()
    return 0.5 * difference.square().mean()


def token_masked(student_log_probs, teacher_log_probs, mask):
    log_q = student_log_probs.masked_fill(~mask, 0.0)
    with torch.no_grad():
        cost = log_q - teacher_log_probs.masked_fill(~mask, 0.0)
    return torch.einsum("bt,bt->", cost, log_q) / mask.sum()


def token_importance(student_log_probs, teacher_log_probs, mask):
    log_q, log_p = (torch.where(mask, x, 0.0) for x in (student_log_probs, teacher_log_probs))
    advantage = (log_p - log_q).detach()
    ratio = torch.exp(log_q - log_q.detach())
    return -(advantage * ratio).sum() / mask.float().sum().to(log_q.dtype)


ANSWERS = {
    "12.jsd": [jsd_logaddexp, jsd_kl_div, jsd_entropies, jsd_loop],
    "12.skew_kl": [skew_logaddexp, skew_kl_div, skew_ratio, skew_loop],
    "12.taid_loss": [taid_plain, taid_kl_div, taid_cross_entropy_minus_entropy, taid_kdlib],
    "12.on_policy_batch": [batch_generate, batch_loop, batch_gumbel, batch_lengths],
    "12.reverse_kl_surrogate": [
        surrogate_to_go,
        surrogate_whole_return,
        surrogate_minillm,
        surrogate_importance,
    ],
    "12.per_token_loss": [token_plain, token_squares, token_masked, token_importance],
}
