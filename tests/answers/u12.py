"""Right answers to unit 12 that look different from the reference and from each other."""

import math

import torch
import torch.nn.functional as F
from torch import nn

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


def jsd_softplus(student_logits, teacher_logits, mask, beta=0.5):
    """log(m / p) = log beta + log(1 + exp(log q - log p + log((1 - beta) / beta)))."""
    _between(beta, "beta")
    log_q = student_logits[mask].log_softmax(-1)
    log_p = teacher_logits[mask].log_softmax(-1).detach()
    gap = log_q - log_p
    if beta == 0:
        return -(log_p.exp() * gap).sum(-1).mean()
    if beta == 1:
        return (log_q.exp() * gap).sum(-1).mean()
    odds = math.log(1 - beta) - math.log(beta)
    over_p = F.softplus(gap + odds) + math.log(beta)  # log(m / p)
    over_q = F.softplus(-gap - odds) + math.log(1 - beta)  # log(m / q)
    rows = beta * log_p.exp() * over_p + (1 - beta) * log_q.exp() * over_q
    return -rows.sum(-1).mean()


def jsd_probabilities_in_double(student_logits, teacher_logits, mask, beta=0.5):
    if not 0 <= beta <= 1:
        raise ValueError(f"{beta=} lies outside 0..1")
    q = student_logits[mask].double().log_softmax(-1)
    p = teacher_logits[mask].detach().double().log_softmax(-1)
    kl = nn.KLDivLoss(reduction="batchmean", log_target=True)
    if beta == 0 or beta == 1:
        loss = kl(q, p) if beta == 0 else kl(p, q)
    else:
        m = torch.lerp(q.exp(), p.exp(), beta).clamp_min(1e-300).log()
        loss = beta * kl(m, p) + (1 - beta) * kl(m, q)
    return loss.to(student_logits.dtype)


def jsd_token_weights(student_logits, teacher_logits, mask, beta=0.5):
    """Harmless logits where nothing counts, and a weight for each token."""
    _between(beta, "beta")
    keep = mask[..., None]
    log_q = torch.where(keep, student_logits, 0.0).log_softmax(-1)
    log_p = torch.where(keep, teacher_logits.detach(), 0.0).log_softmax(-1)
    weight = mask.to(log_q.dtype) / mask.sum()
    if beta in (0, 1):
        a, b = (log_p, log_q) if beta == 0 else (log_q, log_p)
        return torch.einsum("bt,btv->", weight, a.exp() * (a - b))
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    terms = beta * log_p.exp() * (log_p - log_m) + (1 - beta) * log_q.exp() * (log_q - log_m)
    return torch.einsum("bt,btv->", weight, terms)


def jsd_rows_of_the_batch(student_logits, teacher_logits, mask, beta=0.5):
    """Row after row, with entropies; one division at the end."""
    _between(beta, "beta")

    def entropy(log_a):
        return -(log_a.exp() * log_a).sum(-1)

    total = 0.0
    for z, v, valid in zip(student_logits, teacher_logits.detach(), mask, strict=True):
        q, p = F.log_softmax(z[valid], -1), F.log_softmax(v[valid], -1)
        if beta == 0:
            kl = -(p.exp() * q).sum(-1) - entropy(p)
        elif beta == 1:
            kl = -(q.exp() * p).sum(-1) - entropy(q)
        else:
            both = torch.stack([p + math.log(beta), q + math.log(1 - beta)])
            kl = entropy(both.logsumexp(0)) - beta * entropy(p) - (1 - beta) * entropy(q)
        total = total + kl.sum()
    return total / int(mask.sum())


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


def skew_in_double(student_logits, teacher_logits, mask, alpha=0.1):
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha = {alpha}: at 1 the student has no part in the mixture")
    q = student_logits[mask].double().softmax(-1)
    p = teacher_logits[mask].detach().double().softmax(-1)
    if alpha == 0:
        log_m = student_logits[mask].double().log_softmax(-1)
    else:
        log_m = torch.lerp(q, p, alpha).clamp_min(1e-300).log()
    loss = F.kl_div(log_m, p, reduction="sum") / len(p)
    return loss.to(student_logits.dtype)


def skew_cross_entropy(student_logits, teacher_logits, mask, alpha=0.1):
    """The cross-entropy with the mixture, which is a softmax too, less the entropy."""
    _between(alpha, "alpha", open_end=True)
    v = teacher_logits[mask].detach()
    log_q, log_p = student_logits[mask].log_softmax(-1), v.log_softmax(-1)
    log_m = log_q
    if alpha > 0:
        log_m = torch.logaddexp(log_q + math.log1p(-alpha), log_p + math.log(alpha))
    p = log_p.exp()
    return F.cross_entropy(log_m, p) - F.cross_entropy(v, p)


def skew_token_weights(student_logits, teacher_logits, mask, alpha=0.1):
    """Harmless logits where nothing counts, and a weight for each token."""
    if alpha < 0 or alpha >= 1:
        raise ValueError(f"got alpha {alpha}")
    keep = mask.unsqueeze(-1)
    z = student_logits.where(keep, torch.zeros((), dtype=student_logits.dtype))
    v = teacher_logits.detach().where(keep, torch.zeros((), dtype=student_logits.dtype))
    weights = torch.tensor([alpha, 1 - alpha], dtype=z.dtype).log()
    log_p, log_q = v.log_softmax(-1), z.log_softmax(-1)
    log_m = torch.logaddexp(log_p + weights[0], log_q + weights[1])
    each = torch.linalg.vecdot(log_p.exp(), log_p - log_m)
    return torch.dot(each.flatten(), mask.flatten().to(each.dtype)) / mask.sum()


def skew_as_two_cases(student_logits, teacher_logits, mask, alpha=0.1):
    """At 0 unit 01's divergence; else the log of the ratio, shifted by the larger of the two."""
    _between(alpha, "alpha", open_end=True)
    z, v = student_logits[mask], teacher_logits[mask].detach()
    if alpha == 0:
        return kl_divergence(teacher_logits=v, student_logits=z).mean()
    log_q, log_p = z - z.logsumexp(-1, keepdim=True), v - v.logsumexp(-1, keepdim=True)
    top = torch.maximum(log_p, log_q).detach()
    log_m = top + (alpha * (log_p - top).exp() + (1 - alpha) * (log_q - top).exp()).log()
    return torch.einsum("nv,nv->n", log_p.exp(), log_p - log_m).mean()


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


def taid_cumulant(student_logits, teacher_logits, mask, t):
    """KL = log E exp(d) - E d under the target, with d = t (z - v)."""
    if not 0 <= t <= 1:
        raise ValueError(f"t={t} is not between 0 and 1")
    z, v = student_logits[mask], teacher_logits[mask].detach()
    target = (1 - t) * z.detach() + t * v
    log_target, d = target.log_softmax(-1), z - target
    return ((log_target + d).logsumexp(-1) - (log_target.exp() * d).sum(-1)).mean()


def taid_loop(student_logits, teacher_logits, mask, t):
    _between(t, "t")
    total = 0.0
    places = mask.nonzero().tolist()
    for b, s in places:
        z = student_logits[b, s]
        mixed = z.clone().detach() * (1 - t) + teacher_logits[b, s].detach() * t
        p, log_q = mixed.softmax(0), z.log_softmax(0)
        total = total + (torch.special.xlogy(p, p) - p * log_q).sum()
    return total / len(places)


def taid_in_double(student_logits, teacher_logits, mask, t):
    _between(t, "t")
    z = student_logits[mask].double()
    with torch.no_grad():
        pair = torch.stack([z, teacher_logits[mask].double()])
        target = torch.einsum("k,knv->nv", pair.new_tensor([1 - t, t]), pair).softmax(-1)
    loss = nn.KLDivLoss(reduction="batchmean")(nn.LogSoftmax(dim=-1)(z), target)
    return loss.to(student_logits.dtype)


def taid_token_weights(student_logits, teacher_logits, mask, t):
    if t < 0 or t > 1:
        raise ValueError(f"t must lie between 0 and 1, got {t}")
    keep = mask[..., None].expand_as(student_logits)
    z = torch.zeros_like(student_logits).masked_scatter(keep, student_logits[keep])
    v = torch.zeros_like(student_logits).masked_scatter(keep, teacher_logits.detach()[keep])
    target = torch.add(z.detach(), v - z.detach(), alpha=t).log_softmax(-1)
    kl = (target.exp() * (target - z.log_softmax(-1))).sum(-1)
    return (kl * (mask / mask.sum())).sum()


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


def batch_every_module_put_back(student, rows, prompt_length, fraction, eos, generator):
    """Each part of the student keeps its own mode, also when something goes wrong."""
    if torch.rand(1, generator=generator).item() < fraction:
        modes = {module: module.training for module in student.modules()}
        student.eval()
        try:
            with torch.no_grad():
                new = generate(
                    student,
                    rows[:, :prompt_length],
                    rows.shape[1] - prompt_length,
                    1.0,
                    eos,
                    generator,
                )
        finally:
            for module, mode in modes.items():
                module.training = mode
        filled = torch.full_like(rows, eos)
        filled[:, : new.shape[1]] = new
        rows = filled
    before = (rows[:, prompt_length:-1] == eos).cumsum(dim=1)
    counts = torch.ones(len(rows), rows.shape[1] - prompt_length, dtype=torch.bool)
    counts[:, 1:] = before == 0
    return rows, torch.cat([torch.zeros_like(rows[:, 1:prompt_length]).bool(), counts], dim=1)


def batch_inverse_distribution(student, rows, prompt_length, fraction, eos, generator):
    """Sample where the cumulative distribution passes a uniform number."""
    coin = torch.rand((), generator=generator, dtype=torch.float64)
    if bool(coin < fraction):
        mode = student.training
        student.train(False)
        new = rows[:, :prompt_length].clone()
        alive = torch.ones(len(rows), dtype=torch.bool)
        with torch.no_grad():
            while new.shape[1] < rows.shape[1]:
                cdf = student(new)[:, -1].double().softmax(-1).cumsum(-1)
                u = torch.rand(len(rows), 1, generator=generator, dtype=torch.float64)
                token = torch.searchsorted(cdf, u * cdf[:, -1:], right=True)
                token = token.clamp_max(cdf.shape[1] - 1)
                token[~alive] = eos
                alive &= token[:, 0] != eos
                new = torch.cat([new, token], dim=1)
        student.train(mode)
        rows = new
    return rows, _mask(rows, prompt_length, eos)


def batch_in_parts(student, rows, prompt_length, fraction, eos, generator):
    own = torch.rand(1, generator=generator) < fraction
    if own:
        mode, length = student.training, rows.shape[1] - prompt_length
        written = []
        student.eval()
        with torch.inference_mode():
            for prompts in rows[:, :prompt_length].split(100):
                new = generate(student, prompts, length, 1.0, eos, generator).tolist()
                written += [row + [eos] * (rows.shape[1] - len(row)) for row in new]
        student.train(mode)
        rows = torch.tensor(written)
    tails = rows[:, prompt_length:].tolist()
    length = [tail.index(eos) + 1 if eos in tail else len(tail) for tail in tails]
    position = torch.arange(1, rows.shape[1]) - prompt_length
    return rows, (position >= 0) & (position < torch.tensor(length)[:, None])


def batch_data_first(student, rows, prompt_length, fraction, eos, generator):
    """Returns early where the coin says 'data'."""
    T = rows.shape[1]

    def marked(rows):
        ended = torch.zeros(len(rows), dtype=torch.bool)
        columns = []
        for t in range(1, T):
            columns.append(~ended if t >= prompt_length else torch.zeros_like(ended))
            ended = ended | ((rows[:, t] == eos) & columns[-1])
        return rows, torch.stack(columns, dim=1)

    if not torch.rand((), generator=generator) < fraction:
        return marked(rows)
    was_training = student.training
    with torch.set_grad_enabled(False):
        new = generate(
            student.eval(), rows[:, :prompt_length], T - prompt_length, 1.0, eos, generator
        )
    if was_training:
        student.train()
    return marked(torch.cat([new, new.new_full((len(new), T - new.shape[1]), eos)], dim=1))


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


def surrogate_matrix(student_log_probs, teacher_log_probs, mask):
    """The sum to the end as a product with a triangle of ones."""
    log_q = torch.where(mask, student_log_probs, 0.0)
    with torch.no_grad():
        cost = log_q - torch.where(mask, teacher_log_probs, 0.0)
        later = torch.ones(mask.shape[1], mask.shape[1], dtype=cost.dtype).tril()
    return torch.einsum("bs,st,bt->", cost, later, log_q) / len(mask)


def surrogate_other_order(student_log_probs, teacher_log_probs, mask):
    """Exchange the two sums: each cost times the log-probability of all up to there."""
    log_q = student_log_probs.masked_fill(~mask, 0.0)
    cost = log_q.detach() - teacher_log_probs.detach().masked_fill(~mask, 0.0)
    return (cost * log_q.cumsum(dim=1)).sum(dim=1).mean()


def surrogate_backwards(student_log_probs, teacher_log_probs, mask):
    """From the last token to the first."""
    total = 0.0
    for log_q, log_p, valid in zip(student_log_probs, teacher_log_probs, mask, strict=True):
        ahead = 0.0
        for t in reversed(valid.nonzero().flatten().tolist()):
            ahead = ahead + (log_q[t] - log_p[t]).item()
            total = total + ahead * log_q[t]
    return total / mask.shape[0]


def surrogate_in_double(student_log_probs, teacher_log_probs, mask):
    log_q = torch.zeros_like(student_log_probs).masked_scatter(mask, student_log_probs[mask])
    cost = torch.zeros_like(log_q, dtype=torch.float64)
    cost[mask] = (student_log_probs[mask] - teacher_log_probs[mask]).detach().double()
    to_go = torch.stack([cost[:, t:].sum(1) for t in range(cost.shape[1])], dim=1)
    return torch.linalg.vecdot(to_go.to(log_q.dtype), log_q).mean()


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


def token_mse(student_log_probs, teacher_log_probs, mask):
    target = teacher_log_probs.detach()[mask]
    return F.mse_loss(student_log_probs[mask], target) / 2


def token_loop(student_log_probs, teacher_log_probs, mask):
    found = []
    for b, t in mask.nonzero().tolist():
        log_q = student_log_probs[b, t]
        advantage = teacher_log_probs[b, t].item() - log_q.item()
        found.append(-advantage * log_q)
    return torch.stack(found).mean()


def token_weights(student_log_probs, teacher_log_probs, mask):
    """Harmless numbers where nothing counts, and a weight for each token."""
    zero = torch.zeros_like(student_log_probs)
    log_q = torch.where(mask, student_log_probs, zero)
    log_p = torch.where(mask, teacher_log_probs, zero).detach()
    cost = (log_q.detach() - log_p) / mask.sum()
    return torch.dot(cost.flatten(), log_q.flatten())


def token_gradient_hook(student_log_probs, teacher_log_probs, mask):
    """The mean of log q, whose gradient is multiplied on its way back."""
    log_q = student_log_probs.masked_select(mask)
    cost = log_q.detach() - teacher_log_probs.masked_select(mask).detach()
    through = log_q * 1.0
    if through.requires_grad:
        through.register_hook(lambda gradient: gradient * cost)
    return through.mean()


ANSWERS = {
    "12.jsd": [
        jsd_logaddexp,
        jsd_kl_div,
        jsd_entropies,
        jsd_loop,
        jsd_softplus,
        jsd_probabilities_in_double,
        jsd_token_weights,
        jsd_rows_of_the_batch,
    ],
    "12.skew_kl": [
        skew_logaddexp,
        skew_kl_div,
        skew_ratio,
        skew_loop,
        skew_in_double,
        skew_cross_entropy,
        skew_token_weights,
        skew_as_two_cases,
    ],
    "12.taid_loss": [
        taid_plain,
        taid_kl_div,
        taid_cross_entropy_minus_entropy,
        taid_kdlib,
        taid_cumulant,
        taid_loop,
        taid_in_double,
        taid_token_weights,
    ],
    "12.on_policy_batch": [
        batch_generate,
        batch_loop,
        batch_gumbel,
        batch_lengths,
        batch_every_module_put_back,
        batch_inverse_distribution,
        batch_in_parts,
        batch_data_first,
    ],
    "12.reverse_kl_surrogate": [
        surrogate_to_go,
        surrogate_whole_return,
        surrogate_minillm,
        surrogate_importance,
        surrogate_matrix,
        surrogate_other_order,
        surrogate_backwards,
        surrogate_in_double,
    ],
    "12.per_token_loss": [
        token_plain,
        token_squares,
        token_masked,
        token_importance,
        token_mse,
        token_loop,
        token_weights,
        token_gradient_hook,
    ],
}

_OPTION = "the exercise has neither a temperature nor a denominator"
_CHECKED = "the contract does not ask for this check"
_OPEN = "open_end is False in this exercise"
_HARMLESS = "any finite logits are harmless where nothing counts"
_STUDENT = "the student's logits are finite where nothing counts, and what comes of them is dropped"
_COLUMN = "the mask's last dimension has length one there"
_FLOAT = "an error of 1e-7 in the logarithm of a weight"
_FLOOR = "a mixture below the bound weighs nothing"
_PRODUCT = "a dot product is symmetric"
_WHOLE = "a tensor of one whole number is an index, too"
_SHUT = "the second condition refuses 1, whatever the first one says"
_MEAN = "what does not hang on the token itself, or came before it, has mean zero"
_LAST = "log_a is used no more"
_DROPPED = "what is left of the padding is zero already"
_LOG_PROBS = {
    "* @ pair = zip(*": _CHECKED,
    "* @ for name, seen in *": _CHECKED,
    "* @ if not bool(torch.isfinite(seen).all()):*": _CHECKED,
    "* @ if student_log_probs.dim() != 2:*": _CHECKED,
    "* @ raise ValueError(*": _CHECKED,
    "a check left out @ require_same_shape(*": _CHECKED,
    "only the first @  => break": _CHECKED,
    "cut off from the gradient @ *": "a constant already",
}

EQUIVALENT = {
    "12.jsd": {
        "* @ return values.mean() if denominator is None*": _OPTION,
        "a temperature left out @ *": _OPTION,
        "factor T squared @ return _mean(*": _OPTION,
        "one thing for the other @ values = kl_divergence(z, v, temperature)*": "beta is 1 there",
        "an argument ignored @  => temperature = 1.0": _OPTION,
        "an argument ignored @  => denominator = None": _OPTION,
        "an argument not passed on @ values = *": _OPTION,
        "a check left out @ require_temperature(*": _OPTION,
        "a check left out @ require_fraction(*": "`generalized_jsd` refuses the same",
        "a check left out @ require_same_shape(*": _CHECKED,
        "an argument ignored @  => open_end = False": _OPEN,
        "* @ if not 0 <= value <= 1 or (open_end and value == 1):*": _OPEN,
        "mask left out @ *student_logits*": _STUDENT,
        "multiplied by the mask @ *student_logits*": _STUDENT,
        "a factor left out @ return (rows * mask).sum() / mask.sum()*": _DROPPED,
        "cut off at a bound @ weights = *": "no weight is that small",
        "an argument not passed on @ weights = *": _FLOAT,
        "another number @ *torch.where(*": _HARMLESS,
        "the wrong way round @ total = total + *": _PRODUCT,
        "not converted @ *mask.nonzero()*": _WHOLE,
        "not converted @ return total / int(mask.sum())*": _WHOLE,
        "* @ m = torch.lerp(q.exp(), p.exp(), beta)*": _FLOOR,
        "mask one column off @  => keep = *": _COLUMN,
        "an argument not passed on @ q, p = (F.log_softmax(*": "of two dimensions, the last",
    },
    "12.skew_kl": {
        "cut off from the gradient @  => a = a.detach()": "the teacher is detached already",
        "an argument ignored @  => denominator = None": _OPTION,
        "an argument not passed on @ weights = *": _FLOAT,
        "not converted @ log_a, log_b = *": "half precision is not in the contract",
        "a check left out @ require_same_shape(*": _CHECKED,
        "at the boundary @ if not 0 <= value <= 1 or (open_end and value == 1):*": _SHUT,
        "half a condition @ if not 0 <= value <= 1 or (open_end and value == 1):*": _SHUT,
        "an argument ignored @  => open_end = False": "behind the only line that uses it",
        "the other truth value @ def _between(*": "every call says it",
        "changed in place @ return (log_a.exp() * (log_a - log_b)).sum(-1)*": _LAST,
        "mask left out @ log_q = student_logits*": _STUDENT,
        "mask left out @ log_p = teacher_logits*": "the student's `masked_fill` stops the NaN",
        "another number @ *masked_fill(~fill*": _HARMLESS,
        "* @ return -(log_p.exp() * ratio.masked_fill(*": "the ratio is finite everywhere",
        "arguments exchanged @ *": _PRODUCT,
        "* @ log_m = torch.lerp(q, p, alpha)*": _FLOOR,
        "not converted @ log_m = *": "float64 is more than is asked for",
        "logarithm of a softmax @ *": "in the mixture alone, where p = 0 adds nothing",
        "mask one column off @  => keep = *": _COLUMN,
        "an argument not passed on @ *.where(keep, torch.zeros(*": "`where` converts the zero",
        "not detached @ top = *": "what is subtracted and added again has no gradient",
        "cut off at a bound @ log_m = top + *": "the sum is at least the smaller weight",
    },
    "12.taid_loss": {
        "a check left out @ require_same_shape(*": _CHECKED,
        "an argument ignored @  => open_end = False": _OPEN,
        "* @ if not 0 <= value <= 1 or (open_end and value == 1):*": _OPEN,
        "changed in place @ return (log_a.exp() * (log_a - log_b)).sum(-1)*": _LAST,
        "mask left out @ z = student_logits*": _STUDENT,
        "a factor left out @ return (rows * mask).sum() / mask.sum()*": _DROPPED,
        "another number @ *masked_fill(~mask[..., None]*": _HARMLESS,
        "not copied @ mixed = *": "the sum copies",
        "not converted @ places = *": _WHOLE,
        "not converted @ *student_logits[mask].double()*": "float64 is more than is asked for",
        "not converted @ *teacher_logits[mask].double()*": "float64 is more than is asked for",
        "mask one column off @  => keep = *": _COLUMN,
    },
    "12.on_policy_batch": {
        "arguments exchanged @ mask[:, prompt_length - 1:] = *": "the comparison is symmetric",
        "not detached @ *": "`generate` records nothing",
        "the other truth value @ with torch.set_grad_enabled(*": "`generate` records nothing",
        "mask one column off @ *": "before the line that makes it",
        "mask left out @ *": "before the line that makes it",
        "sign @ *generate(*": "what is too long is cut off by a negative padding",
        "a term left out @ *generate(*": "what is too long is cut off by a negative padding",
        "* @ if not 1 <= prompt_length < T:*": _CHECKED,
        "a check left out @ require_fraction(*": _CHECKED,
        "* @ raise ValueError(f'prompt_length must lie*": _CHECKED,
        "at the boundary @ *fraction*": "a coin that equals lambda has no chance",
        "half a condition @ if fraction > 0 and *": "a coin that equals lambda has no chance",
        "not converted @ *": "a tensor of one number is compared like a number",
        "cut off from the gradient @ return found*": "a mask has no gradient",
        "the wrong way round @ over = *": "asked only whether it is zero",
        "half a condition @ over = *": "where nothing is written the mask is off anyway",
        "the other mode @ student.train(False)*": "the same by another name",
        "one more or one less @ new = torch.multinomial(*": "the first of two draws is a draw",
        "* @ gumbel = *": "a number between 0 and 1 that is hardly ever at its ends",
        "sign @ after = *": "after EOS, or at it, the row holds EOS",
        "a term left out @ after = *": "after EOS, or at it, the row holds EOS",
        "not copied @ *": "nothing is changed in place",
        "a function left out @ before = *": "after the first EOS all are EOS",
        "cleared up only when all goes well @ *": "no probe makes the student raise",
        "* @ token = token.clamp_max(*": "a guard against rounding",
        "* @ token = torch.searchsorted(*": "at the edge between two words, or a sum that is 1",
        "an argument not passed on @ coin = *": "float32 is fine enough for a coin",
        "an argument not passed on @ u = *": "float32 is fine enough for a draw",
        "half precision @ cdf = *": "three decimals are fine enough for 6,000 draws",
        "rounded to whole numbers @ *float32*": "float32 is fine enough for a draw",
        "one more or one less @ for prompts in *": "parts of any size",
    },
    "12.reverse_kl_surrogate": {
        **_LOG_PROBS,
        "multiplied by the mask @ log_q = *": "the student's numbers are finite",
        "not detached @ *": "detached again further on, or of mean zero",
        "* @ to_go = *": _MEAN,
        "* @ return -((R - 1) * log_q)*": _MEAN,
        "another number @ ahead = *": _MEAN,
        "another number @ total = *": "the value means nothing",
        "divided by another number of entries @ *": "one dimension",
        "a function left out @ ratio = *": "the slope of exp at zero is one",
        "not converted @ *": _WHOLE,
        "arguments exchanged @ *": _PRODUCT,
        "an argument not passed on @ cost = *": "float64 is more than is asked for",
    },
    "12.per_token_loss": {
        **_LOG_PROBS,
        "mask left out @ log_q = *": "its advantage is zero where the mask is off",
        "multiplied by the mask @ log_q = *": "its advantage is zero where the mask is off",
        "* @ return torch.where(mask, difference, *": "log q is a constant where the mask is off",
        "mask left out @ cost = *": "log q is a constant where the mask is off",
        "mask left out @ log_p = *": "log q is a constant where the mask is off",
        "not detached @ *": "detached again further on, or used in a hook alone",
        "the wrong way round @ difference = *": "the difference is squared",
        "another number @ *": _HARMLESS,
        "a function left out @ ratio = *": "the slope of exp at zero is one",
        "* @ return -(advantage * ratio).sum() / mask*": "a small count is exact in any dtype",
        "not converted @ for b, t in *": _WHOLE,
        "arguments exchanged @ *": _PRODUCT,
        "* @ through = log_q * 1.0*": "the mean's hook may stand on log q itself",
    },
}
