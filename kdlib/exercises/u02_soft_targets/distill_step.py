"""02.distill_step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import losses
from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import Spy, between, draw
from kdlib.exercises.u02_soft_targets.inputs import soft_term
from kdlib.training import step as distill


def _classroom(g: torch.Generator) -> Arguments:
    """Two batches for a student with momentum, whose layers learn at rates of their own."""
    seed = between(g, 0, 10_000)
    student, teacher = Spy(seed, 6, 0.0), Spy(seed + 1, 16, 0.5)
    teacher.train()
    student.eval()
    *lower, last = student.net
    groups = [
        {"params": [p for layer in lower for p in layer.parameters()]},
        {"params": last.parameters(), "lr": 0.1},
    ]
    return {
        "student": student,
        "teacher": teacher,
        "inputs": draw(g, 2, 12, 5, scale=1.0),
        "targets": torch.randint(4, (2, 12), generator=g),
        "optimizer": torch.optim.SGD(groups, lr=0.3, momentum=0.9),
        "temperature": between(g, 20, 60) / 10,
        "alpha": between(g, 3, 8) / 10,
    }


def _steep(g: torch.Generator) -> Arguments:
    """Two batches with large gradients for AdamW, after a backward that nobody stepped on.

    The teacher is frozen already, and no target is the last class.
    """
    made = _classroom(g)
    student, teacher = made["student"].train(), made["teacher"].eval().requires_grad_(False)
    with torch.no_grad():
        student.net[-1].weight.mul_(20.0)
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.02, weight_decay=0.1)
    rest = {"inputs": made["inputs"], "targets": made["targets"] % 3, "optimizer": optimizer}
    return {"student": student, "teacher": teacher, **rest}


def _two_steps(answer, a: Arguments) -> dict:
    """Take two steps on two batches and write down everything that a step may disturb."""
    student, teacher = a["student"], a["teacher"]
    frozen = {k: v.clone() for k, v in teacher.state_dict().items()}
    how = {k: a[k] for k in ("temperature", "alpha") if k in a}
    out: dict = {}
    for number in (0, 1):
        batch = a["inputs"][number], a["targets"][number]
        loss = answer(student, teacher, *batch, a["optimizer"], *how.values())
        out[f"loss of step {number + 1}"] = loss
        out[f"student after step {number + 1}"] = _flat(student.parameters())
        out[f"student's statistics after step {number + 1}"] = _flat(student.buffers())
        student.eval()  # as an evaluation between two steps leaves it
    out["loss is a plain number"] = type(loss) is float
    out["teacher's modes"] = teacher.seen_modes
    out["student's modes"] = student.seen_modes
    out["graph through the teacher"] = any(teacher.graphs)
    out["teacher has gradients"] = any(p.grad is not None for p in teacher.parameters())
    after = teacher.state_dict()
    out["teacher changed"] = any(not torch.equal(after[k], v) for k, v in frozen.items())
    return out


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors])


def _step(
    teacher_mode="eval",
    student_mode="train",
    graph=False,
    zero=True,
    update=True,
    number=True,
    swap=False,
    detach=True,
    alpha_of=lambda a: a,
    given=True,
    again=False,
    rate=None,
):
    """Assemble a training step with one thing wrong."""

    def step(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
        if not given:
            temperature, alpha = 4.0, 0.9
        student.train(student_mode == "train")
        if teacher_mode == "eval":
            teacher.eval()
        with torch.set_grad_enabled(graph):
            teacher_logits = teacher(inputs)
        teacher_logits = teacher_logits.detach() if detach else teacher_logits
        student_logits = student(inputs)
        pair = (teacher_logits, student_logits) if swap else (student_logits, teacher_logits)
        q, p = (x / temperature for x in pair)
        hard = F.cross_entropy(student_logits, targets)
        a = alpha_of(alpha)
        loss = a * temperature**2 * soft_term(q, p) + (1 - a) * hard
        if zero:
            optimizer.zero_grad()
        loss.backward()
        if update and rate is None:
            optimizer.step()
        elif update:
            with torch.no_grad():
                for parameter in student.parameters():
                    parameter -= rate * parameter.grad
        if again:
            with torch.no_grad():
                return losses.kd_loss(
                    student(inputs), teacher_logits, targets, temperature, alpha
                ).item()
        return loss.item() if number else loss

    return step


NEVER = ("teacher's modes", "never called", "The teacher was never asked.")

DISTILL_STEP = Exercise(
    id="02.distill_step",
    title="One step of distillation",
    reference=distill.distill_step,
    probes=(
        Probe("two steps", "two steps on two batches of 12 rows", _classroom, run=_two_steps),
        Probe(
            "steep",
            "two steps of AdamW without temperature and alpha, with an old gradient in `.grad`",
            _steep,
            run=_two_steps,
        ),
    ),
    criteria=(
        side(
            facts(
                "the teacher answers in eval mode",
                0.5,
                "two steps",
                (
                    "teacher's modes",
                    "eval",
                    "The teacher was called in this mode: {seen}. With dropout and BatchNorm in "
                    "train mode it gives other answers than the ones it was chosen for.",
                ),
                (
                    "teacher changed",
                    False,
                    "After your steps the teacher is another network than before: its parameters "
                    "or BatchNorm statistics changed.",
                ),
                unless=NEVER,
            )
        ),
        side(
            facts(
                "no graph and no gradient for the teacher",
                0.5,
                "two steps",
                (
                    "graph through the teacher",
                    False,
                    "Autograd records the teacher's forward pass. That costs the memory of all "
                    "its activations, for a gradient that nobody wants.",
                ),
                ("teacher has gradients", False, "The teacher's parameters have gradients."),
                unless=NEVER,
            )
        ),
        side(
            facts(
                "the student answers in train mode",
                0.5,
                "two steps",
                ("student's modes", "train", "The student was called in this mode: {seen}."),
                unless=NEVER,
            )
        ),
        matches(
            "the loss of both steps",
            1.0,
            "two steps",
            "steep",
            keys=("loss of step 1", "loss of step 2"),
        ),
        matches(
            "the student after both steps",
            1.0,
            "two steps",
            "steep",
            keys=(
                "student after step 1",
                "student after step 2",
                "student's statistics after step 2",
            ),
        ),
        side(
            facts(
                "the loss is a plain number",
                0.25,
                "two steps",
                (
                    "loss is a plain number",
                    True,
                    "You return a tensor. Whoever collects it in a list keeps its graph alive.",
                ),
                unless=NEVER,
            )
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "teacher in train mode",
            _step(teacher_mode="train"),
            "Nobody told the teacher to be in eval mode. Its dropout is on, and its BatchNorm uses "
            "this batch's statistics and updates its own, even under `no_grad`. (Some do it on "
            "purpose: clovaai/overhaul-distillation #37.)",
            "Sharpiless/yolov5-knowledge-distillation #5",
        ),
        Mistake(
            "graph kept through the teacher",
            _step(graph=True),
            "`detach` after the teacher's forward pass is too late to save memory: by then all of "
            "its activations have been kept. Do not let autograd record them in the first place.",
            "clovaai/overhaul-distillation #34, as a question",
        ),
        Mistake(
            "gradient into the teacher",
            _step(graph=True, detach=False),
            "The loss sends gradient into the teacher's parameters. `eval()` does not stop that: "
            "it only switches dropout and BatchNorm.",
            "haitongli/knowledge-distillation-pytorch #25, as a question",
        ),
        Mistake(
            "student in eval mode",
            _step(student_mode="eval"),
            "The student learns in eval mode: its BatchNorm statistics never move. Which mode has "
            "it been left in by the last evaluation?",
        ),
        Mistake(
            "gradients never cleared",
            _step(zero=False),
            "An earlier gradient is still in your step, that of the step before or one that was "
            "there when it began. PyTorch adds to `.grad`, it does not replace it.",
        ),
        Mistake(
            "no update",
            _step(update=False),
            "The student is the same after your step as before. Which call changes parameters?",
        ),
        Mistake(
            "student and teacher exchanged",
            _step(swap=True),
            "The loss gets the teacher's logits where it expects the student's. Only the hard "
            "term and a reversed divergence are left to learn from.",
            "keras-team/keras-io #257",
        ),
        Mistake(
            "hard labels only",
            _step(alpha_of=lambda a: 0.0),
            "Your step learns from the labels alone; the teacher's answer has no effect.",
        ),
        Mistake(
            "alpha the wrong way round",
            _step(alpha_of=lambda a: 1 - a),
            "Alpha weighs the hard term in your step. In this course it weighs the soft one.",
        ),
        Mistake(
            "temperature and alpha not passed on",
            _step(given=False),
            "Your step takes a temperature and an alpha and uses neither: the loss is that of the "
            "defaults.",
        ),
        Mistake(
            "the loss after the update",
            _step(again=True),
            "You compute the loss once more, with the student that has just been updated. The one "
            "that the gradient came from is asked for, and a second forward pass is not free.",
        ),
        Mistake(
            "the optimiser left out",
            _step(rate=0.3),
            "You subtract the gradient yourself, at one rate for all. The optimiser that you are "
            "given has rates of its own, and remembers earlier gradients.",
        ),
        Mistake(
            "the loss with its graph",
            _step(number=False),
            "You return the loss as a tensor that still holds the whole graph. A list of 10,000 "
            "of them keeps 10,000 batches of activations in memory.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
