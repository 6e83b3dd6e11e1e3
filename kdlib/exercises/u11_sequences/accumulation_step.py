"""11.accumulation_step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import training
from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between
from kdlib.exercises.u11_sequences.inputs import Reader, flat, scattered

VOCABULARY = 7
Batch = tuple[Tensor, Tensor, Tensor]


def _batch(g: torch.Generator, rows: int) -> Batch:
    """Draw inputs, targets and a mask with gaps, some of whose rows may count nowhere."""
    width = between(g, 3, 6)
    ids = torch.randint(VOCABULARY, (rows, width + 1), generator=g)
    mask = scattered(g, max(rows, 2), width)[:rows]
    mask[0, 0] = True
    return ids[:, :-1], ids[:, 1:], mask


def _momentum(model: Reader) -> torch.optim.Optimizer:
    groups = [
        {"params": model.tokens.parameters(), "lr": 0.1},
        {"params": model.logits.parameters()},
    ]
    return torch.optim.SGD(groups, lr=0.3, momentum=0.9)


def _adam(model: Reader) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)


def _parts(
    number: tuple[int, int],
    optimizer: Callable[[Reader], torch.optim.Optimizer] = _momentum,
    scale: float = 0.7,
    empty: bool = False,
):
    """Build a model, its optimiser, and the micro-batches of two updates.

    The model holds an old gradient. With `empty` a part of each update counts no token.
    """

    def make(g: torch.Generator) -> Arguments:
        model = Reader(g, VOCABULARY, scale)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        updates = []
        for _ in range(2):
            parts = [_batch(g, 1 + (i + 1) % 3) for i in range(between(g, *number))]
            if empty:
                inputs, targets, mask = _batch(g, 2)
                parts.insert(between(g, 0, len(parts)), (inputs, targets, mask & False))
            updates.append(parts)
        return {"model": model, "micro_batches": updates, "optimizer": optimizer(model)}

    return make


@contextmanager
def _watched(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Count how many graphs through the model wait for their `backward` at one time, at most."""
    waiting: set[int] = set()
    most = [0]

    def called(module, inputs, logits) -> None:
        if logits.requires_grad:
            number = len(most)
            waiting.add(number)
            most.append(len(waiting))
            logits.register_hook(lambda gradient: waiting.discard(number))

    handle = model.register_forward_hook(called)
    try:
        yield lambda: max(most)
    finally:
        handle.remove()


def _two_updates(answer, a: Arguments) -> dict:
    """Make two updates and write down the losses, the parameters and what else is to be seen."""
    model, optimizer, steps = a["model"], a["optimizer"], []
    handle = optimizer.register_step_post_hook(lambda *given: steps.append(1))
    out: dict = {}
    with _watched(model) as graphs:
        for number, parts in enumerate(a["micro_batches"], start=1):
            loss = answer(model, parts, optimizer)
            out[f"loss of update {number}"] = loss
            out[f"model after update {number}"] = flat(model.parameters())
        out["graphs at one time"] = graphs()
    handle.remove()
    out["loss is a plain number"] = isinstance(loss, float)
    out["updates for two calls"] = len(steps)
    return out


def _sum(model, batch):
    inputs, targets, mask = batch
    return F.cross_entropy(model(inputs)[mask], targets[mask], reduction="sum")


def _sum_everywhere(model, batch):
    inputs, targets, _ = batch
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")


def _count(micro_batches, pads=False):
    return sum(m.numel() if pads else int(m.sum()) for _, _, m in micro_batches)


def _accumulate(
    share=lambda loss, mask, parts: loss / _count(parts),
    nats=_sum,
    clear="before",
    step="after",
    report=sum,
    number=True,
    clip=False,
    again=False,
):
    """Assemble an update with one thing wrong; `share(sum of nats, mask, parts)`."""

    def wrong(model, micro_batches, optimizer):
        if clear == "before":
            optimizer.zero_grad()
        losses = []
        for batch in micro_batches:
            if clear == "each":
                optimizer.zero_grad()
            loss = share(nats(model, batch), batch[2], micro_batches)
            loss.backward()
            losses.append(loss.item() if number else loss)
            if step == "each":
                optimizer.step()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if step == "after":
            optimizer.step()
        if step == "by hand":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= optimizer.param_groups[0]["lr"] * parameter.grad
        if again:
            with torch.no_grad():
                losses = [float(share(nats(model, b), b[2], micro_batches)) for b in micro_batches]
        return report(losses)

    return wrong


def _one_graph(model, micro_batches, optimizer):
    """Keep all graphs until the end."""
    loss = sum(_sum(model, batch) for batch in micro_batches) / _count(micro_batches)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _weighted_means(model, micro_batches, optimizer):
    """Multiply each mean by its share, which is zero times NaN for a part without a token."""
    return _accumulate(
        share=lambda loss, mask, parts: loss / mask.sum() * (mask.sum() / _count(parts))
    )(model, micro_batches, optimizer)


ACCUMULATION_STEP = Exercise(
    id="11.accumulation_step",
    title="One update from several micro-batches",
    reference=training.accumulation_step,
    probes=tuple(
        Probe(name, about, make, run=_two_updates)
        for name, about, make in (
            ("one part", "two updates from one micro-batch each", _parts((1, 1))),
            ("two updates", "two updates from several micro-batches", _parts((3, 4))),
            ("steep", "a model with large gradients", _parts((2, 3), scale=3.0)),
            (
                "an empty part",
                "two updates of AdamW, with a micro-batch in which no token counts",
                _parts((2, 2), _adam, empty=True),
            ),
        )
    ),
    criteria=(
        matches("the first loss", 0.5, "one part", "two updates", keys=("loss of update 1",)),
        matches(
            "the model after the first update",
            0.75,
            "one part",
            "two updates",
            keys=("model after update 1",),
        ),
        matches(
            "loss and model after the second update",
            0.5,
            "two updates",
            "steep",
            keys=("loss of update 2", "model after update 2"),
        ),
        matches(
            "a micro-batch without a valid token",
            0.25,
            "an empty part",
            keys=(
                *("loss of update 1", "model after update 1"),
                *("loss of update 2", "model after update 2"),
            ),
        ),
        side(
            facts(
                "one update for each call",
                0.25,
                "two updates",
                ("updates for two calls", 2, "For two calls the optimiser stepped {seen} times."),
            )
        ),
        side(
            facts(
                "one graph at a time",
                0.25,
                "two updates",
                (
                    "graphs at one time",
                    1,
                    "At one time {seen} graphs through the model waited for their `backward()`. "
                    "One should be held, or nothing is saved.",
                ),
            )
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
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "mean of the micro-batches' means",
            _accumulate(lambda loss, mask, parts: loss / mask.sum() / len(parts)),
            "Each micro-batch is averaged over its own tokens first. A token of a short one weighs "
            "more than one of a long one, and the result depends on how the batch was split.",
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
            "divided by the rows",
            _accumulate(lambda loss, mask, parts: loss / sum(len(m) for _, _, m in parts)),
            "You divide by the rows of all micro-batches. The mean is one over tokens.",
        ),
        Mistake(
            "the padding is counted below the line",
            _accumulate(lambda loss, mask, parts: loss / _count(parts, pads=True)),
            "Your denominator counts places, padding included. Count what you added up.",
        ),
        Mistake(
            "the mask is not used",
            _accumulate(
                lambda loss, mask, parts: loss / _count(parts, pads=True), nats=_sum_everywhere
            ),
            "Every target counts in your loss, valid or not. What is the mask for?",
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
            "An older gradient is still in your update: that of the update before, or one that "
            "was there when you began. PyTorch adds to `.grad`.",
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
            "the optimiser left out",
            _accumulate(step="by hand"),
            "You subtract the gradient yourself, at one rate for all. The optimiser that you are "
            "given has rates of its own, and remembers earlier gradients.",
        ),
        Mistake(
            "gradients clipped",
            _accumulate(clip=True),
            "You clip the gradient before the step. Many trainers do; nobody asked this one to, "
            "and large gradients lose their length.",
        ),
        Mistake(
            "only the last loss is returned",
            _accumulate(report=lambda losses: losses[-1]),
            "You return what the last micro-batch contributed. The loss of the update is that of "
            "all of them.",
        ),
        Mistake(
            "the loss after the update",
            _accumulate(again=True),
            "You compute the loss once more with the model that has just been updated. The one "
            "that the gradient came from is asked for.",
        ),
        Mistake(
            "the loss with its graph",
            _accumulate(number=False),
            "You return the loss as a tensor that still holds the graphs of all micro-batches, and "
            "their memory is what accumulation was to save.",
        ),
        Mistake(
            "all graphs at once",
            _one_graph,
            "Your update is right, and it keeps the graphs of all micro-batches until the one "
            "`backward()` at the end. Then the large batch would have fitted, too. What could "
            "`backward()` in each micro-batch do for you?",
        ),
        Mistake(
            "zero times the mean of nothing",
            _weighted_means,
            "In a micro-batch without a valid token the mean is NaN, and no weight makes NaN "
            "harmless. Which reduction of nothing is a number?",
        ),
    ),
    minutes=12,
    difficulty=2,
)
