"""13.pass_at_k."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdlib import evaluation
from kdlib.checks.criteria import law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe


def _samples(k: int | None = 3, over: int | None = None):
    """Build `(P, n)` samples, from none right to all, in any order; k is n + `over` if given."""

    def make(g: torch.Generator) -> Arguments:
        n = _pick(g, 9, 12)
        some = [_pick(g, 1, n - 1) for _ in range(_pick(g, 2, 4))]
        counts = [0, 1, n - 2, n, *some]  # of n - 2, two are wrong: fewer than three
        return {"correct": _shuffled(g, counts, n), "k": k if over is None else n + over}

    return make


def _few(g: torch.Generator) -> Arguments:
    n = _pick(g, 5, 8)
    counts = [_pick(g, 1, n - 2) for _ in range(3)]
    return {"correct": _shuffled(g, counts, n), "k": n - 2}


def _one(g: torch.Generator) -> Arguments:
    return {"correct": _shuffled(g, [_pick(g, 1, 3)], 9), "k": 4}


def _thousands(g: torch.Generator) -> Arguments:
    n = _pick(g, 1900, 2100)
    counts = [0, 1, 2, 40, _pick(g, 3, 5), 700]
    return {"correct": _shuffled(g, counts, n), "k": 900}


def _pick(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


def _shuffled(g: torch.Generator, counts: list[int], n: int) -> Tensor:
    rows = [torch.arange(n).lt(c)[torch.randperm(n, generator=g)] for c in counts]
    return torch.stack(rows)


def _shares(correct: Tensor) -> tuple[Tensor, int]:
    return correct.sum(1).double(), correct.shape[1]


def _checked(rule):
    """Assemble a wrong answer from `rule(correct, k)`; bad k is refused."""

    def wrong(correct: Tensor, k: int) -> float:
        if not 1 <= k <= correct.shape[1]:
            raise ValueError("k must lie in 1..n")
        return float(rule(correct, k))

    return wrong


def _with_replacement(correct: Tensor, k: int) -> Tensor:
    c, n = _shares(correct)
    return (1 - (1 - c / n) ** k).mean()


def _any_of_n(correct: Tensor, k: int) -> Tensor:
    return correct.any(1).double().mean()


def _first_k(correct: Tensor, k: int) -> Tensor:
    return correct[:, :k].any(1).double().mean()


def _pass_at_1(correct: Tensor, k: int) -> Tensor:
    return correct.double().mean()


def _pooled(correct: Tensor, k: int) -> float:
    n, c = correct.numel(), int(correct.sum())
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def _of_the_mean(correct: Tensor, k: int) -> float:
    n, c = correct.shape[1], correct.double().sum(1).mean()
    i = torch.arange(k, dtype=torch.float64)
    return 1 - ((n - c - i).clamp(min=0) / (n - i)).prod()


def _floats(correct: Tensor, k: int) -> Tensor:
    """Divide two binomials in floating point, which overflow."""
    c, n = _shares(correct)

    def comb(a: Tensor) -> Tensor:
        i = torch.arange(k, dtype=torch.float64)
        return ((a[:, None] - i).clamp(min=0)).prod(1)

    return (1 - comb(n - c) / comb(torch.full_like(c, n))).mean()


def _complement(correct: Tensor, k: int) -> float:
    n = correct.shape[1]
    return sum(math.comb(n - int(c), k) / math.comb(n, k) for c in correct.sum(1)) / len(correct)


def _all_right(correct: Tensor, k: int) -> float:
    n = correct.shape[1]
    return sum(math.comb(int(c), k) / math.comb(n, k) for c in correct.sum(1)) / len(correct)


def _few_wrong_forgotten(correct: Tensor, k: int) -> float:
    n, total = correct.shape[1], 0.0
    for c in correct.sum(1).tolist():
        i = torch.arange(n - c + 1, n + 1, dtype=torch.float64)
        wrong = (1 - k / i).abs().prod() if n - c >= k else torch.tensor(1.0)
        total += float(1 - wrong)
    return total / len(correct)


def _any_k(correct: Tensor, k: int) -> float:
    n, found = correct.shape[1], []
    for c in correct.sum(1).tolist():
        none = math.comb(n - c, k) / math.comb(n, k) if n - c >= k else 0.0
        found.append(1 - none)
    return sum(found) / len(found)


def _between(evidence: Evidence) -> str | None:
    values = [float(evidence.value(p)) for p in ("k = 1", "plain", "k = n")]
    if not 0 <= values[0] <= values[1] <= values[2] <= 1:
        return (
            f"For k = 1, 3 and n you return {values[0]:.4g}, {values[1]:.4g} and {values[2]:.4g}. "
            "These are shares, and more samples can only help."
        )
    return None


PASS_AT_K = Exercise(
    id="13.pass_at_k",
    title="pass@k without bias",
    reference=evaluation.pass_at_k,
    probes=(
        Probe("plain", "some problems with 9 to 12 samples each, k = 3", _samples()),
        Probe("k = 1", "the same samples, k = 1", _samples(1)),
        Probe("k = n", "the same samples, k = n", _samples(over=0)),
        Probe("other", "3 problems with 5 to 8 samples each, k = n - 2", _few),
        Probe("one", "a single problem with 9 samples, k = 4", _one),
        Probe("large", "6 problems with about 2,000 samples, k = 900", _thousands),
        Probe("too few", "k = n + 1", _samples(over=1)),
        Probe("far too few", "k = n + 5", _samples(over=5)),
        Probe("k = 0", "k = 0", _samples(0)),
        Probe("k < 0", "k = -1", _samples(-1)),
    ),
    criteria=(
        matches("the value", 1.25, "plain", "other", "one"),
        matches("k = 1 and k = n", 0.5, "k = 1", "k = n"),
        law("more samples never hurt", 0.25, ("k = 1", "plain", "k = n"), _between),
        matches("thousands of samples", 0.5, "large"),
        rejects(
            *("k outside 1..n is refused", 0.25),
            *("too few", "far too few", "k = 0", "k < 0"),
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "drawn with replacement",
            _checked(_with_replacement),
            "1 - (1 - c/n)^k would be right if c/n were the true rate. It is an estimate, and k "
            "samples drawn with replacement can be the same one twice: the result is too low. "
            "Count the ways to draw k of the n that you have.",
            "verl-project/verl #7240, about best@k",
        ),
        Mistake(
            "any of all samples",
            _checked(_any_of_n),
            "You ask whether any of the n samples is right, which is pass@n whatever k is.",
            "confident-ai/deepeval #2967",
        ),
        Mistake(
            "the first k samples",
            _checked(_first_k),
            "You look at the first k samples and throw the others away. That is unbiased, and it "
            "varies far more than it needs to: every choice of k out of n is as good as the first.",
        ),
        Mistake(
            "pass@1 for every k",
            _checked(_pass_at_1),
            "You return the share of right samples, which is pass@1; k has no effect.",
        ),
        Mistake(
            "problems pooled",
            _checked(_pooled),
            "You put the samples of all problems into one urn, so a right answer to an easy "
            "problem solves a hard one. The estimate is made for each problem, then averaged.",
            "paiml/aprender #2118",
        ),
        Mistake(
            "averaged before the estimate",
            _checked(_of_the_mean),
            "You average the number of right samples first and estimate once. Chances of success "
            "do not average like that: estimate for each problem, then average.",
        ),
        Mistake(
            "binomials as floats",
            _checked(_floats),
            "With thousands of samples the binomials are larger than the largest float, and "
            "infinity divided by infinity is NaN. Most factors cancel on paper.",
        ),
        Mistake(
            "the probability of failure",
            _checked(_complement),
            "This is the probability that all k samples are wrong.",
        ),
        Mistake(
            "all k right",
            _checked(_all_right),
            "You return the probability that all k samples are right. One right sample is enough.",
        ),
        Mistake(
            "few wrong samples score zero",
            _checked(_few_wrong_forgotten),
            "Where fewer than k samples are wrong, k samples cannot all be wrong. Your result for "
            "such a problem is zero; what does C(n - c, k) count when k is larger than n - c?",
        ),
        Mistake(
            "more samples asked for than drawn",
            lambda correct, k: _any_k(correct, k) if k <= correct.shape[1] else 1.0,
            "With k larger than n you return a number, although k samples were never drawn; even "
            "a problem without any right sample then counts as solved. Refuse it.",
            "openai/human-eval #35 and nuprl/MultiPL-E #40",
        ),
    ),
    minutes=12,
    difficulty=2,
)
