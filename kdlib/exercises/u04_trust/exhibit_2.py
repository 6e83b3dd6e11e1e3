"""04.exhibit_2: soft targets that belong to other images."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from kdlib import museum
from kdlib.checks.criteria import law, matches, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u04_trust.exhibit_1 import classroom
from kdlib.exercises.u04_trust.watch import Watch, both, rows_of, weights

ALPHA, T = 0.9, 2.0
EPOCHS = 3


def _rooms(g: torch.Generator) -> Arguments:
    made = classroom(4)(g)
    made["epochs"] = EPOCHS
    del made["steps"]
    return {k: made[k] for k in ("student", "teacher", "images", "labels", "epochs", "seed")}


def _lessons(answer, a: Arguments) -> dict:
    """Read off the gradient which soft target each image was taught with, and in which order."""
    untrained, watch = copy.deepcopy(a["student"]), Watch(a["student"])
    answer(*a.values())
    with torch.no_grad():
        true = a["teacher"].eval()(a["images"]).div(T).softmax(-1)
    own, order, targets = 0, [], torch.zeros_like(true)
    for call in watch.taught:
        rows = rows_of(call.inputs, a["images"])
        z, y = call.outputs, a["labels"][rows]
        hard = z.softmax(-1) - F.one_hot(y, z.shape[-1])
        soft = (len(z) * call.gradient - (1 - ALPHA) * hard) / (ALPHA * T)
        target = (z / T).softmax(-1) - soft
        targets[rows] = target
        own += int(((target - true[rows]).abs().amax(1) < 1e-6).sum())
        order += rows.tolist()
    return {
        "images taught": len(order),
        "with their own target": own,
        "order": _name(order, len(a["images"])),
        "the soft targets": targets,
        "student": weights(a["student"]),
        "student as its lessons make it": -1 not in order
        and torch.allclose(_replay(untrained, order, a, true), weights(a["student"])),
    }


def _replay(student, order: list[int], a: Arguments, true: torch.Tensor) -> torch.Tensor:
    """Train on the same images in the same order, each with its own target, as the script says."""
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    for epoch in torch.tensor(order).split(len(true)):
        for rows in epoch.split(32):
            z = student(a["images"][rows])
            soft = F.kl_div((z / T).log_softmax(1), true[rows], reduction="batchmean")
            hard = F.cross_entropy(z, a["labels"][rows])
            optimizer.zero_grad()
            (ALPHA * T * T * soft + (1 - ALPHA) * hard).backward()
            optimizer.step()
    return weights(student)


def _name(order: list[int], images: int) -> str:
    epochs = [order[i : i + images] for i in range(0, len(order), images)]
    every = list(range(images))
    if len(epochs) != EPOCHS or any(sorted(epoch) != every for epoch in epochs):
        return "not each image once in each epoch"
    if all(epoch == every for epoch in epochs):
        return "never shuffled"
    return "shuffled anew" if len(set(map(tuple, epochs))) == EPOCHS else "one order for all epochs"


def _aligned(evidence: Evidence) -> str | None:
    n, own = (
        int(evidence.value("3 epochs", k)) for k in ("images taught", "with their own target")
    )
    if n == 0:
        return "Your script never taught the student anything."
    if own < n:
        return (
            f"In {EPOCHS} epochs, the student was taught {n} times, and "
            f"{own} times with the soft target that the teacher gives to that image."
        )
    return None


def _shuffled(evidence: Evidence) -> str | None:
    if problem := _aligned(evidence):
        return "This is looked at once every image has its own target. " + problem
    order = evidence.value("3 epochs", "order")
    if order != "shuffled anew":
        return (
            f"Seen over the epochs, the order is: {order}. As found, the script shuffles anew in "
            "each epoch, and a repair should not take that away."
        )
    if not evidence.value("3 epochs", "student as its lessons make it"):
        return (
            "Targets and order are right, but the student is not what the script's optimiser makes "
            "of them. What else did you change?"
        )
    return None


def _script(cache, look_up, order=None, lr=2e-3):
    """Assemble the script with another cache, look-up or order."""

    def script(student, teacher, images, labels, epochs, seed=0):
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(student.parameters(), lr)
        student.train()
        teacher.eval()
        fixed = torch.randperm(len(images), generator=generator)

        def loader():
            rows = torch.randperm(len(images), generator=generator)
            return (order(fixed) if order else rows).split(32)

        with torch.no_grad():
            known = cache(teacher, images, labels, loader)
        for _ in range(epochs):
            for i, rows in enumerate(loader()):
                z = student(images[rows])
                v = look_up(known, i, rows, labels)
                soft = F.kl_div((z / T).log_softmax(1), v, reduction="batchmean")
                loss = ALPHA * T * T * soft + (1 - ALPHA) * F.cross_entropy(z, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return script


def _by_batch(teacher, images, labels, loader):
    return [teacher(images[rows]).div(T).softmax(1) for rows in loader()]


def _by_data(teacher, images, labels, loader):
    return teacher(images).div(T).softmax(1)


def _by_class(teacher, images, labels, loader):
    p = _by_data(teacher, images, labels, loader)
    return torch.stack([p[labels == c].mean(0) for c in range(p.shape[1])])


def _labels(teacher, images, labels, loader):
    return F.one_hot(labels, 4).double()


EXHIBIT_2 = Exercise(
    id="04.exhibit_2",
    title="Exhibit 2",
    reference=museum.exhibit_2,
    probes=(Probe("3 epochs", "three epochs over the images", _rooms, run=_lessons, atol=1e-6),),
    criteria=(
        both(
            law("every image has its own soft target", 0.75, ("3 epochs",), _aligned),
            matches("", 0, "3 epochs", keys=("the soft targets",)),
        ),
        law("the data are still shuffled, the rest is as it was", 0.5, ("3 epochs",), _shuffled),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "as found",
            museum.found_2,
            "This is the script as found, or does what it does: batch i of an epoch is taught with "
            "what the teacher said about batch i of *another* epoch. Which images were in that?",
            "haitongli/knowledge-distillation-pytorch #4 and #9, repaired in #17",
        ),
        Mistake(
            "shuffling switched off",
            _script(_by_batch, lambda known, i, rows, y: known[i], lambda f: f.sort().values),
            "Without shuffling, the batches line up. That makes the symptom go away and takes the "
            "shuffling with it; switch it on again, or add an augmentation, and the bug is back.",
        ),
        Mistake(
            "one order for all epochs",
            _script(_by_batch, lambda known, i, rows, y: known[i], lambda f: f),
            "Every epoch runs through the images in one and the same order, so that the positions "
            "fit. The targets are right; what the script asked for, a new order in each epoch, is "
            "gone.",
        ),
        Mistake(
            "looked up by position",
            _script(_by_data, lambda known, i, rows, y: known[32 * i : 32 * i + len(rows)]),
            "Your cache is in the order of the data, and it is still read by position in the "
            "epoch. `rows` says which images the batch is made of.",
        ),
        Mistake(
            "targets of the class",
            _script(_by_class, lambda known, i, rows, y: known[y[rows]]),
            "Each image gets the mean soft target of its class. The loss looks healthy again, but "
            "what the teacher saw in *this* image is gone (unit 02 measured what that costs).",
        ),
        Mistake(
            "the labels instead",
            _script(_labels, lambda known, i, rows, y: known[rows]),
            "Your soft targets are the labels. Nothing is misaligned any more because nothing is "
            "distilled any more.",
        ),
        Mistake(
            "learning rate lowered as well",
            _script(_by_data, lambda known, i, rows, y: known[rows], lr=2e-4),
            "The targets are right, and the learning rate is another one than the script's. With "
            "the bug a lower one looks like a cure, because less is learned from wrong targets.",
        ),
    ),
    minutes=8,
    difficulty=2,
    seconds=5.0,
)
