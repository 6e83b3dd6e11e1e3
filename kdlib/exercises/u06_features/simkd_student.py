"""06.SimKDStudent."""

from __future__ import annotations

import torch
from torch import nn

from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.exercises.u06_features.inputs import weights
from kdlib.losses import features


def _parts(g: torch.Generator) -> Arguments:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(10_000, (1,), generator=g)))
        hidden, wide = (int(torch.randint(5, 9, (1,), generator=g)) for _ in range(2))
        encoder = nn.Sequential(nn.Linear(5, hidden), nn.BatchNorm1d(hidden), nn.ReLU()).double()
        projector = nn.Linear(hidden, wide).double()
        head = nn.Sequential(nn.Dropout(0.5), nn.Linear(wide, 4), nn.BatchNorm1d(4)).double()
        nn.init.uniform_(head[2].running_mean), nn.init.uniform_(head[2].running_var, 0.5, 2.0)
    dropped: list[bool] = []
    head[0].register_forward_hook(lambda module, *_: dropped.append(module.training))
    return {
        "encoder": encoder,
        "projector": projector,
        "teacher_head": head,
        "images": draw(g, 2, 12, 5, scale=1.0),
        "hints": draw(g, 2, 12, wide, scale=1.0),
        "dropped": dropped,
    }


def _two_steps(answer, a: Arguments) -> dict:
    """Train two steps on the features and look at every part."""
    encoder, projector, head = a["encoder"], a["projector"], a["teacher_head"]
    model = answer(encoder, projector, head)
    other = _parts(torch.Generator().manual_seed(1))
    answer(other["encoder"], other["projector"], other["teacher_head"])
    with torch.no_grad():
        model(a["images"][0])
    new = any(a["dropped"])
    learn = [p for p in model.parameters() if p.requires_grad]
    out: dict = {"what learns": _owners(learn, encoder=encoder, projector=projector, head=head)}
    out["dropout of the head on in a new student"] = new
    before = {name: value.clone() for name, value in head.state_dict().items()}
    nn.Sequential(model).eval()
    out["train() gives the model"] = model.train() is model
    out["encoder in train mode"] = encoder.training and projector.training
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
    model.eval()
    out["encoder in eval mode at the end"] = not (encoder.training or projector.training)
    out["answer in eval mode"] = model(a["images"][1])
    nn.Sequential(model).train()  # the next epoch begins
    model(a["images"][1])
    out["dropout of the head on in the next epoch"] = any(a["dropped"])
    out["the head changed"] = any(
        not torch.equal(value, before[name]) for name, value in head.state_dict().items()
    )
    return out


def _owners(parameters: list[nn.Parameter], **parts: nn.Module) -> str:
    """Say to which parts these parameters belong: "encoder, projector, half of head"."""
    ids = [id(p) for p in parameters]
    found = []
    for name, part in parts.items():
        theirs = [id(p) for p in part.parameters()]
        count = sum(ids.count(i) for i in theirs)
        if count:
            found.append(name if count == len(theirs) else f"{count} of {len(theirs)} of {name}")
    known = {id(p) for part in parts.values() for p in part.parameters()}
    return ", ".join(found + ["something else"] * any(i not in known for i in ids)) or "nothing"


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
                wide = found.shape[1]
                found = nn.functional.pad(self.encoder(images), (0, wide))[:, :wide]
            with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
                return self.head(found)

    return Wrong


SIMKD_STUDENT = Exercise(
    id="06.SimKDStudent",
    title="The teacher's classifier, reused",
    reference=features.SimKDStudent,
    probes=(
        Probe(
            "two steps",
            "two steps on 12 rows",
            _parts,
            run=_two_steps,
            leaves=("encoder", "projector", "dropped"),
        ),
    ),
    criteria=(
        matches(
            "features and logits",
            1.0,
            "two steps",
            keys=("output of features in step 1", "answer in train mode", "answer in eval mode"),
        ),
        side(
            facts(
                "the head never drops anything",
                0.5,
                "two steps",
                (
                    "dropout of the head on",
                    False,
                    "After `train()` the dropout in the teacher's head is on. It was chosen, and "
                    "is used, without.",
                ),
                (
                    "dropout of the head on in a new student",
                    False,
                    "The dropout in the teacher's head is on in a student that is just built, "
                    "before anybody calls `train()` or `eval()`.",
                ),
                (
                    "dropout of the head on in the next epoch",
                    False,
                    "After `eval()` and another `train()` the dropout in the teacher's head is on.",
                ),
                (
                    "encoder in train mode",
                    True,
                    "After `train()` encoder or projector is still in eval mode.",
                ),
                (
                    "encoder in eval mode at the end",
                    True,
                    "After `eval()` encoder or projector is still in train mode.",
                ),
                (
                    "train() gives the model",
                    True,
                    "`model.train()` does not return the model, as it does for every module.",
                ),
            )
        ),
        side(
            facts(
                "encoder and projector learn, the head does not",
                0.5,
                "two steps",
                (
                    "what learns",
                    "encoder, projector",
                    "Among the `parameters()` that learn there are those of: {seen}.",
                ),
                ("the head changed", False, "After two steps the teacher's head is another one."),
            )
        ),
        matches(
            "both after two steps",
            0.5,
            "two steps",
            keys=("encoder after two steps", "projector after two steps"),
        ),
        matches(
            "gradient passes through the head",
            0.25,
            "two steps",
            keys=("gradient through the head",),
        ),
        tidy(0.25),
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
