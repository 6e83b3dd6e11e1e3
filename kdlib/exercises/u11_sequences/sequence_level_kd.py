"""11.sequence_level_kd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between
from kdlib.exercises.u11_sequences.inputs import Reader, flat, uneven
from kdlib.losses import sequences as sequence_losses


def _outputs(cut: bool = False, begun: bool = False, scale: float = 0.7, single: bool = False):
    """Build a student, prompts, and outputs with their EOS among them; all sizes are drawn.

    Args:
        cut: whether some outputs were cut off before their EOS.
        begun: whether prompts hold EOS.
        scale: of the student's weights.
        single: a student in float32.
    """

    def make(g: torch.Generator) -> Arguments:
        V, rows, P, N = between(g, 6, 9), between(g, 3, 5), between(g, 2, 5), between(g, 4, 7)
        eos = between(g, 0, V - 1)
        prompts, outputs = (
            (eos + torch.randint(1, V, (rows, width), generator=g)) % V for width in (P, N)
        )
        lengths = uneven(g, rows, N)
        edge = -1 if begun else 0  # neither the first row nor the last is always a full one
        least = lengths.index(min(lengths))
        lengths[edge], lengths[least] = lengths[least], lengths[edge]
        for number, (row, length) in enumerate(zip(outputs, lengths, strict=True)):
            row[length if cut and number % 2 == 0 else length - 1 :] = eos
        if cut:
            outputs[0] = (outputs[0] + (outputs[0] == eos).long()) % V  # no EOS at all
        if begun:
            prompts[:, 0] = eos
            prompts[0, -1] = eos
        student = Reader(g, V, scale)
        student = student.float() if single else student
        return {"student": student, "prompts": prompts, "outputs": outputs, "eos": eos}

    return make


def _short(g: torch.Generator) -> Arguments:
    """Build one prompt of one token, and an output of one token."""
    tokens = torch.randint(5, (2, 1, 1), generator=g)
    return {"student": Reader(g, 5), "prompts": tokens[0], "outputs": tokens[1], "eos": 4}


def _with_gradient(answer, a: Arguments) -> dict:
    loss = answer(*a.values())
    gradients = torch.autograd.grad(loss, list(a["student"].parameters()))
    return {"loss": loss, "gradient of the student": flat(gradients)}


def _until(outputs, eos):
    ended = (outputs == eos).long().cumsum(1)
    return (ended == 0) | ((ended == 1) & (outputs == eos))


def _cross_entropy(z: Tensor, outputs: Tensor) -> Tensor:
    return F.cross_entropy(z.transpose(1, 2), outputs, reduction="none")


def _by_softmax(z: Tensor, outputs: Tensor) -> Tensor:
    return -z.softmax(-1).gather(-1, outputs[..., None])[..., 0].log()


def _sequence(
    mask=_until, reduce=lambda nats, mask: nats[mask].mean(), logits=None, nats=_cross_entropy
):
    """Assemble a loss with one part wrong."""

    def wrong(student, prompts, outputs, eos):
        rows = torch.cat([prompts, outputs], dim=1)
        if logits is None:
            z = student(rows[:, :-1])[:, prompts.shape[1] - 1 :]
        else:
            z = logits(student, prompts, outputs, rows)
        return reduce(nats(z, outputs), mask(outputs, eos))

    return wrong


def _behind_the_first(outputs: Tensor) -> Tensor:
    return torch.arange(outputs.shape[1]).expand_as(outputs) > 0


def _cut_by_the_prompt(student, prompts, outputs, eos):
    """Look for the first EOS in prompt and output together."""
    P = prompts.shape[1]
    rows = torch.cat([prompts, outputs], dim=1)
    nats = _cross_entropy(student(rows[:, :-1])[:, P - 1 :], outputs)
    return nats[_until(rows, eos)[:, P:]].mean()


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
    probes=tuple(
        Probe(name, about, make, run=_with_gradient, atol=1e-4 if name == "sure" else 1e-8)
        for name, about, make in (
            ("plain", "outputs of several lengths", _outputs()),
            ("cut", "outputs of which some were cut off before their EOS", _outputs(cut=True)),
            ("EOS in front", "prompts that hold EOS", _outputs(begun=True)),
            ("short", "one prompt of one token, and one token of output", _short),
            (
                "sure",
                "a student in float32 whose logits are hundreds apart",
                _outputs(scale=60.0, single=True),
            ),
        )
    ),
    criteria=(
        matches("the loss", 1.0, "plain", "short", keys=("loss",)),
        matches(
            "the student's gradient", 0.75, "plain", "short", keys=("gradient of the student",)
        ),
        matches("outputs that were cut off", 0.5, "cut", keys=("loss", "gradient of the student")),
        matches("EOS in a prompt", 0.25, "EOS in front", keys=("loss", "gradient of the student")),
        matches(
            "a student that is sure and wrong",
            0.25,
            "sure",
            keys=("loss", "gradient of the student"),
        ),
        tidy(0.25),
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
        Mistake(
            "summed over tokens",
            _sequence(reduce=lambda nats, mask: nats[mask].sum()),
            "You add up the tokens and divide by nothing: a larger batch makes larger steps.",
        ),
        Mistake(
            "an EOS of the prompt ends the output",
            _cut_by_the_prompt,
            "You look for the first EOS in the whole row. A prompt may hold one, and then nothing "
            "of what the teacher wrote is left. Only an EOS of the output ends it.",
        ),
        Mistake(
            "outputs that were cut off are left out",
            _sequence(
                mask=lambda outputs, eos: _until(outputs, eos) & (outputs == eos).any(1)[:, None]
            ),
            "A row without EOS does not count at all in your loss. It was cut off; what the "
            "teacher wrote up to there is as good as the rest.",
        ),
        Mistake(
            "one output length for all rows",
            _sequence(mask=lambda outputs, eos: _until(outputs, eos).all(0).expand_as(outputs)),
            "You cut all outputs at the shortest one.",
        ),
        Mistake(
            "the last token of each output is missing",
            _sequence(mask=lambda outputs, eos: F.pad(_until(outputs, eos)[:, 1:], (0, 1))),
            "Your mask is one token short: the last valid token of each output does not count.",
        ),
        Mistake(
            "the first token of each output is missing",
            _sequence(mask=lambda outputs, eos: _until(outputs, eos) & _behind_the_first(outputs)),
            "The first token of each output does not count in your loss. It is predicted at the "
            "last token of the prompt.",
        ),
        Mistake(
            "logarithm of a softmax",
            _sequence(nats=_by_softmax),
            "Where the student is sure and wrong, the probability of what comes is zero in "
            "float32, and its logarithm is minus infinity. How do you get the logarithm without "
            "the probability?",
        ),
        Mistake(
            "the sign",
            _sequence(reduce=lambda nats, mask: -nats[mask].mean()),
            "Yours is the log-likelihood, and what minimises it makes the teacher's output "
            "improbable. Look at the sign in front of the equation.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
