"""05.split_kd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import facts, law, main, matches, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u05_logit_structure.inputs import batch, kl, one_hot, parts, split
from kdlib.losses import structure as logits

BOTH = ("TCKD", "NCKD")
TEACHER = "gradient at the teacher"


def _call(answer, arguments: Arguments):
    """Call the answer, and name its two results."""
    found = answer(*arguments.values())
    if not isinstance(found, list | tuple) or len(found) != 2:
        raise TypeError(f"expected a pair, TCKD and NCKD, but got a {type(found).__name__}")
    return dict(zip(BOTH, found, strict=True))


def _use(answer, arguments: Arguments):
    """Call the answer, and differentiate the sum of its two results."""
    pair = [arguments[name].requires_grad_(True) for name in ("student_logits", "teacher_logits")]
    out = {**_call(answer, arguments), TEACHER: False}
    total = sum((out[k].sum() for k in BOTH if isinstance(out[k], Tensor)), torch.zeros(()))
    if total.requires_grad:
        grads = torch.autograd.grad(total, pair, allow_unused=True)
        out["gradient of student_logits"] = grads[0]
        out[TEACHER] = grads[1] is not None and bool((grads[1] != 0).any())
    return out


def _identity(evidence: Evidence) -> str | None:
    arguments = evidence.probes["plain"]
    tckd, nckd = (evidence.value("plain", key) for key in BOTH)
    whole, weight = (evidence.expected["plain"].fields()[k] for k in ("KL", "1 - p_y"))
    off = (tckd + weight * nckd - whole).abs().max().item()
    if off < 1e-6:
        return None
    return (
        f"On {arguments.about}, your TCKD + (1 - p_y) NCKD misses KL(p || q) by up to {off:.4g}. "
        "The two halves have to make up the whole in each row."
    )


CERTAIN = ("certain", "far too certain", "certain and wrong", "float32")


def _finite(evidence: Evidence) -> str | None:
    for name in CERTAIN:
        gradient = evidence.value(name, "gradient of student_logits")
        if not gradient.isfinite().all():
            return (
                f"On {evidence.probes[name].about}, the gradient that arrives at student_logits "
                "is not finite. One such row ends a training."
            )
    return None


def _two_classes(evidence: Evidence) -> str | None:
    nckd = evidence.value("two classes", "NCKD").abs().max().item()
    if nckd < 1e-9:
        return None
    return (
        f"With two classes your NCKD reaches {nckd:.4g}. There is one class left besides the "
        "target, and a distribution over one class has nothing to disagree about."
    )


def _with_whole(answer, arguments: Arguments):
    """Add to the record what the identity speaks of; the same numbers for every answer."""
    out = _use(answer, arguments)
    if isinstance(out, dict):
        T = arguments["temperature"]
        with torch.no_grad():
            s, t = (arguments[k] / T for k in ("student_logits", "teacher_logits"))
            out["KL"] = kl(t.log_softmax(-1), s.log_softmax(-1))
            p = t.softmax(-1).gather(1, arguments["targets"][:, None])[:, 0]
            out["1 - p_y"] = 1 - p
    return out


def _wrong(rule, detach=True):
    """Assemble a wrong answer from `rule(s, t, y, T)` on logits that are divided by T."""

    def answer(student_logits, teacher_logits, targets, temperature=4.0):
        teacher = teacher_logits.detach() if detach else teacher_logits
        T = temperature
        return rule(student_logits / T, teacher / T, targets, T)

    return answer


def _from_probabilities(s, t, y, T):
    q, p = s.softmax(-1), t.softmax(-1)
    mask = one_hot(s, y)
    (bq, hq), (bp, hp) = (
        (torch.stack([(x * mask).sum(1), 1 - (x * mask).sum(1)], 1), x) for x in (q, p)
    )
    keep = mask == 0
    hq, hp = (x[keep].view(len(x), -1) / b[:, 1:] for x, b in ((hq, bq), (hp, bp)))
    tckd = F.kl_div(bq.log(), bp, reduction="none").sum(1)
    return tckd, F.kl_div(hq.log(), hp, reduction="none").sum(1)


def _masked(offset, before_temperature=False):
    def rule(s, t, y, T):
        lowered = offset * one_hot(s, y) / (T if before_temperature else 1)
        return parts(s, t, y)[0], kl((t - lowered).log_softmax(-1), (s - lowered).log_softmax(-1))

    return rule


def _minus_infinity(s, t, y, T):
    mask = one_hot(s, y).bool()
    a, b = (x.masked_fill(mask, -torch.inf).log_softmax(-1) for x in (t, s))
    return parts(s, t, y)[0], kl(a, b)


def _zeroed(s, t, y, T):
    mask = 1 - one_hot(s, y)
    return parts(s, t, y)[0], kl((t * mask).log_softmax(-1), (s * mask).log_softmax(-1))


def _not_renormalised(s, t, y, T):
    terms = t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))
    return parts(s, t, y)[0], (terms * (1 - one_hot(s, y))).sum(-1)


def _target_left_in(s, t, y, T):
    return parts(s, t, y)[0], kl(t.log_softmax(-1), s.log_softmax(-1))


def _target_term_only(s, t, y, T):
    log_p, log_q = (x.log_softmax(-1).gather(1, y[:, None])[:, 0] for x in (t, s))
    return log_p.exp() * (log_p - log_q), parts(s, t, y)[1]


def _difference(s, t, y, T):
    nckd = parts(s, t, y)[1]
    return kl(t.log_softmax(-1), s.log_softmax(-1)) - nckd, nckd


def _weighted(s, t, y, T):
    tckd, nckd = parts(s, t, y)
    return tckd, split(t, y)[0][:, 1].exp() * nckd


def _exchanged(s, t, y, T):
    return parts(s, t, y)[::-1]


def _first_choice(s, t, y, T):
    return parts(s, t, t.argmax(-1))


def _squared(s, t, y, T):
    tckd, nckd = parts(s, t, y)
    return T**2 * tckd, T**2 * nckd


def _mean(s, t, y, T):
    tckd, nckd = parts(s, t, y)
    return tckd.mean().expand(len(y)), nckd.mean().expand(len(y))


SPLIT_KD = Exercise(
    id="05.split_kd",
    title="The target and the rest",
    reference=logits.split_kd,
    probes=(
        Probe("plain", "7 rows of 10 classes, T = 3", batch(temperature=3.0), run=_with_whole),
        Probe("other", "5 rows of 4 classes, T = 2", batch(5, 4, temperature=2.0), run=_call),
        Probe(
            "hot", "7 rows of 10 classes, T = 150", batch(scale=200.0, temperature=150.0), run=_use
        ),
        Probe(
            "certain",
            "networks so certain of the target that p_y is 1 in floating point, T = 1",
            batch(certain=60.0, temperature=1.0),
            run=_use,
        ),
        Probe(
            "far too certain",
            "a target's logit thousands above the others, T = 1",
            batch(certain=3000.0, temperature=1.0),
            run=_use,
        ),
        Probe(
            "certain and wrong",
            "a teacher that is certain of a class that is not the target",
            batch((2, 6), (3, 6), certain=2000.0, wrong=True, temperature=(1.0, 3.0)),
            run=_use,
        ),
        Probe("two classes", "rows of 2 classes", batch((3, 7), 2, temperature=2.0), run=_use),
        Probe("one row", "one row, T left out", batch(1, (3, 6)), run=_use),
        Probe(
            "by columns",
            "logits of some size that lie in memory by columns",
            batch((2, 9), (3, 7), strided=True, temperature=(0.5, 6.0)),
            run=_use,
        ),
        Probe(
            "float32",
            "float32 logits in the thousands",
            batch((2, 9), (3, 7), scale=1000.0, dtype=torch.float32, temperature=(1.0, 6.0)),
            run=_use,
            atol=1e-3,
        ),
        Probe(
            "raised",
            "float32 logits, all raised by 1,000",
            batch((2, 9), (3, 7), offset=1000.0, dtype=torch.float32, temperature=(1.0, 4.0)),
            run=_use,
            atol=5e-3,
        ),
    ),
    criteria=(
        matches(
            "TCKD", 1.0, "plain", "other", "one row", "by columns", "two classes", keys=BOTH[:1]
        ),
        matches("NCKD", 1.0, "plain", "other", "hot", "one row", "by columns", keys=BOTH[1:]),
        main(law("the halves make up the whole", 0.5, ("plain",), _identity)),
        matches(
            "a certain network does no harm",
            0.75,
            "certain",
            "far too certain",
            "certain and wrong",
            "float32",
            "raised",
            keys=BOTH,
        ),
        law("nor to the gradient", 0.25, CERTAIN, _finite),
        matches(
            "the student's gradient",
            0.5,
            "plain",
            "by columns",
            keys=("gradient of student_logits",),
        ),
        side(
            facts(
                "the teacher is a constant",
                0.25,
                "plain",
                (TEACHER, False, "A gradient arrives at teacher_logits. It has to be a constant."),
            )
        ),
        law("two classes leave no rest", 0.5, ("two classes",), _two_classes),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "one minus p",
            _wrong(_from_probabilities),
            "Right on paper. But where a network is certain, 1 - p_y is zero in floating point: "
            "the logarithm is minus infinity and the division gives NaN. Both pairs can be "
            "had from logits: which two logits have b as their softmax?",
            "zhengli97/CTKD #9 and #10",
        ),
        Mistake(
            "a mask of -1000",
            _wrong(_masked(1000.0)),
            "Taking 1,000 off the target's logit works while logits are small against 1,000. "
            "When they are not, the target stays in. Leave the class out instead of lowering it.",
            "megvii-research/mdistiller #1, as a question",
        ),
        Mistake(
            "a mask of -1000 that is divided by T",
            _wrong(_masked(1000.0, before_temperature=True)),
            "You lower the target's logit by 1,000 and divide by T afterwards. At a high "
            "temperature what is left of the 1,000 no longer hides the class.",
        ),
        Mistake(
            "minus infinity in the KL",
            _wrong(_minus_infinity),
            "With the target's logit at minus infinity both log-probabilities are minus infinity "
            "there. Zero times (infinity minus infinity) is NaN, not zero.",
        ),
        Mistake(
            "logit set to zero",
            _wrong(_zeroed),
            "You multiply the target's logit by zero. A logit of zero is an ordinary logit: the "
            "class keeps its place in the softmax. What would take it out?",
        ),
        Mistake(
            "the rest not renormalised",
            _wrong(_not_renormalised),
            "Your NCKD sums over the wrong classes, but with probabilities that do not sum to "
            "one. The hats are distributions of their own: over all classes but y.",
        ),
        Mistake(
            "the target is still in the NCKD",
            _wrong(_target_left_in),
            "Your NCKD is the whole divergence, target included.",
        ),
        Mistake(
            "TCKD of one term",
            _wrong(_target_term_only),
            "Your TCKD has the target's term only. b is a distribution over two events, 'the "
            "target' and 'something else', and its KL has two terms.",
        ),
        Mistake(
            "KL minus NCKD",
            _wrong(_difference),
            "Your TCKD is what is left of the KL when NCKD is taken off, and it can be negative. "
            "In the identity NCKD has a factor in front. Better: compute TCKD on its own.",
        ),
        Mistake(
            "NCKD already weighted",
            _wrong(_weighted),
            "Your NCKD is multiplied by 1 - p_y. That factor is what the split is to make "
            "visible: leave it out here.",
        ),
        Mistake(
            "the two exchanged",
            _wrong(_exchanged),
            "You return NCKD first. The contract says: TCKD, then NCKD.",
        ),
        Mistake(
            "the teacher's first choice as target",
            _wrong(_first_choice),
            "Your split is round the class that the teacher finds most probable. The target is "
            "the label y, also where the teacher is wrong.",
            "megvii-research/mdistiller #15, as a question",
        ),
        Mistake(
            "KL the wrong way round",
            _wrong(lambda s, t, y, T: parts(t, s, y)),
            "Both halves are divergences from the student to the teacher. As in unit 02, the "
            "teacher's distribution is the one that weighs the terms.",
        ),
        Mistake(
            "no temperature",
            _wrong(lambda s, t, y, T: parts(s * T, t * T, y)),
            "Your result does not depend on T. Everything here is at temperature T.",
        ),
        Mistake(
            "T squared included",
            _wrong(_squared),
            "Both halves are multiplied by T squared. It comes in later, with the weights; here "
            "the identity with the plain KL would break.",
        ),
        Mistake(
            "averaged over the rows",
            _wrong(_mean),
            "You averaged over the batch. Return a number for each row: what we want to see is "
            "how the halves differ between easy and hard images.",
        ),
        Mistake(
            "teacher not detached",
            _wrong(lambda s, t, y, T: parts(s, t, y), detach=False),
            "A gradient arrives at the teacher's logits.",
        ),
    ),
    minutes=20,
    difficulty=3,
)
