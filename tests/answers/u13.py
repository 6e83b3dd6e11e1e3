"""Right answers to unit 13 that look different from the reference and from each other."""

import math
import re
from fractions import Fraction
from itertools import chain, groupby, islice

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


def sft_weights(logits, ids, prompt_lengths, lengths):
    """Zero logits where nothing counts, and a weight for each token."""
    place = torch.arange(1, ids.shape[1]).repeat(len(ids), 1)
    inside = (place - prompt_lengths[:, None] >= 0) & (place - lengths[:, None] < 0)
    if inside.sum() == 0:
        raise ValueError("nothing to learn: no row has a completion")
    z = torch.where(inside[..., None], logits[:, :-1], 0.0)
    nats = F.cross_entropy(z.transpose(1, 2), ids[:, 1:], reduction="none")
    return torch.einsum("bt,bt->", nats, inside.to(nats.dtype)) / inside.sum()


def sft_pairs(logits, ids, prompt_lengths, lengths):
    """Every (row, place) that counts, by index; float64 inside."""
    rows, places = [], []
    for b, (p, n) in enumerate(zip(prompt_lengths.tolist(), lengths.tolist(), strict=True)):
        rows += [b] * max(0, n - p)
        places += range(p, n)
    if not rows:
        raise ValueError(f"no completion in {len(ids)} rows")
    at = torch.tensor(places)
    log_q = logits[rows, at - 1].double().log_softmax(dim=-1)
    nats = -log_q[torch.arange(len(rows)), ids[rows, at]]
    return nats.mean().to(logits.dtype)


def sft_cumulative(logits, ids, prompt_lengths, lengths):
    """+1 where the completion begins, -1 where the row ends; a running sum between."""
    edge = torch.zeros(len(ids), ids.shape[1] + 1, dtype=torch.long)
    edge.scatter_add_(1, prompt_lengths[:, None], torch.ones_like(edge[:, :1]))
    edge.scatter_add_(1, lengths[:, None], -torch.ones_like(edge[:, :1]))
    counts = edge.cumsum(dim=1)[:, 1:-1] == 1
    _some(counts)
    z, y = logits[:, :-1].masked_select(counts[..., None]), ids[:, 1:].masked_select(counts)
    z = z.view(len(y), -1)
    return (torch.logsumexp(z, dim=1) - z.gather(1, y[:, None]).squeeze(1)).mean()


def sft_module(logits, ids, prompt_lengths, lengths):
    labels = ids.clone()
    for row, p, n in zip(labels, prompt_lengths, lengths, strict=True):
        row[:p] = -100
        row[n:] = -100
    count = (labels[:, 1:] != -100).sum()
    if not count:
        raise ValueError("every label is masked")
    criterion = torch.nn.CrossEntropyLoss(ignore_index=-100, reduction="sum")
    return criterion(logits[:, :-1].transpose(1, 2), labels[:, 1:]) / count


def _equal(sign, digits, answer):
    """Compare numbers of any length: `int` refuses more than 4,300 digits."""
    digits = digits.lstrip("0") or "0"
    return (digits if digits == "0" else sign + digits) == str(answer)


def verify_regex(text, answer):
    number = r"#\s*(-)?\$?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.0+)?\.?\s*\Z"
    found = re.search(number, text)
    return bool(found) and _equal(found[1] or "", found[2].replace(",", ""), answer)


def verify_split(text, answer):
    """Take off what may stand around the digits; what is left has to be digits."""
    parts = text.split("#")
    if len(parts) < 2:
        return False
    said = parts[-1].strip().removesuffix(".")
    sign = "-" if said.startswith("-") else ""
    whole, point, zeros = said.removeprefix("-").removeprefix("$").partition(".")
    if point and re.fullmatch("0+", zeros) is None:
        return False
    groups = whole.split(",")
    if len(groups) > 1 and (len(groups[0]) > 3 or any(len(g) != 3 for g in groups[1:])):
        return False
    if not all(g.isascii() and g.isdigit() for g in groups):
        return False
    return _equal(sign, "".join(groups), answer)


def verify_decimal(text, answer):
    from decimal import Decimal

    at = text.rfind("#")
    said = text[at + 1 :].strip().removesuffix(".")
    if at < 0 or not re.fullmatch(r"-?\$?[0-9][0-9,]*(\.0+)?", said):
        return False
    said = said.replace("$", "")
    if re.search(r",(?![0-9]{3}([,.]|$))", said) or re.match(r"-?[0-9]{4,},", said):
        return False
    return Decimal(said.replace(",", "")) == answer


def verify_characters(text, answer):
    if "#" not in text:
        return False
    said = text[text.rindex("#") + 1 :].strip()
    said = said[:-1] if said.endswith(".") else said
    sign = said[:1] if said[:1] == "-" else ""
    said = said[len(sign) :].removeprefix("$")
    whole, point, zeros = said.partition(".")
    groups = whole.split(",")
    good = all(c in "0123456789" for g in groups for c in g) and bool(groups[0])
    good = good and (not point or (zeros != "" and set(zeros) == {"0"}))
    if len(groups) > 1:
        good = good and len(groups[0]) < 4 and all(len(g) == 3 for g in groups[1:])
    return good and _equal(sign, "".join(groups), answer)


def verify_steps(text, answer):
    """One small pattern after the other."""
    if text.count("#") == 0:
        return False
    rest = text.split("#")[-1].strip()
    negative = rest.startswith("-")
    rest = rest[1:] if negative else rest
    rest = rest[1:] if rest.startswith("$") else rest
    digits = re.match(r"[0-9]{1,3}(,[0-9]{3})+(?![0-9,])|[0-9]+(?![0-9,])", rest)
    if digits is None or not re.fullmatch(r"(\.0+)?\.?", rest[digits.end() :]):
        return False
    return _equal("-" if negative else "", digits[0].replace(",", ""), answer)


def verify_format(text, answer):
    """Compare with how the answer itself is written at that width, plain or with commas."""
    _, mark, said = text.rpartition("#")
    said = re.sub(r"(\.0+)?\.?$", "", said.strip(), count=1)
    sign, said = ("-", said[1:]) if said[:1] == "-" else ("", said)
    said = said[1:] if said[:1] == "$" else said
    forms = (f"{abs(answer):0{len(said)}d}", f"{abs(answer):0{len(said)},d}")
    return mark == "#" and said in forms and (answer == 0 or (sign == "-") == (answer < 0))


_ANSWER = re.compile(
    r"""\# \s* (?P<sign>-?) \$? (?P<digits> \d+ | \d{1,3} (?: ,\d{3} )+ )
        (?: \.0+ )? \.? \s* \Z""",
    re.VERBOSE,
)


def verify_verbose(text, answer):
    found = _ANSWER.search(text[max(text.rfind("#"), 0) :])
    if found is None:
        return False
    value = 0
    for digit in found["digits"].replace(",", ""):
        value = 10 * value + int(digit)
    return answer == (-value if found["sign"] else value)


def verify_machine(text, answer):
    """Read the characters behind the last mark one by one."""
    if "#" not in text:
        return False
    state, sign, digits, group = "start", "", "", None
    for c in [*text[text.rfind("#") + 1 :].strip(), "end"]:
        if state == "start" and c == "-":
            state, sign = "sign", "-"
        elif state in ("start", "sign") and c == "$":
            state = "dollar"
        elif state in ("start", "sign", "dollar", "digits") and c in "0123456789":
            state, digits = "digits", digits + c
            group = None if group is None else group + 1
        elif state == "digits" and c == "," and (group == 3 or (group is None and len(digits) < 4)):
            group = 0
        elif state == "digits" and c == "." and group in (None, 3):
            state = "point"
        elif state in ("point", "zeros") and c == "0":
            state = "zeros"
        elif state == "zeros" and c == ".":
            state = "stop"
        elif c == "end" and state in ("digits", "point", "zeros", "stop") and group in (None, 3):
            return _equal(sign, digits, answer)
        else:
            return False
    return False


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


def sample_generator(traces, answers, verifier, keep):
    _sane(traces, answers, keep)

    def right(row, answer):
        seen = set()
        for text in row:
            if text not in seen and verifier(text, answer):
                seen.add(text)
                yield text
                if len(seen) == keep:
                    return

    pairs = enumerate(zip(traces, answers, strict=True))
    return [(i, text) for i, (row, answer) in pairs for text in right(row, answer)]


def sample_filter(traces, answers, verifier, keep):
    """Verify everything first, then drop repetitions, then cut."""
    if len(answers) != len(traces) or not keep >= 1:
        raise ValueError(f"{len(traces)} problems, {len(answers)} answers, keep {keep}")
    kept = []
    for number, (row, answer) in enumerate(zip(traces, answers, strict=True)):
        good = list(filter(lambda text, answer=answer: verifier(text, answer), row))
        new = [text for place, text in enumerate(good) if text not in good[:place]]
        kept.extend((number, text) for text in new[:keep])
    return kept


def sample_flat(traces, answers, verifier, keep):
    """One table of (problem, text), each once; then at most `keep` rows of each problem."""
    _sane(traces, answers, keep)
    table = dict.fromkeys((i, text) for i, row in enumerate(traces) for text in row)
    right = [(i, text) for i, text in table if verifier(text, answers[i])]
    groups = groupby(right, key=lambda pair: pair[0])
    return list(chain.from_iterable(islice(group, keep) for _, group in groups))


def sample_recursive(traces, answers, verifier, keep):
    _sane(traces, answers, keep)

    def first(row, answer, found):
        if not row or len(found) == keep:
            return found
        text, *rest = row
        good = text not in found and verifier(text, answer)
        return first(rest, answer, [*found, text] if good else found)

    kept = []
    for i in range(len(answers)):
        kept += [(i, text) for text in first(list(traces[i]), answers[i], [])]
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


def pass_fractions(correct, k):
    """Exact fractions to the end."""
    _k(correct, k)
    n = correct.shape[1]
    total = Fraction(0)
    for row in correct.tolist():
        total += 1 - Fraction(math.comb(n - sum(row), k), math.comb(n, k))
    return float(total / len(correct))


def pass_log_sum(correct, k):
    """The product of the chances as a sum of logarithms; log 0 is minus infinity."""
    if k < 1 or k > correct.shape[1]:
        raise ValueError(f"k is {k}, there are {correct.shape[1]} samples")
    n, drawn = correct.shape[1], torch.arange(k, dtype=torch.float64)
    wrong = (~correct).sum(dim=1, keepdim=True) - drawn  # (P, k)
    log_chance = wrong.clamp(min=0).log() - (n - drawn).log()
    return -torch.expm1(log_chance.sum(dim=1)).mean().item()


def pass_scipy(correct, k):
    """The chance of no right one among k, from the hypergeometric distribution."""
    from scipy.stats import hypergeom

    _k(correct, k)
    n = correct.size(1)
    right = correct.sum(dim=1).numpy()
    return float(np.mean(1 - hypergeom.pmf(0, n, right, k)))


def pass_by_count(correct, k):
    """Problems with as many right ones share their number: one term for each count."""
    _k(correct, k)
    P, n = correct.shape
    how_many = torch.bincount(correct.long().sum(1), minlength=n + 1).tolist()
    total = 0.0
    for c, problems in enumerate(how_many):
        if problems:
            missed = 1.0
            for i in range(c):  # each right one lies outside of the k
                missed *= max(n - k - i, 0) / (n - i)
            total += problems * (1 - missed)
    return total / P


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


def steps_modules(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _weight(weight, label_targets, rationale_targets)
    criterion = torch.nn.CrossEntropyLoss(ignore_index=-100, reduction="mean")
    parts = [
        criterion(z.permute(0, 2, 1), y)
        for z, y in ((label_logits, label_targets), (rationale_logits, rationale_targets))
    ]
    return torch.add(parts[0], parts[1], alpha=weight)


def steps_loop(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    """Token by token."""
    if weight < 0:
        raise ValueError(f"weight is {weight}")
    total = 0.0
    for name, factor, logits, targets in (
        ("label", 1.0, label_logits, label_targets),
        ("rationale", weight, rationale_logits, rationale_targets),
    ):
        nats = [
            torch.logsumexp(logits[b, t], 0) - logits[b, t, y]
            for b, row in enumerate(targets.tolist())
            for t, y in enumerate(row)
            if y != -100
        ]
        if not nats:
            raise ValueError(f"the {name} task has no token")
        total = total + factor * sum(nats) / len(nats)
    return total


def steps_in_double(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _weight(weight, label_targets, rationale_targets)
    found = []
    for logits, targets in ((label_logits, label_targets), (rationale_logits, rationale_targets)):
        counts = targets.ne(-100)
        log_q = logits.double().log_softmax(dim=-1)
        own = log_q.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        found.append(-torch.where(counts, own, 0.0).sum() / counts.sum())
    return (found[0] + weight * found[1]).to(label_logits.dtype)


def steps_one_list(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    """All tokens in one list, each with the weight of its task over that task's count."""
    _weight(weight, label_targets, rationale_targets)
    y = torch.cat([label_targets.flatten(), rationale_targets.flatten()])
    z = torch.cat([label_logits.flatten(0, 1), rationale_logits.flatten(0, 1)])
    share = [(t != -100).to(z.dtype).flatten() for t in (label_targets, rationale_targets)]
    share = torch.cat([share[0] / share[0].sum(), weight * share[1] / share[1].sum()])
    return torch.dot(share, F.cross_entropy(z, y, ignore_index=-100, reduction="none"))


ANSWERS = {
    "13.sft_loss": [
        sft_ignore_index,
        sft_gather,
        sft_rows,
        sft_library,
        sft_weights,
        sft_pairs,
        sft_cumulative,
        sft_module,
    ],
    "13.verify": [
        verify_regex,
        verify_split,
        verify_decimal,
        verify_characters,
        verify_steps,
        verify_format,
        verify_verbose,
        verify_machine,
    ],
    "13.rejection_sample": [
        sample_loop,
        sample_set,
        sample_islice,
        sample_sorted,
        sample_generator,
        sample_filter,
        sample_flat,
        sample_recursive,
    ],
    "13.pass_at_k": [
        pass_comb,
        pass_lgamma,
        pass_numpy,
        pass_draws,
        pass_fractions,
        pass_log_sum,
        pass_scipy,
        pass_by_count,
    ],
    "13.step_by_step_loss": [
        steps_cross_entropy,
        steps_flat,
        steps_selected,
        steps_nll,
        steps_modules,
        steps_loop,
        steps_in_double,
        steps_one_list,
    ],
}

_WORDS = "the text asks for a ValueError; what its message says is not in the contract"
_AXES = "the order of two axes to be exchanged does not matter"
_DEFAULT = "-100 is the default"
_WHOLE = "a tensor of one whole number is an index, too"
_FLOAT64 = "float32 is within the tolerance"

EQUIVALENT = {
    "13.sft_loss": {
        "an exception without what was given @ *": _WORDS,
        "mask * @  => mask = *": "behind the only line that uses it",
        "a step left out @ counts[:, 0] = False => pass": "every row has a token of prompt",
        "an argument not passed on @ *ignore_index=-100*": _DEFAULT,
        "an argument not passed on @ edge = *": "counts of -1, 0 and 1 are exact in float32",
        "not converted @ if not bool(mask.any()):*": "a tensor of one truth value has one",
        "not converted @ for *": _WHOLE,
        "not converted @ log_q = *": _FLOAT64,
        "broadcast the other way @ t = *": "the missing dimension is added by broadcasting",
        "one more or one less @ log_q = *": "`gather` leaves the last position out",
        "a check left out @ if not parts:*": "`torch.cat` of nothing raises a ValueError, too",
        "arguments exchanged @ *": _AXES,
        "another number @ z = torch.where(*": "any finite number is harmless where nothing counts",
        "one thing for the other @ if not rows: *": "the two lists are of one length",
        "a bound left out @ rows += *": "no prompt is longer than its row",
        "two steps exchanged @ *": "the two do not depend on each other",
        "another dimension @ return (torch.logsumexp(z, dim=1)*": "a mean of all differences",
        "dimension not kept @ return (torch.logsumexp(z, dim=1)*": "a mean of all differences",
        "divided by another number of entries @ z = *": "y has one dimension",
        "sign @ edge.scatter_add_(*": "1 between the two edges, and 0 or 2 outside",
        "one more or one less @ edge.scatter_add_(*": "the index has one column",
        "one more or one less @ count = *": "the first token is one of the prompt's",
    },
    "13.verify": {
        "at the boundary @ return mark == '#' *": "an answer of zero has been let through",
        "one more or one less @ return mark == '#' *": "an answer of zero has been let through",
        "half a condition @ if not all((g.isascii()*": "the rest is compared with ASCII digits",
        "only the first @ if not all((g.isascii()*": "the rest is compared with ASCII digits",
        "half a condition @ good = *zeros != ''*": "the set of no characters is not {'0'}",
        "the loop ends too early @ good = *": "the rest is compared with the answer's digits",
        "only the first @ good = *": "the rest is compared with the answer's digits",
        "another pattern @ digits = *": "the other half of the pattern reads plain digits",
        "an argument not passed on @ said = re.sub(*": "what is left has nothing at its end",
        "one more or one less @ said = re.sub(*": "what is left has nothing at its end",
        "largest for smallest @ found = _ANSWER*": "the pattern itself reaches the end",
        "a bound left out @ found = _ANSWER*": "the pattern itself reaches the end",
        "one more or one less @ found = _ANSWER*": "the pattern itself reaches the end",
        "another pattern @ found = _ANSWER*": "the pattern itself reaches the end",
        "half a condition @ elif state == 'digits' and c == '.'*": "looked at again at the end",
        "the other truth value @ return False => return True": "no text gets there",
    },
    "13.pass_at_k": {
        "a bound left out @ *": "a factor of zero comes before the first below it",
        "* @ if correct.dtype != torch.bool or *": "the contract does not ask for this check",
        "*exception* @ raise ValueError(f'correct must*": "the contract does not ask for it",
        "an exception without what was given @ *": _WORDS,
        "* @ log_chance = *": "a millionth is within the tolerance",
        "* @ found.append(1.0 if *": "one of the factors is zero in that case",
        "* @ how_many = *": "problems without a right sample add nothing, nor do empty counts",
        "the loop ends too early @ for c, problems in *": "c = 0 adds nothing",
        "one thing for the other @ if problems:*": "c = 0 adds nothing",
        "* @ i = torch.arange(*": "float32 is near enough, and 0 is among the wrong ones",
        "* @ n, drawn = *": _FLOAT64,
        "arguments exchanged @ *hypergeom*": "the distribution is symmetric in the two",
        "dimension not kept @ *": "a mean over all",
        "half precision @ *": "truth values",
        "not converted @ *": "a tensor of one number is a number here",
    },
    "13.rejection_sample": {
        "an exception without what was given @ *": _WORDS,
        "a check left out @ if len(traces) != len(answers)*": "a strict `zip` raises it, too",
        "half a condition @ if len(answers) != len(traces)*": "a strict `zip` raises it, too",
        "mask the wrong way @  => keep = ~keep": "behind the only lines that use it",
        "two steps exchanged @ yield text*": "the two do not depend on each other",
        "not copied @ kept += *": "unpacking copies",
    },
    "13.step_by_step_loss": {
        "an exception without what was given @ *": _WORDS,
        "a bound left out @ label, rationale = *": "what the mask drops is never looked up",
        "arguments exchanged @ return torch.dot(*": "a dot product is symmetric",
        "arguments exchanged @ *transpose(*": _AXES,
        "the wrong way round @ return torch.stack(*": "a dot product is symmetric",
        "not converted @ if any(*": "a tensor of one truth value has one",
        "not converted @ nats = *": _WHOLE,
        "not converted @ log_q = *": _FLOAT64,
        "divided by another number of entries @ return *": "y has one dimension",
        "an argument not passed on @ *ignore_index=-100*": _DEFAULT,
        "multiplied by the mask @ *": "logits are finite, so zero times them is zero",
    },
}
