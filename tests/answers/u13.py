"""Right answers to unit 13 that look different from the reference and from each other."""

import math
import re
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from kdlib.losses import sequence_nll


def _some(mask):
    if not bool(mask.any()):
        raise ValueError("there is no completion in the batch")


def sft_ignore_index(logits, ids, prompt_lengths, lengths):
    t = torch.arange(ids.shape[1])
    counts = (t >= prompt_lengths[:, None]) & (t < lengths[:, None])
    counts[:, 0] = False
    _some(counts)
    labels = ids.masked_fill(~counts, -100)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def sft_gather(logits, ids, prompt_lengths, lengths):
    t = torch.arange(1, ids.shape[1])[None]
    mask = (t >= prompt_lengths.unsqueeze(1)) & (t < lengths.unsqueeze(1))
    _some(mask)
    log_q = logits[:, :-1].log_softmax(-1)
    own = log_q.gather(-1, ids[:, 1:, None]).squeeze(-1)
    return -torch.where(mask, own, torch.zeros_like(own)).sum() / mask.sum()


def sft_rows(logits, ids, prompt_lengths, lengths):
    parts = []
    for z, x, p, n in zip(logits, ids, prompt_lengths.tolist(), lengths.tolist(), strict=True):
        if n > p:
            parts.append(F.cross_entropy(z[p - 1 : n - 1], x[p:n], reduction="none"))
    if not parts:
        raise ValueError("no completion")
    return torch.cat(parts).mean()


def sft_library(logits, ids, prompt_lengths, lengths):
    position = torch.arange(ids.shape[1]).expand_as(ids)
    mask = position.ge(prompt_lengths[:, None]).logical_and(position.lt(lengths[:, None]))
    return sequence_nll(logits[:, :-1], ids[:, 1:], mask[:, 1:])


def verify_regex(text, answer):
    found = re.search(r"#\s*(-)?\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.0+)?\.?\s*\Z", text)
    return bool(found) and int((found[1] or "") + found[2].replace(",", "")) == answer


def verify_split(text, answer):
    parts = text.split("#")
    if len(parts) < 2:
        return False
    said = parts[-1].strip().rstrip(".").replace("$", "")
    whole, _, decimals = said.partition(".")
    groups = whole.lstrip("-").split(",")
    if len(groups) > 1 and any(len(g) != 3 for g in groups[1:]):
        return False
    try:
        return int("".join(groups)) * (-1 if whole.startswith("-") else 1) == answer and not (
            decimals.strip("0")
        )
    except ValueError:
        return False


def verify_decimal(text, answer):
    from decimal import Decimal, InvalidOperation

    at = text.rfind("#")
    if at < 0:
        return False
    said = text[at + 1 :].strip().removesuffix(".").replace("$", "", 1)
    if re.search(r",(?!\d{3}(?:\D|$))", said):
        return False
    try:
        return Decimal(said.replace(",", "")) == answer
    except InvalidOperation:
        return False


def verify_characters(text, answer):
    if "#" not in text:
        return False
    said = text[text.rindex("#") + 1 :].strip()
    said = said[:-1] if said.endswith(".") else said
    sign = -1 if said[:1] == "-" else 1
    said = said.removeprefix("-").removeprefix("$")
    while said.endswith("0") and "." in said:
        said = said[:-1]
    said = said.removesuffix(".")
    groups = said.split(",")
    good = all(g.isdigit() for g in groups) and all(len(g) == 3 for g in groups[1:])
    return good and sign * int("".join(groups)) == answer


def _sane(traces, answers, keep):
    if len(traces) != len(answers):
        raise ValueError("as many answers as problems are needed")
    if keep < 1:
        raise ValueError(f"keep must be positive, got {keep}")


def sample_loop(traces, answers, verifier, keep):
    _sane(traces, answers, keep)
    kept = []
    for i in range(len(traces)):
        mine = []
        for trace in traces[i]:
            if len(mine) < keep and trace not in mine and verifier(trace, answers[i]):
                mine.append(trace)
        kept.extend((i, trace) for trace in mine)
    return kept


def sample_set(traces, answers, verifier, keep):
    _sane(traces, answers, keep)
    kept, seen, counts = [], set(), {}
    for i, row in enumerate(traces):
        for trace in row:
            if (i, trace) in seen or not verifier(trace, answers[i]):
                continue
            seen.add((i, trace))
            counts[i] = counts.get(i, 0) + 1
            if counts[i] <= keep:
                kept.append((i, trace))
    return kept


def sample_islice(traces, answers, verifier, keep):
    _sane(traces, answers, keep)
    return [
        (i, trace)
        for i, (row, y) in enumerate(zip(traces, answers, strict=True))
        for trace in islice((t for t in dict.fromkeys(row) if verifier(t, y)), keep)
    ]


def sample_sorted(traces, answers, verifier, keep):
    _sane(traces, answers, keep)
    kept = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        right = {trace for trace in row if verifier(trace, y)}
        kept += [[i, trace] for trace in sorted(right, key=row.index)[:keep]]
    return kept


def _k(correct, k):
    if not 1 <= k <= correct.shape[1]:
        raise ValueError(f"k must lie between 1 and the number of samples, got {k}")


def pass_comb(correct, k):
    _k(correct, k)
    n = correct.shape[1]
    every = math.comb(n, k)
    # whole numbers of any size; only their ratio becomes a float
    return sum(1 - math.comb(n - c, k) / every for c in correct.sum(1).tolist()) / len(correct)


def pass_lgamma(correct, k):
    _k(correct, k)
    n, total = correct.shape[1], 0.0
    for c in correct.sum(1).tolist():
        if n - c < k:
            total += 1.0
            continue
        logs = [math.lgamma(x + 1) for x in (n - c, n - c - k, n, n - k)]
        total += -math.expm1(logs[0] - logs[1] - logs[2] + logs[3])
    return total / len(correct)


def pass_numpy(correct, k):
    _k(correct, k)
    array = correct.numpy()
    n, found = array.shape[1], []
    for c in array.sum(1):
        found.append(1.0 if n - c < k else 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))
    return float(np.mean(found))


def pass_draws(correct, k):
    _k(correct, k)
    n, c = correct.shape[1], correct.sum(1).double()
    none = torch.ones_like(c)
    for i in range(k):  # the i-th draw is wrong, given that those before it were
        none = none * ((n - c - i).clamp(min=0) / (n - i))
    return torch.mean(1 - none)


def _weight(weight, *targets):
    if weight < 0:
        raise ValueError("weight must not be negative")
    if any(bool((t == -100).all()) for t in targets):
        raise ValueError("a task has no token")


def steps_cross_entropy(label_logits, label_targets, rationale_logits, rationale_targets, weight=1):
    _weight(weight, label_targets, rationale_targets)
    label = F.cross_entropy(label_logits.transpose(1, 2), label_targets)
    rationale = F.cross_entropy(rationale_logits.transpose(1, 2), rationale_targets)
    return label + weight * rationale


def steps_flat(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _weight(weight, label_targets, rationale_targets)
    v = label_logits.shape[-1]
    label = F.cross_entropy(label_logits.reshape(-1, v), label_targets.reshape(-1))
    rationale = F.cross_entropy(rationale_logits.reshape(-1, v), rationale_targets.reshape(-1))
    return torch.stack([label, rationale]) @ label.new_tensor([1.0, weight])


def steps_selected(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _weight(weight, label_targets, rationale_targets)

    def mean(logits, targets):
        counts = targets != -100
        z, y = logits[counts], targets[counts]
        return (z.logsumexp(-1) - z[torch.arange(len(y)), y]).mean()

    return mean(rationale_logits, rationale_targets) * weight + mean(label_logits, label_targets)


def steps_nll(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _weight(weight, label_targets, rationale_targets)
    total = 0
    for z, y, w in (
        (label_logits, label_targets, 1.0),
        (rationale_logits, rationale_targets, weight),
    ):
        nll = F.nll_loss(z.log_softmax(-1).transpose(1, 2), y, reduction="sum", ignore_index=-100)
        total = total + w * nll / (y != -100).sum()
    return total


ANSWERS = {
    "13.sft_loss": [sft_ignore_index, sft_gather, sft_rows, sft_library],
    "13.verify": [verify_regex, verify_split, verify_decimal, verify_characters],
    "13.rejection_sample": [sample_loop, sample_set, sample_islice, sample_sorted],
    "13.pass_at_k": [pass_comb, pass_lgamma, pass_numpy, pass_draws],
    "13.step_by_step_loss": [steps_cross_entropy, steps_flat, steps_selected, steps_nll],
}
