"""12.taid_loss."""

from __future__ import annotations

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u12_on_policy.inputs import (
    by_entries,
    by_rows,
    inside,
    kl_terms,
    log_mixture,
    over_everything,
    over_tokens,
    sizes,
    tokens,
)
from kdlib.training import on_policy

allowed = inside("t", 0.0, 1.0)


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


def _loss(rule, *args, **kwargs):
    return over_tokens(rule, *args, logits=True, **kwargs)


TAID_LOSS = Exercise(
    id="12.taid_loss",
    title="A target that starts at the student",
    reference=on_policy.taid_loss,
    probes=(
        Probe(
            "t = 0.4",
            "3 rows of 5, 2 and 4 valid tokens, a vocabulary of 7, t = 0.4",
            tokens(t=0.4),
            gradients=("student_logits", "teacher_logits"),
            sizes=sizes(),
        ),
        Probe(
            "t = 0.7",
            "2 rows of 4 and 1 valid tokens, a vocabulary of 6, t = 0.7",
            tokens((4, 1), 4, 6, t=0.7),
            sizes=sizes((4, 1), 4, 6),
        ),
        Probe("t = 0", "t = 0", tokens(t=0.0), gradients=("student_logits",)),
        Probe("t = 1", "t = 1, which is the forward KL", tokens(t=1.0)),
        Probe(
            "padding",
            "teacher's logits of minus infinity in the padding, t = 1",
            tokens(padding=float("-inf"), t=1.0),
            gradients=("student_logits",),
        ),
        Probe("t = 1.2", "t = 1.2", tokens(t=1.2)),
    ),
    criteria=(
        matches("the value", 1.0, "t = 0.4", "t = 0.7"),
        matches("t = 1 is the forward KL", 0.25, "t = 1"),
        gradients("the student's gradient", 0.75, "t = 0.4", arguments=("student_logits",)),
        side(
            gradients("the teacher is a constant", 0.25, "t = 0.4", arguments=("teacher_logits",))
        ),
        law("nothing to learn at t = 0", 0.25, ("t = 0",), _nothing_at_zero),
        gradients("padding reaches neither value nor gradient", 0.5, "padding"),
        rejects("t outside 0..1 is refused", 0.25, "t = 1.2"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the student's part not a constant",
            _loss(_not_constant, allowed),
            "The value is right and the gradient is not: it also runs through the target. A "
            "target that moves towards the student by gradient makes the loss small without "
            "teaching anything.",
        ),
        Mistake(
            "t the wrong way round",
            _loss(_exchanged, allowed),
            "Your target is the teacher at t = 0 and the student at t = 1, where nothing is left "
            "to learn. Training would start too hard and end with no loss at all.",
        ),
        Mistake(
            "mixture of probabilities",
            _loss(_probabilities, allowed),
            "You mixed probabilities, which gives a target with the modes of both. TAID mixes "
            "logits: a token that either of the two finds impossible stays improbable.",
        ),
        Mistake(
            "mixture of log-probabilities, not normalised",
            _loss(_unnormalised, allowed),
            "Your target does not sum to one. A softmax has to come after the mixture.",
        ),
        Mistake(
            "KL the wrong way round",
            _loss(_reversed, allowed),
            "This is KL(q || p_t). The target comes first: the average is over it.",
        ),
        Mistake(
            "cross-entropy in place of the KL",
            _loss(_cross_entropy, allowed),
            "Your gradient is right: the target's entropy is a constant. But the entropy of a "
            "target that moves differs from step to step, so this number can rise while the "
            "student learns. The exercise asks for the KL. (The authors' own code reports this "
            "cross-entropy.)",
        ),
        Mistake(
            "no interpolation",
            _loss(_teacher_alone, allowed),
            "T has no effect on your result: the target is the teacher from the first step on.",
        ),
        Mistake(
            "the loss weighted with t",
            _loss(_weighted, allowed),
            "You weigh the loss with t and leave the target where it was. That only changes the "
            "learning rate; the target is what has to move.",
        ),
        Mistake(
            "padding counted",
            _loss(_right, allowed, over_everything, select="never"),
            "The mask has no effect: padding counts as much as text.",
            "peremartra/optipfair #34, in another loss",
        ),
        Mistake(
            "masked after the divergence",
            _loss(_right, allowed, select="last"),
            "The value is right, and the gradient is NaN: the padding took part in the "
            "divergence before you threw it away.",
            "huggingface/trl #5594, in another loss",
        ),
        Mistake(
            "divided by the rows",
            _loss(_right, allowed, by_rows),
            "You divided by the number of rows, so long rows count more.",
            "neuralmagic/sparseml #592",
        ),
        Mistake(
            "averaged over the vocabulary",
            _loss(_right, allowed, by_entries),
            "Your loss is averaged over the vocabulary as well. A divergence is a sum over it.",
        ),
        Mistake(
            "teacher not detached",
            _loss(_right, allowed, detach=False),
            "A gradient arrives at the teacher's logits. It is a constant here.",
        ),
        Mistake(
            "any t is taken",
            _loss(_right),
            "A t of 1.2 would push the student past the teacher. Raise a ValueError.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
