"""11.sequence_level_kd."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import matches
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.exercises.u11_sequences.inputs import Reader, flat
from kdlib.losses import sequences as sequence_losses

EOS = 8


def _outputs(lengths: tuple[int, ...], width: int, prompt: int, cut: bool = False):
    """Build a student, prompts, and outputs of these lengths with their EOS among them."""

    def make(g: torch.Generator) -> Arguments:
        student = Reader(g, 9)
        prompts = torch.randint(EOS, (len(lengths), prompt), generator=g)
        outputs = torch.randint(EOS, (len(lengths), width), generator=g)
        for row, length in zip(outputs, lengths, strict=True):
            row[length if cut else length - 1 :] = EOS
        return {"student": student, "prompts": prompts, "outputs": outputs, "eos": EOS}

    return make


def _with_gradient(answer, a: Arguments) -> dict:
    loss = answer(*a.values())
    gradients = torch.autograd.grad(loss, list(a["student"].parameters()))
    return {"loss": loss, "gradient of the student": flat(gradients)}


def _until(outputs, eos):
    ended = (outputs == eos).long().cumsum(1)
    return (ended == 0) | ((ended == 1) & (outputs == eos))


def _sequence(mask=_until, reduce=lambda nats, mask: nats[mask].mean(), logits=None):
    """Assemble a loss with one part wrong."""

    def wrong(student, prompts, outputs, eos):
        rows = torch.cat([prompts, outputs], dim=1)
        if logits is None:
            z = student(rows[:, :-1])[:, prompts.shape[1] - 1 :]
        else:
            z = logits(student, prompts, outputs, rows)
        nats = F.cross_entropy(z.transpose(1, 2), outputs, reduction="none")
        return reduce(nats, mask(outputs, eos))

    return wrong


def _prompt_too(student, prompts, outputs, eos):
    rows = torch.cat([prompts, outputs], dim=1)
    nats = F.cross_entropy(student(rows[:, :-1]).transpose(1, 2), rows[:, 1:], reduction="none")
    mask = F.pad(_until(outputs, eos), (prompts.shape[1] - 1, 0), value=True)
    return nats[mask].mean()


def _all_but_eos(student, prompts, outputs, eos):
    rows = torch.cat([prompts, outputs], dim=1)
    logits = student(rows[:, :-1]).flatten(0, 1)
    return F.cross_entropy(logits, rows[:, 1:].flatten(), ignore_index=eos)


def _without_prompt(student, prompts, outputs, rows):
    start = prompts[:, -1:]
    return student(torch.cat([start, outputs[:, :-1]], dim=1))


SEQUENCE_LEVEL_KD = Exercise(
    id="11.sequence_level_kd",
    title="Sequence-level distillation",
    reference=sequence_losses.sequence_level_kd,
    probes=(
        Probe(
            "plain",
            "4 outputs of 6, 3, 5 and 2 tokens after prompts of 3",
            _outputs((6, 3, 5, 2), 6, 3),
            run=_with_gradient,
        ),
        Probe(
            "cut",
            "3 outputs of which two were cut off before their EOS, after prompts of 4",
            _outputs((7, 7, 3), 7, 4, cut=True),
            run=_with_gradient,
        ),
    ),
    criteria=(
        matches("the loss", 1.5, "plain", keys=("loss",)),
        matches("the student's gradient", 1.0, "plain", keys=("gradient of the student",)),
        matches("outputs that were cut off", 0.5, "cut", keys=("loss", "gradient of the student")),
    ),
    mistakes=(
        Mistake(
            "the padding counts",
            _sequence(mask=lambda outputs, eos: torch.ones_like(outputs, dtype=torch.bool)),
            "Every EOS behind the first one counts in your loss. The student learns to say EOS "
            "after EOS, which is easy, and the loss flatters it.",
        ),
        Mistake(
            "EOS does not count",
            _sequence(mask=lambda outputs, eos: outputs != eos),
            "You leave out every EOS, the first one too. Your student will write its translation "
            "and then go on writing.",
            "huggingface/trl #6357",
        ),
        Mistake(
            "the prompt counts",
            _prompt_too,
            "The prompt's own tokens are in your mean. Teacher and student are given the prompt; "
            "only what the teacher wrote is to be learned.",
        ),
        Mistake(
            "the prompt counts, and EOS does not",
            _all_but_eos,
            "You count everything that is not EOS. The prompt is to be read, not learned, and the "
            "first EOS of an output is to be learned: it is how the student stops.",
            "huggingface/trl #6357",
        ),
        Mistake(
            "no shift",
            _sequence(logits=lambda student, p, o, rows: student(rows)[:, p.shape[1] :]),
            "You compare the logits at a token with that very token. The first token of the output "
            "is predicted at the last one of the prompt.",
        ),
        Mistake(
            "the prompt is not read",
            _sequence(logits=_without_prompt),
            "Your student does not see the whole prompt when it predicts the output. It cannot "
            "translate what it has not read.",
        ),
        Mistake(
            "divided by the number of rows",
            _sequence(reduce=lambda nats, mask: (nats * mask).sum() / len(mask)),
            "You sum over the tokens of a row and average over rows: the log-probability of a "
            "sequence, as the paper writes it. Here the loss is a mean over valid tokens.",
        ),
        Mistake(
            "mean of the rows' means",
            _sequence(reduce=lambda nats, mask: ((nats * mask).sum(1) / mask.sum(1)).mean()),
            "You average each output first and then the outputs, so a token of a short one weighs "
            "more.",
        ),
        Mistake(
            "divided by all places",
            _sequence(reduce=lambda nats, mask: (nats * mask).mean()),
            "The padding is left out of the sum and still counted below the line.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
