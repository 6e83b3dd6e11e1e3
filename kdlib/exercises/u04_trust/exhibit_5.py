"""04.exhibit_5: a table of somebody else's results."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import museum
from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw
from kdlib.exercises.u04_trust.exhibit_1 import classroom

T = 3.0


def _rooms(g: torch.Generator) -> Arguments:
    made = classroom(4, dropout=0.5)(g)
    made["held_out"] = draw(g, between(g, 9, 20), 5, scale=1.0)
    return {k: made[k] for k in ("student", "teacher", "images", "held_out", "steps", "seed")}


def _report(answer, a: Arguments) -> dict:
    """Say whose predictions a script reports."""
    student, teacher, held_out = a["student"], a["teacher"], a["held_out"]
    before = copy.deepcopy(student)
    found = answer(*a.values())
    modes = student.modes[-1] if student.modes else "never called"
    with torch.no_grad():
        whose = {
            "the student's": student.eval()(held_out),
            "the teacher's": teacher.eval()(held_out),
            "those of the student before it learned anything": before.eval()(held_out),
        }
    trained = not torch.equal(student.net[0].weight, before.net[0].weight)
    name = "of the right shape, but no single network's"
    if not isinstance(found, Tensor) or found.shape != held_out[:, :4].shape:
        name = "not one row of logits for each held-out image"
    for who, logits in whose.items():
        if isinstance(found, Tensor) and found.shape == logits.shape:
            name = who if torch.allclose(found.double(), logits) else name
    return {"whose": name, "reported": found, "trained": trained, "last mode": modes}


def _script(report, asked=lambda s, t: t):
    """Assemble the script with another last line, or another network that gives the soft labels."""

    def script(student, teacher, images, held_out, steps, seed=0):
        teacher.eval()
        untrained = copy.deepcopy(student).eval()
        with torch.no_grad():
            soft_labels = (asked(student, teacher).eval()(images) / T).softmax(dim=1)
        optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
        student.train()
        for rows in museum.batches(len(images), steps, seed):
            loss = T * T * F.cross_entropy(student(images[rows]) / T, soft_labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return report(student, teacher, images, held_out, untrained)

    return script


EXHIBIT_5 = Exercise(
    id="04.exhibit_5",
    title="Exhibit 5",
    reference=museum.exhibit_5,
    probes=(Probe("3 steps", "images to learn from and some held out", _rooms, run=_report),),
    criteria=(
        side(
            facts(
                "it reports the student's predictions",
                0.75,
                "3 steps",
                ("trained", True, "Your script left the student as it was."),
                ("whose", "the student's", "The predictions that it reports are {seen}."),
            )
        ),
        matches("and reports them right", 0.5, "3 steps", keys=("reported",)),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "as found",
            museum.found_5,
            "This is the script as found, or does what it does: the student learns, and the table "
            "shows the teacher's predictions. Which network does each name stand for in the last "
            "line?",
            "carlini/nn_robust_attacks #2",
        ),
        Mistake(
            "the student in train mode",
            _script(lambda s, t, x, h, u: s.train()(h)),
            "The right network, in train mode: BatchNorm uses the statistics of the held-out "
            "batch, so that one image's prediction depends on the others.",
        ),
        Mistake(
            "the student before training",
            _script(lambda s, t, x, h, u: u(h)),
            "These are the predictions of a student that has not learned yet. When are they made?",
        ),
        Mistake(
            "on the training images",
            _script(lambda s, t, x, h, u: s.eval()(x)),
            "The right network on the wrong images: those it has learned from.",
        ),
        Mistake(
            "still at the training temperature",
            _script(lambda s, t, x, h, u: s.eval()(h) / T),
            "The right network, its logits divided by the temperature of training. Accuracy does "
            "not notice, confidence and predictive KL do: a student is used at T = 1.",
        ),
        Mistake(
            "the mean of both networks",
            _script(lambda s, t, x, h, u: (s.eval()(h) + t(h)) / 2),
            "You report the mean of both networks. That is an ensemble, and not what will be "
            "deployed.",
        ),
        Mistake(
            "probabilities",
            _script(lambda s, t, x, h, u: s.eval()(h).softmax(1)),
            "The right network, but its probabilities. As found, the script reports logits, and "
            "whoever computes a KL from them applies a softmax.",
        ),
        Mistake(
            "the student teaches itself",
            _script(lambda s, t, x, h, u: s.eval()(h), asked=lambda s, t: s),
            "The report is the student's now, and so are the soft labels: it was taught what it "
            "said before it had learned anything. One name stands for a network in two places.",
        ),
    ),
    minutes=5,
    difficulty=1,
    seconds=5.0,
)
