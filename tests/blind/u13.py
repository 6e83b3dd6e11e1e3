"""Wrong answers to unit 13, written from the notebook's text."""

import re

import torch
import torch.nn.functional as F

from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _mask(ids, prompt_lengths, lengths):
    t = torch.arange(1, ids.shape[1])[None]
    mask = (t >= prompt_lengths[:, None]) & (t < lengths[:, None])
    if not mask.any():
        raise ValueError("no completion")
    return mask


@wrong("13.sft_loss", "prompt tokens count, too", "only the completion's tokens count")
def prompts_learned(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, torch.ones_like(prompt_lengths), lengths)
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


@wrong("13.sft_loss", "not shifted", "those at position t are for the token at t + 1")
def not_shifted(logits, ids, prompt_lengths, lengths):
    t = torch.arange(ids.shape[1])[None]
    mask = (t >= prompt_lengths[:, None]) & (t < lengths[:, None])
    if not mask.any():
        raise ValueError("no completion")
    return F.cross_entropy(logits[mask], ids[mask])


@wrong("13.sft_loss", "the first completion token is lost", "from t = P on")
def first_lost(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, prompt_lengths + 1, lengths)
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


@wrong("13.sft_loss", "the EOS does not count", "has an EOS of its own, and it counts")
def eos_lost(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, prompt_lengths, lengths - 1)
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


@wrong("13.sft_loss", "one padding token counts", "the padding behind it does not")
def one_padding_token(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, prompt_lengths, lengths + 1)
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


@wrong("13.sft_loss", "mean of row means", "over all completion tokens together")
def row_means(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, prompt_lengths, lengths)
    rows = [
        F.cross_entropy(z[m], y[m])
        for z, y, m in zip(logits[:, :-1], ids[:, 1:], mask, strict=True)
        if m.any()
    ]
    return torch.stack(rows).mean()


@wrong("13.sft_loss", "multiplies by the mask", "logits in the padding may be NaN")
def masked_product(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, prompt_lengths, lengths)
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return (nll * mask).sum() / mask.sum()


@wrong("13.sft_loss", "nan_to_num of the losses", "NaN must not reach the gradient either")
def nan_removed(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, prompt_lengths, lengths)
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return (torch.nan_to_num(nll) * mask).sum() / mask.sum()


@wrong("13.sft_loss", "NaN for a batch without completions", "raises a ValueError")
def nan_when_empty(logits, ids, prompt_lengths, lengths):
    t = torch.arange(1, ids.shape[1])[None]
    mask = (t >= prompt_lengths[:, None]) & (t < lengths[:, None])
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


@wrong("13.sft_loss", "refuses a batch with one empty completion", "without any completion")
def one_empty_refused(logits, ids, prompt_lengths, lengths):
    if (lengths <= prompt_lengths).any():
        raise ValueError("a row without a completion")
    mask = _mask(ids, prompt_lengths, lengths)
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


@wrong("13.sft_loss", "lengths read as lengths of completions", "L tokens in all")
def completion_lengths(logits, ids, prompt_lengths, lengths):
    mask = _mask(ids, prompt_lengths, prompt_lengths + lengths)
    return F.cross_entropy(logits[:, :-1][mask], ids[:, 1:][mask])


NUMBER = re.compile(r"\s*(-?)\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.0+)?\.?\s*")


def _read(rest):
    found = NUMBER.fullmatch(rest)
    return int(found[1] + found[2].replace(",", "")) if found else None


@wrong("13.verify", "the last number of the text", "what stands after the last #")
def last_number(text, answer):
    found = re.findall(r"-?\d+", text.replace(",", ""))
    return bool(found) and int(found[-1]) == answer


@wrong("13.verify", "searches for a number after the mark", "nothing else may stand there")
def searches(text, answer):
    if "#" not in text:
        return False
    found = NUMBER.search(text.rsplit("#", 1)[1])
    return found is not None and int(found[1] + found[2].replace(",", "")) == answer


@wrong("13.verify", "splits at the first mark", "after the last #")
def first_mark(text, answer):
    return "#" in text and _read(text.split("#", 1)[1]) == answer


@wrong("13.verify", "any mark will do", "after the last #")
def any_mark(text, answer):
    return any(_read(part) == answer for part in text.split("#")[1:])


@wrong("13.verify", "no mark needed", "a text without a readable answer is wrong")
def no_mark(text, answer):
    return _read(text.split("#")[-1]) == answer


@wrong("13.verify", "int() of the rest", "raise nothing; how it is written does not matter")
def int_of_the_rest(text, answer):
    return int(text.rsplit("#", 1)[-1].strip()) == answer


@wrong("13.verify", "compares floats", "compare whole numbers as whole numbers")
def floats(text, answer):
    if "#" not in text or NUMBER.fullmatch(text.rsplit("#", 1)[1]) is None:
        return False
    return float(re.sub(r"[\s$,]", "", text.rsplit("#", 1)[1]).rstrip(".")) == float(answer)


@wrong("13.verify", "cuts decimals off", "neither is 4.7 an answer")
def truncates(text, answer):
    rest = re.sub(r"[\s$,]", "", text.rsplit("#", 1)[1]) if "#" in text else ""
    try:
        return int(float(rest)) == answer
    except (ValueError, OverflowError):
        return False


@wrong("13.verify", "removes commas wherever they are", "commas between thousands")
def commas_anywhere(text, answer):
    return "#" in text and _read(text.rsplit("#", 1)[1].replace(",", "")) == answer


@wrong("13.verify", "rstrip('.0'): 30 becomes 3", "zeros after a decimal point")
def strips_zeros(text, answer):
    if "#" not in text or NUMBER.fullmatch(text.rsplit("#", 1)[1]) is None:
        return False
    rest = re.sub(r"[\s$,]", "", text.rsplit("#", 1)[1])
    return rest.rstrip(".0") == str(answer)


@wrong("13.verify", "drops the sign", "a minus sign")
def sign_dropped(text, answer):
    found = NUMBER.fullmatch(text.rsplit("#", 1)[1]) if "#" in text else None
    return found is not None and int(found[2].replace(",", "")) == abs(answer)


@wrong("13.verify", "an empty answer is zero", "a text without a readable answer is wrong")
def empty_is_zero(text, answer):
    rest = text.rsplit("#", 1)[1].strip() if "#" in text else ""
    return (_read(rest) if rest else 0) == answer


@wrong("13.verify", "removes everything that is no digit", "nothing else may stand there")
def digits_only(text, answer):
    if "#" not in text:
        return False
    digits = re.sub(r"[^0-9-]", "", text.rsplit("#", 1)[1].split(".")[0])
    return digits.lstrip("-").isdigit() and digits == str(answer)


def _check(traces, answers, keep):
    if keep < 1 or len(traces) != len(answers):
        raise ValueError(f"keep {keep}, {len(traces)} problems, {len(answers)} answers")


@wrong("13.rejection_sample", "cuts before it verifies", "the first `keep` that are accepted")
def cuts_first(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    return [
        (i, text)
        for i, (row, y) in enumerate(zip(traces, answers, strict=True))
        for text in list(dict.fromkeys(row))[:keep]
        if verifier(text, y)
    ]


@wrong("13.rejection_sample", "cuts before it removes repetitions", "`keep` different traces")
def repeats_take_places(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        right = [text for text in row if verifier(text, y)][:keep]
        pairs += [(i, text) for text in dict.fromkeys(right)]
    return pairs


@wrong("13.rejection_sample", "a sorted set", "the first, in the order they were drawn")
def sorted_set(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        right = sorted({text for text in row if verifier(text, y)})
        pairs += [(i, text) for text in right[:keep]]
    return pairs


@wrong("13.rejection_sample", "repetitions stay", "different traces")
def repetitions_stay(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        pairs += [(i, text) for text in row if verifier(text, y)][:keep]
    return pairs


@wrong("13.rejection_sample", "one memory for all problems", "different within each problem")
def one_memory(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs, seen = [], set()
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        kept = 0
        for text in row:
            if kept < keep and text not in seen and verifier(text, y):
                seen.add(text)
                pairs.append((i, text))
                kept += 1
    return pairs


@wrong("13.rejection_sample", "counts the solved problems", "i is the problem's own number")
def numbers_of_the_solved(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    solved = []
    for row, y in zip(traces, answers, strict=True):
        right = list(dict.fromkeys(text for text in row if verifier(text, y)))[:keep]
        if right:
            solved.append(right)
    return [(i, text) for i, right in enumerate(solved) for text in right]


@wrong("13.rejection_sample", "zip cuts the longer list", "lists of different lengths raise")
def lengths_unchecked(traces, answers, verifier, keep):
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=False)):
        right = dict.fromkeys(text for text in row if verifier(text, y))
        pairs += [(i, text) for text in list(right)[:keep]]
    return pairs


@wrong("13.rejection_sample", "keep = 0 gives nothing", "`keep` < 1 raises")
def zero_kept(traces, answers, verifier, keep):
    if len(traces) != len(answers) or keep < 0:
        raise ValueError("lists of different lengths")
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        right = dict.fromkeys(text for text in row if verifier(text, y))
        pairs += [(i, text) for text in list(right)[:keep]]
    return pairs


@wrong("13.rejection_sample", "looks for the answer in the text", "that the verifier accepts")
def own_verifier(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        right = dict.fromkeys(t for t in row if t.rsplit("#", 1)[-1].strip() == str(y))
        pairs += [(i, text) for text in list(right)[:keep]]
    return pairs


@wrong("13.rejection_sample", "the most frequent ones", "the first ones")
def most_frequent(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        right = [text for text in row if verifier(text, y)]
        ranked = sorted(dict.fromkeys(right), key=right.count, reverse=True)
        pairs += [(i, text) for text in ranked[:keep]]
    return pairs


@wrong("13.rejection_sample", "texts stripped", "the traces as they are")
def stripped(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        right = dict.fromkeys(text.strip() for text in row if verifier(text, y))
        pairs += [(i, text) for text in list(right)[:keep]]
    return pairs


@wrong("13.rejection_sample", "`keep` in all", "for each problem")
def keep_in_all(traces, answers, verifier, keep):
    _check(traces, answers, keep)
    pairs = []
    for i, (row, y) in enumerate(zip(traces, answers, strict=True)):
        pairs += [(i, text) for text in dict.fromkeys(row) if verifier(text, y)]
    return pairs[:keep]


def _k(correct, k):
    if not 1 <= k <= correct.shape[1]:
        raise ValueError(f"k must be in 1..{correct.shape[1]}, got {k}")


def _estimate(right, n, k):
    wrong_ = torch.ones_like(right)
    for i in range(k):
        wrong_ = wrong_ * ((n - right - i) / (n - i)).clamp(min=0)
    return 1 - wrong_


@wrong("13.pass_at_k", "drawn with replacement", "1 - C(n - c, k) / C(n, k)")
def with_replacement(correct, k):
    _k(correct, k)
    return (1 - (1 - correct.double().mean(1)) ** k).mean().item()


@wrong("13.pass_at_k", "the first k samples", "from all n samples")
def first_k(correct, k):
    _k(correct, k)
    return correct[:, :k].any(1).double().mean().item()


@wrong("13.pass_at_k", "log-gamma in float32", "thousands of samples; exact")
def log_gamma(correct, k):
    _k(correct, k)
    n, c = torch.tensor(float(correct.shape[1])), correct.float().sum(1)
    left = n - c

    def log_comb(a):
        return torch.lgamma(a + 1) - torch.lgamma(torch.tensor(k + 1.0)) - torch.lgamma(a - k + 1)

    ratio = torch.where(left >= k, (log_comb(left.clamp(min=k)) - log_comb(n)).exp(), 0.0)
    return (1 - ratio).mean().item()


@wrong("13.pass_at_k", "binomials as floats", "binomials of that size do not fit into a float")
def float_binomials(correct, k):
    _k(correct, k)

    def comb(a):
        top = torch.arange(k, dtype=torch.float64)
        return (a[:, None] - top).clamp(min=0).prod(1)

    n = torch.full((len(correct),), correct.shape[1], dtype=torch.float64)
    return (1 - comb(n - correct.double().sum(1)) / comb(n)).mean().item()


@wrong("13.pass_at_k", "pools the problems", "a mean over problems")
def pooled(correct, k):
    _k(correct, k)
    rate = correct.double().sum(1).mean()
    return _estimate(rate, correct.shape[1], k).item()


@wrong("13.pass_at_k", "one factor short", "i = 0 ... k - 1")
def one_factor_short(correct, k):
    _k(correct, k)
    return _estimate(correct.double().sum(1), correct.shape[1], max(k - 1, 1)).mean().item()


@wrong("13.pass_at_k", "the same denominator in each factor", "(n - c - i) / (n - i)")
def same_denominator(correct, k):
    _k(correct, k)
    n, c = correct.shape[1], correct.double().sum(1)
    chance = torch.ones_like(c)
    for i in range(k):
        chance = chance * ((n - c - i) / n).clamp(min=0)
    return (1 - chance).mean().item()


@wrong("13.pass_at_k", "k of k right: pass^k", "not all wrong")
def all_right(correct, k):
    _k(correct, k)
    n = correct.shape[1]
    return (1 - _estimate(n - correct.double().sum(1), n, k)).mean().item()


@wrong("13.pass_at_k", "k larger than n is cut", "k outside 1..n raises")
def k_is_cut(correct, k):
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    n = correct.shape[1]
    return _estimate(correct.double().sum(1), n, min(k, n)).mean().item()


@wrong("13.pass_at_k", "k = 0 gives 0", "k outside 1..n raises")
def zero_allowed(correct, k):
    if k > correct.shape[1] or k < 0:
        raise ValueError(f"k is larger than n, got {k}")
    return _estimate(correct.double().sum(1), correct.shape[1], k).mean().item()


@wrong("13.pass_at_k", "problems in columns", "correct is (P, n)")
def columns(correct, k):
    _k(correct, k)
    return _estimate(correct.double().sum(0), correct.shape[0], min(k, len(correct))).mean().item()


def _tasks(label_targets, rationale_targets, weight):
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    if (label_targets == -100).all() or (rationale_targets == -100).all():
        raise ValueError("a task without a counted token")


def _ce(logits, targets):
    return F.cross_entropy(logits.transpose(1, 2), targets)


@wrong("13.step_by_step_loss", "one mean over both tasks", "a mean over its own counted tokens")
def pooled_tasks(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _tasks(label_targets, rationale_targets, weight)
    label = F.cross_entropy(label_logits.transpose(1, 2), label_targets, reduction="sum")
    steps = F.cross_entropy(rationale_logits.transpose(1, 2), rationale_targets, reduction="sum")
    count = (label_targets != -100).sum() + (rationale_targets != -100).sum()
    return (label + weight * steps) / count


@wrong("13.step_by_step_loss", "weight on the label", "L_label + lambda L_rationale")
def weight_on_the_label(
    label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0
):
    _tasks(label_targets, rationale_targets, weight)
    return weight * _ce(label_logits, label_targets) + _ce(rationale_logits, rationale_targets)


@wrong("13.step_by_step_loss", "a convex sum", "L_label + lambda L_rationale")
def convex(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _tasks(label_targets, rationale_targets, weight)
    label, steps = _ce(label_logits, label_targets), _ce(rationale_logits, rationale_targets)
    return (label + weight * steps) / (1 + weight)


@wrong("13.step_by_step_loss", "view instead of transpose", "classes are the last dimension")
def scrambled(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _tasks(label_targets, rationale_targets, weight)

    def ce(z, y):
        return F.cross_entropy(z.reshape(z.shape[0], z.shape[2], z.shape[1]), y)

    return ce(label_logits, label_targets) + weight * ce(rationale_logits, rationale_targets)


@wrong("13.step_by_step_loss", "-100 clamped to class 0", "-100 does not count")
def clamped_targets(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _tasks(label_targets, rationale_targets, weight)
    label = _ce(label_logits, label_targets.clamp(min=0))
    return label + weight * _ce(rationale_logits, rationale_targets.clamp(min=0))


@wrong("13.step_by_step_loss", "divides by all positions", "its own counted tokens")
def all_positions(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _tasks(label_targets, rationale_targets, weight)

    def ce(z, y):
        return F.cross_entropy(z.transpose(1, 2), y, reduction="none").mean()

    return ce(label_logits, label_targets) + weight * ce(rationale_logits, rationale_targets)


@wrong("13.step_by_step_loss", "row by row", "a mean over its counted tokens")
def task_row_means(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _tasks(label_targets, rationale_targets, weight)

    def ce(logits, targets):
        rows = [
            F.cross_entropy(z, y) for z, y in zip(logits, targets, strict=True) if (y != -100).any()
        ]
        return torch.stack(rows).mean()

    return ce(label_logits, label_targets) + weight * ce(rationale_logits, rationale_targets)


@wrong("13.step_by_step_loss", "a task without tokens is worth zero", "raises a ValueError")
def empty_is_nothing(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    label = _ce(label_logits, label_targets)
    return torch.nan_to_num(label) + weight * torch.nan_to_num(
        _ce(rationale_logits, rationale_targets)
    )


@wrong(
    "13.step_by_step_loss", "looks at the label alone", "a task without any counted token: either"
)
def label_checked_alone(
    label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0
):
    if weight < 0 or (label_targets == -100).all():
        raise ValueError("negative weight, or no label")
    return _ce(label_logits, label_targets) + weight * _ce(rationale_logits, rationale_targets)


@wrong("13.step_by_step_loss", "a weight of zero is refused", "a negative weight raises")
def zero_refused(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    if weight <= 0:
        raise ValueError(f"weight must be positive, got {weight}")
    _tasks(label_targets, rationale_targets, weight)
    return _ce(label_logits, label_targets) + weight * _ce(rationale_logits, rationale_targets)


@wrong("13.step_by_step_loss", "shifts once more", "shifted already")
def shifted_again(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _tasks(label_targets, rationale_targets, weight)
    steps = _ce(rationale_logits[:, :-1], rationale_targets[:, 1:])
    return _ce(label_logits, label_targets) + weight * steps
