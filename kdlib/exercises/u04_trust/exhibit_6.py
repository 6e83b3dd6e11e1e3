"""04.exhibit_6: a projector that never learns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from kdlib import museum
from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw
from kdlib.exercises.u04_trust.watch import weights


def _rooms(g: torch.Generator) -> Arguments:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(10_000, (1,), generator=g)))
        student, teacher = (
            museum.Halves(
                nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.Tanh()),
                nn.Linear(width, 3),
            ).double()
            for width in (4, 6)
        )
        hint = museum.Hint(4, 6).double()
    rows = between(g, 36, 60)
    return {
        "student": student,
        "teacher": teacher,
        "hint": hint,
        "images": draw(g, rows, 5, scale=1.0),
        "labels": torch.randint(3, (rows,), generator=g),
        "steps": between(g, 3, 5),
        "seed": int(torch.randint(1000, (1,), generator=g)),
    }


def _workshop(answer, a: Arguments) -> dict:
    """Write down which of the three modules have learned."""
    before = {k: weights(a[k]) for k in ("student", "teacher", "hint")}
    answer(*a.values())
    after = {k: weights(a[k]) for k in before}
    moved = {k: not torch.equal(before[k], after[k]) for k in before}
    return {
        "the projector learns": moved["hint"],
        "the student learns": moved["student"],
        "the teacher changed": moved["teacher"],
        "gradient at the projector": any(p.grad is not None for p in a["hint"].parameters()),
        "student": after["student"],
        "projector": after["hint"],
    }


def _script(
    held=lambda s, h: [*s.parameters(), *h.parameters()],
    features_of=lambda f: f,
    weight=10.0,
    prepare=lambda h: None,
    second=None,
    each=lambda h: None,
):
    """Assemble the script with one thing changed."""

    def script(student, teacher, hint, images, labels, steps, seed=0):
        prepare(hint)
        optimizer = torch.optim.AdamW(held(student, hint), 2e-3)
        other = second(hint) if second else None
        student.train()
        teacher.eval()
        for rows in museum.batches(len(images), steps, seed):
            each(hint)
            with torch.no_grad():
                target = teacher.features(images[rows])
            features = student.features(images[rows])
            loss = F.cross_entropy(student.head(features), labels[rows])
            if weight:
                loss = loss + weight * hint(features_of(features), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if other:
                other.step()

    return script


def _only_student(s, h):
    return list(s.parameters())


def _drawn_anew(h):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in h.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


EXHIBIT_6 = Exercise(
    id="04.exhibit_6",
    title="Exhibit 6",
    reference=museum.exhibit_6,
    probes=(Probe("4 steps", "some steps", _rooms, run=_workshop),),
    criteria=(
        side(
            facts(
                "the projector learns, and with it the student",
                0.75,
                "4 steps",
                (
                    "the student learns",
                    True,
                    "The student is the same after your script.",
                ),
                (
                    "the projector learns",
                    True,
                    "The projector is the same after your script as before: the student's features "
                    "are compared with the teacher's through a random map.",
                ),
                ("the teacher changed", False, "The teacher is another network after your script."),
                (
                    "gradient at the projector",
                    True,
                    "No gradient arrives at the projector, so what moves it is not learning.",
                ),
            )
        ),
        matches("the student and the projector", 0.5, "4 steps", keys=("student", "projector")),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "as found",
            museum.found_6,
            "This is the script as found, or does what it does: gradients arrive at the projector, "
            "and nobody applies them. Who holds the projector's parameters?",
            "huangzongmou/yolov8_Distillation #5",
        ),
        Mistake(
            "frozen on purpose",
            _script(_only_student, prepare=lambda h: h.requires_grad_(False)),
            "Now the projector asks for no gradient, so that none is wasted. It still is a random "
            "map that the student's features are forced through.",
        ),
        Mistake(
            "a larger weight",
            _script(_only_student, weight=100.0),
            "You raised the weight of the hint. The student now works harder at fitting the "
            "teacher's features through a map that never learns.",
        ),
        Mistake(
            "no hint at all",
            _script(weight=0.0),
            "Without the hint there is no projector to forget, and no teacher either: the student "
            "learns from the labels alone.",
        ),
        Mistake(
            "the features detached",
            _script(features_of=lambda f: f.detach()),
            "The projector learns now, but no gradient goes through it to the student's features. "
            "The hint teaches the projector only.",
        ),
        Mistake(
            "the projector alone",
            _script(held=lambda s, h: list(h.parameters())),
            "The optimiser holds the projector and has lost the student.",
        ),
        Mistake(
            "gradients that pile up",
            _script(_only_student, second=lambda h: torch.optim.AdamW(h.parameters(), 2e-3)),
            "The projector has an optimiser of its own, and nobody clears its gradients: each step "
            "adds to those of all steps before.",
        ),
        Mistake(
            "drawn anew in each step",
            _script(_only_student, each=_drawn_anew),
            "The projector changes in your script, but it does not learn: it is overwritten.",
        ),
    ),
    minutes=6,
    difficulty=2,
    seconds=5.0,
)
