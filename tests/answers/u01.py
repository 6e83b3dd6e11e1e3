"""Right answers to unit 01 that look different from the reference and from each other."""

import math

import torch
import torch.nn.functional as F


def _positive(temperature):
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def _inside(beta):
    if beta <= 0 or beta >= 1:
        raise ValueError(f"beta must lie in (0, 1), got {beta}")


def _distribution(probs):
    sums = probs.sum(-1)
    if probs.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise ValueError("target_probs: every row must be a distribution")


# ------------------------------------------------------------------ 01.log_softmax


def log_softmax_max(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    m = z.max(dim=-1, keepdim=True).values
    return z - m - torch.log(torch.exp(z - m).sum(-1, keepdim=True))


def log_softmax_differences(logits, temperature=1.0):
    """Minus log sum_j exp(z_j - z_i), each with its own maximum."""
    _positive(temperature)
    z = logits / temperature
    d = z[..., None, :] - z[..., :, None]
    m = d.amax(-1, keepdim=True).detach()
    return -(m[..., 0] + (d - m).exp().sum(-1).log())


def log_softmax_loop(logits, temperature=1.0):
    _positive(temperature)
    flat, rows = logits.reshape(-1, logits.shape[-1]), []
    for row in flat:
        z = row.div(temperature)
        z = z.sub(z.max())
        rows.append(z - torch.einsum("c->", z.exp()).log())
    return torch.stack(rows).reshape(logits.shape)


def log_softmax_logaddexp(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    total = z[..., 0]
    for c in range(1, z.shape[-1]):
        total = torch.logaddexp(total, z[..., c])
    return z - total.unsqueeze(-1)


def log_softmax_float64(logits, temperature=1.0):
    _positive(temperature)
    z = logits.double() / temperature
    z = z - z.sort(dim=-1, descending=True).values[..., :1]
    return (z - z.exp().sum(-1, keepdim=True).log()).to(logits.dtype)


# ------------------------------------------------------------------ 01.entropy


def entropy_library(logits):
    return torch.distributions.Categorical(logits=logits, validate_args=False).entropy()


def entropy_special(logits):
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def entropy_logsumexp(logits):
    """log Z minus the mean logit."""
    z = logits - logits.amax(-1, keepdim=True)
    return z.logsumexp(-1) - (z.softmax(-1) * z).sum(-1)


def entropy_cross_entropy(logits):
    flat = logits.reshape(-1, logits.shape[-1])
    return F.cross_entropy(flat, flat.softmax(-1), reduction="none").reshape(logits.shape[:-1])


def entropy_einsum(logits):
    log_q = F.log_softmax(logits.double(), dim=-1)
    return torch.einsum("...c,...c->...", log_q.exp(), -log_q).to(logits.dtype)


# ------------------------------------------------------------------ 01.soft_cross_entropy


def cross_library(logits, target_probs):
    _distribution(target_probs)
    flat = F.cross_entropy(logits.flatten(0, -2), target_probs.flatten(0, -2), reduction="none")
    return flat.reshape(logits.shape[:-1])


def cross_by_hand(logits, target_probs):
    _distribution(target_probs)
    z = logits - logits.amax(-1, keepdim=True)
    return z.exp().sum(-1).log() - (target_probs * z).sum(-1)


def cross_loop(logits, target_probs):
    _distribution(target_probs)
    log_q, total = logits.log_softmax(-1), 0.0
    for c in range(logits.shape[-1]):
        total = total - target_probs[..., c] * log_q[..., c]
    return total


def cross_einsum(logits, target_probs):
    _distribution(target_probs)
    return torch.einsum("...c,...c->...", -target_probs, F.log_softmax(logits, dim=-1))


def cross_kl_plus_entropy(logits, target_probs):
    _distribution(target_probs)
    kl = F.kl_div(logits.log_softmax(-1), target_probs, reduction="none").sum(-1)
    return kl + torch.special.entr(target_probs).sum(-1)


# ------------------------------------------------------------------ 01.kl_divergence


def kl_library(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    p = F.softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(log_q, p, reduction="none").sum(-1)


def kl_log_target(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p, log_q = ((z / temperature).log_softmax(-1) for z in (teacher_logits, student_logits))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def kl_cross_minus_entropy(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = (teacher_logits / temperature).log_softmax(-1)
    log_q = (student_logits / temperature).log_softmax(-1)
    p = log_p.exp()
    return (p * log_p).sum(-1) - (p * log_q).sum(-1)


def kl_einsum(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p, log_q = ((z / temperature).log_softmax(-1) for z in (teacher_logits, student_logits))
    return torch.einsum("...c,...c->...", log_p.exp(), log_p - log_q)


def kl_bregman(teacher_logits, student_logits, temperature=1.0):
    """log Z(z) - log Z(v) - <p, z - v>: the gap between log Z and its tangent at the teacher."""
    _positive(temperature)
    v, z = teacher_logits / temperature, student_logits / temperature
    v, z = v - v.amax(-1, keepdim=True), z - z.amax(-1, keepdim=True)
    return z.logsumexp(-1) - v.logsumexp(-1) - (v.softmax(-1) * (z - v)).sum(-1)


# ------------------------------------------------------------------ 01.generalized_jsd


def _log_probs(teacher_logits, student_logits, beta, temperature):
    _positive(temperature)
    _inside(beta)
    return tuple((z / temperature).log_softmax(-1) for z in (teacher_logits, student_logits))


def jsd_logsumexp(teacher_logits, student_logits, beta, temperature=1.0):
    log_p, log_q = _log_probs(teacher_logits, student_logits, beta, temperature)
    both = torch.stack([log_p + math.log(beta), log_q + math.log(1 - beta)])
    log_m = torch.logsumexp(both, dim=0)
    forward = F.kl_div(log_m, log_p, reduction="none", log_target=True).sum(-1)
    backward = F.kl_div(log_m, log_q, reduction="none", log_target=True).sum(-1)
    return beta * forward + (1 - beta) * backward


def jsd_xlogy(teacher_logits, student_logits, beta, temperature=1.0):
    """H(m) - beta H(p) - (1 - beta) H(q), where 0 log 0 = 0."""
    log_p, log_q = _log_probs(teacher_logits, student_logits, beta, temperature)
    p, q = log_p.exp(), log_q.exp()
    m = beta * p + (1 - beta) * q
    mixed = torch.special.entr(m).sum(-1)
    return mixed + beta * (p * log_p).sum(-1) + (1 - beta) * (q * log_q).sum(-1)


def jsd_probabilities(teacher_logits, student_logits, beta, temperature=1.0):
    """In probability space with `F.kl_div`; the mixture is kept off zero by the smallest float."""
    log_p, log_q = _log_probs(teacher_logits, student_logits, beta, temperature)
    p, q = log_p.exp(), log_q.exp()
    log_m = (beta * p + (1 - beta) * q).clamp_min(torch.finfo(p.dtype).tiny).log()
    return beta * (p * (log_p - log_m)).sum(-1) + (1 - beta) * (q * (log_q - log_m)).sum(-1)


def jsd_softplus(teacher_logits, student_logits, beta, temperature=1.0):
    log_p, log_q = _log_probs(teacher_logits, student_logits, beta, temperature)
    a, b = log_p + math.log(beta), log_q + math.log1p(-beta)
    top = torch.maximum(a, b)
    log_m = top + torch.log1p(torch.exp(-(a - b).abs()))
    return torch.einsum("...c,...c->...", a.exp(), log_p - log_m) + torch.einsum(
        "...c,...c->...", b.exp(), log_q - log_m
    )


def jsd_loop(teacher_logits, student_logits, beta, temperature=1.0):
    log_p, log_q = _log_probs(teacher_logits, student_logits, beta, temperature)
    total = 0.0
    for c in range(log_p.shape[-1]):
        lp, lq = log_p[..., c], log_q[..., c]
        lm = torch.logaddexp(lp + math.log(beta), lq + math.log(1 - beta))
        total = total + beta * lp.exp() * (lp - lm) + (1 - beta) * lq.exp() * (lq - lm)
    return total


# ------------------------------------------------------------------ 01.total_variation


def tv_by_hand(teacher_logits, student_logits):
    return (teacher_logits.softmax(-1) - student_logits.softmax(-1)).abs().sum(-1) / 2


def tv_norm(teacher_logits, student_logits):
    difference = F.softmax(teacher_logits, -1) - F.softmax(student_logits, -1)
    return torch.linalg.vector_norm(difference, ord=1, dim=-1) * 0.5


def tv_one_sided(teacher_logits, student_logits):
    return (teacher_logits.softmax(-1) - student_logits.softmax(-1)).relu().sum(-1)


def tv_overlap(teacher_logits, student_logits):
    return 1 - torch.minimum(teacher_logits.softmax(-1), student_logits.softmax(-1)).sum(-1)


def tv_loop(teacher_logits, student_logits):
    p, q = teacher_logits.log_softmax(-1).exp(), student_logits.log_softmax(-1).exp()
    return sum((p[..., c] - q[..., c]).abs() for c in range(p.shape[-1])) / 2


ANSWERS = {
    "01.log_softmax": [
        log_softmax_max,
        log_softmax_differences,
        log_softmax_loop,
        log_softmax_logaddexp,
        log_softmax_float64,
    ],
    "01.entropy": [
        entropy_library,
        entropy_special,
        entropy_logsumexp,
        entropy_cross_entropy,
        entropy_einsum,
    ],
    "01.soft_cross_entropy": [
        cross_library,
        cross_by_hand,
        cross_loop,
        cross_einsum,
        cross_kl_plus_entropy,
    ],
    "01.kl_divergence": [
        kl_library,
        kl_log_target,
        kl_cross_minus_entropy,
        kl_einsum,
        kl_bregman,
    ],
    "01.generalized_jsd": [
        jsd_logsumexp,
        jsd_xlogy,
        jsd_probabilities,
        jsd_softplus,
        jsd_loop,
    ],
    "01.total_variation": [tv_by_hand, tv_norm, tv_one_sided, tv_overlap, tv_loop],
}
