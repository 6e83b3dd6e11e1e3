"""03.transfer_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib import losses
from kdlib import losses as dark_knowledge
from kdlib.checks.criteria import gradients, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw, number, positive


def _batch(
    *settings: float | tuple[float, float],
    rows: tuple[int, int] = (6, 12),
    classes: tuple[int, int] = (3, 7),
    labelled: int | None = None,
    scale: float = 3.0,
    dtype: torch.dtype = torch.float64,
):
    """A batch whose labelled rows are spread; the student is further off on the others.

    Args:
        settings: temperature and alpha, or what they are drawn between; none leaves the defaults.
        rows: their number is drawn from here.
        classes: their number is drawn from here.
        labelled: rows with a label, some by default; a negative number counts those without.
        scale: of the logits.
        dtype: of the logits.
    """

    def make(g: torch.Generator) -> Arguments:
        n, c = between(g, *rows), between(g, *classes)
        some = between(g, 2, n - 2) if labelled is None else labelled % (n + 1)
        student, teacher = draw(g, c, n, scale=scale).T, draw(g, c, n, scale=scale).T
        targets = torch.randint(c, (n,), generator=g)
        bare = torch.randperm(n, generator=g)[some:]
        targets[bare] = -1
        student[bare] = 2.0 * student[bare].flip(-1)
        made = {
            "student_logits": student.to(dtype),
            "teacher_logits": teacher.to(dtype),
            "targets": targets,
        }
        for name, given in zip(("temperature", "alpha"), settings, strict=False):
            made[name] = number(g, *given) if isinstance(given, tuple) else given
        return made

    return make


def _wrong(soft_rows=None, hard=None, mix=None, detach=True, check=True, mean_of_classes=False):
    """Assemble a wrong loss from wrong parts."""

    def loss(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
        if check:
            positive(temperature)
        teacher = teacher_logits.detach() if detach else teacher_logits
        labelled = targets != -1
        rows = (soft_rows or (lambda m: torch.ones_like(m)))(labelled)
        each = _kl_rows(student_logits / temperature, teacher / temperature)
        soft = each[rows].mean() if rows.any() else each.sum() * 0
        soft = soft / student_logits.shape[-1] if mean_of_classes else soft
        term = (hard or _hard)(student_logits, targets, labelled)
        if mix:
            return mix(soft, term, temperature, alpha, labelled)
        return alpha * temperature**2 * soft + (1 - alpha) * term

    return loss


def _kl_rows(s, t):
    log_q, log_p = s.log_softmax(-1), t.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _hard(z, y, labelled):
    return F.cross_entropy(z[labelled], y[labelled]) if labelled.any() else z.sum() * 0


def _hard_over_all(z, y, labelled):
    return F.cross_entropy(z, y, ignore_index=-1, reduction="sum") / len(y)


def _hard_not_a_number(z, y, labelled):
    return F.cross_entropy(z, y, ignore_index=-1)


def _hard_class_zero(z, y, labelled):
    return F.cross_entropy(z, y.clamp_min(0))


def _hard_last_class(z, y, labelled):
    return F.cross_entropy(z, y % z.shape[-1])


def _mix_scaled_by_share(soft, hard, T, a, labelled):
    return labelled.double().mean() * (a * T**2 * soft + (1 - a) * hard)


def _only_soft_without_labels(soft, hard, T, a, labelled):
    return a * T**2 * soft + (1 - a) * hard if labelled.any() else T**2 * soft


def _labelled_rows_only(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    labelled = targets != -1
    return losses.kd_loss(
        student_logits[labelled], teacher_logits[labelled], targets[labelled], temperature, alpha
    )


def _no_labels_is_soft(evidence: Evidence) -> str | None:
    with_labels = float(evidence.value("all soft"))
    without = float(evidence.value("none labelled"))
    ratio = without / with_labels if with_labels else float("nan")
    if abs(ratio - 0.7) < 1e-6:
        return None
    return (
        f"On the same logits you return {with_labels:.4g} with alpha = 1, and {without:.4g} with "
        "alpha = 0.7 and no label in the batch. Only the weight of the soft term differs between "
        "the two; there is nothing else to add."
    )


def _copies(answer, a: Arguments) -> float:
    """Compare a batch with the batch and unlabelled copies of all its rows: the difference."""
    rest = (a["temperature"], a["alpha"])
    z, v, y = a["student_logits"], a["teacher_logits"], a["targets"]
    none = torch.full_like(y, -1)
    twice = answer(torch.cat([z, z]), torch.cat([v, v]), torch.cat([y, none]), *rest)
    return float(twice) - float(answer(z, v, y, *rest))


def _copies_change_nothing(evidence: Evidence) -> str | None:
    change = float(evidence.value("copies"))
    if abs(change) < 1e-6:
        return None
    return (
        f"Your loss changes by {change:.4g} when each row comes a second time without its label. "
        "Neither the mean over all rows nor the mean over labelled rows has changed."
    )


TRANSFER_LOSS = Exercise(
    id="03.transfer_loss",
    title="A batch with missing labels",
    reference=dark_knowledge.transfer_loss,
    probes=(
        Probe(
            "plain",
            "a batch of which some rows are labelled",
            _batch((2.2, 4.0), (0.2, 0.8)),
            gradients=("student_logits", "teacher_logits"),
        ),
        Probe(
            "defaults",
            "a batch with one label in it, T and alpha as they are by default",
            _batch(labelled=1, classes=(2, 2)),
            gradients=("student_logits",),
        ),
        Probe("hard", "alpha = 0", _batch((1.5, 4.0), 0.0)),
        Probe("all labelled", "a batch with a label on each row", _batch(0.5, 0.3, labelled=-1)),
        Probe(
            "large",
            "float32 logits in the thousands",
            _batch(2.0, (0.2, 0.8), scale=3000.0, dtype=torch.float32),
            atol=1e-3,
        ),
        Probe("all soft", "rows without any label, alpha = 1", _batch(3.0, 1.0, labelled=0)),
        Probe(
            "none labelled",
            "rows without any label, alpha = 0.7",
            _batch(3.0, 0.7, labelled=0),
            gradients=("student_logits",),
        ),
        Probe("one row", "a single row without a label", _batch(3.0, 0.4, rows=(1, 1), labelled=0)),
        Probe("copies", "each row a second time, without label", _batch(3.0, 0.7), run=_copies),
        Probe("T = 0", "T = 0", _batch(0.0, 0.7)),
        Probe("T < 0", "T = -2", _batch(-2.0, 0.7)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "defaults", "hard", "all labelled", "large"),
        gradients("the gradient", 0.75, "plain", "defaults", arguments=("student_logits",)),
        matches("a batch without any label", 0.75, "none labelled", "all soft", "one row"),
        gradients("its gradient", 0.25, "none labelled"),
        law(
            "without a label the soft term is left, and its weight",
            0.25,
            ("all soft", "none labelled"),
            _no_labels_is_soft,
        ),
        law("unlabelled copies change nothing", 0.25, ("copies",), _copies_change_nothing),
        side(gradients("the teacher is a constant", 0.25, "plain", arguments=("teacher_logits",))),
        rejects("T = 0 is refused", 0.25, "T = 0", "T < 0"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "hard term over all rows",
            _wrong(hard=_hard_over_all),
            "Your hard term is divided by all rows, with and without a label. The fewer labels a "
            "batch holds, the less each of them counts. Over which rows is it a mean?",
            "perrying/realistic-ssl-evaluation-pytorch #2, as a question",
        ),
        Mistake(
            "not a number without labels",
            _wrong(hard=_hard_not_a_number),
            "A mean over no rows is 0/0. With few labels such a batch comes up sooner or later, "
            "and one NaN ends the training. What is the hard term of a batch without labels?",
            "microsoft/LMOps #38",
        ),
        Mistake(
            "unlabelled rows are class 0",
            _wrong(hard=_hard_class_zero),
            "Rows without a label count as class 0 in your hard term. They have no class at all.",
        ),
        Mistake(
            "-1 is the last class",
            _wrong(hard=_hard_last_class),
            "Your hard term takes -1 for an index, and an index of -1 is the last class. No error "
            "comes up; every unlabelled image is taught as that class.",
        ),
        Mistake(
            "soft term on labelled rows only",
            _wrong(soft_rows=lambda m: m),
            "Your soft term leaves out the rows without a label, and these are the ones that only "
            "the teacher can say something about.",
        ),
        Mistake(
            "only labelled rows are used",
            _labelled_rows_only,
            "You drop the rows without a label before anything else. These are the ones that only "
            "the teacher can say something about; and a batch without any label has no rows left.",
        ),
        Mistake(
            "mean over classes",
            _wrong(mix=None, mean_of_classes=True),
            "Your soft term is divided by the number of classes as well. `reduction='mean'` counts "
            "every entry; a divergence is a sum over classes and a mean over rows.",
            "haitongli/knowledge-distillation-pytorch #48",
        ),
        Mistake(
            "soft term on unlabelled rows only",
            _wrong(soft_rows=lambda m: ~m),
            "Your soft term leaves out the labelled rows. The teacher has something to say about "
            "those too.",
        ),
        Mistake(
            "whole loss scaled by the share of labels",
            _wrong(mix=_mix_scaled_by_share),
            "Your whole loss shrinks with the share of labelled rows, and is zero without any.",
        ),
        Mistake(
            "alpha dropped without labels",
            _wrong(mix=_only_soft_without_labels),
            "Without labels you give the soft term the weight 1 instead of alpha, so such batches "
            "pull harder than the others.",
        ),
        Mistake(
            "no T squared",
            _wrong(mix=lambda s, h, T, a, m: a * s + (1 - a) * h),
            "The factor T^2 is missing, so a higher temperature silently turns the soft term down.",
        ),
        Mistake(
            "alpha the wrong way round",
            _wrong(mix=lambda s, h, T, a, m: (1 - a) * T**2 * s + a * h),
            "Alpha weighs the hard term in your loss. In this course it weighs the soft one.",
        ),
        Mistake(
            "teacher not detached",
            _wrong(detach=False),
            "A gradient arrives at the teacher's logits; the teacher is a constant.",
        ),
        Mistake(
            "any temperature is taken",
            _wrong(check=False),
            "T = 0 divides by zero. Raise a ValueError that says what was given.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
