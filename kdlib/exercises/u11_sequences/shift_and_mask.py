"""11.shift_and_mask."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between
from kdlib.data.text import EOS
from kdlib.exercises.u11_sequences.inputs import uneven
from kdlib.losses import sequences as sequence_losses


def _rows(rows: tuple[int, int], width: tuple[int, int], prompts=True, turn=False):
    """Build rows of bytes that end in EOS and are filled with EOS; all sizes are drawn.

    With `turn` an EOS stands in each prompt of two tokens or more, and one in each output.
    """

    def make(g: torch.Generator) -> Arguments:
        B, T = between(g, *rows), between(g, *width)
        lengths = uneven(g, B, T, least=5)
        read = [between(g, 1, n - 3) if prompts else 1 for n in lengths]
        if prompts:
            read[0], read[-1] = 1, lengths[-1] - 3
        ids = torch.randint(EOS, (B, T), generator=g)
        for row, length, prompt in zip(ids, lengths, read, strict=True):
            row[length - 1 :] = EOS
            if turn:
                row[between(g, prompt, length - 2)] = EOS
                row[prompt - 1] = EOS
        return {
            "ids": ids,
            "lengths": torch.tensor(lengths),
            "prompt_lengths": torch.tensor(read),
        }

    return make


def _awkward(g: torch.Generator) -> Arguments:
    """Build rows filled with bytes, of which some are a prompt and nothing else."""
    B, T = between(g, 3, 6), between(g, 4, 8)
    read = [between(g, 1, T - 1) for _ in range(B)]
    lengths = [between(g, p, T) for p in read]
    read[0] = lengths[0] = between(g, 2, T)
    read[1], lengths[1] = 1, between(g, 1, T - 1)
    ids = torch.randint(EOS, (T, B), generator=g).T  # with strides turned round
    for row, length in zip(ids, lengths, strict=True):
        row[length - 1] = EOS
    return {"ids": ids, "lengths": torch.tensor(lengths), "prompt_lengths": torch.tensor(read)}


def _one_row(g: torch.Generator) -> Arguments:
    return {
        "ids": torch.randint(EOS, (1, 2), generator=g),
        "lengths": torch.tensor([between(g, 1, 2)]),
        "prompt_lengths": torch.ones(1, dtype=torch.long),
    }


def _named(answer, a: Arguments) -> dict:
    inputs, targets, mask = answer(*a.values())
    kind = str(mask.dtype).removeprefix("torch.")
    return {"inputs": inputs, "targets": targets, "mask": mask, "kind of mask": kind}


def _shift(
    inputs=lambda ids: ids[:, :-1],
    targets=lambda ids: ids[:, 1:],
    real=lambda position, lengths, targets: position < lengths[:, None],
    output=lambda position, prompts: position >= prompts[:, None],
    finish=lambda mask: mask,
):
    """Assemble an answer with one part wrong; `position` is that of the target in its row."""

    def wrong(ids, lengths, prompt_lengths):
        y = targets(ids)
        position = torch.arange(1, ids.shape[1])
        mask = real(position, lengths, y) & output(position, prompt_lengths)
        return inputs(ids), y, finish(mask)

    return wrong


def _lengths_of_outputs(ids, lengths, prompt_lengths):
    position = torch.arange(1, ids.shape[1])
    begin = prompt_lengths[:, None]
    mask = (position >= begin) & (position < begin + lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask


SHIFT_AND_MASK = Exercise(
    id="11.shift_and_mask",
    title="Shift and mask",
    reference=sequence_losses.shift_and_mask,
    probes=tuple(
        Probe(name, about, make, run=_named)
        for name, about, make in (
            ("plain", "rows of several lengths, no prompt", _rows((3, 5), (7, 10), prompts=False)),
            ("prompts", "rows and prompts of several lengths", _rows((3, 6), (8, 12))),
            (
                "turn",
                "rows with an EOS in the prompt and one in the middle, as after a turn in a chat",
                _rows((3, 4), (7, 11), turn=True),
            ),
            (
                "awkward",
                "rows that are filled with bytes, of which one is a prompt and nothing else",
                _awkward,
            ),
            ("one row", "a single row of two tokens", _one_row),
        )
    ),
    criteria=(
        matches(
            "inputs and targets",
            1.0,
            "plain",
            "prompts",
            "awkward",
            "one row",
            keys=("inputs", "targets"),
        ),
        matches("the mask without prompts", 0.75, "plain", keys=("mask",)),
        matches("the mask with prompts", 0.75, "prompts", "awkward", "one row", keys=("mask",)),
        matches("an EOS inside a row counts", 0.5, "turn", keys=("mask",)),
        side(
            facts(
                "the mask is boolean",
                0.25,
                "plain",
                (
                    "kind of mask",
                    "bool",
                    "The mask's type is {seen}. Indexing needs true or false.",
                ),
            )
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "no shift",
            _shift(targets=lambda ids: ids[:, :-1]),
            "Your targets are the inputs: the model is asked to repeat the token that it has just "
            "read, learns to in no time, and the loss looks wonderful. Which token should the "
            "logits at position t predict?",
            "modelscope/ms-swift #8436",
        ),
        Mistake(
            "shifted the wrong way",
            _shift(inputs=lambda ids: ids[:, 1:], targets=lambda ids: ids[:, :-1]),
            "Your model reads a token and predicts the one before it, which it has seen already.",
        ),
        Mistake(
            "the mask compares with the padding token",
            _shift(real=lambda position, lengths, targets: targets != EOS),
            "Your mask drops every EOS, not only the padding, because both are the same token. The "
            "student never learns to stop. What else do you know about where a row ends?",
            "huggingface/trl #6357",
        ),
        Mistake(
            "the mask compares with the padding token, and the prompt counts",
            _shift(
                real=lambda position, lengths, targets: targets != EOS,
                output=lambda position, prompts: position > 0,
            ),
            "Your mask drops every EOS, not only the padding, because both are the same token; and "
            "it takes no notice of the prompts. Both ends of what counts follow from lengths.",
            "huggingface/trl #6357",
        ),
        Mistake(
            "everything behind the first EOS is dropped",
            _shift(
                real=lambda position, lengths, targets: (
                    (targets == EOS).cumsum(1) - (targets == EOS).long() == 0
                )
            ),
            "Your mask ends a row at its first EOS. A chat holds one after each turn, and a prompt "
            "may hold one, too. What are the lengths for?",
        ),
        Mistake(
            "the mask is not shifted",
            _shift(
                real=lambda position, lengths, targets: position - 1 < lengths[:, None],
                output=lambda position, prompts: position - 1 >= prompts[:, None],
            ),
            "Your mask belongs to the *inputs*. A loss belongs to a target, which stands one place "
            "further on: shift the mask as you shift the targets.",
        ),
        Mistake(
            "the first padding counts",
            _shift(real=lambda position, lengths, targets: position - 1 < lengths[:, None]),
            "In each short row one token too many counts. Your mask asks whether the *input* at "
            "a place is real; a loss belongs to the *target*, one further on.",
        ),
        Mistake(
            "the padding counts",
            _shift(real=lambda position, lengths, targets: position > 0),
            "Your mask has no end: what fills a short row counts as well, and the student learns "
            "to fill.",
        ),
        Mistake(
            "the closing EOS does not count",
            _shift(real=lambda position, lengths, targets: position + 1 < lengths[:, None]),
            "The last real target of each row, its EOS, is masked. Who teaches the student to "
            "stop? The lengths you are given include the EOS.",
        ),
        Mistake(
            "the prompt counts",
            _shift(output=lambda position, prompts: position > 0),
            "You let the prompt's tokens count. They are read, not learned: the student is not "
            "asked to write its users' questions.",
            "huggingface/trl #6006, in its review",
        ),
        Mistake(
            "the first token of the output does not count",
            _shift(output=lambda position, prompts: position > prompts[:, None]),
            "The first token after the prompt does not count in your mask. It is the one that "
            "the last token of the prompt has to predict.",
        ),
        Mistake(
            "the last token of the prompt counts",
            _shift(output=lambda position, prompts: position >= prompts[:, None] - 1),
            "Your mask begins one token early: the prompt's last token counts as a target.",
        ),
        Mistake(
            "one prompt length for all rows",
            _shift(output=lambda position, prompts: position >= prompts.max()),
            "You cut every row at the longest prompt of the batch. Rows with shorter prompts lose "
            "the beginning of their outputs.",
            "huggingface/trl #6006, repaired on the way",
        ),
        Mistake(
            "lengths counted from the end of the prompt",
            _lengths_of_outputs,
            "You count a row's length from the end of its prompt. `lengths` counts all of its real "
            "tokens, those of the prompt among them.",
        ),
        Mistake(
            "the mask is inverted",
            _shift(finish=lambda mask: ~mask),
            "Your mask is True where a target does *not* count.",
        ),
        Mistake(
            "a mask of numbers",
            _shift(finish=lambda mask: mask.long()),
            "Your mask holds 0 and 1. `logits[mask]` would take them for numbers of rows: it has "
            "to be True or False.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
