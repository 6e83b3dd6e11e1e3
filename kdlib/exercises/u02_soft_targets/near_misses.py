"""02.near_misses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw
from kdlib.evaluation import near_misses


def _labelled(rows: int, classes: int, scale: float = 3.0):
    def make(g: torch.Generator) -> Arguments:
        logits = draw(g, rows, classes, scale=scale)
        # every class occurs, and some more often than others
        targets = torch.cat([torch.arange(classes), torch.arange(classes) ** 2 % classes])
        return {"logits": logits, "targets": targets[torch.randperm(rows, generator=g)]}

    return make


def _another_table(g: torch.Generator) -> Arguments:
    """Draw the sizes; some classes have one example; strides are turned round."""
    classes = between(g, 3, 7)
    rows = classes + between(g, 1, 2 * classes)
    more = torch.randint(classes // 2, (rows - classes,), generator=g)
    targets = torch.cat([torch.arange(classes), more])
    logits = draw(g, classes, rows).T
    return {"logits": logits, "targets": targets[torch.randperm(rows, generator=g)]}


def _single(g: torch.Generator) -> Arguments:
    """Float32 logits far from zero, each second row on the other side of it."""
    made = _labelled(8, 4)(g)
    level = torch.tensor([1000.0, -1000.0]).repeat(4)[:, None]
    return {**made, "logits": (made["logits"] + level).float()}


def _one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    return F.one_hot(targets, logits.shape[-1]).to(logits.dtype)


def _rest(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.masked_fill(_one_hot(logits, targets).bool(), float("-inf")).softmax(-1)


def _true_class_left_in(logits, targets):
    one_hot = _one_hot(logits, targets)
    return one_hot.T @ logits.softmax(-1) / one_hot.sum(0)[:, None]


def _not_renormalised(logits, targets):
    one_hot = _one_hot(logits, targets)
    return one_hot.T @ (logits.softmax(-1) * (1 - one_hot)) / one_hot.sum(0)[:, None]


def _renormalised_last(logits, targets):
    table = _not_renormalised(logits, targets)
    return table / table.sum(-1, keepdim=True)


def _one_minus_p(logits, targets):
    one_hot = _one_hot(logits, targets)
    probs = logits.softmax(-1)
    wrong = probs * (1 - one_hot) / (1 - (probs * one_hot).sum(-1, keepdim=True))
    return one_hot.T @ wrong / one_hot.sum(0)[:, None]


def _what_is_left(floor=0.0, taken_out="before"):
    """Divide by one minus p of the true class, and average class by class."""

    def wrong(logits, targets):
        true, probs = _one_hot(logits, targets).bool(), logits.softmax(-1)
        left = (1 - probs[true]).clamp(min=floor)[:, None]
        if taken_out == "before":
            rows = probs.masked_fill(true, 0.0) / left
        else:
            rows = (probs / left).masked_fill(true, 0.0)
        classes = range(logits.shape[-1])
        return torch.stack([rows[targets == c].mean(0) for c in classes])

    return wrong


def _diagonal_left_in(logits, targets):
    one_hot, probs = _one_hot(logits, targets), logits.softmax(-1)
    rows = probs / (1 - (probs * one_hot).sum(-1, keepdim=True))
    return one_hot.T @ rows / one_hot.sum(0)[:, None]


def _rows_are_predictions(logits, targets):
    return (_one_hot(logits, targets).T @ _rest(logits, targets)).T / _one_hot(logits, targets).sum(
        0
    )


def _over_all_examples(logits, targets):
    return _one_hot(logits, targets).T @ _rest(logits, targets) / len(targets)


NOTHING_LEFT = (
    "You divide by 1 - p of the true class. Right on paper; but where the teacher is certain "
    "that is exactly zero in floating point, and you get infinity and NaN. Take the true class "
    "out of the logits instead, before the softmax."
)

NEAR_MISSES = Exercise(
    id="02.near_misses",
    title="Which wrong classes are nearly right",
    reference=near_misses,
    probes=(
        Probe("plain", "12 examples of 6 classes", _labelled(12, 6)),
        Probe("few classes", "6 examples of 3 classes", _labelled(6, 3)),
        Probe(
            "certain",
            "a teacher so certain that the true class has probability 1 in floating point",
            lambda g: _certain(g),
        ),
        Probe(
            "certain and wrong",
            "a teacher that is certain of the next class, which is wrong",
            lambda g: _certain(g, of_next=1),
        ),
        Probe(
            "another table",
            "a table of another size, some classes with one example",
            _another_table,
        ),
        Probe("two classes", "4 examples of 2 classes", _labelled(4, 2)),
        Probe("float32", "float32 logits near 1000 and near -1000", _single, atol=1e-3),
    ),
    criteria=(
        matches(
            "the table",
            1.5,
            "plain",
            "few classes",
            "another table",
            "two classes",
            "float32",
        ),
        matches("a certain teacher does no harm", 1.0, "certain", "certain and wrong"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "the true class is still in",
            _true_class_left_in,
            "Your diagonal is not zero, and the true class swallows most of each row. "
            "Which entry of each row has to go before you look at what is left?",
        ),
        Mistake(
            "rows not renormalised",
            _not_renormalised,
            "You took the true class out, but what is left of a row no longer sums to one, so a "
            "confident example counts less than a hesitant one.",
        ),
        Mistake(
            "renormalised after averaging",
            _renormalised_last,
            "The order matters: share out each example's own remainder first, then average over "
            "the examples. Averaging first lets the few hesitant examples decide everything.",
        ),
        Mistake(
            "divided by 1 - p of the true class",
            _one_minus_p,
            "Right on paper, and off wherever the teacher is certain: there 1 - p loses all its "
            "digits to rounding, or is exactly zero. Take the true class out of the logits "
            "instead, before the softmax.",
        ),
        Mistake(
            "divided by what is left",
            _what_is_left(),
            NOTHING_LEFT,
        ),
        Mistake(
            "divided by what is left, the true class taken out after that",
            _what_is_left(taken_out="after"),
            NOTHING_LEFT,
        ),
        Mistake(
            "divided by what is left, with a floor",
            _what_is_left(floor=1e-12),
            "Your floor under 1 - p takes the NaN away and leaves rows of almost nothing: where "
            "the teacher is certain, all digits of 1 - p are lost before you divide. Take the "
            "true class out of the logits instead, before the softmax.",
        ),
        Mistake(
            "divided by 1 - p, the true class left in",
            _diagonal_left_in,
            "You divide by 1 - p and leave the true class in its place, so your diagonal is not "
            "zero; and where the teacher is certain you divide by zero.",
        ),
        Mistake(
            "rows and columns exchanged",
            _rows_are_predictions,
            "Your table is transposed: row i is to hold what the teacher says about examples "
            "whose true class is i.",
        ),
        Mistake(
            "averaged over all examples",
            _over_all_examples,
            "Each row has to be divided by the number of examples of its own class, not by the "
            "number of all examples.",
        ),
    ),
    minutes=12,
    difficulty=2,
)


def _certain(g: torch.Generator, of_next: int = 0) -> Arguments:
    arguments = _labelled(12, 6)(g)
    favoured = (arguments["targets"] + of_next) % 6
    arguments["logits"] += 60 * _one_hot(arguments["logits"], favoured)
    return arguments
