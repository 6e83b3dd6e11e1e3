"""Right answers to 16.accept_draft and 16.acceptance, as different as can be."""

from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F

from kdlib.divergences import total_variation


def _draft_fits(drafted, q, p, uniforms):
    n, v = q.shape
    if tuple(p.shape) != (n + 1, v) or len(drafted) != n or len(uniforms) != n + 1:
        raise ValueError("the large model needs one row and one number more than the draft")


def accept_python(drafted, q, p, uniforms):
    """Use no tensor operation at all."""
    _draft_fits(drafted, q, p, uniforms)
    x, q, p, u = drafted.tolist(), q.tolist(), p.tolist(), uniforms.tolist()
    kept, rest = [], p[-1]
    for t in range(len(x)):
        if u[t] * q[t][x[t]] < p[t][x[t]]:
            kept.append(x[t])
        else:
            rest = [max(0.0, a - b) for a, b in zip(p[t], q[t], strict=True)]
            break
    total = sum(rest)
    kept.append(next(i for i, c in enumerate(accumulate(rest)) if c > u[-1] * total))
    return torch.tensor(kept)


def accept_cumprod(drafted, q, p, uniforms):
    """Judge all at once; a product of ones and zeros counts those before the first refusal."""
    _draft_fits(drafted, q, p, uniforms)
    G = len(drafted)
    own_q = q.gather(1, drafted[:, None])[:, 0]
    own_p = p[:G].gather(1, drafted[:, None])[:, 0]
    n = int((uniforms[:G] < own_p / own_q).long().cumprod(0).sum())
    rest = F.relu(p[n] - q[n]) if n < G else p[n]
    cdf = torch.cumsum(rest / rest.sum(), 0)
    return torch.cat([drafted[:n], (cdf <= uniforms[G]).sum().view(1)])


def accept_padded(drafted, q, p, uniforms):
    """A draft that says nothing after its last token leaves all of p there."""
    _draft_fits(drafted, q, p, uniforms)
    rest = torch.clamp(p - F.pad(q, (0, 0, 0, 1)), min=0)
    each = torch.arange(len(drafted))
    refused = uniforms[:-1] * q[each, drafted] >= p[each, drafted]
    n = torch.cat([refused, torch.ones(1, dtype=torch.bool)]).int().argmax()
    cumulative = rest[n].cumsum(0)
    new = (cumulative > uniforms[-1] * cumulative[-1]).int().argmax()
    return torch.cat([drafted, new[None]])[: n + 1].index_fill(0, n, new.item())


def accept_logs(drafted, q, p, uniforms):
    _draft_fits(drafted, q, p, uniforms)
    kept = []
    for t, x in enumerate(drafted):
        if not torch.log(uniforms[t]) + torch.log(q[t, x]) < torch.log(p[t, x]):
            left = p[t] - torch.minimum(p[t], q[t])
            break
        kept.append(int(x))
    else:
        left = p[-1]
    cdf = left.cumsum(0) / left.sum()
    kept.append(int(torch.bucketize(uniforms[-1], cdf, right=True)))
    return torch.tensor(kept, dtype=torch.long)


def accept_numpy(drafted, q, p, uniforms):
    _draft_fits(drafted, q, p, uniforms)
    x, q, p, u = (a.numpy() for a in (drafted, q, p, uniforms))
    chance = np.minimum(1, p[np.arange(len(x)), x] / q[np.arange(len(x)), x])
    refused = np.flatnonzero(u[:-1] >= chance)
    if len(refused):
        n = refused[0]
        weights = np.maximum(p[n] - q[n], 0)
    else:
        n, weights = len(x), p[-1]
    cdf = np.cumsum(weights / weights.sum())
    return torch.from_numpy(np.append(x[:n], np.searchsorted(cdf, u[-1], side="right")))


def accept_recursive(drafted, q, p, uniforms):
    """A draft that keeps its first token is that token and a shorter draft."""
    _draft_fits(drafted, q, p, uniforms)
    if len(drafted) and uniforms[0] * q[0, drafted[0]] < p[0, drafted[0]]:
        rest = accept_recursive(drafted[1:], q[1:], p[1:], uniforms[1:])
        return torch.cat([drafted[:1], rest])
    left = (p[0] - q[0]).clamp(min=0) if len(drafted) else p[0]
    cumulative = left.cumsum(0)
    return torch.nonzero(cumulative > uniforms[-1] * cumulative[-1])[0]


def _models_fit(p_logits, q_logits, mask, temperature):
    if p_logits.shape != q_logits.shape or p_logits.shape[:2] != mask.shape:
        raise ValueError("shapes do not fit")
    if not temperature > 0:
        raise ValueError("a temperature is positive")
    if int(mask.sum()) == 0:
        raise ValueError("nothing to average")


def acceptance_distance(p_logits, q_logits, mask, temperature=1.0):
    _models_fit(p_logits, q_logits, mask, temperature)
    p, q = (F.softmax(z[mask] / temperature, dim=-1) for z in (p_logits, q_logits))
    return 1 - 0.5 * (p - q).abs().sum() / len(p)


def acceptance_library(p_logits, q_logits, mask, temperature=1.0):
    _models_fit(p_logits, q_logits, mask, temperature)
    return 1 - total_variation(p_logits[mask] / temperature, q_logits[mask] / temperature).mean()


def acceptance_expectation(p_logits, q_logits, mask, temperature=1.0):
    """Average min(1, p/q) under q, in logarithms."""
    _models_fit(p_logits, q_logits, mask, temperature)
    log_p, log_q = ((z / temperature).log_softmax(-1) for z in (p_logits, q_logits))
    stays = (log_q.exp() * (log_p - log_q).clamp(max=0).exp()).sum(-1)
    return torch.where(mask, stays, 0.0).sum() / mask.sum()


def acceptance_loop(p_logits, q_logits, mask, temperature=1.0):
    _models_fit(p_logits, q_logits, mask, temperature)
    found = []
    for b, t in mask.nonzero().tolist():
        p = torch.softmax(p_logits[b, t] / temperature, 0)
        q = torch.softmax(q_logits[b, t] / temperature, 0)
        found.append(torch.stack([p, q]).amin(0).sum())
    return sum(found) / len(found)


def acceptance_numpy(p_logits, q_logits, mask, temperature=1.0):
    _models_fit(p_logits, q_logits, mask, temperature)
    rows = []
    for z in (p_logits, q_logits):
        z = z.numpy()[mask.numpy()] / temperature
        e = np.exp(z - z.max(-1, keepdims=True))
        rows.append(e / e.sum(-1, keepdims=True))
    return torch.tensor(np.minimum(*rows).sum(-1).mean())


def acceptance_positive_part(p_logits, q_logits, mask, temperature=1.0):
    """What the draft has too much is refused."""
    _models_fit(p_logits, q_logits, mask, temperature)
    p = p_logits[mask].div(temperature).softmax(-1)
    q = q_logits[mask].div(temperature).softmax(-1)
    return (1 - F.relu(q - p).sum(-1)).mean()


ANSWERS = {
    "16.accept_draft": [
        accept_python,
        accept_cumprod,
        accept_padded,
        accept_logs,
        accept_numpy,
        accept_recursive,
    ],
    "16.acceptance": [
        acceptance_distance,
        acceptance_library,
        acceptance_expectation,
        acceptance_loop,
        acceptance_numpy,
        acceptance_positive_part,
    ],
}
