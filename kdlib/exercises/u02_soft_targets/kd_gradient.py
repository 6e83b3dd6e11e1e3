"""02.kd_gradient."""

from __future__ import annotations

import torch

from kdlib import losses
from kdlib.checks.criteria import law, matches, tidy
from kdlib.checks.exercise import Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u02_soft_targets.inputs import another_pair, pair, sizes


def _rows_sum_to_zero(evidence: Evidence) -> str | None:
    sums = evidence.value("plain").sum(-1).abs().max().item()
    if sums < 1e-6:
        return None
    return (
        f"One of your rows sums to {sums:.4g}. A step along the gradient must not move all logits "
        "of a row together, since that would change no probability."
    )


KD_GRADIENT = Exercise(
    id="02.kd_gradient",
    title="The gradient in closed form",
    reference=losses.kd_gradient,
    probes=(
        Probe("plain", "6 rows of 10 classes, T = 3", pair(), sizes=sizes(6, 10, 3.0)),
        Probe("other", "4 rows of 5 classes, T = 7", pair(4, 5, 7.0), sizes=sizes(4, 5, 7.0)),
        Probe("another batch", "a batch of another size, at another T", another_pair),
        Probe("one row", "a single row of 2 classes, T = 0.5", pair(1, 2, 0.5)),
        Probe("float32", "float32 logits", pair(5, 3, dtype=torch.float32)),
        Probe("T = 1", "T = 1", pair(temperature=1.0)),
        Probe("equal", "a student equal to the teacher", pair(equal=True)),
        Probe("large", "logits in the thousands", pair(temperature=1.0, scale=3000.0)),
        Probe(
            "large float32",
            "float32 logits in the thousands",
            pair(5, 3, 2.0, 1000.0, dtype=torch.float32),
            atol=1e-3,
        ),
    ),
    criteria=(
        matches("the value", 1.5, "plain", "other", "another batch", "one row", "float32", "T = 1"),
        law("each row sums to zero", 0.5, ("plain",), _rows_sum_to_zero),
        matches("no overflow on large logits", 0.5, "large", "large float32"),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "no 1/T",
            (lambda s, t, T: (s / T).softmax(-1) - (t / T).softmax(-1)),
            "You differentiated with respect to z/T. The logits are z, so the chain rule owes you "
            "one more factor.",
        ),
        Mistake(
            "1/T squared",
            (lambda s, t, T: ((s / T).softmax(-1) - (t / T).softmax(-1)) / T**2),
            "One factor 1/T comes from the chain rule. The second one appears only at high "
            "temperature, from the softmax itself; it is not to be written down.",
        ),
        Mistake(
            "multiplied by T",
            (lambda s, t, T: T * ((s / T).softmax(-1) - (t / T).softmax(-1))),
            "This is the gradient of T^2 KL. The exercise asks for that of the KL alone.",
        ),
        Mistake(
            "sign turned round",
            (lambda s, t, T: ((t / T).softmax(-1) - (s / T).softmax(-1)) / T),
            "Your gradient points the other way: descending along it would drive the student away "
            "from the teacher.",
        ),
        Mistake(
            "mean over rows",
            (lambda s, t, T: ((s / T).softmax(-1) - (t / T).softmax(-1)) / T / len(s)),
            "You divided by the number of rows. The exercise asks for each row's own gradient, "
            "before any mean over the batch.",
        ),
        Mistake(
            "temperature outside the softmax only",
            (lambda s, t, T: (s.softmax(-1) - t.softmax(-1)) / T),
            "Both softmaxes are at T = 1. This gradient has the softened probabilities.",
        ),
        Mistake(
            "logits in place of probabilities",
            (lambda s, t, T: (s - t) / T),
            "You subtract the logits themselves. They are probabilities only after a softmax, and "
            "a row of your gradient does not sum to zero.",
        ),
        Mistake(
            "temperature on the student only",
            (lambda s, t, T: ((s / T).softmax(-1) - t.softmax(-1)) / T),
            "The teacher stands at T = 1 in your gradient, the student at T. The divergence "
            "compares both at the same temperature.",
        ),
        Mistake(
            "softmax of the difference",
            (lambda s, t, T: ((s - t) / T).softmax(-1) / T),
            "A difference of two softmaxes is not the softmax of a difference.",
        ),
        Mistake(
            "exp without subtracting the maximum",
            (
                lambda s, t, T: (
                    (
                        (s / T).exp() / (s / T).exp().sum(-1, keepdim=True)
                        - (t / T).exp() / (t / T).exp().sum(-1, keepdim=True)
                    )
                    / T
                )
            ),
            "Mind large logits: `exp` of a number in the thousands is infinite. Unit 01 "
            "has the remedy.",
        ),
    ),
    minutes=10,
    difficulty=2,
)
