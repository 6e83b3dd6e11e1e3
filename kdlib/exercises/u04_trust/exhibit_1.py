"""04.exhibit_1: one term far smaller than its weight says."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib import museum
from kdlib.checks.criteria import facts, law, matches, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import Spy, between, draw
from kdlib.exercises.u04_trust.watch import Watch, both, rows_of, two_terms, weights

ALPHA, T = 0.5, 2.0


def classroom(classes: int, dropout: float = 0.0, default_seed: bool = False):
    """Build networks and 36 to 60 images for a script that trains for three or four steps.

    The student comes in eval mode, the teacher in train mode.
    """

    def make(g: torch.Generator) -> Arguments:
        seed = int(torch.randint(10_000, (1,), generator=g))
        rows, steps = between(g, 36, 60), between(g, 3, 4)
        made = {
            "student": Spy(seed, 6, 0.0, classes=classes).eval(),
            "teacher": Spy(seed + 1, 16, dropout, classes=classes),
            "images": draw(g, rows, 5, scale=1.0),
            "labels": torch.randint(classes, (rows,), generator=g),
            "steps": steps,
            "seed": int(torch.randint(1000, (1,), generator=g)),
        }
        if default_seed:
            del made["seed"]
        return made

    return make


def series(returned):
    """Give a list of numbers as one tensor, anything else as it is."""
    numbers = isinstance(returned, list) and all(type(x) in (int, float) for x in returned)
    return torch.tensor(returned, dtype=torch.float64) if numbers else returned


def weighed(temperature: float):
    """Run a script and say how much each term weighed in the student's first step."""

    def run(answer, a: Arguments) -> dict:
        before, watch = weights(a["student"]), Watch(a["student"])
        teacher, modes = a["teacher"], a["teacher"].modes
        returned = answer(*a.values())
        asked = ", ".join(dict.fromkeys(modes)) or "never called"
        out = {"soft": 0.0, "hard": 0.0, "neither": 1.0, "teacher's modes": asked}
        if watch.taught:
            call = watch.taught[0]
            rows = rows_of(call.inputs, a["images"])
            teacher.eval()
            with torch.no_grad():
                v = teacher(a["images"][rows])
            terms = two_terms(call, v, a["labels"][rows], temperature)
            out |= dict(zip(("soft", "hard", "neither"), terms, strict=True))
            out["gradient at the outputs"] = call.gradient
        out["student"] = weights(a["student"])
        out["trained"] = not torch.equal(before, out["student"])
        out["returned"] = series(returned)
        return out

    return run


def _weights_hold(evidence: Evidence) -> str | None:
    few, many = (
        {k: float(evidence.value(p, k)) for k in ("soft", "hard", "neither")}
        for p in ("4 classes", "10 classes")
    )
    if not evidence.value("4 classes", "trained"):
        return "Your script left the student as it was."
    if max(few["neither"], many["neither"]) > 1e-4:
        return (
            "The gradient that reaches the student's outputs is no mixture of the two terms that "
            "stand in the script. What else did you change?"
        )
    if abs(few["soft"] - many["soft"]) > 1e-4:
        return (
            f"With 4 classes your soft term weighs {few['soft']:.3g}, with 10 classes "
            f"{many['soft']:.3g}. A weight must not depend on how many classes there are."
        )
    for term, want in (("soft", ALPHA), ("hard", 1 - ALPHA)):
        if abs(few[term] - want) > 1e-4:
            return (
                f"Your {term} term weighs {few[term]:.3g} in the student's gradient. "
                "That is not what the script's `alpha` says."
            )
    return None


def _script(
    soft=lambda total, z: T * T * total / len(z), hard=lambda h, z: h, alpha=ALPHA, lr=2e-3
):
    """Assemble the script with one thing changed."""

    def script(student, teacher, images, labels, steps, seed=0):
        optimizer = torch.optim.AdamW(student.parameters(), lr)
        student.train()
        teacher.eval()
        for rows in museum.batches(len(images), steps, seed):
            z = student(images[rows])
            with torch.no_grad():
                v = teacher(images[rows])
            log_q, log_p = F.log_softmax(z / T, dim=1), F.log_softmax(v / T, dim=1)
            total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
            hard_term = hard(F.cross_entropy(z, labels[rows]), z)
            loss = alpha * soft(total, z) + (1 - alpha) * hard_term
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return script


EXHIBIT_1 = Exercise(
    id="04.exhibit_1",
    title="Exhibit 1",
    reference=museum.exhibit_1,
    probes=(
        Probe("4 classes", "images of 4 classes", classroom(4), run=weighed(T)),
        Probe(
            "10 classes",
            "images of 10 classes",
            classroom(10, default_seed=True),
            run=weighed(T),
        ),
    ),
    criteria=(
        both(
            law(
                "both terms weigh what the script says",
                0.75,
                ("4 classes", "10 classes"),
                _weights_hold,
            ),
            matches("", 0, "4 classes", "10 classes", keys=("gradient at the outputs",)),
        ),
        both(
            matches("the student it trains", 0.5, "4 classes", "10 classes", keys=("student",)),
            facts("", 0, "4 classes", ("returned", None, "Your script returns {seen}.")),
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "as found",
            museum.found_1,
            "This is the script as found, or does what it does: the soft term weighs a fourth of "
            "what it should with 4 classes and a tenth with 10. Follow `total` from the call that "
            "makes it to the loss: what is it a sum over, and what is it divided by?",
            "facebookresearch/deit #61 and #116, HikariTJU/LD #74",
        ),
        Mistake(
            "multiplied by ten",
            _script(lambda total, z: 10 * T * T * total / z.numel()),
            "A constant makes up for the symptom where there are ten classes, and hides the bug "
            "everywhere else. Take the cause away instead.",
        ),
        Mistake(
            "summed over the rows",
            _script(lambda total, z: T * T * total),
            "Now the soft term is a sum over the batch while the hard term is a mean: with batches "
            "of 32 it weighs 32 times too much.",
        ),
        Mistake(
            "divided by the classes alone",
            _script(lambda total, z: T * T * total / z.shape[1]),
            "The KL of a row is a sum over its classes. The mean is taken over the rows.",
        ),
        Mistake(
            "alpha raised",
            _script(lambda total, z: T * T * total / z.numel(), alpha=0.9),
            "You raised alpha to outweigh the missing factor. The balance between the terms still "
            "changes with the number of classes, and the script says something else than it does.",
        ),
        Mistake(
            "learning rate raised",
            _script(lambda total, z: T * T * total / z.numel(), lr=2e-2),
            "A larger learning rate moves both terms. It is their ratio that is wrong.",
        ),
        Mistake(
            "the hard term made as small",
            _script(lambda total, z: T * T * total / z.numel(), hard=lambda h, z: h / z.shape[1]),
            "You divide the hard term by the number of classes too. The ratio is right now, and "
            "both terms are too small: a mean over rows is what a loss of this course is.",
        ),
        Mistake(
            "no T squared",
            _script(lambda total, z: total / len(z)),
            "The rows are right now, but the factor T squared went overboard.",
        ),
    ),
    minutes=6,
    difficulty=1,
    seconds=5.0,
)
