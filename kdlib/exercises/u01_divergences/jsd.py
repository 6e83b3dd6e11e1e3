"""01.generalized_jsd."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdlib.checks.criteria import gradients, law, main, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u01_divergences.inputs import ROUNDED, tenths, turned, two_networks
from kdlib.losses import divergences

FLOAT32 = 1e-7  # what the logarithm of a beta in float32 may be off


def _jsd_with(rule):
    def generalized_jsd(teacher_logits, student_logits, beta):
        if not 0 < beta < 1:
            raise ValueError(f"beta must lie strictly between 0 and 1, got {beta}")
        return rule(teacher_logits.log_softmax(-1), student_logits.log_softmax(-1), beta)

    return generalized_jsd


def _log_mix(p: Tensor, q: Tensor, beta: float) -> Tensor:
    return torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))


def _to(p: Tensor, m: Tensor) -> Tensor:
    return (p.exp() * (p - m)).sum(-1)


def _jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = _log_mix(p, q, beta)
    return beta * _to(p, m) + (1 - beta) * _to(q, m)


def _mixed_in_log_space(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = beta * p + (1 - beta) * q
    return beta * _to(p, m) + (1 - beta) * _to(q, m)


def _mixed_logits(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = (beta * p + (1 - beta) * q).log_softmax(-1)
    return beta * _to(p, m) + (1 - beta) * _to(q, m)


def _mixture_underflows(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = (beta * p.exp() + (1 - beta) * q.exp()).log()
    return beta * _to(p, m) + (1 - beta) * _to(q, m)


def _mixture_flipped(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = _log_mix(p, q, 1 - beta)
    return beta * _to(p, m) + (1 - beta) * _to(q, m)


def _weights_flipped(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = _log_mix(p, q, beta)
    return (1 - beta) * _to(p, m) + beta * _to(q, m)


def _from_the_mixture(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = _log_mix(p, q, beta)
    return beta * _to(m, p) + (1 - beta) * _to(m, q)


def _any_beta(teacher_logits, student_logits, beta):
    p, q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    m = (beta * p.exp() + (1 - beta) * q.exp()).log()
    return beta * _to(p, m) + (1 - beta) * _to(q, m)


def _another_batch(g: torch.Generator) -> Arguments:
    return {**turned(g, "teacher_logits", "student_logits"), "beta": tenths(g, 6, 9)}


def _below(g: torch.Generator) -> Arguments:
    return two_networks(beta=tenths(g, -30, -2))(g)


def _above(g: torch.Generator) -> Arguments:
    return two_networks(beta=tenths(g, 12, 40))(g)


def _limit(evidence: Evidence) -> str | None:
    have = evidence.value("small beta") / 1e-4
    forward = evidence.expected["small beta"].value / 1e-4
    if torch.allclose(have, forward, rtol=1e-3, atol=FLOAT32 / 1e-4):
        return None
    return (
        f"At beta = 0.0001 your first row divided by beta is {have[0].item():.4g}. As beta goes to "
        "0 this has to approach the forward KL, from teacher to student."
    )


JSD = Exercise(
    id="01.generalized_jsd",
    title="Between forward and reverse KL",
    reference=divergences.generalized_jsd,
    probes=(
        Probe(
            "plain", "6 rows of 7 classes, beta = 0.3", two_networks(beta=0.3), ("student_logits",)
        ),
        Probe("half", "beta = 0.5", two_networks(beta=0.5)),
        Probe(
            "another batch",
            "a batch of another size, and a beta above 0.5",
            _another_batch,
            atol=FLOAT32,
        ),
        Probe(
            "one row",
            "a single row of 2 classes, beta = 0.7",
            two_networks(rows=1, classes=2, beta=0.7),
            atol=FLOAT32,
        ),
        Probe("small beta", "beta = 0.0001", two_networks(beta=1e-4), atol=FLOAT32),
        Probe(
            "equal",
            "a student equal to the teacher, beta = 0.3",
            two_networks(equal=True, beta=0.3),
            atol=FLOAT32,
        ),
        Probe("large", "logits in the thousands, beta = 0.3", two_networks(3000.0, beta=0.3)),
        Probe(
            "float32",
            "float32 logits in the thousands, beta = 0.6",
            two_networks(1000.0, dtype=torch.float32, beta=0.6),
            atol=ROUNDED,
        ),
        Probe(
            "nearly 0",
            "networks that agree on next to nothing, beta = 2^-23",
            two_networks(40.0, beta=2.0**-23),
        ),
        Probe(
            "nearly 1",
            "networks that agree on next to nothing, beta = 1 - 2^-23",
            two_networks(40.0, beta=1 - 2.0**-23),
        ),
        Probe("beta = 0", "beta = 0", two_networks(beta=0.0)),
        Probe("beta = 1", "beta = 1", two_networks(beta=1.0)),
        Probe("beta < 0", "a beta below 0", _below),
        Probe("beta > 1", "a beta above 1", _above),
    ),
    criteria=(
        matches("the value of each row", 1.0, "plain", "half", "another batch", "one row", "equal"),
        gradients("the student's gradient", 0.5, "plain"),
        main(law("JSD / beta tends to the forward KL", 0.5, ("small beta",), _limit)),
        matches("large logits", 0.5, "large", "float32", "nearly 0", "nearly 1"),
        rejects(
            "beta outside (0, 1) is refused",
            0.5,
            "beta = 0",
            "beta = 1",
            "beta < 0",
            "beta > 1",
        ),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "mixture taken in log space",
            _jsd_with(_mixed_in_log_space),
            "You mix log-probabilities. The mixture is one of *probabilities*; a weighted mean of "
            "logarithms is another thing, and does not even sum to one.",
            "huggingface/trl #2202, repaired in #2204",
        ),
        Mistake(
            "mixture with the weights exchanged",
            _jsd_with(_mixture_flipped),
            "The divergences have the right weights, the mixture has them exchanged: beta is the "
            "teacher's share in m. At beta = 0.5 nobody would notice.",
            "huggingface/trl #3043",
        ),
        Mistake(
            "divergences with the weights exchanged",
            _jsd_with(_weights_flipped),
            "The mixture is right, but KL(p || m) has the weight 1 - beta in your sum. At "
            "beta = 0.5 nobody would notice.",
        ),
        Mistake(
            "beta flipped",
            _jsd_with(lambda p, q, b: _jsd(p, q, 1 - b)),
            "Your beta weighs the student throughout. In this course, as in the paper, beta is the "
            "teacher's weight. At beta = 0.5 nobody would notice.",
        ),
        Mistake(
            "divergences from the mixture",
            _jsd_with(_from_the_mixture),
            "You compute KL(m || p) and KL(m || q). The expectations are to be taken under p and "
            "under q; each is compared *with* m.",
        ),
        Mistake(
            "one half whatever beta is",
            _jsd_with(lambda p, q, b: _jsd(p, q, 0.5)),
            "Your result does not depend on beta: this is the symmetric Jensen-Shannon divergence.",
        ),
        Mistake(
            "weighted mean of forward and reverse KL",
            _jsd_with(lambda p, q, b: b * _to(p, q) + (1 - b) * _to(q, p)),
            "No mixture takes part: you average the forward and the reverse KL. That is unbounded "
            "where the JSD is not.",
        ),
        Mistake(
            "logits mixed",
            _jsd_with(_mixed_logits),
            "You mix logits and take the softmax after. That is a geometric mean, normalised; the "
            "mixture is one of *probabilities*.",
        ),
        Mistake(
            "mixture underflows",
            _jsd_with(_mixture_underflows),
            "Where both probabilities are rounded to zero, so is your mixture. Its logarithm is "
            "minus infinity, and zero times infinity is NaN.",
            "linkedin/Liger-Kernel #769 and #1453",
        ),
        Mistake(
            "mean over classes",
            _jsd_with(lambda p, q, b: _jsd(p, q, b) / p.shape[-1]),
            "You average over the classes. Each divergence is a sum weighted by its probabilities.",
        ),
        Mistake(
            "any beta is taken, mixture underflows",
            _any_beta,
            "Right in the middle. At beta = 1 the result is always zero, which teaches nothing: "
            "raise a ValueError. And for large logits the logarithm of a mixture that underflowed "
            "is minus infinity.",
        ),
    ),
    minutes=18,
    difficulty=3,
)
