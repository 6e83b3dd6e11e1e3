"""01.soft_cross_entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.exercises.u01_divergences.inputs import ROUNDED, turned
from kdlib.losses import divergences


def _targets(
    hard: bool = False,
    own: bool = False,
    some: bool = False,
    scale: float = 3.0,
    rows: int = 6,
    classes: int = 7,
    dtype: torch.dtype = torch.float64,
):
    """Logits and targets: one-hot, the student's own, or with some classes at zero."""

    def make(g: torch.Generator) -> Arguments:
        logits = draw(g, rows, classes, scale=scale)
        wanted = logits if own else draw(g, rows, classes, scale=2.0)
        if some:
            wanted = wanted.masked_fill(wanted < wanted.median(-1, keepdim=True).values, -torch.inf)
        probs = wanted.softmax(-1)
        if hard:
            probs = F.one_hot(probs.argmax(-1), classes).to(probs.dtype)
        return {"logits": logits.to(dtype), "target_probs": probs.to(dtype)}

    return make


def _another_batch(g: torch.Generator) -> Arguments:
    made = turned(g, "logits", "target_probs")
    return {**made, "target_probs": made["target_probs"].softmax(-1)}


SOFT_CROSS_ENTROPY = Exercise(
    id="01.soft_cross_entropy",
    title="Cross-entropy with soft targets",
    reference=divergences.soft_cross_entropy,
    probes=(
        Probe("plain", "6 rows of 7 classes", _targets(), gradients=("logits",)),
        Probe("hard", "one-hot targets", _targets(hard=True)),
        Probe("own", "targets equal to the student's own probabilities", _targets(own=True)),
        Probe("another batch", "a batch of another size", _another_batch),
        Probe("one row", "a single row of 2 classes", _targets(rows=1, classes=2)),
        Probe("one class", "rows of a single class", _targets(rows=3, classes=1)),
        Probe(
            "large",
            "logits in the thousands and one-hot targets",
            _targets(hard=True, scale=3000.0),
            gradients=("logits",),
        ),
        Probe(
            "float32",
            "float32 logits in the thousands, and targets with zeros",
            _targets(some=True, scale=1000.0, dtype=torch.float32),
            gradients=("logits",),
            atol=ROUNDED,
        ),
    ),
    criteria=(
        matches(
            "the value of each row", 1.0, "plain", "own", "another batch", "one row", "one class"
        ),
        gradients("the gradient", 0.5, "plain", "large", "float32"),
        matches("one-hot targets give the usual loss", 0.5, "hard"),
        matches("large logits", 0.5, "large", "float32"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "mean over the batch",
            (lambda z, p: -(p * z.log_softmax(-1)).sum(-1).mean()),
            "You return one number for the whole batch. One for each row is asked for; whoever "
            "calls you decides how to reduce.",
        ),
        Mistake(
            "mean over classes",
            (lambda z, p: -(p * z.log_softmax(-1)).mean(-1)),
            "Over the classes this is an expectation, a sum weighted by the targets. You average, "
            "which divides it by the number of classes.",
        ),
        Mistake(
            "sign forgotten",
            (lambda z, p: (p * z.log_softmax(-1)).sum(-1)),
            "Your numbers are negative. A cross-entropy is a cost: it is never below zero.",
        ),
        Mistake(
            "arguments exchanged",
            (lambda z, p: -(z.softmax(-1) * p.clamp_min(1e-12).log()).sum(-1)),
            "You weigh the targets' logarithms with the student's probabilities. Who draws the "
            "symbols, and whose code is used for them?",
        ),
        Mistake(
            "logarithm of a softmax",
            (lambda z, p: -(p * z.softmax(-1).log()).sum(-1)),
            "For large logits a probability that underflows to zero has the logarithm minus "
            "infinity, and zero times infinity is NaN.",
        ),
        Mistake(
            "KL in place of the cross-entropy",
            (lambda z, p: (torch.special.xlogy(p, p) - p * z.log_softmax(-1)).sum(-1)),
            "You subtracted the entropy of the targets: this is the KL divergence. For one-hot "
            "targets the two agree, for soft ones they do not.",
        ),
        Mistake(
            "only the most probable class",
            (lambda z, p: F.cross_entropy(z, p.argmax(-1), reduction="none")),
            "You use the targets' largest entry alone, which turns a soft target into a hard one.",
        ),
        Mistake(
            "softmax of the targets",
            (lambda z, p: -(p.softmax(-1) * z.log_softmax(-1)).sum(-1)),
            "The targets are probabilities already. A softmax on top flattens them.",
        ),
        Mistake(
            "softmax over the batch",
            (lambda z, p: -(p * z.log_softmax(0)).sum(-1)),
            "Your columns sum to one, not your rows. Classes are the last dimension.",
        ),
        Mistake(
            "logits taken for log-probabilities",
            (lambda z, p: -(p * z).sum(-1)),
            "You multiply the targets with raw logits. Logits become log-probabilities only after "
            "they are normalised.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
