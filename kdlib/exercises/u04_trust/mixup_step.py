"""04.mixup_step."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import Spy, between, draw, number
from kdlib.exercises.u04_trust.watch import Watch, both, soft_term, weights
from kdlib.training import views as augment


def _classroom(optimizer, shape: tuple[int, ...] = (5,), temperature: bool = True):
    """Build a student in eval mode, a teacher in train mode and a batch of inputs of a shape.

    Without a temperature, the weights and the partners are less regular.
    """

    def make(g: torch.Generator) -> Arguments:
        seed, rows = int(torch.randint(10_000, (1,), generator=g)), between(g, 5, 9)
        student, teacher = Spy(seed, 6, 0.0), Spy(seed + 1, 16, 0.5)
        order = torch.randperm(rows, generator=g)
        made = {
            "student": student.eval(),
            "teacher": teacher.train(),
            "inputs": draw(g, rows, *shape, scale=1.0),
            "order": order.roll(1)[order.argsort()],  # nobody is their own partner
            "weight": 0.1 + 0.8 * torch.rand(rows, generator=g, dtype=torch.float64),
            "optimizer": optimizer(student.parameters()),
        }
        if temperature:
            return made | {"temperature": number(g, 2.0, 4.0)}
        # the last row is nobody's partner, and two rows are not blended at all
        made["order"] = made["order"].clamp(max=rows - 2)
        made["weight"][:2] = torch.tensor([0.0, 1.0])
        return made

    return make


def _two_steps(answer, a: Arguments) -> dict:
    """Take two steps and write down what each network was shown."""
    student, teacher, inputs = Watch(a["student"]), Watch(a["teacher"]), a["inputs"].clone()
    frozen = weights(a["teacher"])
    out: dict = {f"loss of step {n}": answer(*a.values()) for n in (1, 2)}
    out["each a Python float"] = all(type(loss) is float for loss in out.values())
    shown = [[c.inputs for c in w.calls] for w in (student, teacher)]
    w = a["weight"].reshape(-1, *[1] * (inputs.dim() - 1))
    view = w * inputs + (1 - w) * inputs[a["order"]]
    out["the student saw"] = _name(shown[0], view, inputs)
    out["the teacher saw"] = _name(shown[1], view, inputs)
    out |= {who: calls[-1] for who, calls in zip(LAST, shown, strict=True) if calls}
    out["student after two steps"] = weights(a["student"])
    out["teacher's modes"] = a["teacher"].seen_modes
    out["student's modes"] = a["student"].seen_modes
    out["graph through the teacher"] = any(a["teacher"].graphs)
    out["teacher changed"] = not torch.equal(frozen, weights(a["teacher"]))
    return out


def _name(calls: list[Tensor], view: Tensor, inputs: Tensor) -> str:
    names = {"the blended view": view, "the images themselves": inputs}
    found = [
        next((n for n, x in names.items() if x.shape == c.shape and torch.allclose(x, c)), "else")
        for c in calls
    ]
    return ", ".join(dict.fromkeys(found)).replace("else", "something else") or "nothing"


def _as(weight: Tensor, x: Tensor) -> Tensor:
    return weight.reshape(-1, *[1] * (x.dim() - 1))


def _step(
    blend=lambda x, o, w: _as(w, x) * x + (1 - _as(w, x)) * x[o],
    teacher_sees="view",
    student_sees="view",
    mode="eval",
    factor=lambda T: T**2,
    reverse=False,
    graph=False,
    in_place=False,
):
    """Assemble a step with one thing wrong."""

    def step(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
        view = blend(inputs, order, weight)
        if in_place:
            inputs.copy_(view)
        student.train()
        teacher.train(mode == "train")
        with torch.set_grad_enabled(graph):
            if teacher_sees == "answers":
                p = blend(teacher(inputs).div(temperature).softmax(-1), order, weight)
                v = p.log() * temperature
            elif teacher_sees == "another":
                v = teacher(blend(inputs, order.flip(0), weight))
            else:
                v = teacher(view if teacher_sees == "view" else inputs)
        z = student(view if student_sees == "view" else inputs)
        pair = (v, z) if reverse else (z, v)
        loss = factor(temperature) * soft_term(*(x / temperature for x in pair))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


NEVER = ("the teacher saw", "nothing", "The teacher was never asked.")
LAST = ("what the student saw last", "what the teacher saw last")
LOSSES = ("loss of step 1", "loss of step 2")
_sgd = functools.partial(torch.optim.SGD, lr=0.3)

MIXUP_STEP = Exercise(
    id="04.mixup_step",
    title="One blended view",
    reference=augment.mixup_step,
    probes=(
        Probe("two steps", "two steps with SGD", _classroom(_sgd), run=_two_steps),
        Probe(
            "images",
            "two steps with AdamW on inputs of four dimensions, T as it is by default",
            _classroom(torch.optim.AdamW, (1, 5, 1), temperature=False),
            run=_two_steps,
        ),
    ),
    criteria=(
        both(
            facts(
                "both networks see the same blend",
                1.0,
                "two steps",
                ("the student saw", "the blended view", "The student was shown {seen}."),
                ("the teacher saw", "the blended view", "The teacher was shown {seen}."),
                unless=NEVER,
            ),
            matches("", 0, "two steps", "images", keys=LAST),
        ),
        side(
            facts(
                "the teacher answers in eval mode, without a graph",
                0.5,
                "two steps",
                ("teacher's modes", "eval", "The teacher was called in this mode: {seen}."),
                (
                    "graph through the teacher",
                    False,
                    "Autograd records the teacher's pass.",
                ),
                ("teacher changed", False, "The teacher is another network after your steps."),
                ("student's modes", "train", "The student was called in this mode: {seen}."),
                unless=NEVER,
            )
        ),
        both(
            matches("the loss of both steps", 0.75, "two steps", "images", keys=LOSSES),
            facts(
                "",
                0,
                "two steps",
                (
                    "each a Python float",
                    True,
                    "The loss is right, and a tensor: return a Python float.",
                ),
            ),
        ),
        matches(
            "the student after them", 0.5, "two steps", "images", keys=("student after two steps",)
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the teacher sees the images themselves",
            _step(teacher_sees="images"),
            "Your teacher comments on the unblended image while your student looks at a blend: "
            "its target says nothing of half of what it sees.",
            "haitongli/knowledge-distillation-pytorch #23, with crops and flips",
        ),
        Mistake(
            "the teacher's answers are blended",
            _step(teacher_sees="answers"),
            "You blend the teacher's answers to two images instead of asking it about the blend. "
            "That is what mixup does with labels, and what a cache allows; but this teacher is a "
            "function, and can be asked about the very view that the student sees.",
        ),
        Mistake(
            "two different blends",
            _step(teacher_sees="another"),
            "Teacher and student each see a blend, but not the same one.",
        ),
        Mistake(
            "the student sees the images themselves",
            _step(student_sees="images"),
            "Your teacher comments on the blend, your student looks at the unblended image.",
        ),
        Mistake(
            "weights exchanged",
            _step(blend=lambda x, o, w: (1 - _as(w, x)) * x + _as(w, x) * x[o]),
            "In your blend the weight belongs to the partner. Here it belongs to the row itself.",
        ),
        Mistake(
            "one weight for all",
            _step(blend=lambda x, o, w: w.mean() * x + (1 - w.mean()) * x[o]),
            "Your rows all share one weight. `weight` has an entry for each row.",
        ),
        Mistake(
            "blended in place",
            _step(in_place=True),
            "Your blend is written into `inputs`: the next use of this batch starts from blends.",
        ),
        Mistake(
            "teacher in train mode",
            _step(mode="train"),
            "Nobody told the teacher to be in eval mode: dropout is on, and BatchNorm looks at "
            "this batch of blends and learns its statistics.",
            "Sharpiless/yolov5-knowledge-distillation #5",
        ),
        Mistake(
            "graph kept through the teacher",
            _step(graph=True),
            "Autograd records the teacher's forward pass, and sends gradients to its parameters.",
        ),
        Mistake(
            "no T squared",
            _step(factor=lambda T: 1.0),
            "The factor T squared is missing: at T = 3 your gradient is a ninth of what it should "
            "be.",
        ),
        Mistake(
            "KL the wrong way round",
            _step(reverse=True),
            "This is KL(q || p). The teacher's probabilities are the ones that the mean is taken "
            "under.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
