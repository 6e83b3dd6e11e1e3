"""12.skew_kl."""

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
from kdlib.losses import sequences as sequence_losses

allowed = inside("alpha", 0.0, 1.0, open_end=True)


def _bounded(evidence: Evidence) -> str | None:
    seen = float(evidence.value("opposed"))
    if seen <= 2.3026:
        return None
    return (
        f"Where the student gives almost nothing to what the teacher says, you return {seen:.4g} "
        "nats with alpha = 0.1. The mixture holds at least a tenth of p everywhere, so p over the "
        "mixture is at most ten: what does that say of the largest value?"
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
        Probe(
            "alpha = 0.1",
            "3 rows of 5, 2 and 4 valid tokens, a vocabulary of 7, alpha = 0.1",
            tokens(alpha=0.1),
            gradients=("student_logits", "teacher_logits"),
            sizes=sizes(),
        ),
        Probe(
            "alpha = 0.4",
            "2 rows of 4 and 1 valid tokens, a vocabulary of 6, alpha = 0.4",
            tokens((4, 1), 4, 6, alpha=0.4),
            sizes=sizes((4, 1), 4, 6),
        ),
        Probe("alpha = 0", "alpha = 0, which is the forward KL", tokens(alpha=0.0)),
        Probe(
            "opposed",
            "two networks that are sure of different tokens, alpha = 0.1",
            tokens(scale=40.0, alpha=0.1),
        ),
        Probe(
            "padding",
            "teacher's logits of minus infinity in the padding, alpha = 0",
            tokens(padding=float("-inf"), alpha=0.0),
            gradients=("student_logits",),
        ),
        Probe("large", "logits in the thousands", tokens(scale=3000.0, alpha=0.1)),
        Probe("alpha = 1", "alpha = 1", tokens(alpha=1.0)),
    ),
    criteria=(
        matches("the value", 1.0, "alpha = 0.1", "alpha = 0.4"),
        matches("alpha = 0 is the forward KL", 0.25, "alpha = 0"),
        gradients("the student's gradient", 0.5, "alpha = 0.1", arguments=("student_logits",)),
        side(
            gradients(
                "the teacher is a constant", 0.25, "alpha = 0.1", arguments=("teacher_logits",)
            )
        ),
        law("never more than log(1 / alpha)", 0.25, ("opposed",), _bounded),
        gradients("padding reaches neither value nor gradient", 0.5, "padding"),
        matches("no overflow on large logits", 0.5, "large"),
        rejects("alpha = 1 is refused", 0.25, "alpha = 1"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "alpha on the student",
            over_tokens(_weights_exchanged, allowed),
            "Your alpha weighs the student in the mixture. It is the *teacher* that lends a "
            "little of its mass; with alpha = 0 the mixture has to be the student.",
        ),
        Mistake(
            "mixture of log-probabilities",
            over_tokens(_log_space, allowed),
            "You averaged log-probabilities, and got 1 - alpha times the plain KL: the "
            "ratio is as unbounded as before. A mixture averages probabilities.",
            "huggingface/trl #2202, as part of a JSD",
        ),
        Mistake(
            "divergence from the mixture",
            over_tokens(_from_the_mixture, allowed),
            "This is KL(mixture || p). Over which distribution does the definition average?",
        ),
        Mistake(
            "the skew reverse KL",
            over_tokens(_skew_reverse, allowed),
            "This is KL(q || alpha q + (1 - alpha) p): the paper's other divergence, with the "
            "two networks in each other's place.",
        ),
        Mistake(
            "the student against the mixture",
            over_tokens(_reverse_to_mixture, allowed),
            "The mixture is right, but it is the student that you compare with it. With alpha "
            "small those two are nearly equal, so there is nearly nothing to learn.",
        ),
        Mistake(
            "no mixture",
            over_tokens(_no_skew, allowed),
            "Alpha has no effect on your result: this is the plain forward KL.",
        ),
        Mistake(
            "the student in the mixture is a constant",
            over_tokens(_student_constant, allowed),
            "The value is right, and the student's gradient is zero. The student appears only in "
            "the mixture, and there you have cut it off.",
        ),
        Mistake(
            "padding counted",
            over_tokens(_right, allowed, over_everything, select="never"),
            "The mask has no effect: padding counts as much as text.",
            "peremartra/optipfair #34, where a skew KL was among the losses",
        ),
        Mistake(
            "masked after the divergence",
            over_tokens(_right, allowed, select="last"),
            "The value is right, and the gradient is NaN: the padding took part in the "
            "divergence before you threw it away.",
            "huggingface/trl #5594",
        ),
        Mistake(
            "divided by the rows",
            over_tokens(_right, allowed, by_rows),
            "You divided by the number of rows, so long rows count more. How many terms does the "
            "sum over tokens have?",
            "neuralmagic/sparseml #592",
        ),
        Mistake(
            "averaged over the vocabulary",
            over_tokens(_right, allowed, by_entries),
            "Your loss is averaged over the vocabulary as well. A divergence is a sum over it.",
        ),
        Mistake(
            "logarithm of a mixture of softmaxes",
            over_tokens(_log_of_sum, allowed),
            "On large logits a probability underflows to zero, its logarithm is minus infinity, "
            "and zero times that is NaN. `torch.logaddexp` adds without leaving log space.",
            "linkedin/Liger-Kernel #769, #1453, in a JSD",
        ),
        Mistake(
            "teacher not detached",
            over_tokens(_right, allowed, detach=False),
            "A gradient arrives at the teacher's logits. It is a constant here.",
        ),
        Mistake(
            "any alpha is taken",
            over_tokens(_right),
            "With alpha = 1 the mixture is the teacher and the loss is zero whatever the student "
            "says. Refuse it with a ValueError.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
