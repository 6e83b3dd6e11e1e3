"""Right answers to unit 05 that look different from the reference and from each other."""

import torch
import torch.nn.functional as F

from kdlib.losses import structure as logits


def _mask(logits, targets):
    return F.one_hot(targets, logits.shape[-1]).bool()


def split_gather(student_logits, teacher_logits, targets, temperature=4.0):
    def halves(z):
        rest = z[~_mask(z, targets)].view(len(z), -1)
        binary = torch.stack([z[torch.arange(len(z)), targets], rest.logsumexp(1)], 1)
        return binary.log_softmax(1), rest.log_softmax(1)

    bq, hq = halves(student_logits / temperature)
    bp, hp = halves(teacher_logits.detach() / temperature)
    return tuple((p.exp() * (p - q)).sum(1) for p, q in ((bp, bq), (hp, hq)))


def split_loop(student_logits, teacher_logits, targets, temperature=4.0):
    first, second = [], []
    for z, v, y in zip(student_logits, teacher_logits.detach(), targets.tolist(), strict=True):
        z, v = z / temperature, v / temperature
        keep = [c for c in range(len(z)) if c != y]
        q = torch.stack([z[y], torch.logsumexp(z[keep], 0)])
        p = torch.stack([v[y], torch.logsumexp(v[keep], 0)])
        for out, a, b in ((first, q, p), (second, z[keep], v[keep])):
            out.append(
                F.kl_div(a.log_softmax(0), b.log_softmax(0), reduction="sum", log_target=True)
            )
    return torch.stack(first), torch.stack(second)


def split_finite_mask(student_logits, teacher_logits, targets, temperature=4.0):
    mask = _mask(student_logits, targets)
    out = []
    for x in (student_logits / temperature, teacher_logits.detach() / temperature):
        hidden = x.masked_fill(mask, -1e30)
        hats = x - hidden.logsumexp(-1, keepdim=True)
        margin = x.gather(1, targets[:, None])[:, 0] - hidden.logsumexp(-1)
        out.append((F.logsigmoid(margin), F.logsigmoid(-margin), hats))
    (q1, q0, hq), (p1, p0, hp) = out
    tckd = p1.exp() * (p1 - q1) + p0.exp() * (p0 - q0)
    terms = hp.masked_fill(mask, -torch.inf).exp() * (hp - hq).masked_fill(mask, 0.0)
    return tckd, terms.sum(-1)


def split_sorted_away(student_logits, teacher_logits, targets, temperature=4.0):
    with torch.no_grad():
        v = teacher_logits / temperature
    z = student_logits / temperature
    order = _mask(z, targets).long().argsort(dim=1, stable=True)
    z, v = z.gather(1, order), v.gather(1, order)  # the target comes last

    def kl(t, s):
        return F.kl_div(s.log_softmax(1), t.softmax(1), reduction="none").sum(1)

    def binary(x):
        return torch.stack([x[:, -1], torch.logsumexp(x[:, :-1], 1)], 1)

    return [kl(binary(v), binary(z)), kl(v[:, :-1], z[:, :-1])]


def _three(student_logits):
    if student_logits.size(-1) <= 2:
        raise ValueError("two classes have no rest to speak of")


def dkd_from_split(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    _three(student_logits)
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return (alpha * tckd + beta * nckd).mean() * temperature**2


def dkd_means_first(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    _three(student_logits)
    parts = split_gather(student_logits, teacher_logits, targets, temperature)
    tckd, nckd = (part.sum() / len(targets) for part in parts)
    return temperature * temperature * alpha * tckd + temperature**2 * beta * nckd


def dkd_by_rows(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    _three(student_logits)
    rows = zip(*split_loop(student_logits, teacher_logits, targets, temperature), strict=True)
    return torch.stack([temperature**2 * (alpha * a + beta * b) for a, b in rows]).mean()


def dkd_weights(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    _three(student_logits)
    both = torch.stack(split_sorted_away(student_logits, teacher_logits, targets, temperature))
    weights = torch.tensor([alpha, beta], dtype=both.dtype)
    return temperature**2 * (weights @ both).mean()


def standardise_std(logits):
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-7)


def standardise_mean_of_squares(logits):
    centred = logits - logits.sum(-1, keepdim=True) / logits.shape[-1]
    return centred / (1e-7 + centred.norm(dim=-1, keepdim=True) / (logits.shape[-1] - 1) ** 0.5)


def standardise_rows(logits):
    return torch.stack([(z - z.mean()) / (z.std() + 1e-7) for z in logits])


def standardise_biased_corrected(logits):
    n = logits.shape[-1]
    std = torch.std(logits, dim=-1, correction=0, keepdim=True) * (n / (n - 1)) ** 0.5
    return logits.sub(logits.mean(dim=-1, keepdim=True)).div(std.add(1e-7))


def skd_kl_div(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    q = F.log_softmax(standardise_std(student_logits) / temperature, dim=1)
    p = F.softmax(standardise_std(teacher_logits.detach()) / temperature, dim=1)
    soft = F.kl_div(q, p, reduction="batchmean")
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def skd_reference_parts(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    q, p = (
        logits.standardise(x).div(temperature).log_softmax(-1)
        for x in (student_logits, teacher_logits.detach())
    )
    soft = (p.exp() * (p - q)).sum(-1).mean()
    hard = F.nll_loss(student_logits.log_softmax(-1), targets)
    return torch.lerp(hard, temperature**2 * soft, alpha)


def skd_through_kd_loss(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    from kdlib.losses import kd_loss

    soft = kd_loss(
        standardise_rows(student_logits),
        standardise_rows(teacher_logits),
        targets,
        temperature,
        1.0,
    )
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def skd_temperature_per_row(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    def softened(z):
        return (z / (temperature * (z.std(-1, keepdim=True) + 1e-7))).log_softmax(-1)

    p, q = softened(teacher_logits.detach()), softened(student_logits)
    soft = F.kl_div(q, p, reduction="none", log_target=True).sum() / len(q)
    hard = (student_logits.logsumexp(-1) - student_logits.gather(1, targets[:, None])[:, 0]).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def dist_cosine(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    def one_minus(a, b):
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return 1 - F.cosine_similarity(a, b, dim=1, eps=1e-8).mean()

    q = F.softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * (beta * one_minus(q, p) + gamma * one_minus(q.T, p.T))


def dist_dims(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q = (student_logits / temperature).softmax(-1)
    with torch.no_grad():
        p = (teacher_logits / temperature).softmax(-1)
    loss = 0.0
    for weight, dim in ((beta, 1), (gamma, 0)):
        a, b = q - q.mean(dim, keepdim=True), p - p.mean(dim, keepdim=True)
        r = (a * b).sum(dim) / (a.norm(dim=dim) * b.norm(dim=dim) + 1e-8)
        loss = loss + weight * temperature**2 * (1 - r.mean())
    return loss


def dist_standardised(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    def correlation(a, b):
        a, b = (F.normalize(x - x.mean(-1, keepdim=True), dim=-1, eps=1e-8) for x in (a, b))
        return torch.einsum("nc,nc->n", a, b)

    q, p = ((x / temperature).softmax(-1) for x in (student_logits, teacher_logits.detach()))
    rows, columns = 1 - correlation(q, p), 1 - correlation(q.t(), p.t())
    return temperature**2 * beta * rows.mean() + temperature**2 * gamma * columns.mean()


def dist_pearson(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = ((x / temperature).softmax(-1) for x in (student_logits, teacher_logits.detach()))
    rows = sum(1 - logits.pearson(a, b) for a, b in zip(q, p, strict=True)) / len(q)
    columns = torch.stack([1 - logits.pearson(q[:, c], p[:, c]) for c in range(q.shape[1])]).mean()
    return (beta * rows + gamma * columns) * temperature**2


ANSWERS = {
    "05.split_kd": [split_gather, split_loop, split_finite_mask, split_sorted_away],
    "05.dkd_loss": [dkd_from_split, dkd_means_first, dkd_by_rows, dkd_weights],
    "05.standardise": [
        standardise_std,
        standardise_mean_of_squares,
        standardise_rows,
        standardise_biased_corrected,
    ],
    "05.standardised_kd": [
        skd_kl_div,
        skd_reference_parts,
        skd_through_kd_loss,
        skd_temperature_per_row,
    ],
    "05.dist_loss": [dist_cosine, dist_dims, dist_standardised, dist_pearson],
}
