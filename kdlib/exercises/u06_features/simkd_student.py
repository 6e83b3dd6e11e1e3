"""06.SimKDStudent."""

from __future__ import annotations

import torch
from torch import nn

from kdlib.checks.criteria import facts, matches
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.exercises.u06_features.inputs import weights
from kdlib.losses import features


def _parts(g: torch.Generator) -> Arguments:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(10_000, (1,), generator=g)))
        encoder = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU()).double()
        projector = nn.Linear(6, 7).double()
        head = nn.Sequential(nn.Dropout(0.5), nn.Linear(7, 4)).double()
    dropped: list[bool] = []
    head[0].register_forward_hook(lambda module, *_: dropped.append(module.training))
    return {
        "encoder": encoder,
        "projector": projector,
        "teacher_head": head,
        "images": draw(g, 2, 12, 5, scale=1.0),
        "hints": draw(g, 2, 12, 7, scale=1.0),
        "dropped": dropped,
    }


def _two_steps(answer, a: Arguments) -> dict:
    """Train two steps on the features and look at every part."""
    encoder, projector, head = a["encoder"], a["projector"], a["teacher_head"]
    model = answer(encoder, projector, head)
    learn = [p for p in model.parameters() if p.requires_grad]
    out: dict = {"numbers that learn": sum(p.numel() for p in learn)}
    before = weights(head).clone()
    model.train()
    out["encoder in train mode"] = encoder.training
    logits = model(a["images"][0])
    # the head that answers may be a copy, or stand where `modules()` does not look
    out["dropout of the head on"] = any(a["dropped"]) or any(
        m.training for m in model.modules() if isinstance(m, nn.Dropout)
    )
    out["answer in train mode"] = logits
    weight = encoder[0].weight
    out["gradient through the head"] = (
        torch.autograd.grad(logits.square().sum(), weight)[0]
        if logits.requires_grad
        else torch.zeros_like(weight)
    )
    optimizer = torch.optim.SGD(learn, lr=0.05)
    for number in (0, 1):
        found = model.features(a["images"][number])
        out[f"output of features in step {number + 1}"] = found
        optimizer.zero_grad()
        (
            (found - a["hints"][number]).square().sum(1).mean() + model(a["images"][number]).mean()
        ).backward()
        optimizer.step()
    out["encoder after two steps"] = weights(encoder)
    out["projector after two steps"] = weights(projector)
    out["the head changed"] = not torch.equal(weights(head), before)
    model.eval()
    out["encoder in eval mode at the end"] = not encoder.training
    out["answer in eval mode"] = model(a["images"][1])
    return out


def _student(
    head_mode="eval",
    freeze="head",
    own=False,
    listed=False,
    projected=True,
    graph=True,
    stuck=False,
):
    """Assemble a student with one thing wrong."""

    class Wrong(nn.Module):
        def __init__(self, encoder, projector, teacher_head):
            super().__init__()
            self.encoder = encoder
            if listed:
                self.parts = [projector]
            else:
                self.projector = projector
            if own:
                teacher_head = nn.Linear(*reversed(teacher_head[1].weight.shape)).double()
            self.head = teacher_head
            if freeze == "head" and not own:
                self.head.requires_grad_(False)
            if freeze == "head and encoder":
                self.requires_grad_(False)
                projector.requires_grad_(True)
            self.head.eval()

        def train(self, mode=True):
            super().train(mode and not stuck)
            if head_mode == "eval" and not own:
                self.head.eval()
            return self

        def features(self, images):
            found = self.encoder(images)
            return self.parts[0](found) if listed else self.projector(found)

        def forward(self, images):
            found = self.features(images)
            if not projected:
                found = nn.functional.pad(self.encoder(images), (0, 1))
            with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
                return self.head(found)

    return Wrong


SIMKD_STUDENT = Exercise(
    id="06.SimKDStudent",
    title="The teacher's classifier, reused",
    reference=features.SimKDStudent,
    probes=(Probe("two steps", "two steps on 12 rows", _parts, run=_two_steps),),
    criteria=(
        matches(
            "features and logits",
            1.0,
            "two steps",
            keys=("output of features in step 1", "answer in train mode", "answer in eval mode"),
        ),
        facts(
            "the head never drops anything",
            0.5,
            "two steps",
            (
                "dropout of the head on",
                False,
                "After `train()` the dropout in the teacher's head is on. It was chosen, and is "
                "used, without.",
            ),
            (
                "encoder in train mode",
                True,
                "After `train()` the encoder is still in eval mode.",
            ),
            (
                "encoder in eval mode at the end",
                True,
                "After `eval()` the encoder is still in train mode.",
            ),
        ),
        facts(
            "encoder and projector learn, the head does not",
            0.5,
            "two steps",
            (
                "numbers that learn",
                97,
                "In `parameters()` there are {seen} numbers that learn. Encoder and projector have "
                "48 and 49, the head 32.",
            ),
            ("the head changed", False, "After two steps the teacher's head is another one."),
        ),
        matches(
            "both after two steps",
            0.75,
            "two steps",
            keys=("encoder after two steps", "projector after two steps"),
        ),
        matches(
            "gradient passes through the head",
            0.25,
            "two steps",
            keys=("gradient through the head",),
        ),
    ),
    mistakes=(
        Mistake(
            "train mode reaches the head",
            _student(head_mode="follow"),
            "You put the head into eval mode once. The next `model.train()`, at the start of every "
            "epoch, undoes that for all that is inside the model. Where does a module hear of "
            "`train()`?",
        ),
        Mistake(
            "the head learns",
            _student(freeze="nothing"),
            "The head's parameters are open to the optimiser, so it drifts away from the "
            "teacher's. Then the features are matched to a head that no longer exists.",
        ),
        Mistake(
            "everything frozen but the projector",
            _student(freeze="head and encoder"),
            "You froze the encoder as well; it stays as it was drawn at random.",
        ),
        Mistake(
            "a classifier of its own",
            _student(own=True),
            "Your student ends in a new classifier. The point of the method is to reuse the one "
            "that the teacher has.",
        ),
        Mistake(
            "the projector in a list",
            _student(listed=True),
            "The projector works but does not learn: `nn.Module` does not look into Python lists, "
            "so `parameters()` does not know it.",
            "huangzongmou/yolov8_Distillation #5",
        ),
        Mistake(
            "the logits skip the projector",
            _student(projected=False),
            "`features` goes through the projector, the logits do not. What is trained is then not "
            "what is used.",
        ),
        Mistake(
            "no graph through the head",
            _student(graph=False),
            "`no_grad` around the head also stops the gradient on its way to the student. Frozen "
            "parameters are enough: the head does not move, and gradient still passes.",
        ),
        Mistake(
            "the whole model stuck in eval mode",
            _student(stuck=True),
            "Your `train` keeps the encoder in eval mode too. Its BatchNorm statistics never move.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
