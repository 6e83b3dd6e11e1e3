"""03.label_smoothing_loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from kdlib import losses as dark_knowledge
from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw, number


def _batch(
    smoothing: float | tuple[float, float] | None,
    rows: tuple[int, int] = (4, 9),
    classes: tuple[int, int] = (3, 9),
    scale: float = 3.0,
    dtype: torch.dtype = torch.float64,
):
    """Logits and labels; no smoothing leaves the default, and no row to the last class."""

    def make(g: torch.Generator) -> Arguments:
        n, c = between(g, *rows), between(g, *classes)
        made: Arguments = {
            "logits": draw(g, c, n, scale=scale).T.to(dtype),  # not contiguous
            "targets": torch.randint(c - (smoothing is None), (n,), generator=g),
        }
        if smoothing is not None:
            drawn = isinstance(smoothing, tuple)
            made["smoothing"] = number(g, *smoothing) if drawn else smoothing
        return made

    return make


def _sizes(rows: int, classes: int) -> dict[str, float]:
    return {"the number of rows": rows, "the number of classes": classes}


def _undecided(evidence: Evidence) -> str | None:
    seen = float(evidence.value("undecided"))
    if abs(seen - math.log(6)) < 1e-6:
        return None
    return (
        f"For a student that gives every class the same probability you return {seen:.4g}. Any "
        "targets that sum to one cost such a student the same: the cross-entropy does not depend "
        "on how they are shared out."
    )


def _wrong(soft, hard_weight=lambda e, c: 1 - e, check=True):
    """Assemble a wrong loss from `soft(log_q, eps)`, added to the weighted hard term."""

    def loss(logits, targets, smoothing=0.1):
        if check and not 0 <= smoothing <= 1:
            raise ValueError(f"smoothing must lie between 0 and 1, got {smoothing}")
        log_q = logits.log_softmax(-1)
        hard = F.nll_loss(log_q, targets)
        return hard_weight(smoothing, logits.shape[-1]) * hard + soft(log_q, targets, smoothing)

    return loss


def _uniform(log_q, y, e):
    return -e * log_q.mean(-1).mean()


def _wrong_classes_only(log_q, y, e):
    mine = log_q.gather(1, y[:, None])[:, 0]
    return -e * ((log_q.sum(-1) - mine) / (log_q.shape[-1] - 1)).mean()


def _kl_without_constant(log_q, y, e):
    return e * (-log_q.mean(-1).mean() - math.log(log_q.shape[-1]))


def _reverse(log_q, y, e):
    c = math.log(log_q.shape[-1])
    return e * ((log_q.exp() * (log_q + c)).sum(-1).mean() + c)


def _without_mean(log_q, y, e):
    return -e * log_q.sum(-1).mean()


def _no_eps(log_q, y, e):
    return -log_q.mean(-1).mean()


def _entropy_bonus(log_q, y, e):
    return e * (log_q.exp() * log_q).sum(-1).mean()


def _summed(logits, targets, smoothing=0.1):
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must lie between 0 and 1, got {smoothing}")
    log_q = logits.log_softmax(-1)
    return len(targets) * (
        (1 - smoothing) * F.nll_loss(log_q, targets) + _uniform(log_q, targets, smoothing)
    )


def _log_of_softmax(logits, targets, smoothing=0.1):
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must lie between 0 and 1, got {smoothing}")
    log_q = logits.softmax(-1).log()
    return (1 - smoothing) * F.nll_loss(log_q, targets) + _uniform(log_q, targets, smoothing)


LABEL_SMOOTHING_LOSS = Exercise(
    id="03.label_smoothing_loss",
    title="A teacher that knows nothing",
    reference=dark_knowledge.label_smoothing_loss,
    forbids=("cross_entropy",),
    probes=(
        Probe(
            "plain",
            "8 rows of 5 classes",
            _batch((0.15, 0.6), (8, 8), (5, 5)),
            gradients=("logits",),
            sizes=_sizes(8, 5),
        ),
        Probe("defaults", "smoothing as it is by default", _batch(None)),
        Probe("one row", "one row of 2 classes", _batch((0.2, 0.6), (1, 1), (2, 2))),
        Probe("none", "smoothing 0", _batch(0.0)),
        Probe("all", "smoothing 1", _batch(1.0), gradients=("logits",)),
        Probe(
            "undecided",
            "a student that is undecided, 6 classes",
            _batch((0.1, 0.6), classes=(6, 6), scale=0.0),
        ),
        Probe(
            "large",
            "float32 logits in the thousands",
            _batch(0.2, scale=3000.0, dtype=torch.float32),
            atol=1e-3,
        ),
        Probe("too much", "smoothing 1.5", _batch(1.5)),
        Probe("too little", "smoothing -0.1", _batch(-0.1)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "defaults", "one row"),
        matches("from plain labels to none", 0.5, "none", "all"),
        gradients("the gradient", 0.5, "plain", "all"),
        law("an undecided student pays the same for any targets", 0.5, ("undecided",), _undecided),
        matches("no overflow on large logits", 0.25, "large"),
        rejects("smoothing above 1 is refused", 0.25, "too much", "too little"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "shared among the wrong classes only",
            _wrong(_wrong_classes_only),
            "You share the smoothing among the wrong classes, 1/(C - 1) each. The uniform teacher "
            "gives its 1/C to the right class as well. With many classes nobody notices; with few "
            "the two are different losses.",
            "fastai/fastai #1814",
        ),
        Mistake(
            "1/(C - 1) to every class",
            _wrong(lambda log_q, y, e: -e * (log_q.sum(-1) / (log_q.shape[-1] - 1)).mean()),
            "You give smoothing / (C - 1) to every class, the true one included, so your targets "
            "sum to more than one. Over how many classes is the uniform teacher uniform?",
        ),
        Mistake(
            "uniform part without its weight",
            _wrong(_no_eps),
            "The uniform teacher has the weight 1 in your loss, whatever the smoothing. The "
            "weights of the two teachers sum to one.",
            "TimDettmers/ConvE #55",
        ),
        Mistake(
            "hard part keeps nearly all its weight",
            _wrong(_uniform, hard_weight=lambda e, c: 1 - e / c),
            "You took smoothing/C from the label instead of all of the smoothing. Your targets sum "
            "to more than one.",
            "ildoonet/pytorch-randaugment #30, as a question",
        ),
        Mistake(
            "hard part at full weight",
            _wrong(_uniform, hard_weight=lambda e, c: 1.0),
            "You add the uniform teacher on top of the whole label. Your targets sum to more than "
            "one.",
        ),
        Mistake(
            "log C left out",
            _wrong(_kl_without_constant),
            "Yours is the KL divergence from the uniform teacher; the exercise asks for the "
            "cross-entropy. The gradients agree. The values differ by a constant: whose entropy?",
        ),
        Mistake(
            "divergence turned round",
            _wrong(_reverse),
            "You used KL(q || u), which asks the student for high entropy. The teacher comes "
            "first: KL(u || q).",
        ),
        Mistake(
            "summed over classes",
            _wrong(_without_mean),
            "The uniform teacher's term is summed over the classes with weight 1 each. Its "
            "probabilities are 1/C.",
        ),
        Mistake(
            "entropy instead",
            _wrong(_entropy_bonus),
            "You reward the student's entropy. That is a confidence penalty, a relative of label "
            "smoothing with another gradient.",
        ),
        Mistake(
            "summed over rows",
            _summed,
            "Your loss grows with the number of rows. Both terms are means over rows.",
        ),
        Mistake(
            "log of a softmax",
            _log_of_softmax,
            "Right until a probability underflows to zero; its logarithm is then minus infinity, "
            "and the uniform teacher asks for every class. Unit 01 has the remedy.",
        ),
        Mistake(
            "any smoothing is taken",
            _wrong(_uniform, check=False),
            "A smoothing of 1.5 gives the label a negative weight. Raise a ValueError that says "
            "what was given.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
