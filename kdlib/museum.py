"""The bug museum: six short training scripts, as found with a bug and as repaired.

Each bug stood in a public repository; the scripts are written anew, around it. A script takes its
networks untrained and trains the student in place. `Bench` measures what a bug does to accuracy,
to agreement and to the predictive KL.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.seal import reference

__all__ = ["AS_FOUND", "REPAIRED", "Bench", "Halves", "Hint", "batches"]


def batches(n: int, steps: int, seed: int = 0, batch_size: int = 32) -> Iterator[Tensor]:
    """Yield `steps` batches of indices below `n`, shuffled anew whenever the data run out.

    Args:
        n: examples in the data set.
        steps: batches in all.
        seed: of the shuffling.
        batch_size: indices in each batch, at most `n`.
    """
    generator, queue = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(queue) < min(batch_size, n):
            queue = torch.randperm(n, generator=generator)
        yield queue[:batch_size]
        queue = queue[batch_size:]


class Halves(nn.Module):
    """A network in two halves: `features`, `(B, ...) -> (B, D)`, and `head`, `(B, D) -> (B, C)`."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the logits."""
        return self.head(self.features(inputs))


class Hint(nn.Module):
    """How far the student's features are from the teacher's, through a learned projector.

    L = mean |r(s) - t|^2,   r linear with bias

    FitNets (Romero et al. 2015, arXiv 1412.6550) compares features of two widths through such a
    regressor r.

    Args:
        student_width: of the student's features.
        teacher_width: of the teacher's.
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.projector = nn.Linear(student_width, teacher_width)

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Give the loss, a scalar."""
        return F.mse_loss(self.projector(student_features), teacher_features)


# 1. One term far smaller than its weight says -----------------------------------------------------


def found_1(student, teacher, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    T, alpha = 2.0, 0.5
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        outputs = student(images[rows])
        with torch.no_grad():
            teacher_outputs = teacher(images[rows])
        log_q = F.log_softmax(outputs / T, dim=1)
        log_p = F.log_softmax(teacher_outputs / T, dim=1)
        total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        soft = T * T * total / outputs.numel()
        loss = alpha * soft + (1 - alpha) * F.cross_entropy(outputs, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@reference("04.exhibit_1")
def exhibit_1(student, teacher, images, labels, steps, seed=0):
    """Repair of `found_1`: the sum of the KL is divided by the rows, not by rows times classes."""
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    T, alpha = 2.0, 0.5
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        outputs = student(images[rows])
        with torch.no_grad():
            teacher_outputs = teacher(images[rows])
        log_q = F.log_softmax(outputs / T, dim=1)
        log_p = F.log_softmax(teacher_outputs / T, dim=1)
        total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        soft = T * T * total / len(outputs)
        loss = alpha * soft + (1 - alpha) * F.cross_entropy(outputs, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# 2. Soft targets that belong to other images ------------------------------------------------------


def found_2(student, teacher, images, labels, epochs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()

    def loader():  # one epoch, shuffled
        return torch.randperm(len(images), generator=generator).split(32)

    with torch.no_grad():  # ask the teacher once, in advance
        teacher_outputs = [teacher(images[rows]) for rows in loader()]
    for _ in range(epochs):
        for i, rows in enumerate(loader()):
            z, v = student(images[rows]) / 2, teacher_outputs[i] / 2
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * 4 * soft + 0.1 * F.cross_entropy(2 * z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@reference("04.exhibit_2")
def exhibit_2(student, teacher, images, labels, epochs, seed=0):
    """Repair of `found_2`: the cache is in the order of the data and is asked by index."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()

    def loader():  # one epoch, shuffled
        return torch.randperm(len(images), generator=generator).split(32)

    with torch.no_grad():  # ask the teacher once, in advance
        teacher_outputs = torch.cat([teacher(chunk) for chunk in images.split(32)])
    for _ in range(epochs):
        for rows in loader():
            z, v = student(images[rows]) / 2, teacher_outputs[rows] / 2
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * 4 * soft + 0.1 * F.cross_entropy(2 * z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


# 3. A loss that compares a network with itself ----------------------------------------------------


def found_3(student, teacher, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            large_logits = teacher(images[rows])
        output = student(images[rows])
        soft_targets = F.softmax(large_logits / 3.0, dim=-1)
        soft_prob = F.log_softmax(large_logits / 3.0, dim=-1)
        soft_loss = F.kl_div(soft_prob, soft_targets, reduction="batchmean")
        label_loss = F.cross_entropy(output, labels[rows])
        loss = 0.9 * 9.0 * soft_loss + 0.1 * label_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(soft_loss.item())
    return history


@reference("04.exhibit_3")
def exhibit_3(student, teacher, images, labels, steps, seed=0):
    """Repair of `found_3`: the student's logits stand on the student's side."""
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            large_logits = teacher(images[rows])
        output = student(images[rows])
        soft_targets = F.softmax(large_logits / 3.0, dim=-1)
        soft_prob = F.log_softmax(output / 3.0, dim=-1)
        soft_loss = F.kl_div(soft_prob, soft_targets, reduction="batchmean")
        label_loss = F.cross_entropy(output, labels[rows])
        loss = 0.9 * 9.0 * soft_loss + 0.1 * label_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(soft_loss.item())
    return history


# 4. A teacher that is not the network it was chosen for -------------------------------------------


def found_4(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher.eval()})
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    steps, accuracy = -(-len(images) // 32), []
    for epoch in range(epochs):
        pair.train()
        for rows in batches(len(images), steps, seed + epoch):
            with torch.no_grad():
                v = pair["teacher"](images[rows])
            z = pair["student"](images[rows])
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        pair.eval()
        accuracy.append((student(images).argmax(1) == labels).double().mean().item())
    return accuracy


@reference("04.exhibit_4")
def exhibit_4(student, teacher, images, labels, epochs, seed=0):
    """Repair of `found_4`: only the student is put into train mode."""
    pair = nn.ModuleDict({"student": student, "teacher": teacher.eval()})
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    steps, accuracy = -(-len(images) // 32), []
    for epoch in range(epochs):
        pair["student"].train()
        for rows in batches(len(images), steps, seed + epoch):
            with torch.no_grad():
                v = pair["teacher"](images[rows])
            z = pair["student"](images[rows])
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        pair.eval()
        accuracy.append((student(images).argmax(1) == labels).double().mean().item())
    return accuracy


# 5. A table of somebody else's results ------------------------------------------------------------


def found_5(student, teacher, images, held_out, steps, seed=0):
    T, model = 3.0, teacher.eval()
    with torch.no_grad():
        soft_labels = (model(images) / T).softmax(dim=1)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        loss = T * T * F.cross_entropy(student(images[rows]) / T, soft_labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():  # finally, predict at temperature 1
        return model(held_out)


@reference("04.exhibit_5")
def exhibit_5(student, teacher, images, held_out, steps, seed=0):
    """Repair of `found_5`: the predictions that are reported are the student's."""
    T, model = 3.0, teacher.eval()
    with torch.no_grad():
        soft_labels = (model(images) / T).softmax(dim=1)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        loss = T * T * F.cross_entropy(student(images[rows]) / T, soft_labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():  # finally, predict at temperature 1
        return student(held_out)


# 6. A projector that never learns -----------------------------------------------------------------


def found_6(student, teacher, hint, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@reference("04.exhibit_6")
def exhibit_6(student, teacher, hint, images, labels, steps, seed=0):
    """Repair of `found_6`: the optimiser holds the projector's parameters too."""
    optimizer = torch.optim.AdamW([*student.parameters(), *hint.parameters()], 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


AS_FOUND = {n: globals()[f"found_{n}"] for n in range(1, 7)}
REPAIRED = {n: globals()[f"exhibit_{n}"] for n in range(1, 7)}


class Bench:
    """Run an exhibit's script on real images and measure the student that comes out.

    A CNN of 16 and 32 channels learns Fashion-MNIST from a few hundred images and the shipped
    teacher. Within a seed, the script as found and the repaired one get the same images, initial
    weights and order of batches.

    Args:
        images: for training.
        steps: updates of a script.
        test: test images.
    """

    def __init__(self, images: int = 300, steps: int = 400, test: int = 10_000) -> None:
        from kdlib.data import fashion_mnist
        from kdlib.evaluation import predict
        from kdlib.models import load_teacher

        self.images, self.steps = images, steps
        self.train, self.test = fashion_mnist(), fashion_mnist(train=False, n=test)
        self.teacher = load_teacher()
        self.teacher_logits = predict(self.teacher, self.test.inputs)

    def measure(self, number: int, script: Callable, seed: int = 0) -> dict[str, float]:
        """Train a student with the script of exhibit `number`.

        Args:
            number: 1 to 6, because the exhibits' signatures differ.
            script: as found, or repaired.
            seed: of images, initial weights and batches.

        Returns:
            `accuracy` and `agreement` in percent and `predictive_kl` in nats, on the test images,
            computed from what the script leaves or, in exhibit 5, from what it reports.
        """
        from kdlib.evaluation import accuracy, agreement, predict, predictive_kl
        from kdlib.models import CNN, seeded

        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self.train.targets), generator=generator)[: self.images]
        x, y = self.train.inputs[rows], self.train.targets[rows]
        student, teacher = seeded(seed, CNN, 16), copy.deepcopy(self.teacher)
        epochs = round(self.steps / -(-self.images // 32))
        logits = None
        if number in (2, 4):
            script(student, teacher, x, y, max(1, epochs), seed)
        elif number == 5:
            logits = script(student, teacher, x, self.test.inputs, self.steps, seed)
        elif number == 6:
            student = Halves(nn.Sequential(*list(student)[:-1]), student[-1])
            features = nn.Sequential(teacher.features, *list(teacher.head)[:2])
            teacher = Halves(features, nn.Sequential(*list(teacher.head)[2:]))
            hint = seeded(seed, Hint, 512, 512)
            script(student, teacher, hint, x, y, self.steps, seed)
        else:
            script(student, teacher, x, y, self.steps, seed)
        logits = predict(student, self.test.inputs) if logits is None else logits
        return {
            "accuracy": 100 * accuracy(logits, self.test.targets),
            "agreement": 100 * agreement(logits, self.teacher_logits),
            "predictive_kl": predictive_kl(self.teacher_logits, logits),
        }
