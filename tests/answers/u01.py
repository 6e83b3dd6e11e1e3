"""Right answers to unit 01 that look different from the reference and from each other."""

import numpy as np
import torch
import torch.nn.functional as F


def _positive(temperature):
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def log_softmax_by_hand(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    z = z - z.max(dim=-1, keepdim=True).values
    return z - torch.log(torch.exp(z).sum(-1, keepdim=True))


def log_softmax_logaddexp(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    total = z[..., 0]
    for k in range(1, z.shape[-1]):
        total = torch.logaddexp(total, z[..., k])
    return z - total[..., None]


def log_softmax_pairs(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    gaps = z[..., None, :] - z[..., :, None]  # (..., i, j): z_j - z_i
    top = gaps.amax(-1)
    return -(top + (gaps - top[..., None]).exp().sum(-1).log())


def log_softmax_rows(logits, temperature=1.0):
    _positive(temperature)
    rows = []
    for row in logits:
        z = row / temperature - (row / temperature).max()
        rows.append(z - z.exp().sum().log())
    return torch.stack(rows)


def ce_sum(logits, target_probs):
    return -(target_probs * F.log_softmax(logits, dim=-1)).sum(-1)


def ce_torch(logits, target_probs):
    return F.cross_entropy(logits, target_probs, reduction="none")


def ce_einsum(logits, target_probs):
    return -torch.einsum("nc,nc->n", target_probs, logits - logits.logsumexp(-1, keepdim=True))


def ce_lse(logits, target_probs):
    return logits.logsumexp(-1) - torch.stack(
        [p @ z for p, z in zip(target_probs, logits, strict=True)]
    )


def kl_torch(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p, log_q = (F.log_softmax(x / temperature, -1) for x in (teacher_logits, student_logits))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def kl_probs(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    p = F.softmax(teacher_logits / temperature, -1)
    return F.kl_div(F.log_softmax(student_logits / temperature, -1), p, reduction="none").sum(-1)


def kl_cross_minus_entropy(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    p = F.softmax(teacher_logits / temperature, -1)
    cross = F.cross_entropy(student_logits / temperature, p, reduction="none")
    return cross - torch.special.entr(p).sum(-1)


def kl_loop(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    rows = []
    for v, z in zip(teacher_logits / temperature, student_logits / temperature, strict=True):
        ratio = (v - v.logsumexp(0)) - (z - z.logsumexp(0))
        rows.append(torch.dot((v - v.logsumexp(0)).exp(), ratio))
    return torch.stack(rows)


def _inside(beta):
    if beta <= 0 or beta >= 1:
        raise ValueError(f"beta must lie inside (0, 1), got {beta}")


def jsd_logaddexp(teacher_logits, student_logits, beta):
    _inside(beta)
    p, q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    m = torch.logaddexp(p + np.log(beta), q + np.log1p(-beta))
    kl_p = F.kl_div(m, p, reduction="none", log_target=True).sum(-1)
    kl_q = F.kl_div(m, q, reduction="none", log_target=True).sum(-1)
    return beta * kl_p + (1 - beta) * kl_q


def jsd_float32_beta(teacher_logits, student_logits, beta):
    """The logarithm of beta in float32, that of the logits in float64."""
    _inside(beta)
    p, q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    beta = torch.tensor(beta)
    m = torch.logaddexp(p + beta.log(), q + (1 - beta).log())
    kl_p, kl_q = ((x.exp() * (x - m)).sum(-1) for x in (p, q))
    return beta * kl_p + (1 - beta) * kl_q


def jsd_logsumexp(teacher_logits, student_logits, beta):
    _inside(beta)
    both = torch.stack([teacher_logits, student_logits]).log_softmax(-1)
    w = torch.tensor([beta, 1 - beta], dtype=both.dtype)
    m = (both + w.log()[:, None, None]).logsumexp(0)
    return torch.einsum("k,knc,knc->n", w, both.exp(), both - m)


def jsd_entropies(teacher_logits, student_logits, beta):
    _inside(beta)
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    h = [torch.special.entr(x).sum(-1) for x in (beta * p + (1 - beta) * q, p, q)]
    return h[0] - beta * h[1] - (1 - beta) * h[2]


def jsd_xlogy(teacher_logits, student_logits, beta):
    _inside(beta)
    p, q = F.softmax(teacher_logits, -1), F.softmax(student_logits, -1)
    m = beta * p + (1 - beta) * q
    first = (torch.special.xlogy(p, p) - torch.special.xlogy(p, m)).sum(-1)
    second = (torch.special.xlogy(q, q) - torch.special.xlogy(q, m)).sum(-1)
    return first * beta + second * (1 - beta)


def tv_half(teacher_logits, student_logits):
    return (teacher_logits.softmax(-1) - student_logits.softmax(-1)).abs().sum(-1) / 2


def tv_positive_part(teacher_logits, student_logits):
    return (teacher_logits.softmax(-1) - student_logits.softmax(-1)).clamp_min(0).sum(-1)


def tv_overlap(teacher_logits, student_logits):
    return 1 - torch.minimum(teacher_logits.softmax(-1), student_logits.softmax(-1)).sum(-1)


def tv_norm(teacher_logits, student_logits):
    return 0.5 * torch.linalg.vector_norm(
        F.softmax(teacher_logits, 1) - F.softmax(student_logits, 1), ord=1, dim=1
    )


ANSWERS = {
    "01.log_softmax": [
        log_softmax_by_hand,
        log_softmax_logaddexp,
        log_softmax_pairs,
        log_softmax_rows,
    ],
    "01.soft_cross_entropy": [ce_sum, ce_torch, ce_einsum, ce_lse],
    "01.kl_divergence": [kl_torch, kl_probs, kl_cross_minus_entropy, kl_loop],
    "01.generalized_jsd": [
        jsd_logaddexp,
        jsd_float32_beta,
        jsd_logsumexp,
        jsd_entropies,
        jsd_xlogy,
    ],
    "01.total_variation": [tv_half, tv_positive_part, tv_overlap, tv_norm],
}
