"""Exercises of unit 01: entropy, cross-entropy, divergences."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import divergences
from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe


def _positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def _draw(g: torch.Generator, *shape: int, scale: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64) * scale


def _one(temperature: float = 2.5, scale: float = 3.0, shift: float = 0.0, rows: int = 6):
    """Build one tensor of logits and a temperature."""

    def make(g: torch.Generator) -> Arguments:
        return {"logits": _draw(g, rows, 7, scale=scale) + shift, "temperature": temperature}

    return make


def _two(scale: float = 3.0, shift: float = 0.0, equal: bool = False, classes: int = 7, **rest):
    """Build teacher's and student's logits, and what else the function takes."""

    def make(g: torch.Generator) -> Arguments:
        teacher, student = (_draw(g, 6, classes, scale=scale) for _ in range(2))
        teacher = student.clone() if equal else teacher
        return {"teacher_logits": teacher + shift, "student_logits": student - shift, **rest}

    return make


# ------------------------------------------------------------------ 01.log_softmax


def _sums_to_one(evidence: Evidence) -> str | None:
    sums = evidence.value("plain").exp().sum(-1)
    worst = sums[(sums - 1).abs().argmax()].item()
    if abs(worst - 1) < 1e-6:
        return None
    return f"The probabilities behind one of your rows sum to {worst:.4g}. They have to sum to 1."


def _staircase(g: torch.Generator) -> Arguments:
    arguments = _one(1.0)(g)
    steps = 2000.0 * torch.arange(len(arguments["logits"]))[:, None]
    return {**arguments, "logits": arguments["logits"] - steps}


def _log_softmax_with(rule):
    def log_softmax(logits, temperature=1.0):
        _positive(temperature)
        return rule(logits, temperature)

    return log_softmax


def _less(z: Tensor, maximum: Tensor, dim: int = -1) -> Tensor:
    return (z - maximum) - (z - maximum).exp().sum(dim=dim, keepdim=True).log()


def _stable(z: Tensor, dim: int = -1) -> Tensor:
    return _less(z, z.amax(dim=dim, keepdim=True), dim)


LOG_SOFTMAX = Exercise(
    id="01.log_softmax",
    title="Log-probabilities that never overflow",
    reference=divergences.log_softmax,
    probes=(
        Probe("plain", "6 rows of 7 classes, T = 2.5", _one()),
        Probe("T = 1", "6 rows of 7 classes, T = 1", _one(1.0)),
        Probe("large", "logits in the thousands, T = 1", _one(1.0, 3000.0)),
        Probe("very negative", "logits that are all near -5000, T = 1", _one(1.0, shift=-5000.0)),
        Probe("far apart", "rows that lie thousands below each other", _staircase),
        Probe("T = 0", "T = 0", _one(0.0)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "T = 1"),
        law("probabilities sum to one", 0.5, ("plain",), _sums_to_one),
        matches("large logits", 1.0, "large", "very negative", "far apart"),
        rejects("T = 0 is refused", 0.5, "T = 0"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "no maximum subtracted",
            _log_softmax_with(lambda z, T: z / T - (z / T).exp().sum(-1, keepdim=True).log()),
            "Right for small logits. For large ones `exp` overflows to infinity, and for very "
            "negative ones the sum underflows to zero. Adding a constant to a row changes nothing "
            "about the result: which constant makes the largest exponent zero?",
        ),
        Mistake(
            "one maximum for all rows",
            _log_softmax_with(lambda z, T: _less(z / T, (z / T).max())),
            "You subtract the largest logit of the whole batch. In a row that lies far below it "
            "every `exp` is zero, and so is their sum. Each row needs its own maximum.",
        ),
        Mistake(
            "logarithm of a finished softmax",
            _log_softmax_with(lambda z, T: _stable(z / T).exp().log()),
            "You form the probability first and take its logarithm after. A probability below "
            "about 1e-308 is zero in floating point, and its logarithm is minus infinity.",
        ),
        Mistake(
            "softmax over the batch",
            _log_softmax_with(lambda z, T: _stable(z / T, dim=0)),
            "Your columns sum to one, not your rows. Classes are the last dimension.",
        ),
        Mistake(
            "multiplied by the temperature",
            _log_softmax_with(lambda z, T: _stable(z * T)),
            "You multiply by T, which sharpens the distribution. A high temperature makes it soft.",
        ),
        Mistake(
            "temperature ignored",
            _log_softmax_with(lambda z, T: _stable(z)),
            "Your result does not depend on the temperature.",
        ),
        Mistake(
            "temperature after the softmax",
            _log_softmax_with(lambda z, T: _stable(z) / T),
            "You divide the log-probabilities by T. The logits have to be divided, before they are "
            "normalised; yours no longer sum to one.",
        ),
        Mistake(
            "logarithm to base 2",
            _log_softmax_with(lambda z, T: _stable(z / T) / math.log(2)),
            "Your numbers are bits. This course counts in nats: natural logarithms.",
        ),
        Mistake(
            "probabilities",
            _log_softmax_with(lambda z, T: _stable(z / T).exp()),
            "You return probabilities; their logarithms are asked for.",
        ),
        Mistake(
            "any temperature is taken",
            lambda logits, temperature=1.0: _stable(logits / temperature),
            "T = 0 divides by zero. Raise a ValueError that says what was given.",
        ),
    ),
    minutes=12,
    difficulty=1,
    forbids=(
        "log_softmax",
        "softmax",
        "softmin",
        "logsumexp",
        "logcumsumexp",
        "cross_entropy",
        "special_log_softmax",
        "special_softmax",
        "special_logsumexp",
    ),
)


# ------------------------------------------------------------------ 01.soft_cross_entropy


def _targets(hard: bool = False, scale: float = 2.0, own: bool = False, logit_scale: float = 3.0):
    def make(g: torch.Generator) -> Arguments:
        logits = _draw(g, 6, 7, scale=logit_scale)
        probs = logits.softmax(-1) if own else _draw(g, 6, 7, scale=scale).softmax(-1)
        if hard:
            probs = F.one_hot(probs.argmax(-1), 7).to(probs.dtype)
        return {"logits": logits, "target_probs": probs}

    return make


def _cross_entropy_with(rule):
    def soft_cross_entropy(logits, target_probs):
        return rule(logits, target_probs)

    return soft_cross_entropy


SOFT_CROSS_ENTROPY = Exercise(
    id="01.soft_cross_entropy",
    title="Cross-entropy with soft targets",
    reference=divergences.soft_cross_entropy,
    probes=(
        Probe("plain", "6 rows of 7 classes", _targets(), gradients=("logits",)),
        Probe("hard", "one-hot targets", _targets(hard=True)),
        Probe("own", "targets equal to the student's own probabilities", _targets(own=True)),
        Probe(
            "large",
            "logits in the thousands and one-hot targets",
            _targets(hard=True, logit_scale=3000.0),
        ),
    ),
    criteria=(
        matches("the value of each row", 1.0, "plain", "own"),
        gradients("the gradient", 0.5, "plain"),
        matches("one-hot targets give the usual loss", 0.5, "hard"),
        matches("large logits", 0.5, "large"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "mean over the batch",
            _cross_entropy_with(lambda z, p: -(p * z.log_softmax(-1)).sum(-1).mean()),
            "You return one number for the whole batch. One for each row is asked for; whoever "
            "calls you decides how to reduce.",
        ),
        Mistake(
            "mean over classes",
            _cross_entropy_with(lambda z, p: -(p * z.log_softmax(-1)).mean(-1)),
            "Over the classes this is an expectation, a sum weighted by the targets. You average, "
            "which divides it by the number of classes.",
        ),
        Mistake(
            "sign forgotten",
            _cross_entropy_with(lambda z, p: (p * z.log_softmax(-1)).sum(-1)),
            "Your numbers are negative. A cross-entropy is a cost: it is never below zero.",
        ),
        Mistake(
            "arguments exchanged",
            _cross_entropy_with(lambda z, p: -(z.softmax(-1) * p.clamp_min(1e-12).log()).sum(-1)),
            "You weigh the targets' logarithms with the student's probabilities. Who draws the "
            "symbols, and whose code is used for them?",
        ),
        Mistake(
            "logarithm of a softmax",
            _cross_entropy_with(lambda z, p: -(p * z.softmax(-1).log()).sum(-1)),
            "Right for small logits. A probability that underflows to zero has the logarithm minus "
            "infinity, and zero times infinity is NaN.",
        ),
        Mistake(
            "KL in place of the cross-entropy",
            _cross_entropy_with(
                lambda z, p: (torch.special.xlogy(p, p) - p * z.log_softmax(-1)).sum(-1)
            ),
            "You subtracted the entropy of the targets: this is the KL divergence. For one-hot "
            "targets the two agree, for soft ones they do not.",
        ),
        Mistake(
            "only the most probable class",
            _cross_entropy_with(lambda z, p: F.cross_entropy(z, p.argmax(-1), reduction="none")),
            "You use the targets' largest entry alone, which turns a soft target into a hard one.",
        ),
        Mistake(
            "softmax of the targets",
            _cross_entropy_with(lambda z, p: -(p.softmax(-1) * z.log_softmax(-1)).sum(-1)),
            "The targets are probabilities already. A softmax on top flattens them.",
        ),
        Mistake(
            "softmax over the batch",
            _cross_entropy_with(lambda z, p: -(p * z.log_softmax(0)).sum(-1)),
            "Your columns sum to one, not your rows. Classes are the last dimension.",
        ),
        Mistake(
            "logits taken for log-probabilities",
            _cross_entropy_with(lambda z, p: -(p * z).sum(-1)),
            "You multiply the targets with raw logits. Logits become log-probabilities only after "
            "they are normalised.",
        ),
    ),
    minutes=10,
    difficulty=1,
)


# ------------------------------------------------------------------ 01.kl_divergence


def _kl_with(rule):
    def kl_divergence(teacher_logits, student_logits, temperature=1.0):
        _positive(temperature)
        return rule(teacher_logits / temperature, student_logits / temperature)

    return kl_divergence


def _kl(v: Tensor, z: Tensor) -> Tensor:
    return (v.softmax(-1) * (v.log_softmax(-1) - z.log_softmax(-1))).sum(-1)


def _takes_any_temperature(teacher_logits, student_logits, temperature=1.0):
    return _kl(teacher_logits / temperature, student_logits / temperature)


def _kl_squared(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    return temperature**2 * _takes_any_temperature(teacher_logits, student_logits, temperature)


def _kl_teacher_only(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    return _kl(teacher_logits / temperature, student_logits)


def _kl_ignored(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    return _kl(teacher_logits, student_logits)


def _zero_and_never_negative(evidence: Evidence) -> str | None:
    home = evidence.value("equal").abs().max().item()
    if home > 1e-9:
        return (
            f"For equal distributions one of your rows is {home:.4g}. A divergence is zero there."
        )
    low = evidence.value("plain").min().item()
    return (
        None if low >= -1e-9 else f"One of your rows is {low:.4g}. A divergence is never negative."
    )


KL = Exercise(
    id="01.kl_divergence",
    title="KL from teacher to student",
    reference=divergences.kl_divergence,
    probes=(
        Probe("plain", "6 rows of 7 classes, T = 2", _two(temperature=2.0), ("student_logits",)),
        Probe("T = 1", "6 rows of 7 classes, T = 1", _two(temperature=1.0)),
        Probe("equal", "a student equal to the teacher", _two(equal=True, temperature=2.0)),
        Probe("large", "logits in the thousands, T = 1", _two(3000.0, temperature=1.0)),
        Probe("T = 0", "T = 0", _two(temperature=0.0)),
    ),
    criteria=(
        matches("the value of each row", 1.0, "plain", "T = 1"),
        gradients("the student's gradient", 0.5, "plain"),
        law("zero at agreement, never negative", 0.5, ("equal", "plain"), _zero_and_never_negative),
        matches("large logits", 0.5, "large"),
        rejects("T = 0 is refused", 0.5, "T = 0"),
    ),
    mistakes=(
        Mistake(
            "the wrong way round",
            _kl_with(lambda v, z: _kl(z, v)),
            "You compute KL(q || p). Forward KL weighs the log-ratio with the teacher's "
            "probabilities; with `F.kl_div` the student comes first, the teacher second.",
        ),
        Mistake(
            "log_target forgotten",
            _kl_with(
                lambda v, z: F.kl_div(z.log_softmax(-1), v.log_softmax(-1), reduction="none").sum(
                    -1
                )
            ),
            "`F.kl_div` takes its second argument for probabilities unless `log_target=True` is "
            "given. Yours are log-probabilities, so it takes the logarithm of a negative number.",
        ),
        Mistake(
            "probabilities for log-probabilities",
            _kl_with(lambda v, z: F.kl_div(z.softmax(-1), v.softmax(-1), reduction="none").sum(-1)),
            "`F.kl_div` wants the student's *log*-probabilities. Given probabilities it returns a "
            "number all the same, and one that can be negative.",
            "microsoft/ProDA #20, sebastian-hofstaetter/matchmaker #18",
        ),
        Mistake(
            "mean over classes",
            _kl_with(lambda v, z: _kl(v, z) / v.shape[-1]),
            "You average over the classes. A divergence is an expectation: a sum weighted by p.",
            "facebookresearch/deit #61",
        ),
        Mistake(
            "mean over the batch",
            _kl_with(lambda v, z: _kl(v, z).mean()),
            "You return one number for the batch; one for each row is asked for.",
        ),
        Mistake(
            "the teacher's entropy is missing",
            _kl_with(lambda v, z: -(v.softmax(-1) * z.log_softmax(-1)).sum(-1)),
            "This is the cross-entropy. It has the same gradient, but it is not zero when student "
            "and teacher agree: the teacher's own entropy is left.",
        ),
        Mistake(
            "logarithm of a softmax",
            _kl_with(
                lambda v, z: (v.softmax(-1) * (v.softmax(-1).log() - z.softmax(-1).log())).sum(-1)
            ),
            "Right for small logits. A probability that underflows has the logarithm minus "
            "infinity, and zero times infinity is NaN.",
        ),
        Mistake(
            "logits taken for log-probabilities",
            _kl_with(lambda v, z: (v.softmax(-1) * (v - z)).sum(-1)),
            "You subtract logits. They differ from log-probabilities by a constant in each row, "
            "and teacher and student have different ones.",
        ),
        Mistake(
            "logarithm to base 2",
            _kl_with(lambda v, z: _kl(v, z) / math.log(2)),
            "Your numbers are bits. This course counts in nats: natural logarithms.",
        ),
        Mistake(
            "multiplied by T squared",
            _kl_squared,
            "The factor T squared belongs to the training loss of unit 02. The divergence itself "
            "has none.",
        ),
        Mistake(
            "temperature on the teacher only",
            _kl_teacher_only,
            "Only the teacher is softened. A student that agrees with it at every temperature "
            "would still be told that it is wrong.",
        ),
        Mistake(
            "temperature ignored",
            _kl_ignored,
            "At T = 1 you are right, and at every other temperature you return the same.",
        ),
        Mistake(
            "any temperature is taken",
            _takes_any_temperature,
            "T = 0 divides by zero. Raise a ValueError that says what was given.",
        ),
    ),
    minutes=12,
    difficulty=2,
)


# ------------------------------------------------------------------ 01.generalized_jsd


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


def _limit(evidence: Evidence) -> str | None:
    have = evidence.value("small beta") / 1e-4
    forward = evidence.expected["small beta"].value / 1e-4
    if torch.allclose(have, forward, rtol=1e-4):
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
        Probe("plain", "6 rows of 7 classes, beta = 0.3", _two(beta=0.3), ("student_logits",)),
        Probe("half", "beta = 0.5", _two(beta=0.5)),
        Probe("small beta", "beta = 0.0001", _two(beta=1e-4)),
        Probe("equal", "a student equal to the teacher, beta = 0.3", _two(equal=True, beta=0.3)),
        Probe("large", "logits in the thousands, beta = 0.3", _two(3000.0, beta=0.3)),
        Probe("beta = 1", "beta = 1", _two(beta=1.0)),
    ),
    criteria=(
        matches("the value of each row", 1.0, "plain", "half", "equal"),
        gradients("the student's gradient", 0.5, "plain"),
        law("JSD / beta tends to the forward KL", 0.5, ("small beta",), _limit),
        matches("large logits", 0.5, "large"),
        rejects("beta = 1 is refused", 0.5, "beta = 1"),
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


# ------------------------------------------------------------------ 01.total_variation


def _tv_with(rule):
    def total_variation(teacher_logits, student_logits):
        return rule(teacher_logits, student_logits)

    return total_variation


def _at_most_one(evidence: Evidence) -> str | None:
    top = evidence.value("disjoint").max().item()
    return (
        None
        if top <= 1 + 1e-9
        else f"One of your rows is {top:.4g}. No more than all mass can move."
    )


TOTAL_VARIATION = Exercise(
    id="01.total_variation",
    title="Total variation",
    reference=divergences.total_variation,
    probes=(
        Probe("plain", "6 rows of 7 classes", _two(), sizes={"the number of classes": 7, "two": 2}),
        Probe(
            "three",
            "6 rows of 3 classes",
            _two(classes=3),
            sizes={"the number of classes": 3, "two": 2},
        ),
        Probe("equal", "a student equal to the teacher", _two(equal=True)),
        Probe("disjoint", "logits in the hundreds: the two agree on nothing", _two(300.0)),
    ),
    criteria=(
        matches("the value of each row", 1.5, "plain", "three", "equal"),
        law("at most one", 0.5, ("disjoint",), _at_most_one),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "one half is missing",
            _tv_with(lambda v, z: (v.softmax(-1) - z.softmax(-1)).abs().sum(-1)),
            "What leaves one class arrives at another, and you count it at both ends.",
        ),
        Mistake(
            "no absolute value",
            _tv_with(lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).sum(-1)),
            "Positive and negative differences cancel: both rows sum to one.",
        ),
        Mistake(
            "squared differences",
            _tv_with(lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).square().sum(-1)),
            "You square the differences; total variation takes their absolute values.",
        ),
        Mistake(
            "logits in place of probabilities",
            _tv_with(lambda v, z: 0.5 * (v - z).abs().sum(-1)),
            "You compare logits. The mass that would have to move is one of probabilities.",
        ),
        Mistake(
            "the largest difference",
            _tv_with(lambda v, z: (v.softmax(-1) - z.softmax(-1)).abs().amax(-1)),
            "You take the largest difference of a single class. Total variation is the largest "
            "difference over all *sets* of classes.",
        ),
        Mistake(
            "Euclidean distance",
            _tv_with(lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).norm(dim=-1)),
            "You square, add and take the root. Total variation adds absolute differences.",
        ),
        Mistake(
            "log-probabilities in place of probabilities",
            _tv_with(lambda v, z: 0.5 * (v.log_softmax(-1) - z.log_softmax(-1)).abs().sum(-1)),
            "You compare log-probabilities. The mass that would have to move is one of "
            "probabilities.",
        ),
        Mistake(
            "mean over the batch",
            _tv_with(lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).abs().sum(-1).mean()),
            "You return one number for the batch; one for each row is asked for.",
        ),
        Mistake(
            "mean over classes",
            _tv_with(lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).abs().mean(-1)),
            "You average over the classes where the definition sums.",
        ),
    ),
    minutes=6,
    difficulty=1,
)

EXERCISES: tuple[Exercise, ...] = (LOG_SOFTMAX, SOFT_CROSS_ENTROPY, KL, JSD, TOTAL_VARIATION)
