"""Wrong answers to unit 16, written from the notebook's text."""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _states(hidden, mask):
    if len(hidden) < 2 or not mask.any():
        raise ValueError("fewer than two states, or no token that counts")


def _cosines(a, b):
    return F.cosine_similarity(a, b, dim=-1)


@wrong("16.block_influence", "the cosine itself", "one minus the mean cosine")
def similarity(hidden, mask):
    _states(hidden, mask)
    pairs = pairwise(hidden)
    return torch.stack([_cosines(a[mask], b[mask]).mean() for a, b in pairs])


@wrong("16.block_influence", "each state against the first", "each layer's input and output")
def against_the_first(hidden, mask):
    _states(hidden, mask)
    first = hidden[0][mask]
    return torch.stack([1 - _cosines(first, b[mask]).mean() for b in hidden[1:]])


@wrong("16.block_influence", "cosine of the mean states", "a mean over tokens of cosines")
def mean_states(hidden, mask):
    _states(hidden, mask)
    means = [h[mask].mean(0) for h in hidden]
    return torch.stack([1 - _cosines(a, b) for a, b in pairwise(means)])


@wrong("16.block_influence", "mean of row means", "all tokens that count weigh the same")
def row_means(hidden, mask):
    _states(hidden, mask)
    found = []
    for a, b in pairwise(hidden):
        rows = [_cosines(x[m], y[m]).mean() for x, y, m in zip(a, b, mask, strict=True) if m.any()]
        found.append(1 - torch.stack(rows).mean())
    return torch.stack(found)


@wrong("16.block_influence", "multiplies by the mask", "where the mask is False: NaN, too")
def masked_product(hidden, mask):
    _states(hidden, mask)
    pairs = pairwise(hidden)
    return torch.stack([1 - (_cosines(a, b) * mask).sum() / mask.sum() for a, b in pairs])


@wrong("16.block_influence", "nanmean in place of the mask", "states there may hold anything")
def nanmean(hidden, mask):
    _states(hidden, mask)
    pairs = pairwise(hidden)
    return torch.stack([1 - _cosines(a, b).nanmean() for a, b in pairs])


@wrong("16.block_influence", "zeroes the padding in place", "do not write into them")
def zeroes_in_place(hidden, mask):
    _states(hidden, mask)
    for state in hidden:
        state[~mask] = 0.0
    pairs = pairwise(hidden)
    return torch.stack([1 - (_cosines(a, b) * mask).sum() / mask.sum() for a, b in pairs])


@wrong("16.block_influence", "cosine over the tokens, dim=0", "vectors of D numbers")
def over_tokens(hidden, mask):
    _states(hidden, mask)
    pairs = pairwise(hidden)
    return torch.stack([1 - F.cosine_similarity(a[mask], b[mask], dim=0).mean() for a, b in pairs])


@wrong(
    "16.block_influence", "no ValueError for an empty mask", "no token that counts: a ValueError"
)
def empty_mask(hidden, mask):
    if len(hidden) < 2:
        raise ValueError("fewer than two states")
    pairs = pairwise(hidden)
    return torch.stack([1 - _cosines(a[mask], b[mask]).mean() for a, b in pairs])


@wrong("16.block_influence", "no ValueError for one state", "fewer than two states")
def one_state(hidden, mask):
    if not mask.any():
        raise ValueError("no token counts")
    pairs = pairwise(hidden)
    found = [1 - _cosines(a[mask], b[mask]).mean() for a, b in pairs]
    return torch.stack(found) if found else torch.zeros(0)


@wrong("16.block_influence", "one cosine of all tokens together", "a cosine belongs to one token")
def flattened(hidden, mask):
    _states(hidden, mask)
    pairs = pairwise(hidden)
    return torch.stack([1 - _cosines(a[mask].flatten(), b[mask].flatten()) for a, b in pairs])


def _numbers(model, keep):
    count = len(model.model.layers)
    if not keep or len(set(keep)) != len(keep) or not all(0 <= i < count for i in keep):
        raise ValueError(f"layers {list(keep)} of {count}")
    return sorted(keep)


def _renumber(layers):
    for place, layer in enumerate(layers):
        layer.self_attn.layer_idx = place


@wrong("16.keep_layers", "places in the cache stay", "places count 0, 1, 2, ...")
def old_places(model, keep):
    numbers = _numbers(model, keep)
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in numbers)
    small.config.num_hidden_layers = len(numbers)
    return small


@wrong("16.keep_layers", "the config stays", "the config fits")
def old_config(model, keep):
    numbers = _numbers(model, keep)
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in numbers)
    _renumber(small.model.layers)
    return small


@wrong("16.keep_layers", "in the order of `keep`", "in the model's own order")
def order_of_keep(model, keep):
    _numbers(model, keep)
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in keep)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(keep)
    return small


@wrong("16.keep_layers", "a shallow copy with copied layers", "shares nothing with the copy")
def shallow(model, keep):
    numbers = _numbers(model, keep)
    small = copy.copy(model)
    small._modules = dict(model._modules)
    small.model = copy.copy(model.model)
    small.model._modules = dict(model.model._modules)
    small.config = copy.deepcopy(model.config)
    small.model.layers = nn.ModuleList(copy.deepcopy(model.model.layers[i]) for i in numbers)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(numbers)
    return small


@wrong("16.keep_layers", "a copy with the model's own layers", "shares nothing with the copy")
def borrowed_layers(model, keep):
    numbers = _numbers(model, keep)
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(model.model.layers[i] for i in numbers)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(numbers)
    return small


@wrong("16.keep_layers", "cuts the model itself and copies that", "the model stays as it is")
def cuts_the_model(model, keep):
    numbers = _numbers(model, keep)
    model.model.layers = nn.ModuleList(model.model.layers[i] for i in numbers)
    _renumber(model.model.layers)
    model.config.num_hidden_layers = len(numbers)
    return copy.deepcopy(model)


@wrong("16.keep_layers", "negative numbers count from the end", "outside 0..L-1: a ValueError")
def negative_numbers(model, keep):
    count = len(model.model.layers)
    numbers = sorted({i % count for i in keep if i < count})
    if not keep or len(numbers) != len(keep):
        raise ValueError(f"layers {list(keep)} of {count}")
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in numbers)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(numbers)
    return small


@wrong("16.keep_layers", "names given twice are merged", "a layer named twice: a ValueError")
def twice_is_once(model, keep):
    numbers = _numbers(model, list(set(keep)))
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in numbers)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(numbers)
    return small


@wrong("16.keep_layers", "no layer is a model, too", "no layer: a ValueError")
def no_layer(model, keep):
    numbers = _numbers(model, keep) if keep else []
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in numbers)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(numbers)
    return small


@wrong("16.keep_layers", "IndexError for a number too large", "outside 0..L-1: a ValueError")
def index_error(model, keep):
    if not keep or len(set(keep)) != len(keep) or min(keep) < 0:
        raise ValueError(f"layers {list(keep)}")
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList([small.model.layers[i] for i in sorted(keep)])
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(keep)
    return small


@wrong("16.keep_layers", "drops the layers named", "only the layers numbered in `keep`")
def drops_them(model, keep):
    numbers = _numbers(model, keep)
    rest = [i for i in range(len(model.model.layers)) if i not in numbers]
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in rest)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(rest)
    return small


@wrong("16.keep_layers", "sorts the caller's list", "keep is an argument, the caller's")
def sorts_the_callers_list(model, keep):
    _numbers(model, keep)
    keep.sort()
    small = copy.deepcopy(model)
    small.model.layers = nn.ModuleList(small.model.layers[i] for i in keep)
    _renumber(small.model.layers)
    small.config.num_hidden_layers = len(keep)
    return small


def _chosen(logits, tokens, log_probs, mask):
    """What counts: the student's logits (N, V) and the K tokens (N, K) with their log-probs."""
    return logits[mask], tokens[mask], log_probs[mask].to(logits.dtype)


def _log_rest(z, tokens):
    return z.scatter(1, tokens, float("-inf")).logsumexp(1) - z.logsumexp(1)


def _kl(log_p, log_q):
    return (torch.xlogy(log_p.exp(), log_p.exp()) - log_p.exp() * log_q).sum(1)


def _cached(z, tokens, log_p):
    """The right divergence of each position, for answers that are wrong elsewhere."""
    log_q = z.gather(1, tokens) - z.logsumexp(1, keepdim=True)
    kl = _kl(log_p, log_q)
    if tokens.shape[1] == z.shape[1]:
        return kl
    rest = (1 - log_p.exp().sum(1)).clamp(min=0)
    return kl + torch.xlogy(rest, rest) - rest * _log_rest(z, tokens)


@wrong("16.cached_kd", "leaves the rest out", "p_r log(p_r / q_r)")
def rest_left_out(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    z, at, log_p = _chosen(logits, tokens, log_probs, mask)
    log_q = z.log_softmax(1).gather(1, at)
    return _kl(log_p, log_q).mean()


@wrong("16.cached_kd", "renormalises both over K", "everything else as one event")
def both_renormalised(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    z, at, log_p = _chosen(logits, tokens, log_probs, mask)
    log_q, log_p = z.gather(1, at).log_softmax(1), log_p.log_softmax(1)
    return _kl(log_p, log_q).mean()


@wrong("16.cached_kd", "renormalises the teacher alone", "everything else as one event")
def teacher_renormalised(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    z, at, log_p = _chosen(logits, tokens, log_probs, mask)
    log_q, log_p = z.log_softmax(1).gather(1, at), log_p.log_softmax(1)
    return _kl(log_p, log_q).mean()


@wrong("16.cached_kd", "1 - sum q, clamped", "exact however sure the student is")
def one_minus_the_sum(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    z, at, log_p = _chosen(logits, tokens, log_probs, mask)
    log_q = z.log_softmax(1).gather(1, at)
    p_rest = (1 - log_p.exp().sum(1)).clamp(min=0)
    q_rest = (1 - log_q.exp().sum(1)).clamp(min=1e-8)
    kl = _kl(log_p, log_q)
    return (kl + torch.xlogy(p_rest, p_rest) - p_rest * q_rest.log()).mean()


@wrong("16.cached_kd", "shifts the teacher by one", "at the same positions; nothing to shift")
def shifted(logits, tokens, log_probs, mask):
    if not mask[:, 1:].any():
        return logits.nan_to_num().sum() * 0
    args = logits[:, :-1], tokens[:, 1:], log_probs[:, 1:], mask[:, 1:]
    return _cached(*_chosen(*args)).mean()


@wrong("16.cached_kd", "NaN for a mask of nothing", "no position that counts: the loss is 0")
def mean_of_nothing(logits, tokens, log_probs, mask):
    return _cached(*_chosen(logits, tokens, log_probs, mask)).mean()


@wrong("16.cached_kd", "a fresh zero for a mask of nothing", "backward works")
def fresh_zero(logits, tokens, log_probs, mask):
    if not mask.any():
        return torch.zeros((), dtype=logits.dtype)
    return _cached(*_chosen(logits, tokens, log_probs, mask)).mean()


@wrong("16.cached_kd", "zero times the sum of logits that may be NaN", "the loss is 0")
def zero_times_nan(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.sum() * 0
    return _cached(*_chosen(logits, tokens, log_probs, mask)).mean()


@wrong("16.cached_kd", "p_r not clamped", "a little more than 1: then p_r is 0")
def negative_rest(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    z, at, log_p = _chosen(logits, tokens, log_probs, mask)
    log_q = z.log_softmax(1).gather(1, at)
    kl = _kl(log_p, log_q)
    if at.shape[1] == z.shape[1]:
        return kl.mean()
    rest = 1 - log_p.exp().sum(1)
    return (kl + rest * (rest.log() - _log_rest(z, at))).mean()


@wrong("16.cached_kd", "no case for K = V", "it works, gradient included, for K = V")
def no_rest_at_all(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    z, at, log_p = _chosen(logits, tokens, log_probs, mask)
    log_q = z.log_softmax(1).gather(1, at)
    kl = _kl(log_p, log_q)
    rest = (1 - log_p.exp().sum(1)).clamp(min=0)
    return (kl + torch.xlogy(rest, rest) - rest * _log_rest(z, at)).mean()


@wrong("16.cached_kd", "multiplies by the mask", "where it is False everything may be NaN")
def masked_at_the_end(logits, tokens, log_probs, mask):
    v = logits.shape[-1]
    each = _cached(
        logits.reshape(-1, v),
        tokens.flatten(0, 1),
        log_probs.flatten(0, 1).to(logits.dtype),
    ).view(mask.shape)
    return (each * mask).sum() / mask.sum().clamp(min=1)


@wrong("16.cached_kd", "a mean over all positions", "the N positions that count")
def all_positions(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    return _cached(*_chosen(logits, tokens, log_probs, mask)).sum() / mask.numel()


@wrong("16.cached_kd", "the rest spread over V - K tokens", "the rest as one event")
def rest_spread(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.nan_to_num().sum() * 0
    z, at, log_p = _chosen(logits, tokens, log_probs, mask)
    others = z.shape[1] - at.shape[1]
    if others == 0:
        return _cached(z, at, log_p).mean()
    rest = (1 - log_p.exp().sum(1, keepdim=True)).clamp(min=0) / others
    p = rest.expand_as(z).scatter(1, at, log_p.exp())
    return (torch.xlogy(p, p) - p * z.log_softmax(1)).sum(1).mean()


@wrong("16.cached_kd", "float32 inside and out", "a scalar in the dtype of logits")
def always_float32(logits, tokens, log_probs, mask):
    if not mask.any():
        return logits.float().nan_to_num().sum() * 0
    return _cached(*_chosen(logits.float(), tokens, log_probs, mask)).mean()


def _draw(weights, u):
    total = weights.cumsum(0)
    return int((total > u * total[-1]).nonzero()[0])


def _accepted(drafted, q, p, uniforms, stays=lambda u, q, p: u * q < p):
    kept = []
    for t, x in enumerate(drafted.tolist()):
        if not stays(uniforms[t], q[t, x], p[t, x]):
            return kept, t
        kept.append(x)
    return kept, None


def _tokens(kept, added):
    return torch.tensor([*kept, added], dtype=torch.int64)


def _residual(p, q):
    return (p - q).clamp(min=0)


@wrong("16.accept_draft", "draws the replacement from p", "from max(0, p - q)")
def replacement_from_p(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[len(drafted) if at is None else at]
    return _tokens(kept, _draw(row, uniforms[-1]))


@wrong("16.accept_draft", "draws from |p - q|", "max(0, p - q)")
def absolute_difference(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else (p[at] - q[at]).abs()
    return _tokens(kept, _draw(row, uniforms[-1]))


@wrong("16.accept_draft", "does not normalise the residual", "max(0, p - q), normalised")
def residual_not_normalised(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else _residual(p[at], q[at])
    above = (row.cumsum(0) > uniforms[-1]).nonzero()
    return _tokens(kept, int(above[0]) if len(above) else p.shape[1] - 1)


@wrong("16.accept_draft", "goes on after a refusal", "everything after it is dropped too")
def goes_on(drafted, q, p, uniforms):
    kept, refused = [], None
    for t, x in enumerate(drafted.tolist()):
        if uniforms[t] * q[t, x] < p[t, x]:
            kept.append(x)
        elif refused is None:
            refused = t
    row = p[-1] if refused is None else _residual(p[refused], q[refused])
    return _tokens(kept, _draw(row, uniforms[-1]))


@wrong("16.accept_draft", "no token more when all stay", "one token more, for free")
def nothing_for_free(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    if at is None:
        return drafted.clone()
    return _tokens(kept, _draw(_residual(p[at], q[at]), uniforms[-1]))


@wrong(
    "16.accept_draft", "uniforms[t] again for the replacement", "uniforms[G] draws, in either case"
)
def same_number_twice(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else _residual(p[at], q[at])
    return _tokens(kept, _draw(row, uniforms[len(drafted) if at is None else at]))


@wrong("16.accept_draft", "the next number for the replacement", "the last one draws")
def next_number(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else _residual(p[at], q[at])
    return _tokens(kept, _draw(row, uniforms[len(kept) + (at is not None)]))


@wrong("16.accept_draft", "<= for <", "it stays if uniforms[t] * q < p")
def or_equal(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms, lambda u, q, p: u * q <= p)
    row = p[-1] if at is None else _residual(p[at], q[at])
    return _tokens(kept, _draw(row, uniforms[-1]))


@wrong("16.accept_draft", "the most probable replacement", "one token is drawn")
def most_probable(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else _residual(p[at], q[at])
    return _tokens(kept, int(row.argmax()))


@wrong("16.accept_draft", "accepts where p is larger, coin ignored", "with probability min(1, p/q)")
def deterministic(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms, lambda u, q, p: q <= p)
    row = p[-1] if at is None else _residual(p[at], q[at])
    return _tokens(kept, _draw(row, uniforms[-1]))


@wrong("16.accept_draft", "cumulative probability that reaches the number", "that exceeds it")
def reaches(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else _residual(p[at], q[at])
    total = row.cumsum(0)
    return _tokens(kept, int((total >= uniforms[-1] * total[-1]).nonzero()[0]))


@wrong("16.accept_draft", "the last row of p after a refusal", "in its place from p_t - q_t")
def last_row(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else _residual(p[at + 1], q[at])
    return _tokens(kept, _draw(row, uniforms[-1]))


@wrong("16.accept_draft", "its own randomness", "no randomness of its own")
def own_randomness(drafted, q, p, uniforms):
    kept, at = _accepted(drafted, q, p, uniforms)
    row = p[-1] if at is None else _residual(p[at], q[at])
    return _tokens(kept, int(torch.multinomial(row, 1)))


def _check(mask, temperature):
    if temperature <= 0 or not mask.any():
        raise ValueError(f"temperature {temperature}, {int(mask.sum())} tokens count")


@wrong("16.acceptance", "the plain sum of differences", "1 - TV, with the half")
def without_half(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    p, q = (x[mask].div(temperature).softmax(-1) for x in (p_logits, q_logits))
    return (1 - (p - q).abs().sum(-1)).clamp(min=0).mean()


@wrong("16.acceptance", "temperature on the draft alone", "both models decode at the same")
def draft_alone(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    p, q = p_logits[mask].softmax(-1), q_logits[mask].div(temperature).softmax(-1)
    return torch.minimum(p, q).sum(-1).mean()


@wrong("16.acceptance", "a mean over the vocabulary, too", "the formula's sum over x")
def vocabulary_mean(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    p, q = (x[mask].div(temperature).softmax(-1) for x in (p_logits, q_logits))
    return torch.minimum(p, q).mean()


@wrong("16.acceptance", "mean of row means", "all tokens that count weigh the same")
def acceptance_row_means(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    rows = []
    for v, z, m in zip(p_logits, q_logits, mask, strict=True):
        if m.any():
            p, q = v[m].div(temperature).softmax(-1), z[m].div(temperature).softmax(-1)
            rows.append(torch.minimum(p, q).sum(-1).mean())
    return torch.stack(rows).mean()


@wrong("16.acceptance", "multiplies by the mask", "where the mask is False, logits may be NaN")
def acceptance_product(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    p, q = (x.div(temperature).softmax(-1) for x in (p_logits, q_logits))
    return (torch.minimum(p, q).sum(-1) * mask).sum() / mask.sum()


@wrong("16.acceptance", "how often the top tokens agree", "the mean of alpha")
def agreement(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    same = p_logits[mask].argmax(-1) == q_logits[mask].argmax(-1)
    return same.to(p_logits.dtype).mean()


@wrong("16.acceptance", "the product of p and q", "min(p, q): the chance that x stays")
def collision(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    p, q = (x[mask].div(temperature).softmax(-1) for x in (p_logits, q_logits))
    return (p * q).sum(-1).mean()


@wrong("16.acceptance", "min of the mean distributions", "alpha of each token, then the mean")
def means_first(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    p, q = (x[mask].div(temperature).softmax(-1).mean(0) for x in (p_logits, q_logits))
    return torch.minimum(p, q).sum()


@wrong("16.acceptance", "zero is a temperature: greedy", "not positive: a ValueError")
def zero_is_greedy(p_logits, q_logits, mask, temperature=1.0):
    if temperature < 0 or not mask.any():
        raise ValueError("negative temperature or no token")
    if temperature == 0:
        return agreement(p_logits, q_logits, mask)
    p, q = (x[mask].div(temperature).softmax(-1) for x in (p_logits, q_logits))
    return torch.minimum(p, q).sum(-1).mean()


@wrong("16.acceptance", "zero where no token counts", "no token that counts: a ValueError")
def zero_when_empty(p_logits, q_logits, mask, temperature=1.0):
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    p, q = (x[mask].div(temperature).softmax(-1) for x in (p_logits, q_logits))
    return torch.minimum(p, q).sum() / mask.sum().clamp(min=1)


@wrong("16.acceptance", "multiplies by the temperature", "logits / T")
def multiplied(p_logits, q_logits, mask, temperature=1.0):
    _check(mask, temperature)
    p, q = (x[mask].mul(temperature).softmax(-1) for x in (p_logits, q_logits))
    return torch.minimum(p, q).sum(-1).mean()
