"""12.jsd."""

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

allowed = inside("beta", 0.0, 1.0)


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


JSD = Exercise(
    id="12.jsd",
    title="A family of divergences over tokens",
    reference=sequence_losses.jsd,
    seals=("01.generalized_jsd",),
    probes=(
        Probe(
            "beta = 0.1",
            "3 rows of 5, 2 and 4 valid tokens, a vocabulary of 7, beta = 0.1",
            tokens(beta=0.1),
            gradients=("student_logits", "teacher_logits"),
            sizes=sizes(),
        ),
        Probe(
            "beta = 0.9",
            "2 rows of 4 and 1 valid tokens, a vocabulary of 6, beta = 0.9",
            tokens((4, 1), 4, 6, beta=0.9),
            sizes=sizes((4, 1), 4, 6),
        ),
        Probe("beta = 0.5", "beta = 0.5", tokens(beta=0.5)),
        Probe("beta = 0", "beta = 0", tokens(beta=0.0)),
        Probe("beta = 1", "beta = 1", tokens(beta=1.0)),
        Probe(
            "padding",
            "teacher's logits of minus infinity in the padding, beta = 0",
            tokens(padding=float("-inf"), beta=0.0),
            gradients=("student_logits",),
        ),
        Probe("equal", "a student equal to the teacher", tokens(equal=True, beta=0.3)),
        Probe("large", "logits in the thousands", tokens(scale=3000.0, beta=0.7)),
        Probe("beta = 1.5", "beta = 1.5", tokens(beta=1.5)),
    ),
    criteria=(
        matches("the value between the ends", 1.0, "beta = 0.1", "beta = 0.9", "beta = 0.5"),
        matches("the two ends", 0.5, "beta = 0", "beta = 1"),
        gradients("the student's gradient", 0.5, "beta = 0.1", arguments=("student_logits",)),
        side(
            gradients(
                "the teacher is a constant", 0.25, "beta = 0.1", arguments=("teacher_logits",)
            )
        ),
        gradients("padding reaches neither value nor gradient", 0.5, "padding"),
        law("zero at agreement", 0.25, ("equal",), _zero_at_home),
        matches("no overflow on large logits", 0.25, "large"),
        rejects("beta outside 0..1 is refused", 0.25, "beta = 1.5"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "the mixture's weights exchanged",
            over_tokens(_mixture_exchanged, allowed),
            "Your mixture is beta q + (1 - beta) p. Beta belongs to the teacher: with beta near 0 "
            "the mixture has to be almost the student.",
            "huggingface/trl #3043",
        ),
        Mistake(
            "the weights of the two terms exchanged",
            over_tokens(_weights_exchanged, allowed),
            "The mixture is right, but its two divergences carry each other's weight. Which of "
            "the two is to vanish as beta goes to 0?",
        ),
        Mistake(
            "beta on the student",
            over_tokens(_beta_on_the_student, allowed),
            "Everything is consistent, and everything is turned round: your beta weighs the "
            "student. At 0.5 nobody notices; at 0.1 you train with what GKD calls 0.9.",
        ),
        Mistake(
            "mixture of log-probabilities",
            over_tokens(_log_space, allowed),
            "You averaged log-probabilities. A mixture is an average of probabilities; what you "
            "have does not even sum to one. Which function adds probabilities that are given by "
            "their logarithms?",
            "huggingface/trl #2202, #2204",
        ),
        Mistake(
            "divergences from the mixture",
            over_tokens(_directions_exchanged, allowed),
            "You compute KL(m || p) and KL(m || q). Look again at which of the two is averaged "
            "over; `F.kl_div(input, target)` computes KL(target || input).",
        ),
        Mistake(
            "the ends left to the formula",
            over_tokens(_no_ends, allowed),
            "At beta = 0 and 1 the formula itself gives nothing to learn: one weight is zero, and "
            "the other distribution is its own mixture. The convention for the ends says what to "
            "do there.",
            "huggingface/trl #3043, which introduced the two cases",
        ),
        Mistake(
            "the ends exchanged",
            over_tokens(_ends_exchanged, allowed),
            "Your beta = 0 is the reverse KL. Divide the formula by beta and let beta go to 0: "
            "which divergence appears?",
        ),
        Mistake(
            "padding counted",
            over_tokens(_right, allowed, over_everything, select="never"),
            "The mask has no effect: padding counts as much as text, and the more you pad the "
            "less a real token weighs.",
            "peremartra/optipfair #34",
        ),
        Mistake(
            "masked after the divergence",
            over_tokens(_right, allowed, select="last"),
            "The value is right, and the gradient is NaN: the padding took part in the "
            "divergence and was thrown away afterwards. Backward, its zero gradient is "
            "multiplied by what is not a number. Throw it away before you compute.",
            "huggingface/trl #5594",
        ),
        Mistake(
            "divided by the rows",
            over_tokens(_right, allowed, by_rows),
            "You divided by the number of rows. A batch of long answers then has a larger loss "
            "than one of short answers. How many terms does the sum have?",
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
            "and zero times that is NaN. Stay with log-probabilities throughout.",
            "linkedin/Liger-Kernel #769, #1453",
        ),
        Mistake(
            "teacher not detached",
            over_tokens(_right, allowed, detach=False),
            "A gradient arrives at the teacher's logits. It is a constant here.",
        ),
        Mistake(
            "any beta is taken",
            over_tokens(_right),
            "A beta of 1.5 has no meaning, and you return a number for it. Raise a ValueError.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
