"""04.exhibit_4: a teacher that is not the network it was chosen for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import museum
from kdlib.checks.criteria import facts, matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.exercises.u04_trust.exhibit_1 import classroom, series
from kdlib.exercises.u04_trust.watch import Watch, both, by_image, weights

EPOCHS = 2


def _rooms(g: torch.Generator) -> Arguments:
    made = classroom(4, dropout=0.5)(g)
    made["student"].train()  # left in eval mode by its own evaluation alone
    made["epochs"] = EPOCHS
    return {k: made[k] for k in ("student", "teacher", "images", "labels", "epochs", "seed")}


def _modes(calls) -> str:
    return ", ".join(dict.fromkeys("train" if c.training else "eval" for c in calls)) or "never"


def _two_epochs(answer, a: Arguments) -> dict:
    """Write down the modes of both networks, and whether the teacher is still the same."""
    student, teacher = Watch(a["student"]), Watch(a["teacher"])
    before = weights(a["teacher"])
    dropout = [m.p for m in a["teacher"].modules() if isinstance(m, nn.Dropout)]
    returned = answer(*a.values())
    return {
        "teacher's modes": _modes(teacher.calls),
        "student's modes": _modes(c for c in student.calls if len(c.inputs) <= 32),
        "teacher changed": not torch.equal(before, weights(a["teacher"])),
        "dropout changed": dropout
        != [m.p for m in a["teacher"].modules() if isinstance(m, nn.Dropout)],
        "student": weights(a["student"]),
        "what the teacher says": _said(student, teacher, a["images"]),
        "accuracy": series(returned),
    }


def _said(student: Watch, teacher: Watch, images: Tensor) -> Tensor:
    """Give the teacher's answers about the images that the student learned from."""
    said = by_image(teacher.calls, images)
    learned = by_image(student.taught, images)
    return said * (learned != 0).any(-1, keepdim=True) if learned.dim() == said.dim() else said


def _nothing(student, teacher, pair):
    pass


def _script(start=_nothing, each=_nothing, end=_nothing):
    """Assemble the script with other modes: `f(student, teacher, pair)` sets them."""

    def script(student, teacher, images, labels, epochs, seed=0):
        pair = nn.ModuleDict({"student": student, "teacher": teacher.eval()})
        optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
        steps, accuracy = -(-len(images) // 32), []
        start(student, teacher, pair)
        for epoch in range(epochs):
            each(student, teacher, pair)
            for rows in museum.batches(len(images), steps, seed + epoch):
                with torch.no_grad():
                    v = pair["teacher"](images[rows])
                z = pair["student"](images[rows])
                soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
                loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            end(student, teacher, pair)
            pair.eval()
            accuracy.append((student(images).argmax(1) == labels).double().mean().item())
        return accuracy

    return script


def _still_statistics(student, teacher, pair):
    pair.train()
    for part in teacher.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()


def _no_dropout(student, teacher, pair):
    pair.train()
    for part in teacher.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def _restored():
    kept = {}

    def before(student, teacher, pair):
        pair.train()
        kept.update({k: v.clone() for k, v in teacher.state_dict().items()})

    return before, lambda student, teacher, pair: teacher.load_state_dict(kept)


_BEFORE, _AFTER = _restored()
NEVER = ("teacher's modes", "never", "The teacher was never asked.")

EXHIBIT_4 = Exercise(
    id="04.exhibit_4",
    title="Exhibit 4",
    reference=museum.exhibit_4,
    probes=(Probe("2 epochs", "two epochs over the images", _rooms, run=_two_epochs),),
    criteria=(
        both(
            facts(
                "the teacher answers as the network it is",
                0.75,
                "2 epochs",
                (
                    "teacher's modes",
                    "eval",
                    "While the student learned, the teacher was called in this mode: {seen}.",
                ),
                ("teacher changed", False, "After your script the teacher is another network."),
                ("dropout changed", False, "Your script changes the teacher's own layers."),
                unless=NEVER,
            ),
            matches("", 0, "2 epochs", keys=("what the teacher says",)),
        ),
        matches("the student and its accuracies", 0.5, "2 epochs", keys=("student", "accuracy")),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "as found",
            museum.found_4,
            "This is the script as found, or does what it does. The teacher is put into eval mode "
            "in the first line and does not stay there. What does `train()` do to the parts of a "
            "module?",
            "neuralmagic/sparseml #2191",
        ),
        Mistake(
            "everything in eval mode",
            _script(each=lambda s, t, pair: pair.eval()),
            "Now the student learns in eval mode as well: its own BatchNorm statistics never move.",
        ),
        Mistake(
            "statistics kept still, dropout on",
            _script(each=_still_statistics),
            "BatchNorm is in eval mode, and dropout is not: the teacher drops a random half of its "
            "units in every answer. Its parts are quiet only when the whole of it is in eval mode.",
        ),
        Mistake(
            "dropout taken out, statistics on",
            _script(each=_no_dropout),
            "Without dropout the teacher's answers are steady, but its BatchNorm still looks at "
            "this batch and moves its own statistics.",
        ),
        Mistake(
            "the teacher restored afterwards",
            _script(each=_BEFORE, end=_AFTER),
            "You give the teacher its old statistics back after each epoch, so that nobody sees it "
            "change. What the student learned from in between were the answers of a network in "
            "train mode.",
        ),
        Mistake(
            "train mode once, before the epochs",
            _script(start=lambda s, t, pair: pair.train()),
            "The call stands before the epochs now: the first runs as found, and from the second "
            "on the student is left in eval mode by its own evaluation.",
        ),
        Mistake(
            "the call taken out",
            _script(),
            "Without the call the teacher stays as it is, and so does the student: after the first "
            "epoch its own evaluation leaves it in eval mode, where it goes on learning.",
        ),
    ),
    minutes=6,
    difficulty=2,
    seconds=5.0,
)
