"""07.ContrastiveTrainer."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from kdlib.checks.criteria import facts, matches
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import Spy, draw
from kdlib.exercises.u07_relations.inputs import integer
from kdlib.losses import relations


def _weights(*modules: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


def _classroom(g: torch.Generator) -> Arguments:
    seed = integer(g, 0, 9999)
    narrow, wide, shared = integer(g, 3, 4), integer(g, 5, 7), integer(g, 2, 4)
    student = Spy(seed, 4, 0.0, classes=narrow)
    teacher = Spy(seed + 1, 8, 0.5, classes=wide)
    heads = [nn.Linear(width, shared).double() for width in (narrow, wide)]
    with torch.no_grad():
        for parameter in (p for head in heads for p in head.parameters()):
            parameter.copy_(draw(g, *parameter.shape, scale=0.5))
    count = integer(g, 6, 9)
    labels = torch.randint(3, (2, count), generator=g)
    labels[:, 1], labels[:, 2] = labels[:, 0], (labels[:, 0] + 1) % 3
    return {
        "student": student.eval(),
        "teacher": teacher.train(),
        "student_head": heads[0],
        "teacher_head": heads[1],
        "images": draw(g, 2, count, 5, scale=1.0),
        "labels": labels,
        "temperature": 0.2 + 0.1 * integer(g, 0, 3),
        "lr": 0.05,
    }


def _held(optimizer: torch.optim.Optimizer, module: nn.Module) -> str:
    """Say how many of a module's parameters the optimiser holds: "all", "none", "1 of 2"."""
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    wanted = [id(p) for p in module.parameters()]
    found = sum(ids.count(w) for w in wanted)
    return {0: "none", len(wanted): "all"}.get(found, f"{found} of {len(wanted)}")


PARTS = ("student", "student head", "teacher head")


def _steps(answer, a: Arguments, labels: bool) -> dict:
    """Take two steps and write down what moved, and what should not have."""
    student, teacher = a["student"], a["teacher"]
    heads = a["student_head"], a["teacher_head"]
    others = copy.deepcopy((student, teacher, *heads))
    with torch.no_grad():
        for parameter in others[1].parameters():
            parameter.neg_()
    trainer = answer(student, teacher, *heads, a["temperature"], a["lr"])
    answer(*others, 2 * a["temperature"], a["lr"])  # a second trainer is no business of the first
    parts = dict(zip(PARTS, (student, *heads), strict=True))
    out: dict = {
        f"{name}'s parameters in the optimiser": _held(trainer.optimizer, part)
        for name, part in {**parts, "teacher": teacher}.items()
    }
    out["name of the optimiser"] = type(trainer.optimizer).__name__
    frozen = {k: v.clone() for k, v in teacher.state_dict().items()}
    for number in (0, 1):
        given = (a["labels"][number],) if labels else ()
        loss = trainer.step(a["images"][number], *given)
        out[f"loss of step {number + 1}"] = loss
        for name, part in parts.items():
            out[f"{name} after step {number + 1}"] = _weights(part)
    out["loss is a plain number"] = type(loss) is float
    out["teacher's modes"] = teacher.seen_modes
    out["student's modes"] = student.seen_modes
    out["graph through the teacher"] = any(teacher.graphs)
    after = teacher.state_dict()
    out["teacher changed"] = any(not torch.equal(after[k], v) for k, v in frozen.items())
    return out


def _trainer(
    hold=PARTS,
    teacher_mode="eval",
    student_mode="train",
    graph=False,
    blind=False,
    heads_blind=False,
    zero=True,
    anew=False,
    number=True,
    update=True,
    tau=True,
    labelled=True,
    sgd=False,
):
    """Assemble a trainer with one thing wrong."""

    class Wrong:
        def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
            self.parts = {"student": student, "teacher": teacher}
            self.parts |= {"student head": student_head, "teacher head": teacher_head}
            self.temperature, self.lr = temperature if tau else 0.1, lr
            self.optimizer = self.make()

        def make(self):
            parameters = [p for part in hold for p in self.parts[part].parameters()]
            kind = torch.optim.SGD if sgd else torch.optim.Adam
            return kind(parameters, self.lr)

        def step(self, images, labels=None):
            student, teacher, student_head, teacher_head = self.parts.values()
            student.train(student_mode == "train")
            if teacher_mode == "eval":
                teacher.eval()
            with torch.no_grad() if blind else nullcontext():
                mine = student(images)
            with torch.set_grad_enabled(graph):
                theirs = teacher(images)
            with torch.no_grad() if heads_blind else nullcontext():
                target = teacher_head(theirs)
            loss = relations.contrastive_loss(
                student_head(mine), target, self.temperature, labels if labelled else None
            )
            if anew:
                self.optimizer = self.make()
            if zero:
                self.optimizer.zero_grad()
            loss.backward()
            if update:
                self.optimizer.step()
            return loss.item() if number else loss

    return Wrong


NEVER = ("teacher's modes", "never called", "The teacher was never asked.")

CONTRASTIVE_TRAINER = Exercise(
    id="07.ContrastiveTrainer",
    title="Two heads that learn",
    reference=relations.ContrastiveTrainer,
    probes=(
        Probe(
            "two steps",
            "two steps on two batches",
            _classroom,
            run=lambda answer, a: _steps(answer, a, labels=False),
        ),
        Probe(
            "with labels",
            "two steps with labels",
            _classroom,
            run=lambda answer, a: _steps(answer, a, labels=True),
        ),
    ),
    criteria=(
        facts(
            "the optimiser holds student and heads",
            0.75,
            "two steps",
            (
                "student's parameters in the optimiser",
                "all",
                "Of the student's parameters the optimiser holds: {seen}.",
            ),
            (
                "student head's parameters in the optimiser",
                "all",
                "Of the student head's parameters the optimiser holds: {seen}.",
            ),
            (
                "teacher head's parameters in the optimiser",
                "all",
                "Of the teacher head's parameters the optimiser holds: {seen}.",
            ),
        ),
        facts(
            "the teacher's encoder is a constant",
            0.75,
            "two steps",
            (
                "teacher's parameters in the optimiser",
                "none",
                "Of the teacher's parameters the optimiser holds: {seen}.",
            ),
            (
                "teacher's modes",
                "eval",
                "The teacher was called in this mode: {seen}. With dropout on, its features are "
                "others each time.",
            ),
            (
                "graph through the teacher",
                False,
                "Autograd records the teacher's forward pass, for a gradient that nobody wants.",
            ),
            ("teacher changed", False, "After your steps the teacher is another network."),
            unless=NEVER,
        ),
        matches(
            "the loss of both steps", 0.5, "two steps", keys=("loss of step 1", "loss of step 2")
        ),
        matches(
            "what learns, after both steps",
            1.0,
            "two steps",
            keys=tuple(f"{part} after step {n}" for n in (1, 2) for part in PARTS),
        ),
        matches(
            "labels reach the loss", 0.5, "with labels", keys=("loss of step 1", "loss of step 2")
        ),
        facts(
            "nothing is left behind",
            0.5,
            "two steps",
            (
                "loss is a plain number",
                True,
                "You return a tensor. Whoever collects it in a list keeps its graph alive.",
            ),
            ("student's modes", "train", "The student was called in this mode: {seen}."),
            (
                "name of the optimiser",
                "Adam",
                "The exercise asks for `torch.optim.Adam`; yours is {seen}.",
            ),
            unless=NEVER,
        ),
    ),
    mistakes=(
        Mistake(
            "both heads missing from the optimiser",
            _trainer(hold=("student",)),
            "Both heads stay as they were drawn: no optimiser holds them. Nothing crashes and the "
            "loss falls, because the student bends itself to two random maps. Whose parameters do "
            "you pass?",
        ),
        Mistake(
            "the teacher's head missing from the optimiser",
            _trainer(hold=("student", "student head")),
            "The teacher's head stays as it was drawn. 'The teacher is frozen' is true of its "
            "encoder; the head is new and has to learn which of the features matter.",
        ),
        Mistake(
            "the student's head missing from the optimiser",
            _trainer(hold=("student", "teacher head")),
            "The student's head stays as it was drawn.",
        ),
        Mistake(
            "student missing from the optimiser",
            _trainer(hold=("student head", "teacher head")),
            "Only the heads learn, on features of a student that never changes.",
        ),
        Mistake(
            "teacher in the optimiser too",
            _trainer(hold=(*PARTS, "teacher")),
            "The optimiser holds the teacher's parameters too. They get no gradient here, but the "
            "day somebody forgets `no_grad` the teacher starts to move.",
        ),
        Mistake(
            "the teacher's head under no_grad",
            _trainer(heads_blind=True),
            "Your `no_grad` reaches over the teacher's head as well. The optimiser holds its "
            "parameters, and they never get a gradient. Where should the block end?",
        ),
        Mistake(
            "student runs without a graph",
            _trainer(blind=True),
            "Your student runs under `no_grad`, like the teacher. Only the heads can learn.",
        ),
        Mistake(
            "teacher in train mode",
            _trainer(teacher_mode="train"),
            "Nobody told the teacher to be in eval mode. With dropout on, its features are others "
            "each time, and its BatchNorm statistics move.",
        ),
        Mistake(
            "graph kept through the teacher",
            _trainer(graph=True),
            "Autograd keeps all of the teacher's activations, for a gradient that nobody wants.",
        ),
        Mistake(
            "student in eval mode",
            _trainer(student_mode="eval"),
            "The student learns in eval mode: its BatchNorm statistics never move.",
        ),
        Mistake(
            "gradients never cleared",
            _trainer(zero=False),
            "The second step goes wrong: the first step's gradient is still in it.",
        ),
        Mistake(
            "a new optimiser in each step",
            _trainer(anew=True),
            "You build the optimiser in each step. Adam's running means start from nothing each "
            "time, so every step has full length.",
        ),
        Mistake(
            "temperature of its own",
            _trainer(tau=False),
            "Your trainer uses a temperature of 0.1 whatever it is given.",
        ),
        Mistake(
            "labels dropped",
            _trainer(labelled=False),
            "Labels that are given to `step` do not reach the loss.",
        ),
        Mistake(
            "another optimiser",
            _trainer(sgd=True),
            "Your optimiser is SGD. The exercise asks for Adam, so that steps can be compared.",
        ),
        Mistake(
            "no update",
            _trainer(update=False),
            "Nothing is changed by your step.",
        ),
        Mistake(
            "the loss with its graph",
            _trainer(number=False),
            "You return the loss as a tensor that still holds the whole graph.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
