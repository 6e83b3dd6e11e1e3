"""00.nll."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import evaluation
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw
from kdlib.exercises.u00_start.numbers import A_TENSOR, number, python_float


def _labelled(
    rows: int,
    classes: int,
    scale: float = 3.0,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float64,
):
    def make(g: torch.Generator) -> Arguments:
        targets = torch.randint(classes, (rows,), generator=g)
        logits = draw(g, rows, classes, scale=scale) + shift
        return {"logits": logits.to(dtype), "targets": targets}

    return make


def _another_batch(g: torch.Generator) -> Arguments:
    """Draw the sizes, and leave the last class without a row."""
    rows, classes = between(g, 20, 60), between(g, 3, 12)
    targets = torch.randint(classes - 1, (rows,), generator=g)
    return {"logits": draw(g, classes, rows).T, "targets": targets}


def _of_target(values: Tensor, targets: Tensor) -> Tensor:
    return values.gather(-1, targets[:, None]).squeeze(-1)


def _sizes(rows: int, classes: int) -> dict[str, float]:
    return {"the number of rows": rows, "the number of classes": classes}


NLL = Exercise(
    id="00.nll",
    title="Negative log-likelihood",
    reference=evaluation.nll,
    probes=(
        Probe(
            "plain", "16 rows of 10 classes", _labelled(16, 10), run=number, sizes=_sizes(16, 10)
        ),
        Probe("few", "5 rows of 3 classes", _labelled(5, 3), run=number, sizes=_sizes(5, 3)),
        Probe(
            "another batch",
            "a batch of another size, without the last class",
            _another_batch,
            run=number,
        ),
        Probe("one row", "a single row of 2 classes", _labelled(1, 2), run=number),
        Probe(
            "float32",
            "float32 logits near 1000",
            _labelled(9, 4, shift=1000.0, dtype=torch.float32),
            run=number,
            atol=1e-3,  # the float32 of a logit near 1000
        ),
        Probe(
            "certain",
            "32 rows of a model that is sure of itself and mostly wrong (logits in the thousands)",
            _labelled(32, 10, scale=2000.0),
            run=number,
        ),
    ),
    criteria=(
        matches(
            "the mean over the rows, in nats",
            1.0,
            "plain",
            "few",
            "another batch",
            "one row",
            "float32",
            keys=("value",),
        ),
        matches("certain and wrong", 1.0, "certain", keys=("value",)),
        python_float(0.5, "plain"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "a sum",
            lambda logits, targets: F.cross_entropy(logits, targets, reduction="sum").item(),
            "Your number grows with the number of rows. A mean over the rows is asked for.",
        ),
        Mistake(
            "mean over rows and classes",
            lambda logits, targets: F.cross_entropy(logits, targets).item() / logits.shape[-1],
            "You divide by the number of entries. Each row adds one number, of its true class.",
        ),
        Mistake(
            "log of a softmax that underflows",
            lambda logits, targets: -_of_target(logits.softmax(-1), targets).log().mean().item(),
            "On certain and wrong rows the probability of the true class is too small for floating "
            "point, becomes zero, and its logarithm is minus infinity. Which function gives the "
            "logarithm without passing through the probability?",
        ),
        Mistake(
            "probabilities clamped",
            lambda logits, targets: (
                -_of_target(logits.softmax(-1), targets).clamp(min=1e-12).log().mean().item()
            ),
            "No infinity any more, and a wrong number instead: a floor under the probability puts "
            "a ceiling on how much a certain mistake costs.",
        ),
        Mistake(
            "sign",
            lambda logits, targets: -F.cross_entropy(logits, targets).item(),
            "Your number is negative: that is the log-likelihood itself.",
        ),
        Mistake(
            "base 2",
            lambda logits, targets: F.cross_entropy(logits, targets).item() / 0.6931471805599453,
            "That is in bits. The course counts in nats, with the natural logarithm.",
        ),
        Mistake(
            "probabilities for log-probabilities",
            lambda logits, targets: F.nll_loss(logits.softmax(-1), targets).item(),
            "You average probabilities; no logarithm is taken. In spite of its name `F.nll_loss` "
            "takes none either, it expects log-probabilities.",
        ),
        Mistake(
            "softmax twice",
            lambda logits, targets: F.cross_entropy(logits.softmax(-1), targets).item(),
            "`F.cross_entropy` takes logits and normalises them itself. You gave it probabilities, "
            "so they went through a softmax a second time.",
        ),
        Mistake(
            "softmax over the batch",
            lambda logits, targets: F.nll_loss(logits.log_softmax(0), targets).item(),
            "You normalise over the rows. It is the classes of one row that share a probability "
            "of one.",
        ),
        Mistake(
            "logits not normalised",
            lambda logits, targets: F.nll_loss(logits, targets).item(),
            "You average the logits of the true classes. Adding a constant to a row changes your "
            "number, but not the distribution.",
        ),
        Mistake(
            "log of the mean",
            lambda logits, targets: -_of_target(logits.softmax(-1), targets).mean().log().item(),
            "You average the probabilities first and take the logarithm afterwards. The two do not "
            "commute: one certain mistake has to be expensive.",
        ),
        Mistake("a tensor", lambda logits, targets: F.cross_entropy(logits, targets), A_TENSOR),
    ),
    minutes=10,
    difficulty=1,
)
