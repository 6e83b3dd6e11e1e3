"""06.HintTrainer."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.exercises.u06_features.inputs import ConvSpy, hooks_on, weights
from kdlib.losses import features


def _classroom(g: torch.Generator) -> Arguments:
    seed = int(torch.randint(10_000, (1,), generator=g))
    student, teacher = ConvSpy(seed, 3, 0.0), ConvSpy(seed + 1, 5, 0.5)
    regressor = nn.Conv2d(3, 5, 1).double()
    with torch.no_grad():
        for parameter in regressor.parameters():
            parameter.copy_(draw(g, *parameter.shape, scale=0.5))
    return {
        "student": student.eval(),
        "teacher": teacher.train(),
        "regressor": regressor,
        "images": [draw(g, rows, 1, 4, 4, scale=1.0) for rows in (8, 5)],
        "lr": float(torch.rand(1, generator=g)) * 0.05 + 0.02,
    }


def _by_default(g: torch.Generator) -> Arguments:
    """Leave `lr` out; both layers have the same name, and another trainer is built meanwhile."""
    arguments = _classroom(g)
    del arguments["lr"]
    others = _classroom(torch.Generator().manual_seed(1))
    other = [others[name] for name in ("student", "teacher", "regressor")]
    return {**arguments, "layers": ("body.1", "body.1"), "other": other}


def _held(optimizer: torch.optim.Optimizer, *modules: nn.Module) -> str:
    """Say how many of these parameters the optimiser holds: "all", "none", "3 of 6"."""
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    wanted = [id(p) for m in modules for p in m.parameters()]
    found = sum(ids.count(w) for w in wanted)
    return {0: "none", len(wanted): "all"}.get(found, f"{found} of {len(wanted)}")


def _two_steps(answer, a: Arguments) -> dict:
    """Take two steps and write down what moved, and what should not have."""
    student, teacher, regressor = a["student"], a["teacher"], a["regressor"]
    further = [a["lr"]] if "lr" in a else []
    layers = a.get("layers", ("body.2", "body.1"))
    trainer = answer(student, teacher, regressor, *layers, *further)
    if "other" in a:
        answer(*a["other"], "body.2", "body.3", 1.0)
    out: dict = {
        "Adam": isinstance(trainer.optimizer, torch.optim.Adam),
        "student's parameters in the optimiser": _held(trainer.optimizer, student),
        "regressor's parameters in the optimiser": _held(trainer.optimizer, regressor),
        "teacher's parameters in the optimiser": _held(trainer.optimizer, teacher),
    }
    frozen = {k: v.clone() for k, v in teacher.state_dict().items()}
    start = weights(regressor).clone(), weights(student.body).clone()
    for number in (0, 1):
        student.eval(), teacher.train()  # whoever looked at both in between
        loss = trainer.step(a["images"][number])
        out[f"loss of step {number + 1}"] = loss
        out[f"student after step {number + 1}"] = weights(student)
        out[f"regressor after step {number + 1}"] = weights(regressor)
    out["the regressor moved"] = not torch.equal(weights(regressor), start[0])
    out["the student moved"] = not torch.equal(weights(student.body), start[1])
    out["loss is a plain number"] = type(loss) is float
    out["teacher's modes"] = teacher.seen_modes
    out["student's modes"] = student.seen_modes
    out["graph through the teacher"] = any(teacher.graphs)
    out["hooks left"] = hooks_on(student, teacher)
    after = teacher.state_dict()
    out["teacher changed"] = any(not torch.equal(after[k], v) for k, v in frozen.items())
    return out


def _trainer(
    hold=("student", "regressor"),
    teacher_mode="eval",
    student_mode="train",
    graph=False,
    blind=False,
    zero=True,
    anew=False,
    hooks=True,
    number=True,
    update=True,
):
    """Assemble a trainer with one thing wrong."""

    class Wrong:
        def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
            self.parts = {"student": student, "teacher": teacher, "regressor": regressor}
            self.names, self.lr = (guided, hint), lr
            self.optimizer = self.make()

        def make(self):
            parameters = [p for part in hold for p in self.parts[part].parameters()]
            return torch.optim.Adam(parameters, self.lr)

        def step(self, inputs):
            student, teacher, regressor = self.parts.values()
            student.train(student_mode == "train")
            if teacher_mode == "eval":
                teacher.eval()
            seen, handles = {}, []
            for key, network, name in zip("st", (student, teacher), self.names, strict=True):

                def keep(module, args, output, key=key):
                    seen[key] = output

                handles.append(network.get_submodule(name).register_forward_hook(keep))
            with torch.no_grad() if blind else nullcontext():
                student(inputs)
            with torch.set_grad_enabled(graph):
                teacher(inputs)
            for handle in handles if hooks else ():
                handle.remove()
            loss = features.hint_loss(seen["s"], seen["t"], regressor)
            if anew:
                self.optimizer = self.make()
            if zero:
                self.optimizer.zero_grad()
            loss.backward()
            if update:
                self.optimizer.step()
            return loss.item() if number else loss

    return Wrong


LEARN = ("student", "regressor")
NEVER = ("teacher's modes", "never called", "The teacher was never asked.")

HINT_TRAINER = Exercise(
    id="06.HintTrainer",
    title="An optimiser that holds the regressor",
    reference=features.HintTrainer,
    probes=(
        Probe(
            "two steps",
            "two steps, on batches of 8 and of 5 images",
            _classroom,
            run=_two_steps,
            leaves=LEARN,
        ),
        Probe(
            "default",
            "two steps with lr left out, another trainer beside",
            _by_default,
            run=_two_steps,
            leaves=(*LEARN, "other"),
        ),
    ),
    criteria=(
        side(
            facts(
                "the optimiser holds the regressor",
                0.75,
                "two steps",
                (
                    "regressor's parameters in the optimiser",
                    "all",
                    "Of the regressor's parameters the optimiser holds: {seen}.",
                ),
                ("the regressor moved", True, "After two steps the regressor is as it was."),
            )
        ),
        side(
            facts(
                "and the student, and nothing of the teacher",
                0.5,
                "two steps",
                (
                    "student's parameters in the optimiser",
                    "all",
                    "Of the student's parameters the optimiser holds: {seen}.",
                ),
                ("the student moved", True, "After two steps the student is as it was."),
                (
                    "teacher's parameters in the optimiser",
                    "none",
                    "Of the teacher's parameters the optimiser holds: {seen}.",
                ),
                ("Adam", True, "`self.optimizer` is no `torch.optim.Adam`."),
                unless=NEVER,
            )
        ),
        side(
            facts(
                "the teacher is a constant",
                0.5,
                "two steps",
                ("teacher's modes", "eval", "The teacher was called in this mode: {seen}."),
                (
                    "graph through the teacher",
                    False,
                    "Autograd records the teacher's forward pass, for a gradient that nobody "
                    "wants.",
                ),
                ("teacher changed", False, "After your steps the teacher is another network."),
                unless=NEVER,
            )
        ),
        matches("the loss before the update", 0.5, "two steps", keys=("loss of step 1",)),
        matches(
            "student and regressor after both steps",
            1.0,
            "two steps",
            "default",
            keys=(
                "student after step 1",
                "regressor after step 1",
                "loss of step 2",
                "student after step 2",
                "regressor after step 2",
            ),
        ),
        side(
            facts(
                "nothing is left behind",
                0.5,
                "two steps",
                ("hooks left", 0, "After two steps there are hooks left on the networks: {seen}."),
                (
                    "loss is a plain number",
                    True,
                    "You return a tensor. Whoever collects it in a list keeps its graph alive.",
                ),
                ("student's modes", "train", "The student was called in this mode: {seen}."),
                unless=NEVER,
            )
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "regressor missing from the optimiser",
            _trainer(hold=("student",)),
            "The regressor stays as it was drawn: no optimiser holds it. Nothing crashes and the "
            "loss falls, because the student bends itself to a random map. Look at what you pass "
            "to the optimiser.",
            "huangzongmou/yolov8_Distillation #5, roymiles/Simple-Recipe-Distillation #1, "
            "CIntellifusion/GeometryForcing #13",
        ),
        Mistake(
            "student missing from the optimiser",
            _trainer(hold=("regressor",)),
            "Only the regressor learns, on features of a student that never changes.",
        ),
        Mistake(
            "teacher in the optimiser too",
            _trainer(hold=("student", "regressor", "teacher")),
            "The optimiser holds the teacher's parameters too. They get no gradient here, but the "
            "day somebody forgets `no_grad` the teacher starts to move.",
            "huangzongmou/yolov8_Distillation #16, as a question",
        ),
        Mistake(
            "teacher in train mode",
            _trainer(teacher_mode="train"),
            "Nobody told the teacher to be in eval mode. With dropout on, its hint is another one "
            "each time.",
        ),
        Mistake(
            "graph kept through the teacher",
            _trainer(graph=True),
            "The hint loss detaches the teacher's features, but only after autograd has kept all "
            "of the teacher's activations.",
        ),
        Mistake(
            "student runs without a graph",
            _trainer(blind=True),
            "Your student runs under `no_grad`, like the teacher. Its features have no graph, so "
            "only the regressor can learn.",
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
            "hooks left on",
            _trainer(hooks=False),
            "Each of your steps leaves two more hooks on the networks.",
            "KamitaniLab/bdpy #72",
        ),
        Mistake(
            "no update",
            _trainer(update=False),
            "Neither student nor regressor is changed by your step.",
        ),
        Mistake(
            "the loss with its graph",
            _trainer(number=False),
            "You return the loss as a tensor that still holds the whole graph.",
        ),
    ),
    minutes=18,
    difficulty=3,
)
