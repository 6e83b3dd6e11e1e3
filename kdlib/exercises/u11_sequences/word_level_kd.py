"""11.word_level_kd."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import (
    Arguments,
    Clue,
    Evidence,
    Exercise,
    Mistake,
    Probe,
    Variant,
)
from kdlib.checks.probes import draw
from kdlib.exercises.u11_sequences.inputs import awkward_pair, pair
from kdlib.losses import sequences as sequence_losses


def _padded(g: torch.Generator) -> Arguments:
    """Give the plain probe's rows with three more columns, filled with numbers of no meaning."""
    made = pair()(g)
    for name in ("student_logits", "teacher_logits"):
        more = 5 * draw(g, 3, 3, 9)
        made[name] = torch.cat([made[name], more], dim=1)
    made["mask"] = F.pad(made["mask"], (0, 3), value=False)
    return made


def _no_temperature(g: torch.Generator) -> Arguments:
    made = awkward_pair(g)
    del made["temperature"]
    return made


def _sure(g: torch.Generator) -> Arguments:
    """Give float32 logits that are hundreds apart: a teacher that is certain, a student too."""
    made = awkward_pair(g)
    student, teacher = (100 * made.pop(name) for name in BOTH)
    return {"student_logits": student.float(), "teacher_logits": teacher.float(), **made}


def _dirty(g: torch.Generator) -> Arguments:
    """Put NaN and infinity where nothing counts, in both."""
    made = awkward_pair(g)
    for name, value in zip(BOTH, (float("nan"), float("inf")), strict=True):
        made[name][~made["mask"]] = value
    return made


def _terms(s, t, reverse=False):
    """Give the terms of the KL of every token, `(B, T, V)`."""
    s, t = s.log_softmax(-1), t.log_softmax(-1)
    a, b = (s, t) if reverse else (t, s)
    return a.exp() * (a - b)


def _late(kl, mask):
    return kl[mask].mean()


def _kept(kl, mask):
    return kl.masked_fill(~mask, 0.0)


def _kd(
    reduce=_late,
    terms=_terms,
    detach=True,
    factor=lambda temperature: temperature**2,
    empty=True,
    temperatures=lambda temperature: (temperature, temperature),
    first=True,
    shift=False,
):
    """Assemble a wrong loss.

    Args:
        reduce: from the KL of every token and the mask to a scalar.
        terms: of the KL, `(B, T, V)`, from logits over T.
        detach: whether the teacher is a constant.
        factor: in front of the mean.
        empty: whether a mask without a token is refused.
        temperatures: of the student and of the teacher.
        first: whether masked places are made harmless before anything is computed.
        shift: whether the mask is moved by one against the logits.
    """

    def wrong(student_logits, teacher_logits, mask, temperature=1.0):
        if empty and not mask.any():
            raise ValueError("no valid token")
        s, t = student_logits, teacher_logits.detach() if detach else teacher_logits
        if shift:
            s, t, mask = s[:, :-1], t[:, :-1], mask[:, 1:]
        if first:
            s, t = (torch.where(mask[..., None], x, 0.0) for x in (s, t))
        of_student, of_teacher = temperatures(temperature)
        kl = terms(s / of_student, t / of_teacher).sum(-1)
        return factor(temperature) * reduce(kl, mask)

    return wrong


def _over_vocabulary(student_logits, teacher_logits, mask, temperature=1.0):
    if not mask.any():
        raise ValueError("no valid token")
    s, t = ((x[mask] / temperature).log_softmax(-1) for x in (student_logits, teacher_logits))
    return temperature**2 * F.kl_div(s, t.detach(), reduction="mean", log_target=True)


def _over_tokens(s, t):
    """Take the softmax over the positions of a row."""
    s, t = s.log_softmax(1), t.log_softmax(1)
    return t.exp() * (t - s)


def _by_softmax(s, t):
    p, q = t.softmax(-1), s.softmax(-1)
    return p * (p.log() - q.log())


def _cross_entropy(s, t):
    return -t.softmax(-1) * s.log_softmax(-1)


def _padding_changes_nothing(evidence: Evidence) -> str | None:
    plain, padded = evidence.value("as they are"), evidence.value("more padding")
    if torch.allclose(plain, padded, rtol=1e-9):
        return None
    return (
        f"The same rows give {plain.item():.4g}, and {padded.item():.4g} with three more columns "
        "of padding. What a batch is padded to must not change its loss."
    )


def _variants() -> list[Variant]:
    """Let other tokens count than those of the mask."""
    clue = Clue(
        "other tokens count",
        "Your mean is not the one over the tokens that the mask counts: some are missing, or there "
        "are some too many. Which tokens stand above the line, and how many below it?",
    )
    rules = (
        lambda kl, mask: kl[mask][1:].mean(),
        lambda kl, mask: kl[mask][:-1].mean(),
        lambda kl, mask: kl[:, 1:][mask[:, 1:]].mean(),
        lambda kl, mask: kl[:, :-1][mask[:, :-1]].mean(),
        lambda kl, mask: kl[mask].sum() / (mask.sum() - 1),
        lambda kl, mask: kl[mask].sum() / (mask.sum() + 1),
        lambda kl, mask: kl[~mask].mean(),
    )
    return [Variant(_kd(rule, first=first), (clue,)) for rule in rules for first in (True, False)]


BOTH = ("student_logits", "teacher_logits")
INFINITE = float("-inf")

WORD_LEVEL_KD = Exercise(
    id="11.word_level_kd",
    title="Word-level distillation",
    reference=sequence_losses.word_level_kd,
    probes=(
        Probe(
            "plain",
            "3 rows of 6, 2 and 4 valid tokens",
            pair(),
            gradients=BOTH,
            sizes={
                "the number of rows": 3,
                "the number of valid tokens": 12,
                "the size of the vocabulary": 9,
            },
        ),
        Probe(
            "warm",
            "2 rows of 5 and 3 valid tokens at T = 3",
            pair((5, 3), 5, 7, 3.0),
            gradients=BOTH,
            sizes={
                "the number of rows": 2,
                "the number of valid tokens": 8,
                "the size of the vocabulary": 7,
                "the temperature": 3.0,
            },
        ),
        Probe("awkward", "a mask with gaps, at another T", awkward_pair, gradients=BOTH),
        Probe("default", "a call without a temperature", _no_temperature),
        Probe("one token", "a single token of a single row", pair((1,), 1, 2, 1.5)),
        Probe("as they are", "3 rows of 6, 2 and 4 valid tokens", pair()),
        Probe("more padding", "the same rows, padded further", _padded),
        Probe(
            "sure",
            "float32 logits that are hundreds apart",
            _sure,
            gradients=("student_logits",),
            atol=1e-3,
        ),
        Probe(
            "minus infinity",
            "a teacher whose logits are minus infinity where the mask is False",
            pair((4, 2), 5, 6, 2.0, fill=(0.0, INFINITE)),
            gradients=("student_logits",),
        ),
        Probe(
            "dirty",
            "logits that are NaN and infinite where the mask is False",
            _dirty,
            gradients=("student_logits",),
        ),
        Probe("nothing", "a mask without a valid token", pair((0, 0), 4, 5)),
    ),
    criteria=(
        matches("the value", 1.25, "plain", "warm", "awkward", "default", "one token"),
        gradients("the gradient", 0.75, "plain", "warm", "awkward", arguments=("student_logits",)),
        side(
            gradients(
                "the teacher is a constant",
                0.25,
                "plain",
                "warm",
                "awkward",
                arguments=("teacher_logits",),
            )
        ),
        law(
            "padding changes nothing",
            0.5,
            ("as they are", "more padding"),
            _padding_changes_nothing,
        ),
        matches("a teacher that is certain", 0.25, "sure"),
        matches("what is masked may be anything", 0.25, "minus infinity", "dirty"),
        gradients("nor does it reach the gradient", 0.25, "minus infinity", "dirty", "sure"),
        rejects("a batch without a valid token is refused", 0.25, "nothing"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the padding counts",
            _kd(lambda kl, mask: kl.mean(), first=False),
            "Your mean runs over the padding too. The loss depends on how long the longest row of "
            "the batch is, and the student is trained on places that no text stands at.",
            "huggingface/trl before #2058, and peremartra/optipfair #34",
        ),
        Mistake(
            "divided by all places",
            _kd(lambda kl, mask: _kept(kl, mask).mean()),
            "Padding is left out of the sum, yet still counted below the line: the more padding, "
            "the smaller the loss. How many tokens did you add up?",
        ),
        Mistake(
            "divided by the number of rows",
            _kd(lambda kl, mask: _kept(kl, mask).sum() / len(mask)),
            "You divide by the rows of the batch, so the loss grows with their length. With three "
            "dimensions `batchmean` divides by the first alone.",
            "neuralmagic/sparseml #592; asked about in huggingface/transformers #1181",
        ),
        Mistake(
            "summed over tokens",
            _kd(lambda kl, mask: kl[mask].sum()),
            "You add up the tokens and divide by nothing: a batch of twice the text makes steps of "
            "twice the length.",
        ),
        Mistake(
            "mean of the rows' means",
            _kd(lambda kl, mask: (_kept(kl, mask).sum(1) / mask.sum(1).clamp(min=1)).mean()),
            "You average each row first and then the rows, so a token of a short row weighs more "
            "than one of a long row, and packing two rows into one changes the loss.",
        ),
        Mistake(
            "multiplied by the mask",
            _kd(lambda kl, mask: (kl * mask).sum() / mask.sum(), first=False),
            "You compute everything and multiply by zero where the mask is False. Zero times "
            "infinity is NaN. Take the masked places out before you compute.",
            "huggingface/trl #5594, in the gradient",
        ),
        Mistake(
            "masked too late for the gradient",
            _kd(first=False),
            "Your value is right: what is masked is taken out at the end. The gradient goes back "
            "through all that was computed before, and zero times infinity is NaN there. Where "
            "does the mask belong?",
        ),
        Mistake(
            "the mask is moved by one",
            _kd(shift=True),
            "You shift the mask against the logits, so one token is lost and each row's mask is "
            "off by one place. Logits and mask fit each other here; section 11.1 has done the "
            "shifting.",
        ),
        Mistake(
            "mean over the vocabulary",
            _over_vocabulary,
            "Your mean runs over the vocabulary as well. A KL is a *sum* over classes.",
            "HikariTJU/LD #74",
        ),
        Mistake(
            "softmax over the positions",
            _kd(terms=_over_tokens),
            "Your softmax runs over the tokens of a row. In (B, T, V), which dimension holds the "
            "things that compete for one place?",
        ),
        Mistake(
            "logarithm of a softmax",
            _kd(terms=_by_softmax),
            "In float32 the probability of what the teacher or the student rules out is zero, and "
            "its logarithm is minus infinity. How do you get the logarithm without the "
            "probability?",
        ),
        Mistake(
            "cross-entropy in place of the KL",
            _kd(terms=_cross_entropy),
            "Yours is the cross-entropy, which Kim and Rush use, too: it differs from the KL by "
            "the teacher's entropy, a constant. The gradient is right; the KL is asked for.",
        ),
        Mistake(
            "arguments exchanged",
            _kd(terms=lambda s, t: _terms(s, t, reverse=True)),
            "That is the reverse KL: the student's distribution weighs the differences. Which of "
            "the two does the equation average over?",
        ),
        Mistake(
            "T squared is missing",
            _kd(factor=lambda temperature: 1.0),
            "At T = 3 your loss is nine times too small. What keeps the gradient's scale when the "
            "temperature changes (unit 02)?",
        ),
        Mistake(
            "T in place of T squared",
            _kd(factor=lambda temperature: temperature),
            "The gradient falls as 1/T^2, and your factor is T: at T = 3 the loss counts a third.",
        ),
        Mistake(
            "the temperature is not used",
            _kd(factor=lambda T: 1.0, temperatures=lambda T: (1.0, 1.0)),
            "Your loss is the same at any temperature.",
        ),
        Mistake(
            "temperature on the student only",
            _kd(temperatures=lambda temperature: (temperature, 1.0)),
            "Only the student's logits are divided by T. Both distributions have to be softened.",
        ),
        Mistake(
            "temperature on the teacher only",
            _kd(temperatures=lambda temperature: (1.0, temperature)),
            "Only the teacher's logits are divided by T. Both distributions have to be softened.",
        ),
        Mistake(
            "teacher not detached",
            _kd(detach=False),
            "A gradient arrives at the teacher's logits. The teacher is a constant.",
        ),
        Mistake(
            "an empty batch passes",
            _kd(empty=False),
            "A mean over no tokens is NaN, and one NaN ends a training run. Raise a ValueError "
            "that says so.",
        ),
    ),
    minutes=15,
    difficulty=2,
    seals=("12.jsd", "12.skew_kl", "16.cached_kd"),
    variants=_variants,
)
