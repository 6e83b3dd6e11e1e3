"""12.skew_kl."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u12_on_policy.inputs import (
    common_mistakes,
    inside,
    kl_terms,
    log_mixture,
    one_token,
    over_tokens,
    tokens,
)
from kdlib.losses import sequences as sequence_losses

BOTH = ("student_logits", "teacher_logits")
LOW, HIGH = (0.05, 0.2), (0.3, 0.9)  # where alpha is drawn

_loss = partial(over_tokens, allowed=inside("alpha", 0.0, 1.0, open_end=True), default=0.1)


def _and_bound(answer: Callable, a: Arguments) -> dict[str, object]:
    """Call, and write down log(1 / alpha) beside the result."""
    return {"result": answer(*a.values()), "bound": -math.log(a["alpha"])}


def _bounded(evidence: Evidence) -> str | None:
    seen, bound = (float(evidence.value("opposed", key)) for key in ("result", "bound"))
    if seen <= bound + 1e-6:
        return None
    return (
        f"Where the student gives almost nothing to what the teacher says, you return {seen:.4g} "
        f"nats, more than log(1 / alpha), which is {bound:.4g}. The mixture holds at least alpha "
        "times p everywhere: what does that say of the largest value?"
    )


def _right(log_p, log_q, alpha):
    return kl_terms(log_p, log_mixture(log_p, log_q, alpha))


def _weights_exchanged(log_p, log_q, alpha):
    return kl_terms(log_p, log_mixture(log_q, log_p, alpha))


def _log_space(log_p, log_q, alpha):
    return kl_terms(log_p, alpha * log_p + (1 - alpha) * log_q)


def _from_the_mixture(log_p, log_q, alpha):
    return kl_terms(log_mixture(log_p, log_q, alpha), log_p)


def _skew_reverse(log_p, log_q, alpha):
    return kl_terms(log_q, log_mixture(log_q, log_p, alpha))


def _reverse_to_mixture(log_p, log_q, alpha):
    return kl_terms(log_q, log_mixture(log_p, log_q, alpha))


def _no_skew(log_p, log_q, alpha):
    return kl_terms(log_p, log_q)


def _student_constant(log_p, log_q, alpha):
    return kl_terms(log_p, log_mixture(log_p, log_q.detach(), alpha)) + 0 * log_q


def _log_of_sum(log_p, log_q, alpha):
    p, q = log_p.exp(), log_q.exp()
    return p * (p.log() - (alpha * p + (1 - alpha) * q).log())


SKEW_KL = Exercise(
    id="12.skew_kl",
    title="A divergence that cannot explode",
    reference=sequence_losses.skew_kl,
    probes=(
        Probe("low", "a small batch, alpha below 0.2", tokens(alpha=LOW), BOTH),
        Probe("high", "a small batch, alpha above 0.3", tokens(alpha=HIGH), BOTH),
        Probe("default", "a call without alpha", tokens(rows=(6, 7)), ("student_logits",)),
        Probe(
            "gaps",
            "logits that are not contiguous",
            tokens(gaps=True, alpha=(0.1, 0.9)),
            ("student_logits",),
        ),
        Probe("alpha = 0", "alpha = 0, which is the forward KL", tokens(alpha=0.0), BOTH),
        Probe("one token", "a single token in float32", one_token(alpha=LOW), atol=1e-6),
        Probe(
            "opposed",
            "two networks that are sure of different tokens",
            tokens(V=(6, 8), scale=40.0, alpha=(0.02, 0.3)),
            run=_and_bound,
        ),
        Probe(
            "padding",
            "teacher's logits of minus infinity where the mask is off",
            tokens(padding=float("-inf"), alpha=(0.05, 0.9)),
            ("student_logits",),
        ),
        Probe(
            "padding, alpha = 0",
            "teacher's logits of minus infinity where the mask is off, alpha = 0",
            tokens(padding=float("-inf"), alpha=0.0),
            ("student_logits",),
        ),
        Probe(
            "large",
            "logits in the thousands",
            tokens(scale=3000.0, alpha=HIGH),
            ("student_logits",),
        ),
        Probe(
            "large float32",
            "float32 logits in the thousands",
            tokens(scale=3000.0, alpha=LOW, dtype=torch.float32),
            ("student_logits",),
            atol=1e-3,  # in the thousands float32 has steps of 0.0002
        ),
        Probe(
            "large, alpha = 0", "logits in the thousands, alpha = 0", tokens(scale=900.0, alpha=0.0)
        ),
        Probe("alpha = 1", "alpha = 1", tokens(alpha=1.0)),
        Probe("below", "an alpha below 0", tokens(alpha=(-2.0, -0.01))),
        Probe("above", "an alpha above 1", tokens(alpha=(1.01, 3.0))),
    ),
    criteria=(
        matches("the value", 0.75, "low", "high", "default", "one token"),
        matches("not contiguous", 0.25, "gaps"),
        matches("alpha = 0 is the forward KL", 0.25, "alpha = 0"),
        gradients(
            "the student's gradient",
            0.5,
            *("low", "high", "default", "alpha = 0"),
            arguments=("student_logits",),
        ),
        side(
            gradients(
                "the teacher is a constant",
                0.25,
                *("low", "high", "alpha = 0"),
                arguments=("teacher_logits",),
            )
        ),
        law("never more than log(1 / alpha)", 0.25, ("opposed",), _bounded),
        matches("padding does not reach the value", 0.25, "padding", "padding, alpha = 0"),
        gradients("padding does not reach the gradient", 0.25, "padding", "padding, alpha = 0"),
        matches("large logits", 0.25, "large", "large float32", "large, alpha = 0"),
        side(gradients("large logits: the gradient", 0.25, "large", "large float32")),
        rejects("alpha outside [0, 1) is refused", 0.5, "alpha = 1", "below", "above", given=True),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "alpha on the student",
            _loss(_weights_exchanged),
            "Your alpha weighs the student in the mixture. It is the *teacher* that lends a "
            "little of its mass; with alpha = 0 the mixture has to be the student.",
        ),
        Mistake(
            "mixture of log-probabilities",
            _loss(_log_space),
            "You averaged log-probabilities, and got 1 - alpha times the plain KL: the "
            "ratio is as unbounded as before. A mixture averages probabilities.",
            "huggingface/trl #2202, as part of a JSD",
        ),
        Mistake(
            "divergence from the mixture",
            _loss(_from_the_mixture),
            "This is KL(mixture || p). Over which distribution does the definition average?",
        ),
        Mistake(
            "the skew reverse KL",
            _loss(_skew_reverse),
            "This is KL(q || alpha q + (1 - alpha) p): the paper's other divergence, with the "
            "two networks in each other's place.",
        ),
        Mistake(
            "the student against the mixture",
            _loss(_reverse_to_mixture),
            "The mixture is right, but it is the student that you compare with it. With alpha "
            "small those two are nearly equal, so there is nearly nothing to learn.",
        ),
        Mistake(
            "no mixture",
            _loss(_no_skew),
            "Alpha has no effect on your result: this is the plain forward KL.",
        ),
        Mistake(
            "the student in the mixture is a constant",
            _loss(_student_constant),
            "The value is right, and the student's gradient is zero. The student appears only in "
            "the mixture, and there you have cut it off.",
        ),
        *common_mistakes(_loss, _right),
        Mistake(
            "logarithm of a mixture of softmaxes",
            _loss(_log_of_sum),
            "On large logits a probability underflows to zero, its logarithm is minus infinity, "
            "and zero times that is NaN. `torch.logaddexp` adds without leaving log space.",
            "linkedin/Liger-Kernel #769, #1453, in a JSD",
        ),
        Mistake(
            "any alpha is taken",
            over_tokens(_right, default=0.1),
            "With alpha = 1 the mixture is the teacher and the loss is zero whatever the student "
            "says; outside 0..1 one of its weights is negative. Refuse both with a ValueError.",
        ),
        Mistake(
            "alpha = 1 is taken",
            over_tokens(_right, inside("alpha", 0.0, 1.0), default=0.1),
            "With alpha = 1 the mixture is the teacher and the loss is zero whatever the student "
            "says. Refuse it with a ValueError.",
        ),
        Mistake(
            "a negative alpha is taken",
            over_tokens(_right, inside("alpha", 0.0, 1.0, open_end=True, only="high"), default=0.1),
            "You look at one end of alpha's range only: below 0 a weight of the mixture is "
            "negative, and you return a number.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
