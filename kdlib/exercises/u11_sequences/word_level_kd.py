"""11.word_level_kd."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, law, matches, rejects, side
from kdlib.checks.exercise import Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import positive
from kdlib.exercises.u11_sequences.inputs import pair
from kdlib.losses import sequences as sequence_losses


def _rows(s, t, temperature, reverse=False, teacher_temperature=None):
    """Give KL of every token, `(B, T)`."""
    s = (s / temperature).log_softmax(-1)
    t = (t / (teacher_temperature or temperature)).log_softmax(-1)
    a, b = (s, t) if reverse else (t, s)
    return (a.exp() * (a - b)).sum(-1)


def _kd(reduce, detach=True, square=True, empty=True, **how):
    """Assemble a wrong loss from `reduce(kl of every token, mask)`."""

    def wrong(student_logits, teacher_logits, mask, temperature=1.0):
        positive(temperature)
        if empty and not mask.any():
            raise ValueError("no valid token")
        t = teacher_logits.detach() if detach else teacher_logits
        kl = _rows(student_logits, t, temperature, **how)
        return (temperature**2 if square else 1.0) * reduce(kl, mask)

    return wrong


def _valid(kl, mask):
    return kl[mask].mean()


def _kept(kl, mask):
    return kl.masked_fill(~mask, 0.0)


def _over_vocabulary(student_logits, teacher_logits, mask, temperature=1.0):
    positive(temperature)
    if not mask.any():
        raise ValueError("no valid token")
    s, t = ((x[mask] / temperature).log_softmax(-1) for x in (student_logits, teacher_logits))
    return temperature**2 * F.kl_div(s, t.detach(), reduction="mean", log_target=True)


def _padding_changes_nothing(evidence: Evidence) -> str | None:
    plain, padded = evidence.value("as they are"), evidence.value("more padding")
    if torch.allclose(plain, padded, rtol=1e-9):
        return None
    return (
        f"The same rows give {plain.item():.4g}, and {padded.item():.4g} with three more columns "
        "of padding. What a batch is padded to must not change its loss."
    )


def _padded(g: torch.Generator):
    """Give the plain probe's rows with three more columns, filled with numbers of no meaning."""
    made = pair()(g)
    extra = torch.randn(2, 3, 3, 9, generator=torch.Generator().manual_seed(7)).double()
    for name, more in zip(("student_logits", "teacher_logits"), extra, strict=True):
        made[name] = torch.cat([made[name], 5 * more], dim=1)
    made["mask"] = F.pad(made["mask"], (0, 3), value=False)
    return made


BOTH = ("student_logits", "teacher_logits")

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
        Probe("as they are", "3 rows of 6, 2 and 4 valid tokens", pair()),
        Probe("more padding", "the same rows, padded further", _padded),
        Probe(
            "minus infinity",
            "a teacher whose logits are minus infinity where the mask is False",
            pair((4, 2), 5, 6, 2.0, fill=float("-inf")),
            gradients=("student_logits",),
        ),
        Probe("nothing", "a mask without a valid token", pair((0, 0), 4, 5)),
    ),
    criteria=(
        matches("the value", 1.5, "plain", "warm"),
        gradients("the gradient", 1.0, "plain", "warm", arguments=("student_logits",)),
        side(gradients("the teacher is a constant", 0.25, "plain", arguments=("teacher_logits",))),
        law(
            "padding changes nothing",
            0.5,
            ("as they are", "more padding"),
            _padding_changes_nothing,
        ),
        matches("what is masked may be anything", 0.25, "minus infinity"),
        gradients("nor does it reach the gradient", 0.25, "minus infinity"),
        rejects("a batch without a valid token is refused", 0.25, "nothing"),
    ),
    mistakes=(
        Mistake(
            "the padding counts",
            _kd(lambda kl, mask: kl.mean()),
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
            "mean of the rows' means",
            _kd(lambda kl, mask: (_kept(kl, mask).sum(1) / mask.sum(1).clamp(min=1)).mean()),
            "You average each row first and then the rows, so a token of a short row weighs more "
            "than one of a long row, and packing two rows into one changes the loss.",
        ),
        Mistake(
            "multiplied by the mask",
            _kd(lambda kl, mask: (kl * mask).sum() / mask.sum()),
            "You compute everything and multiply by zero where the mask is False. Zero times "
            "infinity is NaN. Take the masked places out before you compute.",
            "huggingface/trl #5594, in the gradient",
        ),
        Mistake(
            "mean over the vocabulary",
            _over_vocabulary,
            "Your mean runs over the vocabulary as well. A KL is a *sum* over classes.",
            "HikariTJU/LD #74",
        ),
        Mistake(
            "arguments exchanged",
            _kd(_valid, reverse=True),
            "That is the reverse KL: the student's distribution weighs the differences. Which of "
            "the two does the equation average over?",
        ),
        Mistake(
            "T squared is missing",
            _kd(_valid, square=False),
            "At T = 3 your loss is nine times too small. What keeps the gradient's scale when the "
            "temperature changes (unit 02)?",
        ),
        Mistake(
            "temperature on the student only",
            _kd(_valid, teacher_temperature=1.0),
            "Only the student's logits are divided by T. Both distributions have to be softened.",
        ),
        Mistake(
            "teacher not detached",
            _kd(_valid, detach=False),
            "A gradient arrives at the teacher's logits. The teacher is a constant.",
        ),
        Mistake(
            "an empty batch passes",
            _kd(_valid, empty=False),
            "A mean over no tokens is NaN, and one NaN ends a training run. Raise a ValueError "
            "that says so.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
