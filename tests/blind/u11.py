"""Wrong answers to unit 11, written from the notebook's text."""

import math

import torch
import torch.nn.functional as F

from kdlib.data.text import EOS
from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _positions(ids):
    return torch.arange(1, ids.shape[1])[None]


@wrong("11.shift_and_mask", "every EOS is padding", "the closing EOS counts")
def every_eos_is_padding(ids, lengths, prompt_lengths):
    mask = (ids[:, 1:] != EOS) & (_positions(ids) >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "positions of inputs, not of targets", "what fills the row does not")
def input_positions(ids, lengths, prompt_lengths):
    t = torch.arange(ids.shape[1] - 1)[None]
    mask = (t < lengths[:, None]) & (t >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "the closing EOS is cut", "the closing EOS counts as a target")
def closing_eos_cut(ids, lengths, prompt_lengths):
    t = _positions(ids)
    mask = (t < lengths[:, None] - 1) & (t >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "the first answer token is lost", "the first prompt_lengths tokens")
def first_token_lost(ids, lengths, prompt_lengths):
    t = _positions(ids)
    mask = (t < lengths[:, None]) & (t > prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "the last prompt token is learned", "as targets they do not count")
def last_prompt_token(ids, lengths, prompt_lengths):
    t = _positions(ids)
    mask = (t < lengths[:, None]) & (t >= prompt_lengths[:, None] - 1)
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "ends at the first EOS value after the prompt", "an EOS inside a row")
def ends_at_first_eos(ids, lengths, prompt_lengths):
    t = _positions(ids)
    closing = ids.gather(1, lengths[:, None] - 1)
    ended = ((ids == closing) & (torch.arange(ids.shape[1]) >= prompt_lengths[:, None])).cumsum(1)
    mask = (ended[:, :-1] == 0) & (t < lengths[:, None]) & (t >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "a mask of floats", "the mask is boolean")
def float_mask(ids, lengths, prompt_lengths):
    t = _positions(ids)
    mask = (t < lengths[:, None]) & (t >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask.float()


@wrong("11.shift_and_mask", "the prompt length of the first row for all", "prompt_lengths[b]")
def one_prompt_length(ids, lengths, prompt_lengths):
    t = _positions(ids)
    mask = (t < lengths[:, None]) & (t >= prompt_lengths[0])
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "-100 where nothing counts, as for F.cross_entropy", "targets are ids")
def minus_hundred(ids, lengths, prompt_lengths):
    t = _positions(ids)
    mask = (t < lengths[:, None]) & (t >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:].masked_fill(~mask, -100), mask


@wrong("11.shift_and_mask", "trims to the longest row", "each (B, T - 1)")
def trimmed(ids, lengths, prompt_lengths):
    ids = ids[:, : int(lengths.max())]
    t = _positions(ids)
    mask = (t < lengths[:, None]) & (t >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


@wrong("11.shift_and_mask", "prompt masked out of the inputs", "the prompt is read")
def prompt_hidden(ids, lengths, prompt_lengths):
    t = _positions(ids)
    mask = (t < lengths[:, None]) & (t >= prompt_lengths[:, None])
    return ids[:, :-1] * (t - 1 >= prompt_lengths[:, None]), ids[:, 1:], mask


def _nats(logits, targets):
    return -F.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0]


def _no_text(amount):
    if amount == 0:
        raise ValueError("no byte of text among the valid targets")


@wrong("11.bits_per_byte", "nats", "bits: -log2")
def nats(logits, targets, mask, token_bytes):
    count = token_bytes[targets[mask]].sum()
    _no_text(count)
    return (_nats(logits[mask], targets[mask]).sum() / count).item()


@wrong("11.bits_per_byte", "multiplies by ln 2", "divided by ln 2")
def multiplied(logits, targets, mask, token_bytes):
    count = token_bytes[targets[mask]].sum()
    _no_text(count)
    return (_nats(logits[mask], targets[mask]).sum() * math.log(2) / count).item()


@wrong("11.bits_per_byte", "bits per token", "for each byte")
def per_token(logits, targets, mask, token_bytes):
    _no_text(token_bytes[targets[mask]].sum())
    return (_nats(logits[mask], targets[mask]).mean() / math.log(2)).item()


@wrong("11.bits_per_byte", "bytes of the padding, too", "bytes of the valid targets")
def bytes_of_everything(logits, targets, mask, token_bytes):
    _no_text(token_bytes[targets[mask]].sum())
    bits = _nats(logits[mask], targets[mask]).sum() / math.log(2)
    return (bits / token_bytes[targets].sum()).item()


@wrong("11.bits_per_byte", "mean of the rows' ratios", "one sum divided by one other sum")
def mean_of_rows(logits, targets, mask, token_bytes):
    _no_text(token_bytes[targets[mask]].sum())
    ratios = []
    for z, y, m in zip(logits, targets, mask, strict=True):
        count = token_bytes[y[m]].sum()
        if count > 0:
            ratios.append(_nats(z[m], y[m]).sum() / math.log(2) / count)
    return torch.stack(ratios).mean().item()


@wrong("11.bits_per_byte", "mean of each token's bits by its bytes", "one sum by one other sum")
def mean_of_tokens(logits, targets, mask, token_bytes):
    size = token_bytes[targets[mask]]
    _no_text(size.sum())
    bits = _nats(logits[mask], targets[mask]) / math.log(2)
    return (bits[size > 0] / size[size > 0]).mean().item()


@wrong("11.bits_per_byte", "leaves EOS out of the bits", "EOS costs bits")
def eos_for_free(logits, targets, mask, token_bytes):
    mask = mask & (token_bytes[targets] > 0)
    count = token_bytes[targets[mask]].sum()
    _no_text(count)
    return (_nats(logits[mask], targets[mask]).sum() / math.log(2) / count).item()


@wrong(
    "11.bits_per_byte", "a ValueError for an empty mask alone", "no byte of text: EOS alone, too"
)
def empty_mask_alone(logits, targets, mask, token_bytes):
    _no_text(mask.sum())
    bits = _nats(logits[mask], targets[mask]).sum() / math.log(2)
    return bits.item() / max(token_bytes[targets[mask]].sum().item(), 1)


@wrong("11.bits_per_byte", "every token is at least one byte", "for EOS that is 0")
def at_least_one_byte(logits, targets, mask, token_bytes):
    _no_text(token_bytes[targets[mask]].sum())
    count = token_bytes[targets[mask]].clamp(min=1).sum()
    return (_nats(logits[mask], targets[mask]).sum() / math.log(2) / count).item()


@wrong("11.bits_per_byte", "shifts once more", "targets belong to the logits as given")
def shifted_again(logits, targets, mask, token_bytes):
    logits, targets, mask = logits[:, :-1], targets[:, 1:], mask[:, 1:]
    count = token_bytes[targets[mask]].sum()
    _no_text(count)
    return (_nats(logits[mask], targets[mask]).sum() / math.log(2) / count).item()


def _kl(student_logits, teacher_logits, temperature):
    log_p = F.log_softmax(teacher_logits.detach() / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _any(mask):
    if not mask.any():
        raise ValueError("no valid token")


@wrong("11.word_level_kd", "multiplies by the mask at the end", "NaN in the padding")
def masked_last(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    kl = _kl(student_logits, teacher_logits, temperature) * mask
    return temperature**2 * kl.sum() / mask.sum()


@wrong("11.word_level_kd", "torch.where at the end", "nor the gradient")
def where_last(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    kl = torch.where(mask, _kl(student_logits, teacher_logits, temperature), 0.0)
    return temperature**2 * kl.sum() / mask.sum()


@wrong("11.word_level_kd", "divides by the rows", "N, the valid tokens")
def per_row(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    kl = _kl(student_logits[mask], teacher_logits[mask], temperature)
    return temperature**2 * kl.sum() / len(mask)


@wrong("11.word_level_kd", "averages row by row", "a mean over valid tokens")
def mean_of_row_means(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    rows = [
        _kl(z[m], v[m], temperature).mean()
        for z, v, m in zip(student_logits, teacher_logits, mask, strict=True)
        if m.any()
    ]
    return temperature**2 * torch.stack(rows).mean()


@wrong("11.word_level_kd", "counts the padding", "N, the valid tokens")
def padding_counted(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    kl = _kl(student_logits[mask], teacher_logits[mask], temperature)
    return temperature**2 * kl.sum() / mask.numel()


@wrong("11.word_level_kd", "no T^2", "T^2 / N")
def without_factor(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    return _kl(student_logits[mask], teacher_logits[mask], temperature).mean()


@wrong("11.word_level_kd", "zero for an empty mask", "a mask without a valid token raises")
def zero_when_empty(student_logits, teacher_logits, mask, temperature=1.0):
    kl = _kl(student_logits[mask], teacher_logits[mask], temperature)
    return temperature**2 * kl.sum() / mask.sum().clamp(min=1)


@wrong("11.word_level_kd", "refuses any row without a valid token", "a mask without a valid token")
def refuses_empty_rows(student_logits, teacher_logits, mask, temperature=1.0):
    if not mask.any(1).all():
        raise ValueError("a row without a valid token")
    kl = _kl(student_logits[mask], teacher_logits[mask], temperature)
    return temperature**2 * kl.mean()


@wrong("11.word_level_kd", "the teacher's graph is kept", "the teacher is a constant")
def teacher_learns(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    log_p = F.log_softmax(teacher_logits[mask] / temperature, -1)
    log_q = F.log_softmax(student_logits[mask] / temperature, -1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()


@wrong("11.word_level_kd", "divides by the vocabulary as well", "a mean over valid tokens")
def vocabulary_mean(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    log_p = F.log_softmax(teacher_logits[mask].detach() / temperature, -1)
    log_q = F.log_softmax(student_logits[mask] / temperature, -1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="mean", log_target=True)


@wrong("11.word_level_kd", "cleans both in place", "the caller's logits stay")
def cleaned_in_place(student_logits, teacher_logits, mask, temperature=1.0):
    _any(mask)
    with torch.no_grad():
        teacher_logits[~mask] = 0.0
    kl = _kl(student_logits[mask], teacher_logits[mask], temperature)
    return temperature**2 * kl.mean()


def _loss_sum(model, part):
    x, y, m = part
    return F.cross_entropy(model(x)[m], y[m], reduction="sum")


@wrong("11.accumulation_step", "mean of the parts' means", "valid tokens of all micro-batches")
def mean_of_means(model, micro_batches, optimizer):
    optimizer.zero_grad()
    total = 0.0
    for x, y, m in micro_batches:
        loss = F.cross_entropy(model(x)[m], y[m]) / len(micro_batches)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


@wrong("11.accumulation_step", "a step after each part", "step once")
def step_each_time(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    total = 0.0
    for part in micro_batches:
        optimizer.zero_grad()
        loss = _loss_sum(model, part) / count
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


@wrong("11.accumulation_step", "clears in the loop", "gradients add up")
def cleared_in_the_loop(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    total = 0.0
    for part in micro_batches:
        optimizer.zero_grad()
        loss = _loss_sum(model, part) / count
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


@wrong("11.accumulation_step", "clears after the step, not before", "clear old gradients first")
def cleared_afterwards(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    total = 0.0
    for part in micro_batches:
        loss = _loss_sum(model, part) / count
        loss.backward()
        total += loss.item()
    optimizer.step()
    optimizer.zero_grad()
    return total


@wrong("11.accumulation_step", "one backward through the sum of all", "hold one graph at a time")
def one_graph(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    optimizer.zero_grad()
    loss = sum(_loss_sum(model, part) for part in micro_batches) / count
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("11.accumulation_step", "weighs by rows", "a mean over the valid tokens")
def weighed_by_rows(model, micro_batches, optimizer):
    rows = sum(len(x) for x, *_ in micro_batches)
    optimizer.zero_grad()
    total = 0.0
    for x, y, m in micro_batches:
        loss = F.cross_entropy(model(x)[m], y[m]) * len(x) / rows
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


@wrong("11.accumulation_step", "counts the padding", "valid tokens")
def all_positions(model, micro_batches, optimizer):
    count = sum(m.numel() for *_, m in micro_batches)
    optimizer.zero_grad()
    total = 0.0
    for part in micro_batches:
        loss = _loss_sum(model, part) / count
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


@wrong("11.accumulation_step", "returns the last part's loss", "the loss: of all micro-batches")
def last_part(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    optimizer.zero_grad()
    for part in micro_batches:
        loss = _loss_sum(model, part) / count
        loss.backward()
    optimizer.step()
    return loss.item()


@wrong(
    "11.accumulation_step", "mean times count: NaN for an empty part", "B, T and the mask differ"
)
def empty_part(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    optimizer.zero_grad()
    total = 0.0
    for x, y, m in micro_batches:
        loss = F.cross_entropy(model(x)[m], y[m]) * (m.sum() / count)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


@wrong("11.accumulation_step", "returns the tensor", "a Python float")
def tensor_returned(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    optimizer.zero_grad()
    total = torch.zeros(())
    for part in micro_batches:
        loss = _loss_sum(model, part) / count
        loss.backward()
        total = total + loss.detach()
    optimizer.step()
    return total


@wrong(
    "11.accumulation_step",
    "clips to length one, as trainers do",
    "one update by the loss's gradient",
)
def clipped(model, micro_batches, optimizer):
    count = sum(int(m.sum()) for *_, m in micro_batches)
    optimizer.zero_grad()
    total = 0.0
    for part in micro_batches:
        loss = _loss_sum(model, part) / count
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return total


def _search(
    next_logits, prompt, length, beams, eos, start=1, extend=None, stop=lambda ended: ended.all()
):
    """Beam search with a place for each mistake."""
    rows = prompt[None].repeat(start, 1)
    scores = torch.zeros(start, dtype=torch.float64)
    ended = torch.zeros(start, dtype=torch.bool)
    for _ in range(length):
        if stop(ended):
            break
        log_q = F.log_softmax(next_logits(rows).double(), -1)
        if extend is None:
            log_q[ended] = float("-inf")
            log_q[ended, eos] = 0.0
        else:
            log_q = extend(log_q, ended)
        total = (scores[:, None] + log_q).flatten()
        scores, best = total.topk(min(beams, len(total)))
        token = best % log_q.shape[-1]
        rows = torch.cat([rows[best // log_q.shape[-1]], token[:, None]], 1)
        ended = ended[best // log_q.shape[-1]] | (token == eos)
    return rows, scores


def _cut(row, prompt, eos):
    new = row[len(prompt) :]
    at = (new == eos).nonzero()
    return row[: len(prompt) + int(at[0]) + 1] if len(at) else row


def _best(rows, scores, prompt, eos):
    return _cut(rows[scores.argmax()], prompt, eos), scores.max().item()


@wrong("11.beam_search", "starts with K copies of the prompt", "the K most probable prefixes")
def copies(next_logits, prompt, length, beams, eos):
    rows, scores = _search(next_logits, prompt, length, beams, eos, start=beams)
    return _best(rows, scores, prompt, eos)


@wrong("11.beam_search", "divides by the length at the end", "no length penalty")
def length_penalty(next_logits, prompt, length, beams, eos):
    rows, scores = _search(next_logits, prompt, length, beams, eos)
    cut = [_cut(row, prompt, eos) for row in rows]
    mean = [s / (len(c) - len(prompt)) for s, c in zip(scores.tolist(), cut, strict=True)]
    best = mean.index(max(mean))
    return cut[best], scores[best].item()


@wrong("11.beam_search", "stops as soon as one row has ended", "ended rows stay in the race")
def stops_at_the_first(next_logits, prompt, length, beams, eos):
    rows, scores = _search(next_logits, prompt, length, beams, eos, stop=lambda ended: ended.any())
    return _best(rows, scores, prompt, eos)


@wrong("11.beam_search", "ended rows go on paying for EOS", "with its score unchanged")
def ended_rows_pay(next_logits, prompt, length, beams, eos):
    def extend(log_q, ended):
        paid = log_q.clone()
        log_q[ended] = float("-inf")
        log_q[ended, eos] = paid[ended, eos]
        return log_q

    rows, scores = _search(next_logits, prompt, length, beams, eos, extend=extend)
    return _best(rows, scores, prompt, eos)


@wrong(
    "11.beam_search", "ended rows go on with any token", "cut after its first EOS, score unchanged"
)
def ended_rows_go_on(next_logits, prompt, length, beams, eos):
    rows, scores = _search(next_logits, prompt, length, beams, eos, extend=lambda log_q, e: log_q)
    return _best(rows, scores, prompt, eos)


@wrong("11.beam_search", "does not cut the filling", "cut after its first new EOS")
def not_cut(next_logits, prompt, length, beams, eos):
    rows, scores = _search(next_logits, prompt, length, beams, eos, stop=lambda ended: False)
    return rows[scores.argmax()], scores.max().item()


@wrong("11.beam_search", "an EOS in the prompt ends the row", "its first new EOS")
def prompt_eos_ends(next_logits, prompt, length, beams, eos):
    rows, scores = _search(next_logits, prompt, length, beams, eos)
    row = rows[scores.argmax()]
    at = (row == eos).nonzero()
    return (row[: int(at[0]) + 1] if len(at) else row), scores.max().item()


@wrong("11.beam_search", "cuts before the EOS", "cut after its first new EOS")
def cut_before(next_logits, prompt, length, beams, eos):
    row, score = _best(*_search(next_logits, prompt, length, beams, eos), prompt, eos)
    return (row[:-1] if len(row) > len(prompt) and row[-1] == eos else row), score


@wrong("11.beam_search", "the continuation alone", "prompt included")
def without_the_prompt(next_logits, prompt, length, beams, eos):
    row, score = _best(*_search(next_logits, prompt, length, beams, eos), prompt, eos)
    return row[len(prompt) :], score


@wrong("11.beam_search", "topk(beams) of too few candidates", "more beams than tokens at the start")
def more_beams_than_tokens(next_logits, prompt, length, beams, eos):
    log_q = F.log_softmax(next_logits(prompt[None]).double(), -1)[0]
    scores, first = log_q.topk(beams)
    rows = torch.cat([prompt[None].repeat(beams, 1), first[:, None]], 1)
    for _ in range(length - 1):
        log_q = F.log_softmax(next_logits(rows).double(), -1)
        ended = (rows[:, len(prompt) :] == eos).any(1)
        log_q[ended] = float("-inf")
        log_q[ended, eos] = 0.0
        scores, best = (scores[:, None] + log_q).flatten().topk(beams)
        rows = torch.cat([rows[best // log_q.shape[1]], (best % log_q.shape[1])[:, None]], 1)
    return _best(rows, scores, prompt, eos)


@wrong("11.beam_search", "sums raw logits", "log-probabilities")
def raw_logits(next_logits, prompt, length, beams, eos):
    rows, scores, ended = prompt[None], torch.zeros(1).double(), torch.zeros(1, dtype=torch.bool)
    for _ in range(length):
        z = next_logits(rows).double()
        z[ended] = float("-inf")
        z[ended, eos] = 0.0
        scores, best = (scores[:, None] + z).flatten().topk(min(beams, z.numel()))
        rows = torch.cat([rows[best // z.shape[1]], (best % z.shape[1])[:, None]], 1)
        ended = ended[best // z.shape[1]] | (rows[:, -1] == eos)
    return _best(rows, scores, prompt, eos)


@wrong("11.beam_search", "prefers rows that have ended", "the best row")
def ended_preferred(next_logits, prompt, length, beams, eos):
    rows, scores = _search(next_logits, prompt, length, beams, eos)
    ended = (rows[:, len(prompt) :] == eos).any(1)
    if ended.any():
        rows, scores = rows[ended], scores[ended]
    return _best(rows, scores, prompt, eos)


@wrong("11.beam_search", "one token too many: range(length + 1)", "at most `length` tokens")
def one_too_many(next_logits, prompt, length, beams, eos):
    return _best(*_search(next_logits, prompt, length + 1, beams, eos), prompt, eos)


def _joined(student, prompts, outputs):
    return student(torch.cat([prompts, outputs], 1)[:, :-1])[:, prompts.shape[1] - 1 :]


def _until_eos(outputs, eos):
    return (outputs == eos).cumsum(1) - (outputs == eos).long() == 0


@wrong("11.sequence_level_kd", "logits from P on", "which logits predict the first output token")
def off_by_one(student, prompts, outputs, eos):
    logits = student(torch.cat([prompts, outputs], 1))[:, prompts.shape[1] :]
    mask = _until_eos(outputs, eos)
    return F.cross_entropy(logits[mask], outputs[mask])


@wrong("11.sequence_level_kd", "no EOS counts", "its first EOS and that one too")
def without_eos(student, prompts, outputs, eos):
    mask = outputs != eos
    return F.cross_entropy(_joined(student, prompts, outputs)[mask], outputs[mask])


@wrong("11.sequence_level_kd", "every EOS counts", "up to its first EOS")
def filling_counts(student, prompts, outputs, eos):
    logits = _joined(student, prompts, outputs)
    return F.cross_entropy(logits.flatten(0, 1), outputs.flatten())


@wrong("11.sequence_level_kd", "the prompt counts, too", "only the output's tokens count")
def prompt_counts(student, prompts, outputs, eos):
    ids = torch.cat([prompts, outputs], 1)
    logits = student(ids[:, :-1])
    mask = torch.cat(
        [torch.ones_like(prompts[:, 1:], dtype=torch.bool), _until_eos(outputs, eos)], 1
    )
    return F.cross_entropy(logits[mask], ids[:, 1:][mask])


@wrong(
    "11.sequence_level_kd", "rows that were cut off are dropped", "a row without eos counts whole"
)
def cut_off_rows_dropped(student, prompts, outputs, eos):
    mask = _until_eos(outputs, eos) & (outputs == eos).any(1, keepdim=True)
    return F.cross_entropy(_joined(student, prompts, outputs)[mask], outputs[mask])


@wrong("11.sequence_level_kd", "mean of the rows' means", "mean over valid tokens")
def row_means(student, prompts, outputs, eos):
    logits, mask = _joined(student, prompts, outputs), _until_eos(outputs, eos)
    rows = [F.cross_entropy(z[m], y[m]) for z, y, m in zip(logits, outputs, mask, strict=True)]
    return torch.stack(rows).mean()


@wrong("11.sequence_level_kd", "sum over tokens, mean over rows", "mean over valid tokens")
def summed_tokens(student, prompts, outputs, eos):
    logits, mask = _joined(student, prompts, outputs), _until_eos(outputs, eos)
    return F.cross_entropy(logits[mask], outputs[mask], reduction="sum") / len(outputs)


@wrong("11.sequence_level_kd", "EOS looked for in prompt and output", "the output's first EOS")
def eos_of_the_prompt(student, prompts, outputs, eos):
    ids = torch.cat([prompts, outputs], 1)
    mask = _until_eos(ids, eos)[:, prompts.shape[1] :]
    logits = _joined(student, prompts, outputs)[mask]
    return F.cross_entropy(logits, outputs[mask], reduction="sum") / mask.sum().clamp(min=1)


@wrong("11.sequence_level_kd", "the output without its prompt", "log q(y_t | x, y_<t)")
def without_prompt(student, prompts, outputs, eos):
    logits = student(torch.cat([prompts[:, -1:], outputs], 1)[:, :-1])
    mask = _until_eos(outputs, eos)
    return F.cross_entropy(logits[mask], outputs[mask])


@wrong(
    "11.sequence_level_kd", "one length for all, that of the first row", "each row's own first EOS"
)
def first_rows_length(student, prompts, outputs, eos):
    mask = _until_eos(outputs, eos)[:1].expand_as(outputs)
    return F.cross_entropy(_joined(student, prompts, outputs)[mask], outputs[mask])
