"""Right answers of unit 11, as different as can be."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def shift_lengths(ids, lengths, prompt_lengths):
    place = torch.arange(ids.shape[1] - 1)[None] + 1
    return (
        ids[:, :-1],
        ids[:, 1:],
        (place < lengths.unsqueeze(1)) & (place >= prompt_lengths.unsqueeze(1)),
    )


def shift_loop(ids, lengths, prompt_lengths):
    mask = torch.zeros(len(ids), ids.shape[1] - 1, dtype=torch.bool)
    for b, (n, p) in enumerate(zip(lengths.tolist(), prompt_lengths.tolist(), strict=True)):
        mask[b, p - 1 : n - 1] = True
    return ids[:, :-1].clone(), ids[:, 1:].clone(), mask


def shift_full_mask(ids, lengths, prompt_lengths):
    place = torch.arange(ids.shape[1]).expand_as(ids)
    counts = place.lt(lengths[:, None]).logical_and(place.ge(prompt_lengths[:, None]))
    return ids.narrow(1, 0, ids.shape[1] - 1), ids.narrow(1, 1, ids.shape[1] - 1), counts[:, 1:]


def shift_cumulative(ids, lengths, prompt_lengths):
    def before(n):
        edge = F.one_hot(n, ids.shape[1] + 1).cumsum(1)[:, :-1]
        return edge == 0

    mask = before(lengths) & ~before(prompt_lengths)
    return ids[:, :-1], torch.roll(ids, -1, 1)[:, :-1], mask[:, 1:]


def shift_ranges(ids, lengths, prompt_lengths):
    """Whether a target's place is in the row's own range."""
    ranges = [range(p, n) for p, n in zip(prompt_lengths.tolist(), lengths.tolist(), strict=True)]
    mask = torch.tensor([[place in r for place in range(1, ids.shape[1])] for r in ranges])
    return ids[..., :-1], ids[..., 1:], mask


def shift_stacked(ids, lengths, prompt_lengths):
    both = ids.unfold(1, 2, 1)  # (B, T - 1, 2): a token and the next one
    last = torch.arange(ids.size(1) - 1).repeat(len(ids), 1)
    mask = ~((last + 1 < prompt_lengths.view(-1, 1)) | (last + 2 > lengths.view(-1, 1)))
    return both[..., 0], both[..., 1], mask


def shift_products(ids, lengths, prompt_lengths):
    place = torch.cumsum(torch.ones_like(ids), dim=1)[:, :-1]
    read, real = place >= prompt_lengths.reshape(-1, 1), place < lengths.reshape(-1, 1)
    inputs, targets = (
        ids.split([ids.shape[1] - 1, 1], dim=1)[0],
        ids.index_select(1, torch.arange(1, ids.shape[1])),
    )
    return [inputs, targets, read * real]


def shift_bucketize(ids, lengths, prompt_lengths):
    """0 in the prompt, 1 in the completion, 2 behind it."""
    edges = torch.stack([prompt_lengths, torch.maximum(lengths, prompt_lengths)], dim=1)
    place = torch.arange(1, ids.shape[1]).expand(len(ids), -1).contiguous()
    part = torch.searchsorted(edges, place, right=True)
    return ids[:, :-1], ids[:, 1:], part.eq(1)


def bpb_rows(logits, targets, mask, token_bytes):
    y = targets[mask]
    size = token_bytes[y].sum().item()
    if size == 0:
        raise ValueError("no text among the valid targets")
    return F.cross_entropy(logits[mask], y, reduction="sum").item() / math.log(2) / size


def bpb_gather(logits, targets, mask, token_bytes):
    log2_q = logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1) / math.log(2)
    size = (token_bytes[targets] * mask).sum()
    if not size:
        raise ValueError("no byte")
    return -(torch.where(mask, log2_q, 0.0).sum() / size).item()


def bpb_one_by_one(logits, targets, mask, token_bytes):
    bits, count = 0.0, 0
    for z, y, m in zip(logits.flatten(0, 1), targets.flatten(), mask.flatten(), strict=True):
        if m:
            bits += math.log2(math.e) * float(z.double().logsumexp(0) - z[y])
            count += int(token_bytes[y])
    if count < 1:
        raise ValueError("bytes needed")
    return bits / count


def bpb_ignore(logits, targets, mask, token_bytes):
    y = targets.masked_fill(~mask, -100)
    nats = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum", ignore_index=-100)
    histogram = torch.bincount(targets[mask], minlength=len(token_bytes))
    size = int(histogram @ token_bytes)
    if size <= 0:
        raise ValueError("no byte of text")
    return (nats * math.log2(math.e) / size).item()


def bpb_base_two(logits, targets, mask, token_bytes):
    """Logits over ln 2, and powers of two."""
    z = logits[mask].double() / math.log(2)
    y = targets[mask]
    bits = torch.logsumexp(z * math.log(2), 1) / math.log(2) - z.gather(1, y[:, None])[:, 0]
    size = sum(token_bytes[token].item() for token in y)
    if size == 0:
        raise ValueError("the targets that count hold no text")
    return bits.sum().item() / size


def bpb_loop_over_rows(logits, targets, mask, token_bytes):
    nats, size = 0.0, 0
    for z, y, m in zip(logits, targets, mask, strict=True):
        rows = m.nonzero().flatten()
        own = z[rows].log_softmax(-1)[torch.arange(len(rows)), y[rows]]
        nats -= own.double().sum().item()
        size += int(token_bytes[y[rows]].sum())
    if not size:
        raise ValueError(f"{size} bytes among the valid targets")
    return nats / (size * math.log(2))


def bpb_numpy(logits, targets, mask, token_bytes):
    z, y = logits.detach().double().numpy()[mask.numpy()], targets.numpy()[mask.numpy()]
    size = token_bytes.numpy()[y].sum()
    if size == 0:
        raise ValueError("no byte of text")
    top = z.max(axis=1)
    norm = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
    return float(np.sum(norm - z[np.arange(len(y)), y]) / np.log(2) / size)


def bpb_module(logits, targets, mask, token_bytes):
    each = nn.CrossEntropyLoss(reduction="none")(logits.transpose(1, 2), targets)
    size = torch.where(mask, token_bytes[targets], 0).sum().item()
    if size < 1:
        raise ValueError("nothing to divide by")
    return each.masked_select(mask).sum().div(math.log(2.0)).item() / size


def _some(mask):
    if not bool(mask.any()):
        raise ValueError("mask has no valid token")


def word_select(student_logits, teacher_logits, mask, temperature=1.0):
    _some(mask)
    log_q = (student_logits[mask] / temperature).log_softmax(-1)
    log_p = (teacher_logits[mask].detach() / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def word_fill(student_logits, teacher_logits, mask, temperature=1.0):
    _some(mask)
    keep = mask[..., None]
    s = student_logits.masked_fill(~keep, 0.0) / temperature
    t = teacher_logits.detach().masked_fill(~keep, 0.0) / temperature
    kl = (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1)
    return temperature**2 * kl.sum() / mask.sum()  # zero where both are filled alike


def word_cross_entropy(student_logits, teacher_logits, mask, temperature=1.0):
    _some(mask)
    s, t = (x[mask] / temperature for x in (student_logits, teacher_logits.detach()))
    p = t.softmax(-1)
    gain = F.cross_entropy(s, p) - F.cross_entropy(t, p)
    return gain * temperature * temperature


def word_loop(student_logits, teacher_logits, mask, temperature=1.0):
    _some(mask)
    total, count = 0.0, 0
    for s, t, m in zip(student_logits, teacher_logits.detach(), mask, strict=True):
        for place in m.nonzero().flatten():
            a, b = (s[place] / temperature).log_softmax(0), (t[place] / temperature).log_softmax(0)
            total = total + (b.exp() * (b - a)).sum()
            count += 1
    return total * temperature**2 / count


def word_module(student_logits, teacher_logits, mask, temperature=1.0):
    _some(mask)
    log_softmax = nn.LogSoftmax(dim=-1)
    log_q = log_softmax(student_logits[mask] / temperature)
    with torch.no_grad():
        p = log_softmax(teacher_logits[mask] / temperature).exp()
    return nn.KLDivLoss(reduction="sum")(log_q, p) * temperature**2 / len(p)


def word_cumulant(student_logits, teacher_logits, mask, temperature=1.0):
    """KL = log E_p exp(d) - E_p d with d the difference of the logits."""
    _some(mask)
    v = teacher_logits[mask].detach()
    log_p = (v / temperature).log_softmax(-1)
    d = (student_logits[mask] - v) / temperature
    rows = torch.logsumexp(log_p + d, -1) - torch.linalg.vecdot(log_p.exp(), d)
    return temperature * temperature * torch.mean(rows)


def word_flat_index(student_logits, teacher_logits, mask, temperature=1.0):
    """Which rows of the flat table count; float64 inside."""
    rows = mask.reshape(-1).nonzero().reshape(-1)
    if rows.numel() == 0:
        raise ValueError("needs a token that counts")
    z, v = (
        x.flatten(0, 1).index_select(0, rows).double() / temperature
        for x in (student_logits, teacher_logits.detach())
    )
    p = v.softmax(1)
    loss = (torch.special.xlogy(p, p) - p * z.log_softmax(1)).sum() / len(rows)
    return loss.mul(temperature**2).to(student_logits.dtype)


def word_weights(student_logits, teacher_logits, mask, temperature=1.0):
    """Harmless logits where nothing counts, and a weight for each token."""
    if mask.sum() == 0:
        raise ValueError("no token counts")
    keep = mask.unsqueeze(-1).expand_as(student_logits)
    z = torch.where(keep, student_logits, torch.zeros_like(student_logits)) / temperature
    v = torch.where(keep, teacher_logits.detach(), torch.zeros_like(z)) / temperature
    weight = mask.to(z.dtype) * temperature**2 / mask.sum()
    log_p, log_q = v.log_softmax(-1), z.log_softmax(-1)
    return torch.einsum("bt,btv,btv->", weight, log_p.exp(), log_p - log_q)


def accumulate_sum(model, micro_batches, optimizer):
    count = sum(int(mask.sum()) for *_, mask in micro_batches)
    optimizer.zero_grad()
    total = 0.0
    for inputs, targets, mask in micro_batches:
        loss = F.cross_entropy(model(inputs)[mask], targets[mask], reduction="sum") / count
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def accumulate_weighted(model, micro_batches, optimizer):
    counts = [m.sum().item() for _, _, m in micro_batches]
    optimizer.zero_grad(set_to_none=False)
    means = []
    for (inputs, targets, mask), n in zip(micro_batches, counts, strict=True):
        if n == 0:
            continue
        y = torch.where(mask, targets, -100)
        mean = F.cross_entropy(model(inputs).transpose(1, 2), y)
        (mean * n / sum(counts)).backward()
        means.append(mean.item() * n / sum(counts))
    optimizer.step()
    return float(sum(means))


def accumulate_scale_after(model, micro_batches, optimizer):
    optimizer.zero_grad()
    nats, count = 0.0, 0
    for inputs, targets, mask in micro_batches:
        log_q = model(inputs).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        loss = -(log_q * mask).sum()
        loss.backward()
        nats, count = nats + loss.item(), count + int(mask.sum())
    for p in model.parameters():
        p.grad /= count
    optimizer.step()
    return nats / count


def accumulate_two_passes(model, micro_batches, optimizer):
    """The value without a graph first, then the gradient."""
    parts = [part for part in micro_batches if part[2].any()]
    count = torch.stack([mask.sum() for _, _, mask in parts]).sum().item()
    with torch.no_grad():
        nats = [F.cross_entropy(model(x)[m].double(), y[m], reduction="none") for x, y, m in parts]
    optimizer.zero_grad(set_to_none=True)
    for x, y, m in parts:
        picked = model(x).log_softmax(-1)[m, y[m]]
        torch.autograd.backward(picked, torch.full_like(picked, -1 / count))
    optimizer.step()
    return torch.cat(nats).mean().item()


def accumulate_weighted_gradients(model, micro_batches, optimizer):
    """The gradients of the parts, added up outside of `.grad`."""
    count = sum(mask.sum().item() for _, _, mask in micro_batches)
    parameters = list(model.parameters())
    total, sums = 0.0, [torch.zeros_like(p) for p in parameters]
    for inputs, targets, mask in micro_batches:
        loss = F.cross_entropy(model(inputs)[mask], targets[mask], reduction="sum") / count
        for kept, new in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
            kept += new
        total += loss.item()
    for parameter, gradient in zip(parameters, sums, strict=True):
        parameter.grad = gradient
    optimizer.step()
    return total


def accumulate_closure(model, micro_batches, optimizer):
    count = int(torch.cat([mask.flatten() for _, _, mask in micro_batches]).sum())

    def closure():
        optimizer.zero_grad()
        total = 0.0
        for inputs, targets, mask in micro_batches:
            log_q = model(inputs).log_softmax(-1)
            own = log_q.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            loss = -own[mask].sum() / count
            loss.backward()
            total += loss.item()
        return total

    return optimizer.step(closure)


def accumulate_ignore_index(model, micro_batches, optimizer):
    loss_of = nn.CrossEntropyLoss(ignore_index=-100, reduction="sum")
    labels = [y.clone().masked_fill_(~m, -100) for _, y, m in micro_batches]
    count = sum((y != -100).sum() for y in labels)
    model.zero_grad()
    losses = []
    for (inputs, _, _), y in zip(micro_batches, labels, strict=True):
        loss = loss_of(model(inputs).flatten(0, 1), y.flatten()) / count
        loss.backward()
        losses.append(loss.detach())
    optimizer.step()
    return torch.stack(losses).sum().item()


def accumulate_logit_gradients(model, micro_batches, optimizer):
    """q less the one-hot target, over the count of all, handed to the logits."""
    count = sum(int(m.sum()) for *_, m in micro_batches)
    optimizer.zero_grad()
    nats = []
    for inputs, targets, mask in micro_batches:
        z = model(inputs)
        with torch.no_grad():
            log_q = z.log_softmax(-1)
            slope = log_q.exp() - F.one_hot(targets, z.shape[-1])
            own = -log_q.gather(-1, targets[..., None])[..., 0]
            nats.append(own[mask].sum().item())
        z.backward(slope * mask[..., None] / count)
    optimizer.step()
    return math.fsum(nats) / count


def _cut(row, prompt, eos):
    new = row[len(prompt) :].tolist()
    end = new.index(eos) + 1 if eos in new else len(new)
    return row[: len(prompt) + end]


def beam_lists(next_logits, prompt, length, beams, eos):
    kept = [(prompt.tolist(), 0.0, False)]
    for _ in range(length):
        candidates = []
        for row, score, done in kept:
            if done:
                candidates.append((row, score, True))
                continue
            log_q = next_logits(torch.tensor([row]))[0].log_softmax(-1).tolist()
            candidates += [([*row, v], score + q, v == eos) for v, q in enumerate(log_q)]
        kept = sorted(candidates, key=lambda c: -c[1])[:beams]
    row, score, _ = kept[0]
    return torch.tensor(row), score


def beam_rows(next_logits, prompt, length, beams, eos):
    rows, scores = prompt[None], torch.zeros(1, dtype=torch.float64)
    for _ in range(length):
        log_q = torch.log_softmax(next_logits(rows), dim=-1)
        done = (rows[:, len(prompt) :] == eos).any(1)
        log_q = torch.where(done[:, None], torch.full_like(log_q, -1e30), log_q)
        log_q[done, eos] = 0
        total = scores[:, None] + log_q
        scores, index = total.view(-1).topk(min(beams, total.numel()))
        rows = torch.cat([rows[index // log_q.shape[1]], (index % log_q.shape[1])[:, None]], 1)
    return _cut(rows[0], prompt, eos), scores[0]


def beam_first_step(next_logits, prompt, length, beams, eos):
    V = next_logits(prompt[None]).shape[-1]
    rows = prompt.repeat(beams, 1)
    scores = torch.full((beams,), -math.inf, dtype=torch.float64)
    scores[0] = 0.0
    ended = torch.zeros(beams, dtype=torch.bool)
    for _ in range(length):
        z = next_logits(rows)
        log_q = z - z.logsumexp(-1, keepdim=True)
        stay = torch.full((V,), -math.inf, dtype=log_q.dtype)
        stay[eos] = 0
        log_q = torch.where(ended[:, None], stay, log_q)
        order = (scores[:, None] + log_q).flatten().sort(descending=True)
        scores, index = order.values[:beams], order.indices[:beams]
        parent = torch.div(index, V, rounding_mode="floor")
        token = index - parent * V
        rows, ended = torch.cat([rows[parent], token[:, None]], 1), ended[parent] | (token == eos)
    best = int(scores.argmax())
    return _cut(rows[best], prompt, eos), scores[best].item()


def beam_heap(next_logits, prompt, length, beams, eos):
    import heapq

    kept = {tuple(prompt.tolist()): 0.0}
    for _ in range(length):
        new = {}
        for row, score in kept.items():
            if len(row) > len(prompt) and row[-1] == eos:
                new[row] = score
                continue
            q = next_logits(torch.tensor([list(row)]))[0].softmax(-1)
            for token in range(len(q)):
                new[(*row, token)] = score + math.log(q[token].item())
        kept = dict(heapq.nlargest(beams, new.items(), key=lambda item: item[1]))
    row = max(kept, key=kept.get)
    return torch.tensor(row), kept[row]


def beam_nsmallest(next_logits, prompt, length, beams, eos):
    """Rows as tuples; the ended ones wait and are not asked again."""
    import heapq

    start = tuple(prompt.tolist())
    kept = [(0.0, start)]
    for _ in range(length):
        running = [(cost, row) for cost, row in kept if len(row) == len(start) or row[-1] != eos]
        found = [pair for pair in kept if pair not in running]
        if not running:
            break
        log_q = next_logits(torch.tensor([row for _, row in running])).log_softmax(dim=-1)
        for (cost, row), values in zip(running, log_q.tolist(), strict=True):
            found += [(cost - value, (*row, token)) for token, value in enumerate(values)]
        kept = heapq.nsmallest(beams, found, key=lambda pair: pair[0])
    cost, row = kept[0]
    return torch.tensor(row), -cost


class _Hypothesis:
    def __init__(self, row, score=0.0, ended=False):
        self.row, self.score, self.ended = row, score, ended

    def extend(self, next_logits, beams, eos):
        if self.ended:
            return [self]
        log_q = torch.log_softmax(next_logits(self.row[None])[0].double(), dim=0)
        values, tokens = log_q.topk(min(beams, len(log_q)))
        return [
            _Hypothesis(torch.cat([self.row, token[None]]), self.score + value.item(), token == eos)
            for value, token in zip(values, tokens, strict=True)
        ]


def beam_hypotheses(next_logits, prompt, length, beams, eos):
    """No row needs more than its own best few."""
    kept = [_Hypothesis(prompt)]
    for _ in range(length):
        new = [h for old in kept for h in old.extend(next_logits, beams, eos)]
        kept = sorted(new, key=lambda h: h.score, reverse=True)[:beams]
        if all(h.ended for h in kept):
            break
    return kept[0].row, kept[0].score


def beam_mask_column(next_logits, prompt, length, beams, eos):
    """Scores for a fixed number of rows; copies of the prompt start at minus infinity."""
    rows = prompt.repeat(beams, 1)
    scores = torch.full((beams,), -torch.inf, dtype=torch.float64)
    scores[0] = 0.0
    ended = torch.zeros(beams, dtype=torch.bool)
    for _ in range(length):
        log_q = next_logits(rows).double().log_softmax(-1)
        stay = torch.where(torch.arange(log_q.shape[1]) == eos, 0.0, -torch.inf).double()
        log_q = torch.where(ended[:, None], stay, log_q)
        scores, index = (scores[:, None] + log_q).flatten().topk(beams)
        parent, token = index.div(log_q.shape[1], rounding_mode="floor"), index % log_q.shape[1]
        rows = torch.cat([rows[parent], token[:, None]], dim=1)
        ended = ended[parent] | (token == eos)
    return _cut(rows[0], prompt, eos), float(scores[0])


def beam_recursive(next_logits, prompt, length, beams, eos, kept=None):
    """One step, and the rest of the search from there."""
    kept = kept or [(0.0, prompt)]
    ended = [len(row) > len(prompt) and int(row[-1]) == eos for _, row in kept]
    if length == 0 or all(ended):
        return kept[0][1], kept[0][0]
    found = [pair for pair, over in zip(kept, ended, strict=True) if over]
    for (score, row), over in zip(kept, ended, strict=True):
        if not over:
            log_q = F.log_softmax(next_logits(row.unsqueeze(0)), dim=-1).squeeze(0).tolist()
            found += [(score + q, F.pad(row, (0, 1), value=v)) for v, q in enumerate(log_q)]
    best = sorted(found, key=lambda pair: pair[0])[: -beams - 1 : -1]
    return beam_recursive(next_logits, prompt, length - 1, beams, eos, best)


def beam_aside(next_logits, prompt, length, beams, eos):
    """Ended rows wait aside: what they would push out is worse than they are, and stays so."""
    kept, aside = [(0.0, prompt)], []
    for _ in range(length):
        new = []
        for score, row in kept:
            log_q = next_logits(row[None])[0].double().log_softmax(-1)
            values, tokens = log_q.topk(min(beams + 1, len(log_q)))
            for value, token in zip(values.tolist(), tokens, strict=True):
                new.append((score + value, torch.cat([row, token[None]])))
        new.sort(key=lambda pair: -pair[0])
        aside += [pair for pair in new[:beams] if pair[1][-1] == eos]
        kept = [pair for pair in new if pair[1][-1] != eos][:beams]
    score, row = max([*aside, *kept], key=lambda pair: pair[0])
    return row, score


def _first_eos(outputs, eos):
    return (outputs == eos).long().cumsum(1) - (outputs == eos).long() == 0


def sequence_slice(student, prompts, outputs, eos):
    rows = torch.cat([prompts, outputs], 1)
    logits = student(rows[:, :-1])[:, prompts.shape[1] - 1 :]
    mask = _first_eos(outputs, eos)
    return F.cross_entropy(logits[mask], outputs[mask])


def sequence_ignore(student, prompts, outputs, eos):
    labels = torch.cat([torch.full_like(prompts, -100), outputs], 1)
    for row in labels:
        stops = (row == eos).nonzero().flatten()
        if len(stops):
            row[stops[0] + 1 :] = -100
    rows = torch.cat([prompts, outputs], 1)
    logits = student(rows)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def sequence_gather(student, prompts, outputs, eos):
    rows = torch.cat([prompts, outputs], 1)
    log_q = student(rows).log_softmax(-1)[:, prompts.shape[1] - 1 : -1]
    nats = -log_q.gather(-1, outputs.unsqueeze(-1)).squeeze(-1)
    mask = _first_eos(outputs, eos)
    return (nats * mask).sum() / mask.sum()


def sequence_row_by_row(student, prompts, outputs, eos):
    nats, count = 0.0, 0
    for prompt, output in zip(prompts, outputs, strict=True):
        y = output.tolist()
        output = output[: y.index(eos) + 1] if eos in y else output
        row = torch.cat([prompt, output])
        log_q = student(row[None, :-1])[0].log_softmax(-1)[len(prompt) - 1 :]
        nats = nats - log_q[torch.arange(len(output)), output].sum()
        count += len(output)
    return nats / count


def sequence_first_stop(student, prompts, outputs, eos):
    """The length of each output from where its first EOS stands."""
    P, N = prompts.shape[1], outputs.shape[1]
    stops = outputs == eos
    length = torch.where(stops.any(1), stops.int().argmax(1) + 1, N)
    mask = torch.arange(N) < length[:, None]
    log_q = F.log_softmax(student(torch.cat([prompts, outputs[:, :-1]], dim=1)), dim=-1)
    own = torch.take_along_dim(log_q[:, P - 1 :], outputs[..., None], dim=-1).squeeze(-1)
    return -own.masked_select(mask).mean()


def sequence_cumprod(student, prompts, outputs, eos):
    """A product of 'no EOS yet', one place late."""
    alive = (outputs != eos).long().cumprod(dim=1)
    mask = F.pad(alive[:, :-1], (1, 0), value=1).to(torch.bool)
    rows = torch.hstack([prompts, outputs])
    z = student(rows[:, :-1])[:, -outputs.shape[1] :]
    nats = F.cross_entropy(z.transpose(1, 2), outputs, reduction="none")
    return torch.where(mask, nats, 0.0).sum() / mask.sum()


def sequence_list_of_targets(student, prompts, outputs, eos):
    """Pairs (row, place) of what counts, picked from one pass."""
    logits = student(torch.cat((prompts, outputs), 1))
    nats = []
    for b, row in enumerate(outputs.tolist()):
        for n, token in enumerate(row):
            z = logits[b, prompts.shape[1] - 1 + n]
            nats.append(z.logsumexp(0) - z[token])
            if token == eos:
                break
    return torch.stack(nats).mean()


def sequence_library(student, prompts, outputs, eos):
    from kdlib.losses import sequence_nll

    rows = torch.cat([prompts, outputs], dim=1)
    seen = (outputs == eos).cumsum(dim=1).roll(1, dims=1)
    seen[:, 0] = 0
    mask = F.pad(seen == 0, (prompts.shape[1] - 1, 0), value=False)
    return sequence_nll(student(rows[:, :-1]), rows[:, 1:], mask)


ANSWERS = {
    "11.shift_and_mask": [
        shift_lengths,
        shift_loop,
        shift_full_mask,
        shift_cumulative,
        shift_ranges,
        shift_stacked,
        shift_products,
        shift_bucketize,
    ],
    "11.bits_per_byte": [
        bpb_rows,
        bpb_gather,
        bpb_one_by_one,
        bpb_ignore,
        bpb_base_two,
        bpb_loop_over_rows,
        bpb_numpy,
        bpb_module,
    ],
    "11.word_level_kd": [
        word_select,
        word_fill,
        word_cross_entropy,
        word_loop,
        word_module,
        word_cumulant,
        word_flat_index,
        word_weights,
    ],
    "11.accumulation_step": [
        accumulate_sum,
        accumulate_weighted,
        accumulate_scale_after,
        accumulate_two_passes,
        accumulate_weighted_gradients,
        accumulate_closure,
        accumulate_ignore_index,
        accumulate_logit_gradients,
    ],
    "11.beam_search": [
        beam_lists,
        beam_rows,
        beam_first_step,
        beam_heap,
        beam_nsmallest,
        beam_hypotheses,
        beam_mask_column,
        beam_recursive,
        beam_aside,
    ],
    "11.sequence_level_kd": [
        sequence_slice,
        sequence_ignore,
        sequence_gather,
        sequence_row_by_row,
        sequence_first_stop,
        sequence_cumprod,
        sequence_list_of_targets,
        sequence_library,
    ],
}

_WORDS = "the text asks for a ValueError; what its message says is not in the contract"
_UNASKED = "the contract promises that it does not happen"
_AXES = "the order of two axes to be exchanged does not matter"
_DEFAULT = "-100 is the default"
_WHOLE = "a tensor of one whole number is a number, too"
_SIZES = "one row or one place is all that there is"
_LATER = "behind the only lines that use it, or before it is filled"
_WORSE = "a row that ranks behind an ended one never overtakes it: scores only fall"
_FLOAT64 = "float32 is within the tolerance"
_BOTH_ALIKE = "a constant in all logits of a place changes no probability"

EQUIVALENT = {
    "11.shift_and_mask": {
        "largest for smallest @ if len(ids) and *": _UNASKED,
        "one thing for the other @ if given is None: *": _UNASKED,
        "a step left out @ if given is None:*": _UNASKED,
        "one more or one less @ if ids.dim() != 2*": _UNASKED,
        "one more or one less @ if len(ids) and *": _UNASKED,
        "a condition turned round @ if given is None: *": _UNASKED,
        "half a condition @ if *": _UNASKED,
        "the loop ends too early @ for name, given in *": _UNASKED,
        "only the first @  => break": _UNASKED,
        "the loop goes on @ continue => *": _UNASKED,
        "not converted @ if len(ids) and *": _WHOLE,
        "a check left out @ *": _UNASKED,
        "another exception @ *": _UNASKED,
        "an exception without what was given @ *": _UNASKED,
        "broadcast the other way @ place = *": "the missing dimension is added by broadcasting",
        "mask one column off @ *": _LATER,
        "not copied @ *": "views of the rows are not written to",
        "not converted @ for b, (n, p) in *": _WHOLE,
        "not converted @ ranges = *": _WHOLE,
        "an argument not passed on @ return (ids*torch.roll*": "the last column is left out",
    },
    "11.bits_per_byte": {
        "half precision @ *": "no token stands for more bytes than float16 can count",
        "not converted @ return F.cross_entropy(*": _FLOAT64,
        "not converted @ bits += *": _FLOAT64,
        "not converted @ z = *": _FLOAT64,
        "not converted @ nats -= *": _FLOAT64,
        "not converted @ z, y = *": _FLOAT64,
        "not converted @ size = *": _WHOLE,
        "not converted @ return float(*": "a float64 of NumPy is a float",
        "not detached @ *": "the inputs have no graph",
        "a check left out @ if token_bytes.shape*": _UNASKED,
        "another exception @ *token_bytes*": _UNASKED,
        "an exception without what was given @ *": _WORDS,
        "multiplied by the mask @ *": "logits are finite, so zero times them is zero",
        "two steps exchanged @ *": "the two do not depend on each other",
        "divided by another number of entries @ histogram = *": "it has one dimension",
        "the wrong way round @ size = *": "a dot product is symmetric",
        "an argument not passed on @ nats = *": _DEFAULT,
        "arguments exchanged @ each = *": _AXES,
    },
    "11.word_level_kd": {
        "mean for sum @ return values.mean() *": "no denominator is given",
        "reduction left out @ return values.mean() *": "no denominator is given",
        "the wrong way round @ return values.mean() *": "no denominator is given",
        "a factor left out @ return values.mean() *": "no denominator is given",
        "an argument ignored @  => denominator = None": "no denominator is given",
        "multiplied for divided @ return values.mean() *": "no denominator is given",
        "a check left out @ require_*": _UNASKED,
        "mask * @  => mask = *": _LATER,
        "not converted @ if not bool(mask.any()):*": "a tensor of one truth value has one",
        "another dimension @ kl = *": "summed over everything in the end, and zero where masked",
        "over all entries @ kl = *": "summed over everything in the end, and zero where masked",
        "reduction left out @ kl = *": "summed over everything in the end, and zero where masked",
        "mask one column off @  => keep = *": "the dimension that is moved has one entry",
        "another number @ s = *": _BOTH_ALIKE,
        "another number @ t = *": _BOTH_ALIKE,
        "arguments exchanged @ rows = *": "a dot product is symmetric",
        "arguments exchanged @ return torch.einsum(*": "a product is symmetric",
        "divided by another number of entries @ if rows*": "rows has one dimension",
        "not converted @ z, v = *": _FLOAT64,
        "not converted @ weight = *": "a truth value times a number is a number",
    },
    "11.accumulation_step": {
        "left in another state @  => model.train()": "the model is in train mode, without dropout",
        "one more or one less @ if count == 0: *": _UNASKED,
        "one more or one less @ parts = *": "nothing of a part without a valid token is added",
        "too much let through @ parts = *": "nothing of a part without a valid token is added",
        "two steps exchanged @ *": "the two do not depend on each other",
        "not converted @ count = *": _WHOLE,
        "not converted @ counts = *": _WHOLE,
        "not converted @ if not bool(mask.any()):*": "a tensor of one truth value has one",
        "not converted @ means.append(*": "what is returned in the end is a float all the same",
        "not converted @ nats*": _FLOAT64,
        "not converted @ return float(*": "a sum of floats is a float",
        "a check left out @ *": _UNASKED,
        "another exception @ *": _UNASKED,
        "arguments exchanged @ mean = *": _AXES,
        "an argument not passed on @ optimizer.zero_grad(*": "zero and None are both no gradient",
        "the other truth value @ optimizer.zero_grad(*": "zero and None are both no gradient",
        "an argument not passed on @ loss_of = *": _DEFAULT,
        "logarithm of a softmax @ *": "no logit of the model is extreme, in float64",
        "another dimension @ own = *squeeze(-2)*": "that dimension is not one, and stays",
        "multiplied by the mask @ *": "logits are finite, so zero times them is zero",
        "not detached @ losses.append(*": "the graph is freed by then; no loss is returned with it",
        "not detached @ with torch.no_grad():*": "nothing is differentiated through it",
    },
    "11.beam_search": {
        "divided by another number of entries @ *": "it has one dimension",
        "one thing for the other @ if beams < 1*": _UNASKED,
        "one more or one less @ if beams < 1*": _UNASKED,
        "half a condition @ if beams < 1*": _UNASKED,
        "a check left out @ *": _UNASKED,
        "another exception @ *": _UNASKED,
        "an exception without what was given @ *": _WORDS,
        "not detached @ @torch.no_grad()*": "the logits have no graph",
        "cut off from the gradient @ *": "a row of ids has no gradient",
        "a step left out @ log_q*": _WORSE,
        "mask left out @ log_q = *": _WORSE,
        "arguments exchanged @ stay = *": _WORSE,
        "a condition turned round @ stay = *": _WORSE,
        "too much let through @ kept = *": _WORSE,
        "the loop ends too early @ kept = *": _WORSE,
        "only the first @ if all(*": "when the best row has ended none overtakes it",
        "half a condition @ *ended*": "an ended row is followed by EOS alone, or not at all",
        "a step left out @ if *": "steps after the end of all rows change nothing",
        "the loop goes on @ *": "steps after the end of all rows change nothing",
        "logarithm of a softmax @ *": "the best row holds no token whose probability is zero",
        "an argument not passed on @ scores = *": "the first scores are zero or infinite",
        "an argument not passed on @ rows, scores = *": "the first scores are zero or infinite",
        "an argument not passed on @ stay = *": "zero and infinity are the same in float32",
        "an argument not passed on @ *sorted(*": "no two scores are alike",
        "an argument not passed on @ *max(*": "no two scores are alike",
        "an argument not passed on @ *nsmallest(*": "no two scores are alike",
        "changed in place @ best = *": "no two scores are alike",
        "at the boundary @ scores, best = *": "an impossible row among the K never wins",
        "half precision @  => prompt = *": "tokens are small numbers",
        "half precision @ stay = *": "zero and infinity are the same in float16",
        "rounded to whole numbers @ *": "the first scores are zero or infinite",
        "another number @ log_q = *": "any number that is small enough will do",
        "not converted @ log_q = *": _FLOAT64,
        "not converted @ *": _WHOLE,
        "not copied @ *": "what is not written to needs no copy",
        "a term left out @ values, tokens = *": "no row needs more than its best K extensions",
        "a bound left out @ values, tokens = *": "no row needs more than its best K extensions",
        "one more or one less @ values, tokens = *": "no row needs more than its best K extensions",
    },
    "11.sequence_level_kd": {
        "arguments exchanged @ *eos*": "`==` is symmetric",
        "arguments exchanged @ nats = *": _AXES,
        "one thing for the other @ logits = *": "half precision is not in the contract",
        "a step left out @ logits = *": "half precision is not in the contract",
        "half precision @ logits = *": "half precision is not in the contract",
        "not converted @ logits = *": "half precision is not in the contract",
        "half precision @  => *": "tokens are small numbers",
        "cut off from the gradient @ *": "tokens and masks have no gradient",
        "the wrong way round @ *": "only whether it is zero is asked",
        "left in another state @ *": "the logits depend on parameters, and require a gradient",
        "an argument ignored @ *": "no denominator is given",
        "half a condition @ if len(prompts)*": _UNASKED,
        "a check left out @ *": _UNASKED,
        "another exception @ *": _UNASKED,
        "an exception without what was given @ *": _WORDS,
        "not converted @ *": _WHOLE,
        "divided by another number of entries @ *": "it has one dimension",
        "an argument not passed on @ return F.cross_entropy(*": _DEFAULT,
        "an argument not passed on @ seen = *": "the first column is overwritten",
        "an argument not passed on @ mask = *": "False is the default",
        "one more or one less @ log_q = *": "places behind the last target are not looked up",
        "one more or one less @ mask = *": "any number but zero is true",
        "multiplied by the mask @ *": "the terms are finite, so zero times them is zero",
        "a function left out @ seen = *": "the output is filled with EOS after the first one",
    },
}
