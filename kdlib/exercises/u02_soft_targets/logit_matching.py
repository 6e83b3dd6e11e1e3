"""02.logit_matching_gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib import losses
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Exercise, Mistake, Probe
from kdlib.exercises.u02_soft_targets.inputs import another_pair, pair, sizes

LOGIT_MATCHING = Exercise(
    id="02.logit_matching_gradient",
    title="The limit of high temperature",
    reference=losses.logit_matching_gradient,
    probes=(
        Probe("plain", "6 rows of 10 classes, T = 3", pair(), sizes=sizes(6, 10, 3.0)),
        Probe("other", "4 rows of 5 classes, T = 7", pair(4, 5, 7.0), sizes=sizes(4, 5, 7.0)),
        Probe("another batch", "a batch of another size, at another T", another_pair),
        Probe("one row", "a single row of 2 classes, T = 0.5", pair(1, 2, 0.5)),
        Probe("float32", "float32 logits", pair(5, 3, dtype=torch.float32)),
        Probe("shifted", "logits with a constant added to each row", pair(shift=7.0)),
        Probe("equal", "a student equal to the teacher", pair(equal=True)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "other", "another batch", "one row", "float32"),
        matches("a constant added to a row changes nothing", 0.5, "shifted"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "logits not centred",
            (lambda s, t, T: (s - t) / (s.shape[-1] * T**2)),
            "Equation 4 of the paper holds for logits whose mean is zero in each row. Yours are "
            "used as they come, so a constant added to a row changes the result.",
        ),
        Mistake(
            "one T too few",
            (lambda s, t, T: _centred(s - t) / (s.shape[-1] * T)),
            "One factor 1/T comes from the chain rule, a second from exp(z/T) being about "
            "1 + z/T. You have one of them.",
        ),
        Mistake(
            "the number of classes is missing",
            (lambda s, t, T: _centred(s - t) / T**2),
            "At high temperature every probability is near 1/N. That N is missing.",
        ),
        Mistake(
            "divided by rows, not classes",
            (lambda s, t, T: _centred(s - t) / (len(s) * T**2)),
            "C in the equation is the number of classes, not of rows.",
        ),
        Mistake(
            "centred over the batch",
            (lambda s, t, T: ((s - t) - (s - t).mean(0)) / (s.shape[-1] * T**2)),
            "You subtract the mean of each class over the batch. Centre each row over its classes.",
        ),
        Mistake(
            "centred over everything",
            (lambda s, t, T: ((s - t) - (s - t).mean()) / (s.shape[-1] * T**2)),
            "You subtract one number, the mean of the whole batch. Each row has a mean of its own.",
        ),
        Mistake(
            "probabilities at T = 1",
            (lambda s, t, T: (s.softmax(-1) - t.softmax(-1)) / T),
            "This is a gradient of probabilities at T = 1. In the limit no softmax is left: the "
            "logits themselves are compared.",
        ),
        Mistake(
            "sign turned round",
            (lambda s, t, T: _centred(t - s) / (s.shape[-1] * T**2)),
            "Your gradient points the other way: it would drive the logits apart.",
        ),
    ),
    minutes=8,
    difficulty=1,
)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)
