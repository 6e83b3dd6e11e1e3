"""13.step_by_step_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.losses import traces


def _tasks(
    rows: int = 4,
    classes: int = 6,
    weight: float | None = 0.5,
    steps: int = 9,
    empty: str = "",
):
    """Build a short label task and a long rationale task, with tokens that do not count.

    Args:
        rows: B.
        classes: V.
        weight: lambda; left out where it is None.
        steps: tokens of a rationale.
        empty: a task without a token that counts.
    """

    def make(g: torch.Generator) -> Arguments:
        made: Arguments = {}
        for task, width, first in (("label", 4, 2), ("rationale", steps + 3, 3)):
            made[f"{task}_logits"] = draw(g, rows, width, classes, scale=2.0)
            targets = torch.randint(classes, (rows, width), generator=g)
            targets[:, :first] = -100
            targets[0, -1] = targets[1, -1] = -100
            if task == empty:
                targets[:] = -100
            made[f"{task}_targets"] = targets
        return made if weight is None else {**made, "weight": weight}

    return make


def _awkward(g: torch.Generator) -> Arguments:
    """Draw sizes, lay the logits out the other way, and let tokens count here and there."""
    rows, classes, *widths = torch.randint(2, 6, (4,), generator=g).tolist()
    made: Arguments = {}
    for task, width in zip(("label", "rationale"), widths, strict=True):
        made[f"{task}_logits"] = draw(g, width, rows, classes, scale=2.0).transpose(0, 1)
        targets = torch.randint(classes, (rows, width), generator=g)
        targets[torch.rand(rows, width, generator=g) < 0.4] = -100
        targets[-1] = -100  # a whole row without a token
        targets[0, 0] = 0
        made[f"{task}_targets"] = targets
    return {**made, "weight": 0.25 + torch.rand((), generator=g).item()}


def _sure(g: torch.Generator) -> Arguments:
    """Build float32 logits of a few hundred."""
    made = _tasks(weight=3.0)(g)
    return {k: (100 * v).float() if k.endswith("logits") else v for k, v in made.items()}


def _mean(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def _refuse(label_targets: Tensor, rationale_targets: Tensor, weight: float) -> None:
    if weight < 0 or any(bool((t == -100).all()) for t in (label_targets, rationale_targets)):
        raise ValueError("weight must not be negative, and both tasks need a token")


def _steps(mix, checked=True, mean=_mean):
    """Assemble a wrong loss from `mix(label, rationale, weight)`."""

    def wrong(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
        if checked:
            _refuse(label_targets, rationale_targets, weight)
        label = mean(label_logits, label_targets)
        return mix(label, mean(rationale_logits, rationale_targets), weight)

    return wrong


def _one_mean(label_logits, label_targets, rationale_logits, rationale_targets, weight=1.0):
    _refuse(label_targets, rationale_targets, weight)
    total, count = 0.0, 0
    for logits, targets, w in (
        (label_logits, label_targets, 1.0),
        (rationale_logits, rationale_targets, weight),
    ):
        n = int((targets != -100).sum())
        total, count = total + w * n * _mean(logits, targets), count + n
    return total / count


def _sum(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def _unmasked(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.clamp(min=0).flatten())


def _all_positions(logits: Tensor, targets: Tensor) -> Tensor:
    return _sum(logits, targets) / targets.numel()


def _longer(evidence: Evidence) -> str | None:
    """Double what is weighed: the loss must grow by the rationale's part alone."""
    none, half, one = (float(evidence.value(p)) for p in ("label alone", "plain", "weight one"))
    if abs(one - none) < 1e-9:
        return f"You return {one:.4g} whatever lambda is."
    if abs((one - none) - 2 * (half - none)) > 1e-6 * max(1.0, abs(one)):
        return (
            f"For lambda = 0, 0.5 and 1 you return {none:.4g}, {half:.4g} and {one:.4g}. Each half "
            "of lambda has to add the same amount."
        )
    return None


STEP_BY_STEP_LOSS = Exercise(
    id="13.step_by_step_loss",
    title="Answer and rationale as two tasks",
    reference=traces.step_by_step_loss,
    probes=(
        Probe(
            "plain",
            "4 rows, labels of 2 tokens, rationales of 9, lambda = 0.5",
            _tasks(),
            gradients=("label_logits", "rationale_logits"),
        ),
        Probe("other", "3 rows, rationales of 5 tokens, lambda = 2", _tasks(3, 5, 2.0, 5)),
        Probe(
            "awkward",
            "tasks of 2 to 5 rows, tokens and classes, with gaps",
            _awkward,
            gradients=("label_logits", "rationale_logits"),
        ),
        Probe(
            "sure",
            "float32 logits of a few hundred, lambda = 3",
            _sure,
            gradients=("label_logits", "rationale_logits"),
            atol=1e-4,
        ),
        Probe("label alone", "the first rows with lambda = 0", _tasks(weight=0.0)),
        Probe("weight one", "the first rows with lambda left out", _tasks(weight=None)),
        Probe("negative", "lambda = -1", _tasks(weight=-1.0)),
        Probe("a little negative", "lambda = -0.01", _tasks(weight=-0.01)),
        Probe("no label", "a batch in which no token of a label counts", _tasks(empty="label")),
        Probe(
            "no rationale",
            "a batch in which no token of a rationale counts",
            _tasks(empty="rationale"),
        ),
        Probe(
            "no rationale, lambda = 0",
            "a batch in which no token of a rationale counts, lambda = 0",
            _tasks(empty="rationale", weight=0.0),
        ),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "other", "weight one", "awkward", "sure"),
        matches("lambda = 0 is the answer alone", 0.25, "label alone"),
        gradients("the gradient reaches both tasks", 0.5, "plain", "awkward", "sure"),
        law("linear in lambda", 0.25, ("label alone", "plain", "weight one"), _longer),
        rejects(
            *("a negative lambda and an empty task are refused", 0.5, "negative"),
            *("a little negative", "no label", "no rationale", "no rationale, lambda = 0"),
        ),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "one mean over both tasks",
            _one_mean,
            "You pool the tokens of both tasks and take one mean. A rationale has many times the "
            "tokens of a label, so the answer hardly counts. Each task has a mean of its own.",
        ),
        Mistake(
            "all tokens in one batch",
            lambda a, b, c, d, weight=1.0: _one_mean(a, b, c, d, 1.0 if weight >= 0 else weight),
            "You join the two tasks and take one cross-entropy over all of their tokens: a long "
            "rationale drowns the label, and lambda has no effect.",
        ),
        Mistake(
            "1 - lambda on the label",
            _steps(lambda s, r, w: (1 - w) * s + w * r),
            "You mix the two as 1 - lambda and lambda. With lambda = 1 nothing of the label is "
            "left. In the paper the label's weight is one. (Its published code mixes alpha and "
            "1 - alpha, with alpha on the label: always look.)",
        ),
        Mistake(
            "lambda on the label",
            _steps(lambda s, r, w: w * s + r),
            "Lambda weighs the label in your loss. It belongs to the rationale, which is there to "
            "help.",
        ),
        Mistake(
            "lambda forgotten",
            _steps(lambda s, r, w: s + r),
            "Your result does not depend on lambda.",
        ),
        Mistake(
            "lambda squared",
            _steps(lambda s, r, w: s + w * w * r),
            "Lambda enters twice.",
        ),
        Mistake(
            "the label alone",
            _steps(lambda s, r, w: s),
            "The rationale has no effect: this is training on answers alone.",
        ),
        Mistake(
            "the rationale is a constant",
            _steps(lambda s, r, w: s + w * r.detach()),
            "The value is right, and no gradient reaches the rationale's logits: the student is "
            "told how badly it explains, and not how to do better.",
        ),
        Mistake(
            "summed over tokens",
            _steps(lambda s, r, w: s + w * r, mean=_sum),
            "You sum over tokens, so the longer task outweighs the other.",
        ),
        Mistake(
            "tokens that do not count are counted",
            _steps(lambda s, r, w: s + w * r, mean=_unmasked),
            "Targets of -100 mark tokens that do not count: prompts and padding. You learn them as "
            "token 0.",
        ),
        Mistake(
            "divided by all positions",
            _steps(lambda s, r, w: s + w * r, mean=_all_positions),
            "You divide by all positions, those marked -100 among them.",
        ),
        Mistake(
            "anything is taken",
            _steps(lambda s, r, w: s + w * r, checked=False),
            "A negative lambda would teach the student to explain badly, and a batch without a "
            "label gives NaN. Refuse both with a ValueError.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
