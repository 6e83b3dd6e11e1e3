"""16.cached_kd."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib.checks.criteria import gradients, law, matches, side, tidy
from kdlib.checks.exercise import Arguments, Criterion, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.losses import sequences as losses

INFINITY = float("inf")


def _batch(
    kept: int,
    lengths: tuple[int, ...] = (5, 2, 4),
    width: int = 5,
    vocabulary: int = 11,
    agrees: bool = False,
    more: float = 0.0,
    level: float = 0.0,
    broken: bool = False,
    rounded: bool = False,
):
    """Build a student's logits and what a cache keeps of a teacher's."""

    def make(g: torch.Generator) -> Arguments:
        rows = len(lengths)
        z, v = (draw(g, rows, width, vocabulary, scale=2.0) for _ in "zv")
        if agrees:
            v = z.clone()
        if rounded:
            v[..., 3] = v.amax(-1) + 8.0  # nearly all the probability is on one token
        log_p, tokens = v.log_softmax(-1).topk(kept, dim=-1)
        if rounded:
            log_p = (log_p * 100).round() / 100
        z = level + z.scatter_add(-1, tokens, torch.full_like(log_p, more))
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        if broken:
            z[~mask] = log_p[~mask] = float("nan")
        return {"logits": z, "tokens": tokens, "log_probs": log_p.contiguous(), "mask": mask}

    return make


def _awkward(g: torch.Generator) -> Arguments:
    """Draw sizes, positions that count here and there, and logits laid out the other way."""
    rows, width = torch.randint(2, 5, (2,), generator=g).tolist()
    vocabulary = int(torch.randint(3, 8, (), generator=g))
    kept = int(torch.randint(1, vocabulary, (), generator=g))
    z = draw(g, width, rows, vocabulary, scale=2.0).transpose(0, 1)
    log_p, tokens = draw(g, rows, width, vocabulary, scale=2.0).log_softmax(-1).topk(kept, dim=-1)
    mask = torch.rand(rows, width, generator=g) < 0.6
    mask[0, 0], mask[-1, -1] = False, True
    return {"logits": z, "tokens": tokens, "log_probs": log_p, "mask": mask}


def _float32(g: torch.Generator) -> Arguments:
    """Build float32 logits of some tens, and a teacher that is sure of something else."""
    made = _batch(3, (2, 4), 4, 6)(g)
    log_p = (20 * made["log_probs"]).log_softmax(-1) - 1e-4
    return {**made, "logits": (10 * made["logits"]).float(), "log_probs": log_p.float()}


def _log_q(z: Tensor, kept: Tensor) -> Tensor:
    return z.log_softmax(-1).gather(-1, kept)


def _log_rest(z: Tensor, kept: Tensor) -> Tensor:
    """Give the log of the student's probability outside the kept tokens."""
    return z.scatter(-1, kept, -INFINITY).logsumexp(-1) - z.logsumexp(-1)


def _inside(z: Tensor, kept: Tensor, log_p: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - _log_q(z, kept))).sum(-1)


def _rest(log_p: Tensor) -> Tensor:
    return (1 - log_p.exp().sum(-1)).clamp(min=0)


def _terms(z: Tensor, kept: Tensor, log_p: Tensor) -> Tensor:
    """Give the right loss of each position."""
    terms, rest = _inside(z, kept, log_p), _rest(log_p)
    if kept.shape[-1] == z.shape[-1]:
        return terms
    return terms + torch.special.xlogy(rest, rest) - rest * _log_rest(z, kept)


def _mean(terms: Tensor, mask: Tensor) -> Tensor:
    return terms.sum() / max(1, len(terms))


def _loss(terms, reduce=_mean):
    """Assemble a wrong loss: `terms` of the positions that count, and how they become one."""

    def wrong(logits, tokens, log_probs, mask):
        return reduce(terms(logits[mask], tokens[mask], log_probs[mask]), mask)

    return wrong


def _teacher_renormalised(z, kept, log_p):
    log_p = log_p.log_softmax(-1)
    return (log_p.exp() * (log_p - _log_q(z, kept))).sum(-1)


def _both_renormalised(z, kept, log_p):
    log_p, log_q = log_p.log_softmax(-1), z.gather(-1, kept).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _student_renormalised(z, kept, log_p):
    return (log_p.exp() * (log_p - z.gather(-1, kept).log_softmax(-1))).sum(-1)


def _reverse(z, kept, log_p):
    log_q = _log_q(z, kept)
    terms, rest = (log_q.exp() * (log_q - log_p)).sum(-1), _rest(log_p)
    if kept.shape[-1] == z.shape[-1]:
        return terms
    log_r = _log_rest(z, kept)
    return terms + log_r.exp() * (log_r - rest.clamp(min=1e-12).log())


def _subtracted(z, kept, log_p):
    """Take the student's rest as one minus its sum, and clamp what goes into the log."""
    rest = _rest(log_p)
    log_r = (1 - _log_q(z, kept).exp().sum(-1)).clamp(min=1e-8).log()
    return _inside(z, kept, log_p) + torch.special.xlogy(rest, rest) - rest * log_r


def _rest_of_nothing(z, kept, log_p):
    rest = _rest(log_p)
    terms = _inside(z, kept, log_p) + torch.special.xlogy(rest, rest)
    return terms - rest * _log_rest(z, kept)


def _rest_where_positive(z, kept, log_p):
    rest = 1 - log_p.exp().sum(-1)
    each = rest * (rest.clamp(min=1e-45).log() - _log_rest(z, kept))
    return _inside(z, kept, log_p) + torch.where(rest > 0, each, 0.0)


def _log_of_the_rest(z, kept, log_p):
    if kept.shape[-1] == z.shape[-1]:
        return _inside(z, kept, log_p)
    rest = 1 - log_p.exp().sum(-1)
    return _inside(z, kept, log_p) + rest * (rest.log() - _log_rest(z, kept))


def _cross_entropy(z, kept, log_p):
    terms = -(log_p.exp() * _log_q(z, kept)).sum(-1)
    if kept.shape[-1] == z.shape[-1]:
        return terms
    return terms - _rest(log_p) * _log_rest(z, kept)


def _spread(z, kept, log_p):
    """Spread the teacher's rest evenly over all the other tokens."""
    others = z.shape[-1] - kept.shape[-1]
    if not others:
        return _inside(z, kept, log_p)
    each = _rest(log_p) / others
    log_q = z.log_softmax(-1)
    outside = log_q.scatter(-1, kept, 0.0).sum(-1)
    return _inside(z, kept, log_p) + others * torch.special.xlogy(each, each) - each * outside


def _all_positions(terms, mask):
    return terms.sum() / mask.numel()


def _mean_of_nothing(terms, mask):
    return terms.mean()


def _late(combine):
    """Compute at all positions, and deal with those that do not count at the end."""

    def wrong(logits, tokens, log_probs, mask):
        terms = _terms(logits, tokens, log_probs)
        return combine(terms, mask) / mask.sum().clamp(min=1)

    return wrong


def _again(logits, tokens, log_probs, mask):
    """Shift logits and targets that are aligned already."""
    moved = mask[:, 1:]
    terms = _terms(logits[:, :-1][moved], tokens[:, 1:][moved], log_probs[:, 1:][moved])
    return _mean(terms, moved)


def _behind(logits, tokens, log_probs, mask):
    """Compare each position with what the teacher said one before."""
    moved = mask[:, 1:]
    terms = _terms(logits[:, 1:][moved], tokens[:, :-1][moved], log_probs[:, :-1][moved])
    return _mean(terms, moved)


def _with_gradient(name: str, points: float, *probes: str) -> Criterion:
    """Ask for the value and the gradient on some probes."""
    value, slope = matches(name, points, *probes), gradients(name, points, *probes)
    return Criterion(name, points, lambda evidence: value.test(evidence) or slope.test(evidence))


def _zero(evidence: Evidence) -> str | None:
    found = float(evidence.value("same"))
    if abs(found) > 1e-6:
        return (
            f"For a student that agrees with the teacher on every token you return {found:.4g}. "
            "A divergence between equal distributions has nothing to say."
        )
    return None


def _ordered(evidence: Evidence) -> str | None:
    found = [float(evidence.value(name)) for name in ("few", "plain", "full")]
    kept = "Your loss is {:.4g} with 1 token kept, {:.4g} with 4 and {:.4g} with all of them."
    if (much := float(evidence.value("too much"))) < -1e-9:
        return (
            f"For a student that puts too much on the kept tokens, your loss is {much:.4g}, below "
            "that of one which agrees. A KL divergence is never negative."
        )
    if min(found) < -1e-9:
        return kept.format(*found) + " A KL divergence is never negative."
    if not found[0] <= found[1] + 1e-9 or not found[1] <= found[2] + 1e-9:
        return kept.format(*found) + " Whoever sees less can only see less of a difference."
    return None


PLACES = "the number of positions"
COUNTED = "the number of positions that count"
ROWS = "the number of rows"

CACHED_KD = Exercise(
    id="16.cached_kd",
    title="Learn from a teacher in a cache",
    reference=losses.cached_kd,
    probes=(
        Probe(
            "plain",
            "3 rows of 5 positions, 11 tokens of which 4 are kept",
            _batch(4),
            gradients=("logits",),
            sizes={ROWS: 3, PLACES: 15, COUNTED: 11},
        ),
        Probe(
            "other",
            "2 rows of 4 positions, 7 tokens of which 2 are kept",
            _batch(2, (4, 1), 4, 7),
            sizes={ROWS: 2, PLACES: 8, COUNTED: 5},
        ),
        Probe("one", "a single position, 7 tokens of which 3 are kept", _batch(3, (1,), 4, 7)),
        Probe("awkward", "2 to 4 rows and positions with gaps", _awkward, gradients=("logits",)),
        Probe(
            "float32",
            "float32 logits of some tens, and a teacher that is sure of something else",
            _float32,
            gradients=("logits",),
            atol=1e-4,
        ),
        Probe("few", "the same 3 rows with a single token kept", _batch(1)),
        Probe("full", "the same 3 rows with all 11 tokens kept", _batch(11), ("logits",)),
        Probe("same", "a student equal to the teacher", _batch(4, agrees=True)),
        Probe(
            "too much",
            "a student that agrees, but for a little too much on the 4 kept tokens",
            _batch(4, agrees=True, more=1.0),
        ),
        Probe(
            "broken",
            "rows with NaN where the mask is False",
            _batch(4, broken=True),
            gradients=("logits",),
        ),
        Probe(
            "sure",
            "a student that is very sure of the kept tokens",
            _batch(4, more=800.0, level=1000.0),
            gradients=("logits",),
        ),
        Probe(
            "rounded",
            "log-probabilities kept with two decimals",
            _batch(4, rounded=True),
            gradients=("logits",),
        ),
        Probe(
            "certain",
            "a teacher whose only token kept has probability 1",
            _batch(1, rounded=True),
            gradients=("logits",),
        ),
        Probe(
            "none",
            "rows without a position that counts, with NaN everywhere",
            _batch(4, (0, 0), broken=True),
            gradients=("logits",),
        ),
    ),
    criteria=(
        matches("the value", 0.75, "plain", "other", "one", "awkward", "float32"),
        gradients("the gradient", 0.5, "plain", "awkward", "float32"),
        law("zero for a student that agrees", 0.25, ("same",), _zero),
        law(
            "never negative, and never more than the full KL",
            0.25,
            ("few", "plain", "full", "too much"),
            _ordered,
        ),
        _with_gradient("the full KL when all tokens are kept", 0.25, "full"),
        _with_gradient("NaN where nothing counts does no harm", 0.25, "broken"),
        _with_gradient("a student that is very sure", 0.25, "sure"),
        _with_gradient("rounded log-probabilities", 0.25, "rounded", "certain"),
        side(_with_gradient("no position counts", 0.25, "none")),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the rest is left out",
            _loss(_inside),
            "You add up the kept tokens and stop. Neither side adds up to one there, so this is "
            "no divergence: it falls below zero, and is lowest for a student that puts far too "
            "much on the kept tokens.",
            "verl-project/verl #7856",
        ),
        Mistake(
            "teacher renormalised",
            _loss(_teacher_renormalised),
            "A softmax over the kept log-probabilities makes them add up to one, and the teacher "
            "more sure than it is. The student's still run over the whole vocabulary, so no "
            "student can agree with it and keep its own rest. They are log-probabilities already.",
            "AI-Hypercomputer/maxtext #4056",
        ),
        Mistake(
            "both renormalised",
            _loss(_both_renormalised),
            "You compare the two within the kept tokens, as if nothing else existed. The student "
            "may put all its probability on the others and pay nothing; with one token kept, the "
            "loss is zero for every student.",
            "Thinking-Space/Rethinking-OPD #15",
        ),
        Mistake(
            "student's softmax over the kept tokens",
            _loss(_student_renormalised),
            "Your student's softmax runs over the kept tokens alone, while the teacher's ran over "
            "the whole vocabulary. The tokens outside get no gradient at all.",
        ),
        Mistake(
            "reverse KL",
            _loss(_reverse),
            "You weigh with the student's probabilities: that is the divergence the other way "
            "round. Which of the two distributions stands in front of the logs?",
        ),
        Mistake(
            "the teacher's part left out",
            _loss(_cross_entropy),
            "You return a cross-entropy. Its gradient is right, but it is not zero when the "
            "student has nothing left to learn, and positions cannot be compared by it.",
            "jongwooko/distillm #7",
        ),
        Mistake(
            "the rest spread evenly",
            _loss(_spread),
            "You give every token that was not kept the same share. The cache does not say that: "
            "it says how much they have together, and the student is free within that.",
        ),
        Mistake(
            "shifted again",
            _again,
            "You shift the logits against the tokens once more. Here both are of the same "
            "position already, and the student learns to skip a token.",
            "linkedin/fmchisel #23",
        ),
        Mistake(
            "the teacher one position behind",
            _behind,
            "You compare each position with what the teacher said at the one before. Logits and "
            "tokens belong to the same position already: nothing is to be shifted.",
        ),
        Mistake(
            "divided by all positions",
            _loss(_terms, _all_positions),
            "You divide by all positions, those that do not count among them. Padding and long "
            "prompts then make the loss smaller.",
        ),
        Mistake(
            "masked by multiplication",
            _late(lambda terms, mask: (terms * mask).sum()),
            "You multiply by the mask, and zero times NaN is NaN. Select what counts instead.",
        ),
        Mistake(
            "masked at the end",
            _late(lambda terms, mask: torch.where(mask, terms, 0.0).sum()),
            "Your value is right and your gradient is NaN. What you leave out at the end has been "
            "through a softmax, and on the way back zero times NaN is NaN. Leave it out first.",
        ),
        Mistake(
            "one minus the student's sum",
            _loss(_subtracted),
            "You take the student's rest as one minus what it gives the kept tokens. For a sure "
            "student that difference is rounding; clamping it hides this and stops the gradient, "
            "just where the loss is large. Can the rest be added up itself, from the logits?",
            "NVIDIA/Model-Optimizer #2459",
        ),
        Mistake(
            "the log of an empty rest",
            _loss(_rest_of_nothing),
            "When all tokens are kept, no token is left outside: the log of the student's rest is "
            "minus infinity, and zero times that is NaN.",
        ),
        Mistake(
            "the rest is kept where there is none",
            _loss(_rest_where_positive),
            "When all tokens are kept, you still look whether something is left. One minus the "
            "teacher's sum is then rounding, not always 0, and the student has exactly nothing "
            "there, so the divergence is infinite. What says for sure that no token is left?",
        ),
        Mistake(
            "the log of less than nothing",
            _loss(_log_of_the_rest),
            "The cached numbers are rounded and may add up to a little more than one. The log of "
            "the rest is NaN then.",
        ),
        Mistake(
            "the mean of nothing",
            _loss(_terms, _mean_of_nothing),
            "When no position counts, you take a mean over none, and that NaN goes into every "
            "weight at the next step.",
        ),
    ),
    minutes=20,
    difficulty=3,
)
