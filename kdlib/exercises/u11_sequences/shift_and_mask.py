"""11.shift_and_mask."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import facts, matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.data.text import EOS
from kdlib.losses import sequences as sequence_losses


def _rows(lengths: tuple[int, ...], prompts: tuple[int, ...], width: int, turn: bool = False):
    """Build rows of bytes that end in EOS and are filled with EOS."""

    def make(g: torch.Generator) -> Arguments:
        ids = torch.randint(EOS, (len(lengths), width), generator=g)
        for row, length in zip(ids, lengths, strict=True):
            row[length - 1 :] = EOS
        if turn:
            ids[:, 4] = EOS
        return {
            "ids": ids,
            "lengths": torch.tensor(lengths),
            "prompt_lengths": torch.tensor(prompts),
        }

    return make


def _named(answer, a: Arguments) -> dict:
    inputs, targets, mask = answer(*a.values())
    kind = str(mask.dtype).removeprefix("torch.")
    return {"inputs": inputs, "targets": targets, "mask": mask, "kind of mask": kind}


def _shift(
    inputs=lambda ids: ids[:, :-1],
    targets=lambda ids: ids[:, 1:],
    real=lambda position, lengths, targets: position < lengths[:, None],
    output=lambda position, prompts: position >= prompts[:, None],
):
    """Assemble an answer with one part wrong; `position` is that of the target in its row."""

    def wrong(ids, lengths, prompt_lengths):
        y = targets(ids)
        position = torch.arange(1, ids.shape[1])
        return inputs(ids), y, real(position, lengths, y) & output(position, prompt_lengths)

    return wrong


SHIFT_AND_MASK = Exercise(
    id="11.shift_and_mask",
    title="Shift and mask",
    reference=sequence_losses.shift_and_mask,
    probes=(
        Probe(
            "plain",
            "4 rows of up to 9 tokens, no prompt",
            _rows((9, 5, 7, 2), (1, 1, 1, 1), 9),
            run=_named,
        ),
        Probe(
            "prompts",
            "5 rows of up to 12 tokens with prompts of 3, 1, 6, 2 and 4",
            _rows((12, 7, 11, 5, 9), (3, 1, 6, 2, 4), 12),
            run=_named,
        ),
        Probe(
            "turn",
            "3 rows with an EOS in the middle, as after a turn in a chat",
            _rows((10, 8, 7), (2, 3, 1), 10, turn=True),
            run=_named,
        ),
    ),
    criteria=(
        matches("inputs and targets", 1.0, "plain", "prompts", keys=("inputs", "targets")),
        matches("the mask without prompts", 0.75, "plain", keys=("mask",)),
        matches("the mask with prompts", 0.75, "prompts", keys=("mask",)),
        matches("an EOS inside a row counts", 0.5, "turn", keys=("mask",)),
        facts(
            "the mask is boolean",
            0.25,
            "plain",
            ("kind of mask", "bool", "The mask's type is {seen}. Indexing needs true or false."),
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
            "one prompt length for all rows",
            _shift(output=lambda position, prompts: position >= prompts.max()),
            "You cut every row at the longest prompt of the batch. Rows with shorter prompts lose "
            "the beginning of their outputs.",
            "huggingface/trl #6006, repaired on the way",
        ),
    ),
    minutes=12,
    difficulty=2,
)
