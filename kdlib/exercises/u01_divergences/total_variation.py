"""01.total_variation."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import law, matches, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u01_divergences.inputs import ROUNDED, turned, two_networks
from kdlib.losses import divergences


def _another_batch(g: torch.Generator) -> Arguments:
    return turned(g, "teacher_logits", "student_logits")


def _at_most_one(evidence: Evidence) -> str | None:
    top = evidence.value("disjoint").max().item()
    return (
        None
        if top <= 1 + 1e-9
        else f"One of your rows is {top:.4g}. No more than all mass can move."
    )


TOTAL_VARIATION = Exercise(
    id="01.total_variation",
    title="Total variation",
    reference=divergences.total_variation,
    probes=(
        Probe(
            "plain",
            "6 rows of 7 classes",
            two_networks(),
            sizes={"the number of classes": 7, "two": 2},
        ),
        Probe(
            "three",
            "6 rows of 3 classes",
            two_networks(classes=3),
            sizes={"the number of classes": 3, "two": 2},
        ),
        Probe("equal", "a student equal to the teacher", two_networks(equal=True)),
        Probe("another batch", "a batch of another size", _another_batch),
        Probe("one row", "a single row of 2 classes", two_networks(rows=1, classes=2)),
        Probe(
            "float32",
            "float32 logits in the thousands",
            two_networks(1000.0, dtype=torch.float32),
            atol=ROUNDED,
        ),
        Probe("disjoint", "logits in the hundreds: the two agree on nothing", two_networks(300.0)),
    ),
    criteria=(
        matches(
            "the value of each row",
            1.5,
            "plain",
            "three",
            "equal",
            "another batch",
            "one row",
            "float32",
            "disjoint",
        ),
        law("at most one", 0.5, ("disjoint",), _at_most_one),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "one half is missing",
            (lambda v, z: (v.softmax(-1) - z.softmax(-1)).abs().sum(-1)),
            "What leaves one class arrives at another, and you count it at both ends.",
        ),
        Mistake(
            "no absolute value",
            (lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).sum(-1)),
            "Positive and negative differences cancel: both rows sum to one.",
        ),
        Mistake(
            "squared differences",
            (lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).square().sum(-1)),
            "You square the differences; total variation takes their absolute values.",
        ),
        Mistake(
            "logits in place of probabilities",
            (lambda v, z: 0.5 * (v - z).abs().sum(-1)),
            "You compare logits. The mass that would have to move is one of probabilities.",
        ),
        Mistake(
            "the largest difference",
            (lambda v, z: (v.softmax(-1) - z.softmax(-1)).abs().amax(-1)),
            "You take the largest difference of a single class. Total variation is the largest "
            "difference over all *sets* of classes.",
        ),
        Mistake(
            "Euclidean distance",
            (lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).norm(dim=-1)),
            "You square, add and take the root. Total variation adds absolute differences.",
        ),
        Mistake(
            "log-probabilities in place of probabilities",
            (lambda v, z: 0.5 * (v.log_softmax(-1) - z.log_softmax(-1)).abs().sum(-1)),
            "You compare log-probabilities. The mass that would have to move is one of "
            "probabilities.",
        ),
        Mistake(
            "summed over the batch",
            (lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).abs().sum()),
            "You return one number for the batch; one for each row is asked for. Over which "
            "dimension does the sum run?",
        ),
        Mistake(
            "mean over the batch",
            (lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).abs().sum(-1).mean()),
            "You return one number for the batch; one for each row is asked for.",
        ),
        Mistake(
            "mean over classes",
            (lambda v, z: 0.5 * (v.softmax(-1) - z.softmax(-1)).abs().mean(-1)),
            "You average over the classes where the definition sums.",
        ),
    ),
    minutes=6,
    difficulty=1,
)
