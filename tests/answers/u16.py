"""Right answers of unit 16, as different as can be."""

import copy
import pickle
from itertools import accumulate, pairwise, takewhile

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kdlib.losses import total_variation


def _states(hidden, mask):
    if len(hidden) < 2:
        raise ValueError("a layer has a state before and one after")
    if any(state.shape[:2] != mask.shape for state in hidden):
        raise ValueError("a state does not fit the mask")
    if mask.sum() == 0:
        raise ValueError("no token counts")


def influence_pairs(hidden, mask):
    _states(hidden, mask)
    kept = [state[mask] for state in hidden]
    return torch.stack([1 - F.cosine_similarity(a, b).mean() for a, b in pairwise(kept)])


def influence_normalised(hidden, mask):
    _states(hidden, mask)
    unit = F.normalize(torch.stack([state[mask] for state in hidden]), dim=-1)  # (L + 1, N, D)
    return 1 - torch.einsum("lnd,lnd->l", unit[:-1], unit[1:]) / unit.shape[1]


def influence_numpy(hidden, mask):
    _states(hidden, mask)
    h = torch.stack(list(hidden)).numpy()[:, mask.numpy()]
    dots = (h[:-1] * h[1:]).sum(-1)
    norms = np.linalg.norm(h, axis=-1)
    return torch.from_numpy(1 - (dots / (norms[:-1] * norms[1:])).mean(-1))


def influence_loop(hidden, mask):
    _states(hidden, mask)
    found = []
    for before, after in pairwise(hidden):
        total, count = 0.0, 0
        for b, t in mask.nonzero().tolist():
            x, y = before[b, t], after[b, t]
            total, count = total + x @ y / (x.norm() * y.norm()), count + 1
        found.append(1 - total / count)
    return torch.stack(found)


def influence_where(hidden, mask):
    """Put a harmless state where nothing counts; the shape stays `(B, T)`."""
    _states(hidden, mask)
    clean = [torch.where(mask[..., None], state, 1.0) for state in hidden]
    weight = mask / mask.sum()
    return torch.stack(
        [(weight * (1 - F.cosine_similarity(a, b, dim=2))).sum() for a, b in pairwise(clean)]
    )


def influence_distance(hidden, mask):
    """Half the squared distance of unit vectors is one minus their cosine."""
    _states(hidden, mask)
    unit = [state[mask] / state[mask].norm(dim=-1, keepdim=True) for state in hidden]
    return torch.stack([(a - b).square().sum(-1).mean() / 2 for a, b in pairwise(unit)])


def influence_in_double(hidden, mask):
    """Dot products and lengths added up over flat rows, in float64."""
    if len(hidden) < 2 or not bool(mask.any()):
        raise ValueError(f"{len(hidden)} states, {int(mask.sum())} tokens")
    rows = mask.flatten().nonzero()[:, 0]
    found = []
    before = hidden[0].flatten(0, 1).index_select(0, rows).double()
    for state in hidden[1:]:
        after = state.flatten(0, 1).index_select(0, rows).double()
        cosine = torch.linalg.vecdot(before, after) / (before.norm(dim=1) * after.norm(dim=1))
        found.append(cosine.mean().neg().add(1))
        before = after
    return torch.stack(found).to(hidden[0].dtype)


def influence_module(hidden, mask):
    _states(hidden, mask)
    cosine = nn.CosineSimilarity(dim=-1)
    rows = [torch.cat([row[keep] for row, keep in zip(h, mask, strict=True)]) for h in hidden]
    kept = [cosine(rows[i], rows[i + 1]) for i in range(len(rows) - 1)]
    return torch.tensor(1.0, dtype=rows[0].dtype) - torch.stack(kept).sum(1) / len(rows[0])


def influence_gram(hidden, mask):
    """The states of one token make a (L + 1, L + 1) table of cosines; read beside its diagonal."""
    _states(hidden, mask)
    states = torch.stack([state[mask] for state in hidden], dim=1)  # (N, L + 1, D)
    gram = states @ states.mT
    length = gram.diagonal(dim1=1, dim2=2).sqrt()
    table = gram / (length.unsqueeze(1) * length.unsqueeze(2))
    return 1 - table.diagonal(offset=1, dim1=1, dim2=2).mean(dim=0)


def _numbers(model, keep):
    depth = len(model.model.layers)
    wanted = set(keep)
    if not wanted or len(wanted) != len(keep) or not wanted <= set(range(depth)):
        raise ValueError(f"keep must name different layers of 0..{depth - 1}")
    return wanted


def _renumber(student):
    for place, layer in enumerate(student.model.layers):
        layer.self_attn.layer_idx = place
    student.config.num_hidden_layers = len(student.model.layers)
    return student


def keep_sorted(model, keep):
    student, numbers = copy.deepcopy(model), sorted(_numbers(model, keep))
    student.model.layers = nn.ModuleList([student.model.layers[n] for n in numbers])
    return _renumber(student)


def keep_deleting(model, keep):
    wanted, student = _numbers(model, keep), copy.deepcopy(model)
    for number in reversed(range(len(model.model.layers))):
        if number not in wanted:
            del student.model.layers[number]
    return _renumber(student)


def keep_popping(model, keep):
    wanted, student = _numbers(model, keep), copy.deepcopy(model)
    student.config.num_hidden_layers = 0
    for number in range(len(student.model.layers)):
        layer = student.model.layers.pop(0)
        if number in wanted:
            layer.self_attn.layer_idx = student.config.num_hidden_layers
            student.model.layers.append(layer)
            student.config.num_hidden_layers += 1
    return student


def keep_without_copying_the_rest(model, keep):
    """Tell deepcopy that the layers to go are copied already, as nothing."""
    wanted = _numbers(model, keep)
    gone = {id(x): None for n, x in enumerate(model.model.layers) if n not in wanted}
    student = copy.deepcopy(model, gone)
    student.model.layers = nn.ModuleList(x for x in student.model.layers if x is not None)
    return _renumber(student)


def keep_rebuilt(model, keep):
    """Make a shallower model and rename the weights."""
    numbers = sorted(_numbers(model, keep))
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(numbers)
    state = {k: v.clone() for k, v in model.state_dict().items() if ".layers." not in k}
    for place, number in enumerate(numbers):
        old, new = f"model.layers.{number}.", f"model.layers.{place}."
        state |= {
            new + k.removeprefix(old): v.clone()
            for k, v in model.state_dict().items()
            if k.startswith(old)
        }
    student = type(model)(config)
    student.load_state_dict(state)
    return student


def keep_copied_layers(model, keep):
    """Copy without any layer, then add a copy of each one wanted."""
    wanted = _numbers(model, keep)
    layers = model.model.layers
    try:
        model.model.layers = nn.ModuleList()
        student = copy.deepcopy(model)
    finally:
        model.model.layers = layers
    student.model.layers.extend(copy.deepcopy(layers[n]) for n in range(len(layers)) if n in wanted)
    return _renumber(student)


def keep_pickled(model, keep):
    """A copy by writing down and reading again."""
    wanted = _numbers(model, keep)
    student = pickle.loads(pickle.dumps(model))
    layers = list(student.model.layers.children())
    student.model.layers = nn.ModuleList(layers[n] for n in range(len(layers)) if n in wanted)
    return _renumber(student)


def keep_shifting(model, keep):
    """Move each layer to its new place and cut the list behind the last."""
    depth = len(model.model.layers)
    order = sorted(set(keep))
    if len(order) != len(keep) or not order or not 0 <= order[0] <= order[-1] < depth:
        raise ValueError(f"cannot keep {keep} of {depth} layers")
    student = copy.deepcopy(model)
    layers = student.model.layers
    for place, number in enumerate(order):
        layers[place] = layers[number]
        layers[place].self_attn.layer_idx = place
    del layers[len(order) :]
    student.config.num_hidden_layers = len(order)
    return student


def _cache_fits(logits, tokens, log_probs, mask):
    if tokens.shape != log_probs.shape:
        raise ValueError("a log-probability for each token")
    if not logits.shape[:2] == tokens.shape[:2] == mask.shape:
        raise ValueError("different positions")


def cached_selected(logits, tokens, log_probs, mask):
    _cache_fits(logits, tokens, log_probs, mask)
    z, kept, log_p = logits[mask], tokens[mask], log_probs[mask]
    log_q, p = z.log_softmax(-1), log_p.exp()
    loss = (p * (log_p - log_q.gather(-1, kept))).sum()
    if kept.shape[-1] < z.shape[-1]:
        rest = (1 - p.sum(-1)).clamp(min=0)
        outside = torch.ones_like(z, dtype=torch.bool).scatter(-1, kept, False)
        log_rest = log_q.masked_fill(~outside, -torch.inf).logsumexp(-1)
        loss = loss + (torch.special.xlogy(rest, rest) - rest * log_rest).sum()
    return loss / max(1, int(mask.sum()))


def cached_events(logits, tokens, log_probs, mask):
    """Write down both distributions over K + 1 events, and let PyTorch take the divergence."""
    _cache_fits(logits, tokens, log_probs, mask)
    z, kept, p = logits[mask], tokens[mask], log_probs[mask].exp()
    log_q = z.log_softmax(-1)
    events = log_q.gather(-1, kept)
    if kept.shape[-1] < z.shape[-1]:
        rest = log_q.scatter(-1, kept, -torch.inf).logsumexp(-1, keepdim=True)
        events = torch.cat([events, rest], dim=-1)
        p = torch.cat([p, (1 - p.sum(-1, keepdim=True)).clamp(min=0)], dim=-1)
    return F.kl_div(events, p, reduction="sum") / max(1, len(z))


def cached_loop(logits, tokens, log_probs, mask):
    _cache_fits(logits, tokens, log_probs, mask)
    total, count = 0 * logits[mask].sum(), 0
    for b, t in mask.nonzero().tolist():
        log_q = logits[b, t] - logits[b, t].logsumexp(0)
        left = 1.0
        for token, log_p in zip(tokens[b, t].tolist(), log_probs[b, t].tolist(), strict=True):
            p = float(np.exp(log_p))
            total, left = total + p * (log_p - log_q[token]), left - p
        others = sorted(set(range(len(log_q))) - set(tokens[b, t].tolist()))
        if others and left > 0:
            total = total + left * (np.log(left) - log_q[others].logsumexp(0))
        count += 1
    return total / max(count, 1)


def cached_where(logits, tokens, log_probs, mask):
    """Keep the shape `(B, T)`: put harmless numbers where nothing counts, before any softmax."""
    _cache_fits(logits, tokens, log_probs, mask)
    z = torch.where(mask[..., None], logits, 0.0)
    log_p = torch.where(mask[..., None], log_probs, 0.0)
    log_q = F.log_softmax(z, dim=-1)
    p = log_p.exp()
    terms = p * log_p - p * torch.take_along_dim(log_q, tokens, -1)
    each = torch.where(mask, terms.sum(-1), 0.0)
    if tokens.shape[-1] != logits.shape[-1]:
        rest = (1 - p.sum(-1)).clamp(0, 1)
        inside = F.one_hot(tokens, logits.shape[-1]).any(-2)
        log_rest = torch.where(inside, -torch.inf, log_q).logsumexp(-1)
        tail = -torch.special.entr(rest) - rest * log_rest
        each = each + torch.where(mask, tail, 0.0)
    return each.sum() / mask.sum().clamp(min=1)


def cached_sorted(logits, tokens, log_probs, mask):
    """Sort the kept tokens to the front of the vocabulary; the rest is what stands behind."""
    _cache_fits(logits, tokens, log_probs, mask)
    z, kept, log_p = (x[mask] for x in (logits, tokens, log_probs))
    if not len(z):
        return z.sum()
    k = kept.shape[-1]
    front = torch.zeros_like(z, dtype=torch.long).scatter(-1, kept, 1)
    others = front.argsort(dim=-1, stable=True)[:, : z.shape[-1] - k]
    p, norm = log_p.exp(), z.logsumexp(-1, keepdim=True)
    loss = F.kl_div(z.gather(-1, kept) - norm, log_p, reduction="none", log_target=True).sum(-1)
    if k < z.shape[-1]:
        rest = F.relu(1 - p.sum(-1))
        log_q = z.gather(-1, others).logsumexp(-1) - norm[:, 0]
        loss = loss + F.kl_div(log_q, rest, reduction="none")
    return loss.mean()


def cached_cross_entropy(logits, tokens, log_probs, mask):
    """Cross-entropy less the teacher's entropy, event by event."""
    _cache_fits(logits, tokens, log_probs, mask)
    z, kept, p = logits[mask], tokens[mask], log_probs[mask].exp()
    dense = torch.zeros_like(z).scatter(-1, kept, p)  # (N, V)
    entropy = torch.special.entr(p).sum()
    cross = -(dense * z.log_softmax(-1)).sum()
    if p.shape[-1] < z.shape[-1]:
        rest = (1 - p.sum(-1)).clamp_min(0.0)
        hidden = torch.zeros_like(z).scatter(-1, kept, -torch.inf)
        cross = cross + (rest * (z.logsumexp(-1) - (z + hidden).logsumexp(-1))).sum()
        entropy = entropy + torch.special.entr(rest).sum()
    return (cross - entropy) / max(len(z), 1)


def cached_in_double(logits, tokens, log_probs, mask):
    _cache_fits(logits, tokens, log_probs, mask)
    z, log_p = logits[mask].double(), log_probs[mask].double()
    kept = tokens[mask]
    if len(kept) == 0:
        return logits[mask].sum()
    log_q = z.log_softmax(1)
    p, own = log_p.exp(), log_q.gather(1, kept)
    each = torch.linalg.vecdot(p, log_p - own)
    if kept.shape[1] < z.shape[1]:
        rest = (1.0 - p.sum(1)).clamp(min=0.0)
        hidden = torch.zeros_like(log_q).scatter(1, kept, -torch.inf)
        log_rest = (log_q + hidden).logsumexp(1)
        each = each - torch.special.entr(rest) - rest * log_rest
    return each.mean().to(logits.dtype)


def cached_dense_events(logits, tokens, log_probs, mask):
    """Give each token the number of its event, and add up probabilities by number."""
    _cache_fits(logits, tokens, log_probs, mask)
    total = 0.0 * logits[mask].sum()
    V, K = logits.shape[-1], tokens.shape[-1]
    for z, kept, log_p in zip(logits[mask], tokens[mask], log_probs[mask], strict=True):
        p = log_p.exp()
        numerators = [z[token] for token in kept]
        if K < V:
            outside = torch.ones(V, dtype=torch.bool).index_fill(0, kept, False)
            numerators.append(z[outside].logsumexp(0))
            p = torch.cat([p, (1 - p.sum()).clamp_min(0)[None]])
        log_q = torch.stack(numerators) - z.logsumexp(0)
        total = total + (torch.special.xlogy(p, p) - p * log_q).sum()
    return total / max(int(mask.sum()), 1)


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


def accept_searchsorted(drafted, q, p, uniforms):
    """Cut the draft at its first refusal, then look the last number up in a running sum."""
    _draft_fits(drafted, q, p, uniforms)
    row = torch.arange(len(drafted))
    stays = uniforms[:-1] * q[row, drafted] < p[row, drafted]
    refused = (~stays).nonzero().flatten().tolist()
    n = refused[0] if refused else len(drafted)
    weights = p[n].clone()
    if refused:
        weights = torch.where(weights > q[n], weights - q[n], 0.0)
    running = weights.cumsum(0)
    added = torch.searchsorted(running, uniforms[-1:] * running[-1], right=True)
    return torch.cat([drafted[:n], added.clamp_max(len(running) - 1)])


def accept_iterators(drafted, q, p, uniforms):
    """The standard library takes while, accumulates, and finds the first."""
    _draft_fits(drafted, q, p, uniforms)
    draft, chances = drafted.tolist(), uniforms.tolist()
    judged = zip(draft, chances, q.tolist(), p.tolist(), strict=False)
    stay = list(takewhile(lambda j: j[1] * j[2][j[0]] < j[3][j[0]], judged))
    n = len(stay)
    rest = (p[n] - q[n]).clamp(min=0) if n < len(draft) else p[n]
    sums = rest.cumsum(0).tolist()
    limit = chances[-1] * sums[-1]
    added = next((token for token, s in enumerate(sums) if s > limit), len(sums) - 1)
    return torch.tensor([*(token for token, *_ in stay), added], dtype=torch.int64)


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


def acceptance_in_double(p_logits, q_logits, mask, temperature=1.0):
    """One less half the summed distance, with the two models stacked, in float64."""
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}")
    if not mask.any():
        raise ValueError("no token counts")
    both = torch.stack([p_logits[mask], q_logits[mask]]).double() / temperature
    gap = both.softmax(-1).diff(dim=0).abs().sum(dim=(0, 2))
    return (1 - gap / 2).mean().to(p_logits.dtype)


def acceptance_rows(p_logits, q_logits, mask, temperature=1.0):
    """Row after row; harmless logits where nothing counts."""
    _models_fit(p_logits, q_logits, mask, temperature)
    total = 0.0
    for z, v, keep in zip(p_logits, q_logits, mask, strict=True):
        p, q = (torch.where(keep[:, None], x, 0.0).div(temperature).softmax(1) for x in (z, v))
        total = total + (torch.where(p < q, p, q).sum(1) * keep).sum()
    return total / mask.sum()


ANSWERS = {
    "16.block_influence": [
        influence_pairs,
        influence_normalised,
        influence_numpy,
        influence_loop,
        influence_where,
        influence_distance,
        influence_in_double,
        influence_module,
        influence_gram,
    ],
    "16.keep_layers": [
        keep_sorted,
        keep_deleting,
        keep_popping,
        keep_without_copying_the_rest,
        keep_rebuilt,
        keep_copied_layers,
        keep_pickled,
        keep_shifting,
    ],
    "16.cached_kd": [
        cached_selected,
        cached_events,
        cached_loop,
        cached_where,
        cached_sorted,
        cached_cross_entropy,
        cached_in_double,
        cached_dense_events,
    ],
    "16.accept_draft": [
        accept_python,
        accept_cumprod,
        accept_padded,
        accept_logs,
        accept_numpy,
        accept_recursive,
        accept_searchsorted,
        accept_iterators,
    ],
    "16.acceptance": [
        acceptance_distance,
        acceptance_library,
        acceptance_expectation,
        acceptance_loop,
        acceptance_numpy,
        acceptance_positive_part,
        acceptance_in_double,
        acceptance_rows,
    ],
}

_UNASKED = "the contract does not ask for this check"
_WORDS = "the contract asks for a ValueError, not for its words"
_SCALAR = "a tensor of one number is a number here"
_WHOLE = "whole numbers, without a graph"
_ENTRIES = "a vector has as many entries as rows"
_FINAL = "no number reaches the end of the sum: uniforms are below one"
_GRAPH = "numbers about a model: no gradient is asked for"

EQUIVALENT = {
    "16.block_influence": {
        "* @ for state in hidden:*": _UNASKED,
        "* @ if state.shape[:-1] != mask.shape:*": _UNASKED,
        "* @ if any((state.shape*": _UNASKED,
        "*exception* @ raise ValueError('a state does not fit*": _UNASKED,
        '*exception* @ raise ValueError(f"each*': _UNASKED,
        "only the first @  => break": _UNASKED,
        "* @  => mask = *": "behind the check, its only use there",
        "an exception without what was given @ *": _WORDS,
        "an argument not passed on @ return torch.tensor(1.0*": "one is exact in float32",
        "another number @ clean = *": "any state does that is not zero, or has no weight",
        "arguments exchanged @ *": "a cosine is symmetric",
        "the wrong way round @ *": "a cosine, or a distance, is symmetric",
        "cut off from the gradient @ *": _GRAPH,
        "not converted @ *": _SCALAR,
        "not copied @ h = *": "a tuple can be stacked, too",
        "one more or one less @ return *": "all states are of one type and one number of tokens",
    },
    "16.keep_layers": {
        "an exception without what was given @ *": _WORDS,
        "cleared up only when all goes well @ *": "the contract does not speak of errors",
        "not copied @ config = *": "a config's numbers",
        "not copied @ state *": "`load_state_dict` copies",
        "one thing for the other @ layers[place]*": "one layer in two places",
        "the loop ends too early @ state *": "no layer stands first, and a layer stands last",
        "two steps exchanged @ *": "the two do not depend on each other",
    },
    "16.cached_kd": {
        "a check left out @ *": _UNASKED,
        "* @ if not logits.shape[:2] == *": _UNASKED,
        "* @ if tokens.shape != log_probs.shape *": _UNASKED,
        "*exception* @ *": _UNASKED,
        "* @  => mask = *": "behind the check, its only use there",
        "* @ front = *": "an order of zeros and ones",
        "* @ others = *": "the order of the others does not matter",
        "* @ rest = (1 - p.sum(-1)).clamp(0, 1)*": "no rest is above one",
        "another number @ log_p = *": "what does not count is dropped afterwards",
        "another number @ z = *": "what does not count is dropped afterwards",
        "* @ log_p = torch.where(mask*": "what does not count is dropped afterwards",
        "* @ each = *": "finite, since what does not count is harmless already",
        "* @ terms = torch.where(p > 0*": "log-probabilities are finite",
        "arguments exchanged @ each = *": "a product is symmetric",
        "cut off from the gradient @  => log_probs = *": "the teacher's are a constant",
        "divided by another number of entries @ *len(*": _ENTRIES,
        "divided by another number of entries @ *terms*": _ENTRIES,
        "not converted @ *": "float32 is near enough, or " + _SCALAR,
        "the other truth value @ *": "the order of the others does not matter",
    },
    "16.accept_draft": {
        "a check left out @ *": _UNASKED,
        "* @ if p.shape != (G + 1, V) or *": _UNASKED,
        "* @ if tuple(p.shape) != *": _UNASKED,
        "*exception* @ *": _UNASKED,
        "* @ added = next(*": _FINAL,
        "* @ *clamp(max=V - 1)*": _FINAL,
        "* @ *clamp_max(len(running) - 1)*": _FINAL,
        "an argument not passed on @ *dtype=*": "whole numbers and truth values by themselves",
        "at the boundary @ weights = *": "a difference of zero",
        "multiplied by the mask @ weights = *": "zero times a finite number",
        "cut off from the gradient @ *": _WHOLE,
        "divided by another number of entries @ *": _ENTRIES,
        "half precision @  => drafted = *": "tokens below 2,049 are exact in half",
        "not converted @ *": _SCALAR,
        "not copied @ weights = *": "nothing is changed in place",
        "one more or one less @ chance = *": "no uniform is as large as one",
        "one more or one less @ n = *": "the first of several is found",
        "one more or one less @ own_p = *": "`gather` leaves the last row out",
        "rounded to whole numbers @ *": _WHOLE,
        "the wrong way round @ left = *": "a sign that cancels when it is divided by the sum",
    },
    "16.acceptance": {
        "a check left out @ *": _UNASKED,
        "* @ if mask.shape != *": _UNASKED,
        "* @ if p_logits.shape != *": _UNASKED,
        "*exception* @ raise ValueError(f'mask must*": _UNASKED,
        "*exception* @ raise ValueError('shapes*": _UNASKED,
        "* @  => mask = *": "behind the check, its only use there",
        "an exception without what was given @ *": _WORDS,
        "* @ gap = *": "one dimension more, of one",
        "another number @ p, q = *": "any finite number does where nothing counts",
        "arguments exchanged @ *": "the two models may change places",
        "roles exchanged @ *": "the two models may change places",
        "the wrong way round @ *": "the two models may change places",
        "at the boundary @ total = *": "equal probabilities",
        "not converted @ both = *": "right in the precision of the input, too",
        "not converted @ *": _SCALAR,
    },
}
