"""12.taid_loss."""

from __future__ import annotations

from functools import partial

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
from kdlib.training import on_policy

BOTH = ("student_logits", "teacher_logits")
LOW, HIGH = (0.15, 0.45), (0.55, 0.9)  # where t is drawn

_loss = partial(over_tokens, allowed=inside("t", 0.0, 1.0), logits=True)


def _nothing_at_zero(evidence: Evidence) -> str | None:
    seen = float(evidence.value("t = 0"))
    pull = evidence.student["t = 0"].gradients.get("student_logits")
    size = 0.0 if pull is None else pull.abs().max().item()
    if abs(seen) < 1e-6 and size < 1e-6:
        return None
    return (
        f"At t = 0 the target is the student itself, so there is nothing to learn; you return "
        f"{seen:.4g}, with a gradient of up to {size:.4g}."
    )


def _target(v, z, t):
    return ((1 - t) * z.detach() + t * v).log_softmax(-1)


def _right(v, z, t):
    return kl_terms(_target(v, z, t), z.log_softmax(-1))


def _not_constant(v, z, t):
    return kl_terms(((1 - t) * z + t * v).log_softmax(-1), z.log_softmax(-1))


def _exchanged(v, z, t):
    return kl_terms(_target(v, z, 1 - t), z.log_softmax(-1))


def _probabilities(v, z, t):
    if t in (0, 1):
        return _right(v, z, t)
    return kl_terms(
        log_mixture(v.log_softmax(-1), z.detach().log_softmax(-1), t), z.log_softmax(-1)
    )


def _reversed(v, z, t):
    return kl_terms(z.log_softmax(-1), _target(v, z, t))


def _cross_entropy(v, z, t):
    return -_target(v, z, t).exp() * z.log_softmax(-1)


def _teacher_alone(v, z, t):
    return kl_terms(v.log_softmax(-1), z.log_softmax(-1))


def _weighted(v, z, t):
    return t * kl_terms(v.log_softmax(-1), z.log_softmax(-1))


def _unnormalised(v, z, t):
    log_p, log_q = v.log_softmax(-1), z.log_softmax(-1)
    return kl_terms((1 - t) * log_q.detach() + t * log_p, log_q)


TAID_LOSS = Exercise(
    id="12.taid_loss",
    title="A target that starts at the student",
    reference=on_policy.taid_loss,
    probes=(
        Probe("low", "a small batch, t below 0.5", tokens(t=LOW), BOTH),
        Probe("high", "a small batch, t above 0.5", tokens(t=HIGH), BOTH),
        Probe(
            "gaps", "logits that are not contiguous", tokens(gaps=True, t=LOW), ("student_logits",)
        ),
        Probe("t = 0", "t = 0", tokens(t=0.0), ("student_logits",)),
        Probe("t = 1", "t = 1, which is the forward KL", tokens(t=1.0), BOTH),
        Probe("one token", "a single token in float32", one_token(t=HIGH), atol=1e-6),
        Probe(
            "padding",
            "teacher's logits of minus infinity where the mask is off",
            tokens(padding=float("-inf"), t=(0.1, 0.9)),
            ("student_logits",),
        ),
        Probe(
            "padding, t = 1",
            "teacher's logits of minus infinity where the mask is off, t = 1",
            tokens(padding=float("-inf"), t=1.0),
            ("student_logits",),
        ),
        Probe("large", "logits in the thousands", tokens(scale=900.0, t=HIGH), ("student_logits",)),
        Probe("below", "a t below 0", tokens(t=(-2.0, -0.01))),
        Probe("above", "a t above 1", tokens(t=(1.01, 3.0))),
    ),
    criteria=(
        matches("the value", 0.75, "low", "high", "one token"),
        matches("not contiguous", 0.25, "gaps"),
        matches("t = 1 is the forward KL", 0.25, "t = 1"),
        gradients(
            "the student's gradient",
            0.5,
            *("low", "high", "t = 1"),
            arguments=("student_logits",),
        ),
        side(
            gradients(
                "the teacher is a constant",
                0.25,
                *("low", "high", "t = 1"),
                arguments=("teacher_logits",),
            )
        ),
        law("nothing to learn at t = 0", 0.25, ("t = 0",), _nothing_at_zero),
        matches("padding does not reach the value", 0.25, "padding", "padding, t = 1"),
        gradients("padding does not reach the gradient", 0.25, "padding", "padding, t = 1"),
        matches("large logits", 0.25, "large"),
        rejects("t outside 0..1 is refused", 0.25, "below", "above", given=True),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the student's part not a constant",
            _loss(_not_constant),
            "The value is right and the gradient is not: it also runs through the target. A "
            "target that moves towards the student by gradient makes the loss small without "
            "teaching anything.",
        ),
        Mistake(
            "t the wrong way round",
            _loss(_exchanged),
            "Your target is the teacher at t = 0 and the student at t = 1, where nothing is left "
            "to learn. Training would start too hard and end with no loss at all.",
        ),
        Mistake(
            "mixture of probabilities",
            _loss(_probabilities),
            "You mixed probabilities, which gives a target with the modes of both. TAID mixes "
            "logits: a token that either of the two finds impossible stays improbable.",
        ),
        Mistake(
            "mixture of log-probabilities, not normalised",
            _loss(_unnormalised),
            "Your target does not sum to one. A softmax has to come after the mixture.",
        ),
        Mistake(
            "KL the wrong way round",
            _loss(_reversed),
            "This is KL(q || p_t). The target comes first: the average is over it.",
        ),
        Mistake(
            "cross-entropy in place of the KL",
            _loss(_cross_entropy),
            "Your gradient is right: the target's entropy is a constant. But the entropy of a "
            "target that moves differs from step to step, so this number can rise while the "
            "student learns. The exercise asks for the KL. (The authors' own code reports this "
            "cross-entropy.)",
        ),
        Mistake(
            "no interpolation",
            _loss(_teacher_alone),
            "T has no effect on your result: the target is the teacher from the first step on.",
        ),
        Mistake(
            "the loss weighted with t",
            _loss(_weighted),
            "You weigh the loss with t and leave the target where it was. That only changes the "
            "learning rate; the target is what has to move.",
        ),
        *common_mistakes(_loss, _right),
        Mistake(
            "any t is taken",
            over_tokens(_right, logits=True),
            "A t above 1 would push the student past the teacher, one below 0 away from it. Raise "
            "a ValueError.",
        ),
        Mistake(
            "a t below 0 is taken",
            over_tokens(_right, inside("t", 0.0, 1.0, only="high"), logits=True),
            "You look at one end of the range only: a t below 0 would push the student away from "
            "the teacher.",
        ),
        Mistake(
            "a t above 1 is taken",
            over_tokens(_right, inside("t", 0.0, 1.0, only="low"), logits=True),
            "You look at one end of the range only: a t above 1 would push the student past the "
            "teacher.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
