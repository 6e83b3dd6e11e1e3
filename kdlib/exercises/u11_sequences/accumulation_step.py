"""11.accumulation_step."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib import training
from kdlib.checks.criteria import facts, matches, side
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.exercises.u11_sequences.inputs import Reader, flat, right_padded


def _parts(sizes: tuple[tuple[tuple[int, ...], int], ...]):
    """Build a model, an optimiser and micro-batches of the given lengths and widths."""

    def make(g: torch.Generator) -> Arguments:
        model = Reader(g, 9)
        micro_batches = []
        for lengths, width in sizes:
            ids = torch.randint(9, (len(lengths), width + 1), generator=g)
            micro_batches.append((ids[:, :-1], ids[:, 1:], right_padded(lengths, width)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        return {"model": model, "micro_batches": micro_batches, "optimizer": optimizer}

    return make


def _two_updates(answer, a: Arguments) -> dict:
    """Make two updates and write down the losses and the parameters."""
    model, counter = a["model"], _Counter(a["optimizer"])
    out: dict = {}
    for number in (1, 2):
        loss = answer(model, a["micro_batches"], counter)
        out[f"loss of update {number}"] = loss
        out[f"model after update {number}"] = flat(model.parameters())
    out["loss is a plain number"] = type(loss) is float
    out["updates for two calls"] = counter.steps
    return out


class _Counter:
    """An optimiser that counts its steps."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.steps = optimizer, 0

    def step(self, *args, **kwargs):
        self.steps += 1
        return self.optimizer.step(*args, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self.optimizer, name)


def _sum(model, batch):
    inputs, targets, mask = batch
    return F.cross_entropy(model(inputs)[mask], targets[mask], reduction="sum")


def _count(micro_batches, pads=False):
    return sum(m.numel() if pads else int(m.sum()) for _, _, m in micro_batches)


def _accumulate(
    share=lambda loss, mask, parts: loss / _count(parts),
    clear="before",
    step="after",
    report=sum,
    number=True,
):
    """Assemble an update with one thing wrong; `share(sum of nats, mask, parts)`."""

    def wrong(model, micro_batches, optimizer):
        if clear == "before":
            optimizer.zero_grad()
        losses = []
        for batch in micro_batches:
            if clear == "each":
                optimizer.zero_grad()
            loss = share(_sum(model, batch), batch[2], micro_batches)
            loss.backward()
            losses.append(loss.item() if number else loss)
            if step == "each":
                optimizer.step()
        if step == "after":
            optimizer.step()
        return report(losses)

    return wrong


ACCUMULATION_STEP = Exercise(
    id="11.accumulation_step",
    title="One update from several micro-batches",
    reference=training.accumulation_step,
    probes=(
        Probe(
            "two updates",
            "two updates from micro-batches of 13, 3 and 6 valid tokens",
            _parts((((7, 6), 7), ((2, 1), 5), ((6,), 8))),
            run=_two_updates,
        ),
        Probe(
            "one part",
            "two updates from one micro-batch of 9 valid tokens",
            _parts((((5, 4), 6),)),
            run=_two_updates,
        ),
    ),
    criteria=(
        matches("the first loss", 0.75, "one part", "two updates", keys=("loss of update 1",)),
        matches(
            "the model after the first update",
            1.0,
            "one part",
            "two updates",
            keys=("model after update 1",),
        ),
        matches(
            "the model after the second update",
            0.75,
            "two updates",
            keys=("loss of update 2", "model after update 2"),
        ),
        facts(
            "one update for each call",
            0.25,
            "two updates",
            ("updates for two calls", 2, "For two calls the optimiser stepped {seen} times."),
        ),
        side(
            facts(
                "the loss is a plain number",
                0.25,
                "two updates",
                (
                    "loss is a plain number",
                    True,
                    "You return a tensor. Whoever collects it in a list keeps its graph alive.",
                ),
            )
        ),
    ),
    mistakes=(
        Mistake(
            "mean of the micro-batches' means",
            _accumulate(lambda loss, mask, parts: loss / mask.sum() / len(parts)),
            "Each micro-batch is averaged over its own tokens first. With 13, 3 and 6 of them, a "
            "token of the second weighs four times as much as one of the first, and the result "
            "depends on how the batch was split.",
            "huggingface/trl #4719, mended in #6006",
        ),
        Mistake(
            "sum of the micro-batches' means",
            _accumulate(lambda loss, mask, parts: loss / mask.sum()),
            "You add up the means of the micro-batches, so the gradient grows with their number. "
            "What is the one denominator that they all share?",
        ),
        Mistake(
            "divided twice",
            _accumulate(lambda loss, mask, parts: loss / _count(parts) / len(parts)),
            "You divide by the tokens of all micro-batches, and then by the number of "
            "micro-batches again. The first has done it already.",
            "huggingface/trl #6478, in its review",
        ),
        Mistake(
            "the padding is counted below the line",
            _accumulate(lambda loss, mask, parts: loss / _count(parts, pads=True)),
            "Your denominator counts places, padding included. Count what you added up.",
        ),
        Mistake(
            "not divided",
            _accumulate(lambda loss, mask, parts: loss),
            "You sum over tokens and divide by nothing: the size of the update depends on how much "
            "text there is in the batch.",
        ),
        Mistake(
            "gradients cleared in between",
            _accumulate(clear="each"),
            "You clear the gradients for each micro-batch, so only the last one reaches the "
            "optimiser. When should they be cleared?",
        ),
        Mistake(
            "gradients never cleared",
            _accumulate(clear="never"),
            "The second update still holds the first one's gradient. PyTorch adds to `.grad`.",
        ),
        Mistake(
            "an update for each micro-batch",
            _accumulate(step="each"),
            "Your optimiser steps after every micro-batch, so the later ones see another model.",
        ),
        Mistake(
            "no update",
            _accumulate(step="never"),
            "The model is the same after your update as before.",
        ),
        Mistake(
            "only the last loss is returned",
            _accumulate(report=lambda losses: losses[-1]),
            "You return what the last micro-batch contributed. The loss of the update is that of "
            "all of them.",
        ),
        Mistake(
            "the loss with its graph",
            _accumulate(number=False),
            "You return the loss as a tensor that still holds the graphs of all micro-batches, and "
            "their memory is what accumulation was to save.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
