"""07.nce_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw, positive
from kdlib.exercises.u07_relations.inputs import integer, strided
from kdlib.losses import relations


def _scores(
    rows: tuple[int, int] = (3, 5),
    negatives: tuple[int, int] = (6, 9),
    scale: float = 2.0,
    normaliser: float | None = None,
    single: bool = False,
    gaps: bool = False,
    below: bool = False,
):
    def make(g: torch.Generator) -> Arguments:
        shape = integer(g, *rows), 1 + integer(g, *negatives)
        scores = draw(g, *shape, scale=scale)
        scores[:, 0] += 1.5
        z = float(torch.rand((), generator=g, dtype=torch.float64)) * 30 + 20
        if below:
            z /= 60
        if single:
            scores = scores.float()
        return {
            "scores": strided(scores) if gaps else scores,
            "normaliser": z if normaliser is None else normaliser,
            "examples": integer(g, 30, 60),
        }

    return make


def _whole_number(answer, a: Arguments) -> torch.Tensor:
    """Call with a normaliser that is an int."""
    return answer(a["scores"], round(a["normaliser"]), a["examples"])


def _nce(
    shift=lambda k, n: k / n,
    z=lambda scores, normaliser, n: normaliser,
    positive_at=0,
    rule=lambda won, lost: (won + lost.sum(1)).mean(),
    stable=True,
    strict=True,
    some=True,
):
    """Assemble an NCE loss with one thing wrong."""

    def loss(scores, normaliser, examples):
        if strict:
            positive(normaliser)
        if some and scores.shape[1] < 2:
            raise ValueError("no negatives")
        first, rest = scores[:, :1], scores[:, 1:]
        if positive_at:
            first, rest = scores[:, -1:], scores[:, :-1]
        k = rest.shape[1]
        prior, constant = shift(k, examples), z(scores, normaliser, examples)
        if stable:
            log = torch.log(torch.as_tensor(prior * constant, dtype=scores.dtype))
            won, lost = F.softplus(log - first), F.softplus(rest - log)
        else:
            u, v = first.exp() / constant, rest.exp() / constant
            won, lost = -(u / (u + prior)).log(), -(prior / (v + prior)).log()
        return rule(won[:, 0], lost)

    return loss


def _info_nce(scores, normaliser, examples):
    positive(normaliser)
    if scores.shape[1] < 2:
        raise ValueError("no negatives")
    return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))


def _own_rule(of):
    """Make a loss from `of(h of the positive, h of the negatives)`, h = u / (u + K/n)."""

    def loss(scores, normaliser, examples):
        positive(normaliser)
        if scores.shape[1] < 2:
            raise ValueError("no negatives")
        logits = scores - torch.log(
            torch.tensor(normaliser * (scores.shape[1] - 1) / examples, dtype=scores.dtype)
        )
        return of(logits[:, 0], logits[:, 1:])

    return loss


NCE_LOSS = Exercise(
    id="07.nce_loss",
    title="Partner or noise?",
    reference=relations.nce_loss,
    probes=(
        Probe("plain", "a few anchors and their negatives", _scores(), gradients=("scores",)),
        Probe("one anchor", "a single anchor", _scores(rows=(1, 1))),
        Probe("one negative", "one negative for each anchor", _scores(negatives=(1, 1))),
        Probe("many", "more negatives than images", _scores(negatives=(70, 90))),
        Probe("below one", "a normaliser below one", _scores(below=True)),
        Probe("whole number", "a normaliser that is an int", _scores(), run=_whole_number),
        Probe("gaps", "scores that are not contiguous", _scores(gaps=True)),
        Probe(
            "large",
            "float32 scores of a hundred and more",
            _scores(scale=90.0, single=True),
            gradients=("scores",),
            atol=1e-4,
        ),
        Probe("zero", "a normaliser of 0", _scores(normaliser=0.0)),
        Probe("negative", "a normaliser of -1", _scores(normaliser=-1.0)),
        Probe("lonely", "scores without a negative", _scores(negatives=(0, 0))),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "one anchor", "many", "below one", "whole number"),
        gradients("the gradient", 0.5, "plain"),
        matches("a single negative", 0.25, "one negative"),
        matches("not contiguous", 0.25, "gaps"),
        matches("no overflow", 0.5, "large"),
        gradients("no overflow: the gradient", 0.25, "large"),
        rejects("a normaliser that is not positive is refused", 0.25, "zero", "negative"),
        rejects("no negative is refused", 0.25, "lonely"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "exp overflows",
            _nce(stable=False),
            "The value is right while scores are small. A similarity of 1 at a temperature of "
            "0.01 is a score of 100, and exp(100) is more than float32 holds. h is a sigmoid of "
            "something: of what?",
            "HobbitLong/RepDistiller, crd/memory.py, in float32",
        ),
        Mistake(
            "mean over negatives",
            _nce(rule=lambda won, lost: (won + lost.mean(1)).mean()),
            "You averaged over the negatives. Each of the K decisions counts as much as the one "
            "about the positive: a sum.",
        ),
        Mistake(
            "summed over anchors",
            _nce(rule=lambda won, lost: (won + lost.sum(1)).sum()),
            "Your loss grows with the number of anchors.",
        ),
        Mistake(
            "mean over all decisions",
            _nce(rule=lambda won, lost: torch.cat([won[:, None], lost], 1).mean()),
            "You averaged over all decisions, so the loss is K + 1 times too small: a sum within "
            "an anchor, a mean over anchors.",
        ),
        Mistake(
            "noise forgotten",
            _nce(shift=lambda k, n: 1.0),
            "Your h is u / (u + 1). The noise has a density too: K draws from n images.",
        ),
        Mistake(
            "noise without its number",
            _nce(shift=lambda k, n: 1 / n),
            "You took the noise's density for one draw, 1/n. There are K of them for each "
            "positive.",
        ),
        Mistake(
            "noise upside down",
            _nce(shift=lambda k, n: n / k),
            "You have n/K where K/n belongs: with more negatives the noise is denser.",
        ),
        Mistake(
            "candidates in place of negatives",
            _nce(shift=lambda k, n: (k + 1) / n),
            "You counted the positive among the K: the scores have K + 1 columns.",
        ),
        Mistake(
            "normaliser forgotten",
            _nce(z=lambda scores, normaliser, n: 1.0),
            "You compared exp(score) itself with the noise. What divides it?",
        ),
        Mistake(
            "normaliser multiplied",
            _nce(z=lambda scores, normaliser, n: 1 / normaliser),
            "You multiplied by Z. In logarithms, log Z is subtracted.",
        ),
        Mistake(
            "normaliser from this batch",
            _nce(z=lambda scores, normaliser, n: scores.exp().mean().detach() * n),
            "You computed Z from these scores. Here it is an argument: the authors set it once, "
            "and whether that is wise is the next section.",
        ),
        Mistake(
            "a softmax over candidates",
            _info_nce,
            "That is InfoNCE: one choice among K + 1. NCE makes K + 1 decisions, each on its own: "
            "partner or noise.",
        ),
        Mistake(
            "positive in the last column",
            _nce(positive_at=-1),
            "You took the last column for the positive. It is the first.",
        ),
        Mistake(
            "negatives taken for partners",
            _own_rule(lambda p, n: (F.softplus(-p) + F.softplus(-n).sum(1)).mean()),
            "You have log h for the negatives as well, so the loss pulls everything together. "
            "What is the probability of being noise?",
        ),
        Mistake(
            "the positive alone",
            _own_rule(lambda p, n: F.softplus(-p).mean() + 0 * n.sum()),
            "Only the positive's decision is in your loss. Without the negatives the best answer "
            "is to say 'partner' always.",
        ),
        Mistake(
            "the negatives alone",
            _own_rule(lambda p, n: F.softplus(n).sum(1).mean() + 0 * p.sum()),
            "Only the negatives' decisions are in your loss.",
        ),
        Mistake(
            "sign",
            _own_rule(lambda p, n: -(F.softplus(-p) + F.softplus(n).sum(1)).mean()),
            "The sign is the wrong way round: you return a log-likelihood, to be made larger.",
        ),
        Mistake(
            "normaliser not checked",
            _nce(strict=False),
            "A normaliser of zero or below is no density, and you say nothing (or NaN).",
        ),
        Mistake(
            "no negatives",
            _nce(some=False),
            "Scores with the positive alone pass. Without noise there is nothing to tell the "
            "partner from.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
