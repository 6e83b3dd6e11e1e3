"""Right answers of unit 11, as different as can be."""

import math

import torch
import torch.nn.functional as F


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
    return -(torch.where(mask, log2_q, 0.0).sum() / size)


def bpb_exp2(logits, targets, mask, token_bytes):
    bits, count = 0.0, 0
    for z, y, m in zip(logits.flatten(0, 1), targets.flatten(), mask.flatten(), strict=True):
        if m:
            bits -= math.log2(z.softmax(-1)[y].item())
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


def _some(mask):
    if not bool(mask.any()):
        raise ValueError("mask has no valid token")


def word_select(student_logits, teacher_logits, mask, temperature):
    _some(mask)
    log_q = (student_logits[mask] / temperature).log_softmax(-1)
    log_p = (teacher_logits[mask].detach() / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def word_fill(student_logits, teacher_logits, mask, temperature):
    _some(mask)
    keep = mask[..., None]
    s = student_logits.masked_fill(~keep, 0.0) / temperature
    t = teacher_logits.detach().masked_fill(~keep, 0.0) / temperature
    kl = (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1)
    return temperature**2 * kl.sum() / mask.sum()  # zero where both are filled alike


def word_cross_entropy(student_logits, teacher_logits, mask, temperature):
    _some(mask)
    s, t = (x[mask] / temperature for x in (student_logits, teacher_logits.detach()))
    p = t.softmax(-1)
    gain = F.cross_entropy(s, p) - F.cross_entropy(t, p)
    return gain * temperature * temperature


def word_loop(student_logits, teacher_logits, mask, temperature):
    _some(mask)
    total, count = 0.0, 0
    for s, t, m in zip(student_logits, teacher_logits.detach(), mask, strict=True):
        for place in m.nonzero().flatten():
            a, b = (s[place] / temperature).log_softmax(0), (t[place] / temperature).log_softmax(0)
            total = total + (b.exp() * (b - a)).sum()
            count += 1
    return total * temperature**2 / count


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


def accumulate_one_graph(model, micro_batches, optimizer):
    losses = [F.cross_entropy(model(x)[m], y[m], reduction="none") for x, y, m in micro_batches]
    loss = torch.cat(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


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


ANSWERS = {
    "11.shift_and_mask": [shift_lengths, shift_loop, shift_full_mask, shift_cumulative],
    "11.bits_per_byte": [bpb_rows, bpb_gather, bpb_exp2, bpb_ignore],
    "11.word_level_kd": [word_select, word_fill, word_cross_entropy, word_loop],
    "11.accumulation_step": [
        accumulate_sum,
        accumulate_weighted,
        accumulate_scale_after,
        accumulate_one_graph,
    ],
    "11.beam_search": [beam_lists, beam_rows, beam_first_step, beam_heap],
    "11.sequence_level_kd": [
        sequence_slice,
        sequence_ignore,
        sequence_gather,
        sequence_row_by_row,
    ],
}
