"""12.jsd."""

from __future__ import annotations

from functools import partial

import torch

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Evidence, Exercise, Mistake, Probe
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
PADDED = ("padding", "padding, beta = 0", "padding, beta = 1")
LOW, HIGH = (0.05, 0.35), (0.65, 0.95)  # where beta is drawn

_loss = partial(over_tokens, allowed=inside("beta", 0.0, 1.0))


def _zero_at_home(evidence: Evidence) -> str | None:
    seen = float(evidence.value("equal"))
    if abs(seen) < 1e-6:
        return None
    return (
        f"With the student equal to the teacher you return {seen:.4g}. "
        "Two equal distributions are not apart."
    )


def _ends(log_p, log_q, beta):
    """Give the terms at beta = 0 and 1 by the convention, None between."""
    return kl_terms(log_p, log_q) if beta == 0 else kl_terms(log_q, log_p) if beta == 1 else None


def _between(log_p, log_q, log_m, beta):
    return beta * kl_terms(log_p, log_m) + (1 - beta) * kl_terms(log_q, log_m)


def _right(log_p, log_q, beta):
    if beta in (0, 1):
        return _ends(log_p, log_q, beta)
    return _between(log_p, log_q, log_mixture(log_p, log_q, beta), beta)


def _mixture_exchanged(log_p, log_q, beta):
    if beta in (0, 1):
        return _ends(log_p, log_q, beta)
    return _between(log_p, log_q, log_mixture(log_q, log_p, beta), beta)


def _weights_exchanged(log_p, log_q, beta):
    if beta in (0, 1):
        return _ends(log_p, log_q, beta)
    return _between(log_p, log_q, log_mixture(log_p, log_q, beta), 1 - beta)


def _beta_on_the_student(log_p, log_q, beta):
    return _right(log_q, log_p, beta)


def _log_space(log_p, log_q, beta):
    if beta in (0, 1):
        return _ends(log_p, log_q, beta)
    return _between(log_p, log_q, beta * log_p + (1 - beta) * log_q, beta)


def _directions_exchanged(log_p, log_q, beta):
    if beta in (0, 1):
        return _ends(log_p, log_q, beta)
    log_m = log_mixture(log_p, log_q, beta)
    return beta * kl_terms(log_m, log_p) + (1 - beta) * kl_terms(log_m, log_q)


def _no_ends(log_p, log_q, beta):
    log_m = log_mixture(log_p, log_q, beta)
    return _between(log_p, log_q, log_m, beta)


def _ends_exchanged(log_p, log_q, beta):
    return _right(log_p, log_q, 1 - beta if beta in (0, 1) else beta)


def _log_of_sum(log_p, log_q, beta):
    if beta in (0, 1):
        return _ends(log_p, log_q, beta)
    p, q = log_p.exp(), log_q.exp()
    m = beta * p + (1 - beta) * q
    return beta * p * (p.log() - m.log()) + (1 - beta) * q * (q.log() - m.log())


def _halves(log_p, log_q, beta):
    if beta in (0, 1):
        return _ends(log_p, log_q, beta)
    return _between(log_p, log_q, log_mixture(log_p, log_q, beta), 0.5)


def _always_half(log_p, log_q, beta):
    return _right(log_p, log_q, beta if beta in (0, 1) else 0.5)


JSD = Exercise(
    id="12.jsd",
    title="A family of divergences over tokens",
    reference=sequence_losses.jsd,
    seals=("01.generalized_jsd",),
    probes=(
        Probe("low", "a small batch, beta below 0.4", tokens(beta=LOW), BOTH),
        Probe("high", "a small batch, beta above 0.6", tokens(beta=HIGH), BOTH),
        Probe("default", "a call without beta", tokens(rows=(6, 7)), ("student_logits",)),
        Probe(
            "gaps",
            "logits that are not contiguous",
            tokens(gaps=True, beta=(0.1, 0.9)),
            ("student_logits",),
        ),
        Probe("beta = 0", "beta = 0", tokens(beta=0.0), BOTH),
        Probe("beta = 1", "beta = 1", tokens(beta=1.0), BOTH),
        Probe("one token", "a single token in float32", one_token(beta=LOW), atol=1e-6),
        Probe(
            "padding",
            "teacher's logits of minus infinity where the mask is off, beta between 0 and 1",
            tokens(padding=float("-inf"), beta=(0.05, 0.95)),
            ("student_logits",),
        ),
        Probe(
            "padding, beta = 0",
            "teacher's logits of minus infinity where the mask is off, beta = 0",
            tokens(padding=float("-inf"), beta=0.0),
            ("student_logits",),
        ),
        Probe(
            "padding, beta = 1",
            "teacher's logits of minus infinity where the mask is off, beta = 1",
            tokens(padding=float("-inf"), beta=1.0),
            ("student_logits",),
        ),
        Probe("equal", "a student equal to the teacher", tokens(equal=True, beta=(0.1, 0.9))),
        Probe(
            "large",
            "logits in the thousands",
            tokens(scale=3000.0, beta=HIGH),
            ("student_logits",),
        ),
        Probe(
            "large float32",
            "float32 logits in the thousands",
            tokens(scale=3000.0, beta=LOW, dtype=torch.float32),
            ("student_logits",),
            atol=1e-3,  # in the thousands float32 has steps of 0.0002
        ),
        Probe("large, beta = 0", "large logits, beta = 0", tokens(scale=900.0, beta=0.0)),
        Probe("large, beta = 1", "large logits, beta = 1", tokens(scale=900.0, beta=1.0)),
        Probe("below", "a beta below 0", tokens(beta=(-2.0, -0.01))),
        Probe("above", "a beta above 1", tokens(beta=(1.01, 3.0))),
    ),
    criteria=(
        matches("the value between the ends", 0.75, "low", "high", "default", "one token"),
        matches("not contiguous", 0.25, "gaps"),
        matches("the two ends", 0.5, "beta = 0", "beta = 1"),
        gradients(
            "the student's gradient",
            0.5,
            *("low", "high", "default", "beta = 0", "beta = 1"),
            arguments=("student_logits",),
        ),
        side(
            gradients(
                "the teacher is a constant",
                0.25,
                *("low", "high", "beta = 0", "beta = 1"),
                arguments=("teacher_logits",),
            )
        ),
        matches(
            "padding does not reach the value",
            0.25,
            "padding",
            "padding, beta = 0",
            "padding, beta = 1",
        ),
        gradients(
            "padding does not reach the gradient",
            0.25,
            "padding",
            "padding, beta = 0",
            "padding, beta = 1",
        ),
        law("zero at agreement", 0.25, ("equal",), _zero_at_home),
        matches(
            "large logits", 0.25, "large", "large float32", "large, beta = 0", "large, beta = 1"
        ),
        side(gradients("large logits: the gradient", 0.25, "large", "large float32")),
        rejects("beta outside 0..1 is refused", 0.25, "below", "above", given=True),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the mixture's weights exchanged",
            _loss(_mixture_exchanged),
            "Your mixture is beta q + (1 - beta) p. Beta belongs to the teacher: with beta near 0 "
            "the mixture has to be almost the student.",
            "huggingface/trl #3043",
        ),
        Mistake(
            "the weights of the two terms exchanged",
            _loss(_weights_exchanged),
            "The mixture is right, but its two divergences carry each other's weight. Which of "
            "the two is to vanish as beta goes to 0?",
        ),
        Mistake(
            "beta on the student",
            _loss(_beta_on_the_student),
            "Everything is consistent, and everything is turned round: your beta weighs the "
            "student. At 0.5 nobody notices; at 0.1 you train with what GKD calls 0.9.",
        ),
        Mistake(
            "mixture of log-probabilities",
            _loss(_log_space),
            "You averaged log-probabilities. A mixture is an average of probabilities; what you "
            "have does not even sum to one. Which function adds probabilities that are given by "
            "their logarithms?",
            "huggingface/trl #2202, #2204",
        ),
        Mistake(
            "divergences from the mixture",
            _loss(_directions_exchanged),
            "You compute KL(m || p) and KL(m || q). Look again at which of the two is averaged "
            "over; `F.kl_div(input, target)` computes KL(target || input).",
        ),
        Mistake(
            "the two terms not weighted",
            _loss(_halves),
            "The mixture follows beta and its two divergences count half each. In the equation "
            "the same beta weighs them, too.",
        ),
        Mistake(
            "beta has no influence",
            _loss(_always_half),
            "You compute the JSD with weights of one half, whatever beta is.",
        ),
        Mistake(
            "the ends left to the formula",
            _loss(_no_ends),
            "At beta = 0 and 1 the formula itself gives nothing to learn: one weight is zero, and "
            "the other distribution is its own mixture. The convention for the ends says what to "
            "do there.",
            "huggingface/trl #3043, which introduced the two cases",
        ),
        Mistake(
            "the ends exchanged",
            _loss(_ends_exchanged),
            "Your beta = 0 is the reverse KL. Divide the formula by beta and let beta go to 0: "
            "which divergence appears?",
        ),
        *common_mistakes(_loss, _right),
        Mistake(
            "logarithm of a mixture of softmaxes",
            _loss(_log_of_sum),
            "On large logits a probability underflows to zero, its logarithm is minus infinity, "
            "and zero times that is NaN. Stay with log-probabilities throughout.",
            "linkedin/Liger-Kernel #769, #1453",
        ),
        Mistake(
            "any beta is taken",
            over_tokens(_right),
            "A beta outside 0..1 has no meaning, and you return a number for it. Raise a "
            "ValueError.",
        ),
        Mistake(
            "a beta below 0 is taken",
            over_tokens(_right, inside("beta", 0.0, 1.0, only="high")),
            "You look at one end of beta's range only: below 0 you return a number.",
        ),
        Mistake(
            "a beta above 1 is taken",
            over_tokens(_right, inside("beta", 0.0, 1.0, only="low")),
            "You look at one end of beta's range only: above 1 you return a number.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
