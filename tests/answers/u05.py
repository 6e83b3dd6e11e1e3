"""Right answers to unit 05 that look different from the reference and from each other."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.losses import kl_divergence
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


def split_bernoulli(student_logits, teacher_logits, targets, temperature=4.0):
    """TCKD from the two margins alone; NCKD with the target at minus infinity."""

    def look(logits):
        z = logits / temperature
        rest = z.scatter(1, targets[:, None], -torch.inf)
        norm = rest.logsumexp(1)
        return z.gather(1, targets[:, None])[:, 0] - norm, rest - norm[:, None]

    (mine, hat_q), (theirs, hat_p) = look(student_logits), look(teacher_logits.detach())
    share = theirs.sigmoid()
    gain = F.binary_cross_entropy_with_logits
    tckd = gain(mine, share, reduction="none") - gain(theirs, share, reduction="none")
    gaps = torch.where(hat_p.isinf(), 0.0, hat_p - hat_q.nan_to_num(neginf=0.0))
    return tckd, (hat_p.exp() * gaps).sum(1)


def split_rolled(student_logits, teacher_logits, targets, temperature=4.0):
    """Turn each row until its target comes first."""
    columns = (targets[:, None] + torch.arange(student_logits.shape[1])) % student_logits.shape[1]
    z = student_logits.gather(1, columns) / temperature
    v = teacher_logits.detach().gather(1, columns) / temperature
    pairs = [torch.cat([x[:, :1], x[:, 1:].logsumexp(1, keepdim=True)], dim=1) for x in (v, z)]
    return kl_divergence(*pairs), kl_divergence(v[:, 1:], z[:, 1:])


def split_double_inside(student_logits, teacher_logits, targets, temperature=4.0):
    both = torch.stack([teacher_logits.detach(), student_logits]).double() / temperature
    wrong = torch.arange(both.shape[-1]) != targets[:, None]
    rest = both[:, wrong].view(2, len(targets), -1)
    log_z, log_rest = both.logsumexp(-1), rest.logsumexp(-1)
    own = both[:, ~wrong]
    log_b = torch.stack([own - log_z, log_rest - log_z])  # (2, network, B)
    tckd = (log_b[:, 0].exp() * (log_b[:, 0] - log_b[:, 1])).sum(0)
    hats = rest - log_rest.unsqueeze(-1)
    nckd = torch.einsum("bc,bc->b", hats[0].exp(), hats[0] - hats[1])
    return tckd.to(student_logits.dtype), nckd.to(student_logits.dtype)


def split_cross_entropies(student_logits, teacher_logits, targets, temperature=4.0):
    """Each half as a cross-entropy less the teacher's entropy."""
    rows = torch.arange(len(targets))

    def pair(z):
        both = zip(z, targets.tolist(), strict=True)
        rest = torch.stack([torch.cat([row[:y], row[y + 1 :]]) for row, y in both])
        return torch.stack([torch.logsumexp(rest, 1), z[rows, targets]], dim=1), rest

    found = []
    mine, theirs = pair(student_logits / temperature), pair(teacher_logits.detach() / temperature)
    for z, v in zip(mine, theirs, strict=True):
        p = v.softmax(1)
        cross = F.cross_entropy(z, p, reduction="none")
        found.append(cross - F.cross_entropy(v, p, reduction="none"))
    return tuple(found)


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


def dkd_rolled(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    classes = student_logits.shape[1]
    if classes < 3:
        raise ValueError(f"DKD needs three classes, got {classes}: NCKD would always be zero")
    target, rest = split_rolled(student_logits, teacher_logits, targets, temperature)
    loss = target.mul(alpha).add(rest, alpha=beta)
    return loss.mean().mul(temperature**2)


def dkd_keywords(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    batch, classes = student_logits.size()
    if classes in (1, 2):
        raise ValueError("NCKD is zero with two classes")
    given = {"targets": targets, "temperature": temperature}
    parts = logits.split_kd(student_logits=student_logits, teacher_logits=teacher_logits, **given)
    weighed = (weight * part for weight, part in zip((alpha, beta), parts, strict=True))
    return temperature**2 / batch * torch.stack(list(weighed)).sum()


def dkd_kl_div(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    """Two batchmeans: one over two outcomes, one over the other classes."""
    _three(student_logits)
    order = _mask(student_logits, targets).long().argsort(dim=1, stable=True)
    halves = []
    for x in (student_logits, teacher_logits.detach()):
        z = x.gather(1, order) / temperature  # the target comes last
        binary = torch.cat([z[:, :-1].logsumexp(1, keepdim=True), z[:, -1:]], dim=1)
        halves.append((binary.log_softmax(1), z[:, :-1].log_softmax(1)))
    kl = nn.KLDivLoss(reduction="batchmean", log_target=True)
    tckd, nckd = (kl(q, p) for q, p in zip(*halves, strict=True))
    return (temperature**2 * alpha) * tckd + (temperature**2 * beta) * nckd


def dkd_in_double(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    _three(student_logits)
    z, v = student_logits.double(), teacher_logits.detach().double()
    tckd, nckd = split_finite_mask(z, v, targets, temperature)
    rows = torch.stack([tckd, nckd], dim=1)
    loss = rows @ rows.new_tensor([alpha, beta])
    return (loss.sum() * temperature * temperature / len(loss)).to(student_logits.dtype)


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


def standardise_layer_norm(logits):
    """Layer norm has the biased deviation; float64 leaves room for a small floor."""
    n = logits.shape[-1]
    z = F.layer_norm(logits.double(), (n,), eps=1e-14) * ((n - 1) / n) ** 0.5
    return z.to(logits.dtype)


def standardise_clamped_variance(logits):
    variance, mean = torch.var_mean(logits, dim=-1, keepdim=True)
    return (logits - mean) / variance.clamp_min(1e-14).sqrt()


def standardise_where(logits):
    """A row without spread is divided by one."""
    centred = logits - logits.mean(-1, keepdim=True)
    std = logits.std(dim=-1, keepdim=True)
    return centred / torch.where(std > 1e-9, std, 1.0)


def standardise_normalize(logits):
    """The root of C - 1 times a vector of length one."""
    mean = torch.einsum("bc->b", logits) / logits.shape[-1]
    unit = F.normalize(logits - mean[:, None], dim=-1, eps=1e-9)
    return math.sqrt(logits.shape[-1] - 1) * unit


def standardise_matrix(logits):
    n = logits.shape[-1]
    centred = logits @ (torch.eye(n, dtype=logits.dtype) - 1.0 / n)
    centred = torch.where(centred.abs() < 1e-12, 0.0, centred)
    std, _ = torch.std_mean(logits, dim=1, unbiased=True, keepdim=True)
    return centred * (std + 1e-7).reciprocal()


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


def skd_soft_cross_entropy(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    z = logits.standardise(student_logits) / temperature
    with torch.no_grad():
        v = logits.standardise(teacher_logits) / temperature
        p = F.softmax(v, dim=-1)
        entropy = F.cross_entropy(v, p)
    hard = F.cross_entropy(student_logits, targets)
    return alpha * temperature**2 * (F.cross_entropy(z, p) - entropy) + (1 - alpha) * hard


def skd_rows(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    total = 0.0
    both = logits.standardise(torch.cat([student_logits, teacher_logits.detach()]))
    z, v = both.tensor_split(2)
    for n, y in enumerate(targets.tolist()):
        log_q, log_p = (x[n].div(temperature).log_softmax(0) for x in (z, v))
        soft = torch.dot(log_p.exp(), log_p - log_q)
        hard = student_logits[n].logsumexp(0) - student_logits[n, y]
        total = total + alpha * temperature * temperature * soft + (1 - alpha) * hard
    return total / targets.numel()


def skd_double_inside(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    z, v = student_logits.double(), teacher_logits.detach().double()
    soft = kl_divergence(standardise_layer_norm(v), standardise_layer_norm(z), temperature)
    hard = F.nll_loss(z.log_softmax(1), targets, reduction="none")
    rows = torch.stack([soft * temperature**2, hard])
    weights = rows.new_tensor([alpha, 1 - alpha])
    return torch.einsum("k,kn->", weights, rows).div(len(z)).to(student_logits.dtype)


def skd_modules(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    soften = nn.LogSoftmax(dim=1)
    log_q = soften(logits.standardise(student_logits) / temperature)
    log_p = soften(logits.standardise(teacher_logits) / temperature).detach()
    soft = nn.KLDivLoss(reduction="batchmean", log_target=True)(log_q, log_p)
    hard = nn.CrossEntropyLoss()(student_logits, targets)
    return torch.stack([soft * temperature**2, hard]) @ hard.new_tensor([alpha, 1 - alpha])


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


def dist_safe_division(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    """No epsilon: without spread the denominator is one, and the numerator zero."""

    def correlation(a, b, dim):
        a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
        size = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
        return (a * b).sum(dim) / torch.where(size > 1e-12, size, 1.0)

    q = torch.softmax(student_logits / temperature, dim=1)
    p = torch.softmax(teacher_logits / temperature, dim=1).detach()
    rows, columns = (1 - correlation(q, p, dim).mean() for dim in (1, 0))
    return temperature**2 * (beta * rows + gamma * columns)


def dist_covariances(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    """r from means: E ab - E a E b over the two deviations; float64 inside."""
    q = student_logits.double().div(temperature).softmax(1)
    p = teacher_logits.detach().double().div(temperature).softmax(1)
    loss = 0.0
    for a, b, weight in ((q, p, beta), (q.T, p.T, gamma)):
        covariance = (a * b).mean(1) - a.mean(1) * b.mean(1)
        spread = [x.var(1, correction=0).clamp_min(1e-20).sqrt() for x in (a, b)]
        loss = loss + weight * (1 - covariance / (spread[0] * spread[1])).mean()
    return (temperature**2 * loss).to(student_logits.dtype)


def dist_class(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    """The distance as a module of its own, used in both directions."""
    apart = _Apart()
    q = nn.Softmax(dim=-1)(student_logits / temperature)
    with torch.no_grad():
        p = nn.Softmax(dim=-1)(teacher_logits / temperature)
    loss = beta * apart(q, p) + gamma * apart(q.t(), p.t())
    return loss * temperature * temperature


class _Apart(nn.Module):
    def __init__(self, eps=1e-8):
        super().__init__()
        self.cosine = nn.CosineSimilarity(dim=1, eps=eps)

    def forward(self, a, b):
        centred = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
        return (1 - self.cosine(*centred)).mean()


def dist_rows_and_columns(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    """Row by row, column by column."""
    q, p = ((x / temperature).softmax(1) for x in (student_logits, teacher_logits.detach()))

    def correlation(a, b):
        a, b = a - a.mean(), b - b.mean()
        return torch.dot(a, b) / (a.norm() * b.norm() + 1e-8)

    rows = torch.stack([correlation(*pair) for pair in zip(q, p, strict=True)])
    columns = torch.stack([correlation(q[:, c], p[:, c]) for c in range(q.shape[1])])
    return temperature**2 * (beta * (1 - rows).mean() + gamma * (1 - columns).mean())


ANSWERS = {
    "05.split_kd": [
        split_gather,
        split_loop,
        split_finite_mask,
        split_sorted_away,
        split_bernoulli,
        split_rolled,
        split_double_inside,
        split_cross_entropies,
    ],
    "05.dkd_loss": [
        dkd_from_split,
        dkd_means_first,
        dkd_by_rows,
        dkd_weights,
        dkd_rolled,
        dkd_keywords,
        dkd_kl_div,
        dkd_in_double,
    ],
    "05.standardise": [
        standardise_std,
        standardise_mean_of_squares,
        standardise_rows,
        standardise_biased_corrected,
        standardise_layer_norm,
        standardise_clamped_variance,
        standardise_where,
        standardise_normalize,
        standardise_matrix,
    ],
    "05.standardised_kd": [
        skd_kl_div,
        skd_reference_parts,
        skd_through_kd_loss,
        skd_temperature_per_row,
        skd_soft_cross_entropy,
        skd_rows,
        skd_double_inside,
        skd_modules,
    ],
    "05.dist_loss": [
        dist_cosine,
        dist_dims,
        dist_standardised,
        dist_pearson,
        dist_safe_division,
        dist_covariances,
        dist_class,
        dist_rows_and_columns,
    ],
}

_UNASKED = "the contract does not ask for this check"
_HALF = "float16 is not in the contract"
_VECTOR = "a vector has as many entries as rows"
_PRECISION = "right in the precision of the input, too"
_FLOOR = "a floor against division by zero: any tiny number does"
_ORDER = "any order of the other classes does, if it is that of both networks"
_NOTHING = "the probability that it is multiplied by is zero"
_GIVEN = "the temperature is passed on"
_PEARSON = "a correlation is symmetric"
_PAIR = {
    "a check left out @ require_*": _UNASKED,
    "a check left out @ for name, logits in both:*": _UNASKED,
    "the loop ends too early @ for name, logits in both:*": _UNASKED,
    "only the first @  => break": _UNASKED,
    "* @ z, v = (x.float() if *": _HALF,
}
_SPLIT = {
    "another number @ hidden = *": "any number does that no logit comes near",
    "another number @ terms = *": _NOTHING,
    "mask left out @ terms = *.masked_fill(mask, 0.0)*": _NOTHING,
    "cut off from the gradient @ return F.one_hot(*": "a mask carries no graph",
    "divided by another number of entries @ *": _VECTOR,
    "* @ order = *": _ORDER,
    "sign @ columns = *": _ORDER,
    "the wrong way round @ margin = *": "the two outcomes exchanged, in both networks",
}

EQUIVALENT = {
    "05.split_kd": {
        **_PAIR,
        "* @ if z.shape[-1] < 2:*": _UNASKED,
        "* @ raise ValueError(f'student_logits must have at least two*": _UNASKED,
        "* @ gaps = *": _NOTHING,
        **_SPLIT,
        "one thing for the other @ mask = *": "both are of one shape",
        "the wrong way round @ return (z.gather(*": "the two outcomes exchanged, in both networks",
        "not converted @ both = torch.stack(*": _PRECISION,
        "not converted @ *targets.tolist()*": "a tensor of one whole number is an index, too",
        "not copied @ return tuple(found)*": "a list is a pair, too",
    },
    "05.dkd_loss": {
        "another default @ *": _GIVEN,
        "an exception without what was given @ *": "which words give the reason is left open",
        "one more or one less @ if classes in (1, 2):*": "`split_kd` of kdlib refuses one class",
        **_SPLIT,
        "* @ return tuple(*": "the mean that follows is of all entries",
        "arguments exchanged @ weighed = *": "a product is symmetric",
        "not converted @ z, v = *": _PRECISION,
        "not converted @ for z, v, y in *": "a tensor of one whole number is an index, too",
        "not converted @ return F.one_hot(*": "zeros and ones sort like truth values",
        "not detached @ *": "detached a second time",
    },
    "05.standardise": {
        "a check left out @ *": _UNASKED,
        "* @ if logits.shape[-1] < 2:*": _UNASKED,
        "* @ raise ValueError(f'logits must have at least two*": _UNASKED,
        "* @ centred = torch.where(*": "a constant row is zero up to rounding in any case",
        "an argument not passed on @ std, _ = *": "unbiased is the default",
        "* @ *1e-07*": _FLOOR,
        "another number @ return (logits - mean) / variance.clamp_min(*": _FLOOR,
        "* @ return centred / torch.where(*": _FLOOR,
        "another number @ unit = *": _FLOOR,
        "another number @ z = F.layer_norm(*": _FLOOR,
        "* @ z = logits.float() if *": _HALF,
        "not converted @ z = F.layer_norm(*": _PRECISION,
    },
    "05.standardised_kd": {
        **_PAIR,
        "another number @ *": _FLOOR,
        "sign @ *- 1e-07*": _FLOOR,
        "* @ return (logits - logits.mean(*": "a constant on a row changes no softmax",
        "* @ return torch.stack([(z - z.mean()) *": "a constant on a row changes no softmax",
        "arguments exchanged @ soft = torch.dot(*": "a dot product is symmetric",
        "the wrong way round @ return torch.stack(*": "a dot product is symmetric",
        "divided by another number of entries @ *": _VECTOR,
        "not converted @ for n, y in *": "a tensor of one whole number is an index, too",
        "not converted @ z = F.layer_norm(*": _PRECISION,
        "not converted @ z, v = (student_logits.double()*": _PRECISION,
        "not converted @ return z.to(logits.dtype)*": "the loss is converted in the end",
    },
    "05.dist_loss": {
        **_PAIR,
        "* @ if z.dim() != 2:*": _UNASKED,
        "* @ raise ValueError(f'student_logits must have shape*": _UNASKED,
        "roles exchanged @ def pearson(*": _PEARSON,
        "arguments exchanged @ *": _PEARSON,
        "the wrong way round @ a, b = *": "two signs that cancel",
        "cut off from the gradient @  => b = b.detach()": "b is the teacher, a constant",
        "changed in place @ a, b = *": "the mean of a row of probabilities is 1/C in every row",
        "an argument ignored @  => eps = 1e-08": "no other value is passed",
        "an argument not passed on @ *": _FLOOR,
        "another default @ def pearson(*": _FLOOR,
        "another number @ *": _FLOOR,
        "at the boundary @ *": _FLOOR,
        "sign @ *1e-08*": _FLOOR,
        "sign @ *eps*": _FLOOR,
        "not converted @ *": _PRECISION,
    },
}
