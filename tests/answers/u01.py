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


def log_softmax_constant_shift(logits, temperature=1.0):
    """The shift changes nothing, so no gradient needs to go through it."""
    _positive(temperature)
    z = logits / temperature
    shift = z.detach().max(dim=-1, keepdim=True)[0]
    return z - shift - (z - shift).exp().sum(dim=-1, keepdim=True).log()


def log_softmax_log1p(logits, temperature=1.0):
    """The largest term is one: log1p of the others."""
    _positive(temperature)
    z = logits / temperature
    top, place = z.max(-1, keepdim=True)
    others = (z - top).exp().scatter(-1, place, 0.0)
    return z - (top + others.sum(-1, keepdim=True).log1p())


def log_softmax_double_inside(logits, temperature=1.0):
    if temperature <= 0:
        raise ValueError(f"got temperature={temperature}, which is not > 0")
    z = logits.to(torch.float64).div(temperature)
    z = z.sub(z.sort(dim=-1, descending=True).values[..., :1])
    total = z.exp() @ torch.ones(z.shape[-1], 1, dtype=z.dtype)
    return (z - total.log()).to(logits.dtype)


def log_softmax_probabilities_of_gaps(logits, temperature=1.0):
    """Columns one by one: log q_i = -log sum_j exp(z_j - z_i), shifted by its largest gap."""
    _positive(temperature)
    z = logits / temperature
    top = z.amax(-1)
    columns = []
    for i in range(z.shape[-1]):
        lead = top - z[..., i]
        gaps = z - z[..., i : i + 1] - lead[..., None]
        columns.append(-lead - torch.log(torch.einsum("...c->...", gaps.exp())))
    return torch.stack(columns, dim=-1)


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


def ce_bmm(logits, target_probs):
    log_q = logits.log_softmax(dim=1)
    return -torch.bmm(target_probs[:, None, :], log_q[:, :, None]).view(-1)


def ce_columns(logits, target_probs):
    norm = torch.logsumexp(logits, dim=1)
    return sum(target_probs[:, c] * (norm - logits[:, c]) for c in range(logits.shape[1]))


def ce_only_positive(logits, target_probs):
    log_q = torch.nn.LogSoftmax(dim=-1)(logits)
    return torch.where(target_probs > 0, -target_probs * log_q, 0.0).sum(dim=-1)


def ce_one_row_at_a_time(logits, target_probs):
    loss = torch.nn.CrossEntropyLoss()
    rows = range(len(logits))
    return torch.stack([loss(logits[n : n + 1], target_probs[n : n + 1]) for n in rows])


def ce_double_inside(logits, target_probs):
    z, p = logits.double(), target_probs.double()
    z = z - z.amax(1, keepdim=True)
    return torch.linalg.vecdot(p, z.exp().sum(1, keepdim=True).log() - z).to(logits.dtype)


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


def kl_cumulant(teacher_logits, student_logits, temperature=1.0):
    """KL = log E_p exp(d) - E_p d with d the difference of the logits."""
    _positive(temperature)
    log_p = torch.log_softmax(teacher_logits / temperature, dim=-1)
    d = (student_logits - teacher_logits) / temperature
    return (log_p + d).logsumexp(-1) - (log_p.exp() * d).sum(-1)


def kl_module(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    criterion = torch.nn.KLDivLoss(reduction="none", log_target=True)
    log_softmax = torch.nn.LogSoftmax(dim=1)
    log_q = log_softmax(student_logits / temperature)
    return criterion(log_q, log_softmax(teacher_logits / temperature)).sum(dim=1)


def kl_double_inside(teacher_logits, student_logits, temperature=1.0):
    if not temperature > 0:
        raise ValueError(f"{temperature=}")
    both = torch.stack((teacher_logits, student_logits)).double() / temperature
    log_p, log_q = both.log_softmax(dim=-1).unbind(0)
    return torch.einsum("nc,nc->n", log_p.exp(), log_p - log_q).to(student_logits.dtype)


def kl_columns(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, 1).unbind(1)
    log_q = F.log_softmax(student_logits / temperature, 1).unbind(1)
    total = 0.0
    for a, b in zip(log_p, log_q, strict=True):
        total = total + a.exp() * (a - b)
    return total


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


def jsd_softplus(teacher_logits, student_logits, beta):
    """log(m / p) = log beta + log(1 + exp(log q - log p + log((1 - beta) / beta)))."""
    _inside(beta)
    p, q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    odds = np.log1p(-beta) - np.log(beta)
    kl_p = -(p.exp() * (F.softplus(q - p + odds) + np.log(beta))).sum(-1)
    kl_q = -(q.exp() * (F.softplus(p - q - odds) + np.log1p(-beta))).sum(-1)
    return beta * kl_p + (1 - beta) * kl_q


def jsd_double_inside(teacher_logits, student_logits, beta):
    if not 0.0 < beta < 1.0:
        raise ValueError(f"beta = {beta}")
    p, q = teacher_logits.double().softmax(1), student_logits.double().softmax(1)
    log_m = (beta * p + (1 - beta) * q).clamp_min(1e-300).log()
    parts = [F.kl_div(log_m, x, reduction="none").sum(1) for x in (p, q)]
    return (beta * parts[0] + (1 - beta) * parts[1]).to(student_logits.dtype)


def jsd_rows(teacher_logits, student_logits, beta):
    _inside(beta)
    rows = []
    for v, z in zip(teacher_logits, student_logits, strict=True):
        p, q = v - v.logsumexp(0), z - z.logsumexp(0)
        m = torch.logaddexp(p + float(np.log(beta)), q + float(np.log(1 - beta)))
        rows.append(beta * torch.dot(p.exp(), p - m) + (1 - beta) * torch.dot(q.exp(), q - m))
    return torch.stack(rows)


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


def tv_where(teacher_logits, student_logits):
    """What p has more, summed over the classes where it has more."""
    p, q = torch.softmax(teacher_logits, -1), torch.softmax(student_logits, -1)
    return torch.where(p > q, p - q, 0.0).sum(dim=-1)


def tv_l1_loss(teacher_logits, student_logits):
    p, q = (x.log_softmax(1).exp() for x in (teacher_logits, student_logits))
    return F.l1_loss(q, p, reduction="none").sum(1).div(2)


def tv_rows(teacher_logits, student_logits):
    return torch.stack(
        [
            torch.dist(v.softmax(0), z.softmax(0), p=1) / 2
            for v, z in zip(teacher_logits, student_logits, strict=True)
        ]
    )


def tv_union(teacher_logits, student_logits):
    """The union of both holds one, and what they do not share."""
    both = torch.stack([teacher_logits, student_logits]).double().softmax(-1)
    return (both.amax(0).sum(-1) - 1).clamp(0, 1).to(student_logits.dtype)


ANSWERS = {
    "01.log_softmax": [
        log_softmax_by_hand,
        log_softmax_logaddexp,
        log_softmax_pairs,
        log_softmax_rows,
        log_softmax_constant_shift,
        log_softmax_log1p,
        log_softmax_double_inside,
        log_softmax_probabilities_of_gaps,
    ],
    "01.soft_cross_entropy": [
        ce_sum,
        ce_torch,
        ce_einsum,
        ce_lse,
        ce_bmm,
        ce_columns,
        ce_only_positive,
        ce_one_row_at_a_time,
        ce_double_inside,
    ],
    "01.kl_divergence": [
        kl_torch,
        kl_probs,
        kl_cross_minus_entropy,
        kl_loop,
        kl_cumulant,
        kl_module,
        kl_double_inside,
        kl_columns,
    ],
    "01.generalized_jsd": [
        jsd_logaddexp,
        jsd_float32_beta,
        jsd_logsumexp,
        jsd_entropies,
        jsd_xlogy,
        jsd_softplus,
        jsd_double_inside,
        jsd_rows,
    ],
    "01.total_variation": [
        tv_half,
        tv_positive_part,
        tv_overlap,
        tv_norm,
        tv_where,
        tv_l1_loss,
        tv_rows,
        tv_union,
    ],
}

_CHECKED = "the contract does not ask for this check"
_HALF = "float16 is not in the contract"
_FLOAT64 = "right in the precision of the input, too"
_NO_T = "the notebook's signature has no temperature"

EQUIVALENT = {
    "01.log_softmax": {
        "a check left out @ require_finite(*": _CHECKED,
        "half precision @ return logits.float() if *": _HALF,
        "not converted @ return logits.float() if *": _HALF,
        "not converted @ z = logits.to(torch.float64)*": _FLOAT64,
        "not detached @ *": "the shift cancels: no gradient goes through it",
        "cut off at a bound @ *": "the largest term of the sum is one",
        "broadcast the other way @ gaps = *": "the contract's logits have two dimensions",
    },
    "01.kl_divergence": {
        "a check left out @ require_*": _CHECKED,
        "half precision @ return logits.float() if *": _HALF,
        "not converted @ return logits.float() if *": _HALF,
        "not converted @ both = *": _FLOAT64,
        "an argument not passed on @ *": "without dim a table's softmax runs over dimension 1",
        "arguments exchanged @ rows.append(torch.dot(*": "a dot product is symmetric",
    },
    "01.soft_cross_entropy": {
        "a check left out @ require_*": _CHECKED,
        "cut off from the gradient @  => target_probs = *": "the text asks for the student's alone",
        "half precision @ return logits.float() if *": _HALF,
        "not converted @ return logits.float() if *": _HALF,
        "a condition turned round @ return logits.float() if *": "float32 inside is near enough",
        "branches exchanged @ return logits.float() if *": "float32 inside is near enough",
        "arguments exchanged @ *": "a dot product is symmetric",
        "the wrong way round @ *z @ p*": "a dot product is symmetric",
        "mask left out @ *": "zero times a finite number is zero",
        "multiplied by the mask @ *": "zero times a finite number is zero",
        "at the boundary @ *": "zero times a finite number is zero",
        "cut off at a bound @ *": "the largest term of the sum is one",
    },
    "01.generalized_jsd": {
        "a check left out @ require_*": _CHECKED,
        "a temperature left out @ *": _NO_T,
        "an argument ignored @  => temperature = 1.0": _NO_T,
        "factor T squared @ *": _NO_T,
        "multiplied by the temperature @ *": _NO_T,
        "an argument not passed on @ p, q = *": "a table's softmax runs over dimension 1",
        "an argument not passed on @ w = *": "a beta in float32 is near enough",
        "an argument not passed on @ weights = *": "a beta in float32 is near enough",
        "an exception without what was given @ *": "the contract asks for a ValueError alone",
        "another number @ log_m = *": "any number does that is smaller than all that matter",
        "arguments exchanged @ return torch.einsum(*": "a product is symmetric",
        "arguments exchanged @ rows.append(*": "a dot product is symmetric",
        "cut off from the gradient @  => teacher_logits = *": "only the student's is asked for",
        "half precision @ return logits.float() if *": _HALF,
        "not converted @ return logits.float() if *": _HALF,
        "not converted @ m = *": "NumPy's float64 is a Python float",
        "not converted @ p, q = *": _FLOAT64,
    },
    "01.total_variation": {
        "a bound left out @ *": "one, up to rounding",
        "an argument not passed on @ *clamp(0*": "one, up to rounding",
        "one more or one less @ *clamp(0*": "one, up to rounding",
        "a check left out @ require_*": _CHECKED,
        "an argument not passed on @ return 0.5 * *": "a table's softmax runs over dimension 1",
        "arguments exchanged @ *": "the distance is symmetric",
        "roles exchanged @ *": "the distance is symmetric",
        "the wrong way round @ *": "the distance is symmetric",
        "at the boundary @ return torch.where(p > q*": "equal probabilities differ by zero",
        "multiplied by the mask @ *": "zero times a finite number is zero",
        "half precision @ return logits.float() if *": _HALF,
        "not converted @ return logits.float() if *": _HALF,
        "not converted @ both = *": _FLOAT64,
        "logarithm of a softmax @ *": "exp takes the logarithm back, also that of zero",
    },
}
