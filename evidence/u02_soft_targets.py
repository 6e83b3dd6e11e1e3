"""Unit 02: where distillation wins, where it does not, and what the soft targets add.

A CNN of 16 and 32 channels learns Fashion-MNIST at 14x14 from 300, 1,000 or 6,000 labels, or from
6,000 images without labels. Within a seed every arm has the same images, initial weights, order
of batches and number of updates (but for the control that trains three times as long).
"""

from __future__ import annotations

import torch
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, nll, predict
from kdlib.evidence import against, headline, store
from kdlib.models import CNN, FashionTeacher, load_teacher, seeded, teacher_info
from kdlib.training import fit

SEEDS = range(10)
LABELS = (300, 1000, 6000)
STEPS = 800
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
HEADLINES = (
    ("300 labels, T = 4, against labels alone", "300 labels", "distilled, T = 4"),
    (
        "the same with soft targets of another image of the class (T = 2)",
        "300 labels",
        "soft targets of another image of the class",
    ),
    ("1,000 labels, T = 4", "1000 labels", "distilled, T = 4"),
    ("6,000 labels, T = 4: distillation loses", "6000 labels", "distilled, T = 4"),
    ("6,000 labels, T = 1", "6000 labels", "distilled, T = 1"),
    (
        "6,000 unlabelled images with soft targets, against 300 labels",
        "6000 images without labels",
        "teacher's soft targets, T = 2",
    ),
    (
        "the same with the teacher's predicted class: soft targets add nothing here",
        "6000 images without labels",
        "teacher's predicted class",
    ),
)


def same_class(logits: torch.Tensor, targets: torch.Tensor, seed: int) -> torch.Tensor:
    """Give each image the teacher's logits of another image of its class."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = logits.clone()
    for c in targets.unique():
        rows = (targets == c).nonzero().flatten()
        shuffled[rows] = logits[rows[torch.randperm(len(rows), generator=generator)]]
    return shuffled


def arms(n: int, logits: torch.Tensor, untrained: torch.Tensor, y: torch.Tensor, seed: int):
    """Name each arm and its arguments for `fit`."""
    found = {
        "labels alone": {"targets": y},
        "labels alone, 3x as long": {"targets": y, "steps": 3 * STEPS},
        "label smoothing 0.1": {"targets": y, "label_smoothing": 0.1},
    }
    for temperature in TEMPERATURES:
        found[f"distilled, T = {temperature:g}"] = {
            "targets": y,
            "teacher_logits": logits,
            "temperature": temperature,
        }
    found["soft targets of another image of the class"] = {
        "targets": y,
        "teacher_logits": same_class(logits, y, seed),
    }
    found["untrained teacher"] = {"targets": y, "teacher_logits": untrained}
    return found


def run(seed: int, data: dict) -> dict[str, dict[str, dict[str, float]]]:
    """Train every arm for one seed: regime -> arm -> accuracy (percent) and NLL (nats)."""

    def student(rows: torch.Tensor, **arguments) -> dict[str, float]:
        model = seeded(seed, CNN, 16)
        fit(
            model, data["x"][rows], **{"steps": STEPS, "seed": seed, "progress": False, **arguments}
        )
        logits = predict(model, data["test_x"])
        right, y = accuracy(logits, data["test_y"]), data["test_y"]
        return {"accuracy": 100 * right, "nll": nll(logits, y)}

    order = torch.randperm(len(data["x"]), generator=torch.Generator().manual_seed(seed))
    found: dict[str, dict] = {}
    for n in LABELS:
        rows = order[:n]
        logits, untrained = data["logits"][rows], data["untrained"][rows]
        found[f"{n} labels"] = {
            name: student(rows, **arguments)
            for name, arguments in arms(n, logits, untrained, data["y"][rows], seed).items()
        }
    rows = order[-6000:]
    logits = data["logits"][rows]
    found["6000 images without labels"] = {
        "labels alone": found["300 labels"]["labels alone"],
        "teacher's soft targets, T = 2": student(rows, teacher_logits=logits),
        "teacher's predicted class": student(rows, targets=logits.argmax(1)),
    }
    return found


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    train, test = fashion_mnist(), fashion_mnist(train=False)
    teacher = load_teacher()
    data = {
        "x": train.inputs,
        "y": train.targets,
        "test_x": test.inputs,
        "test_y": test.targets,
        "logits": predict(teacher, train.inputs),
        "untrained": predict(seeded(1234, FashionTeacher), train.inputs),
    }
    runs = [run(seed, data) for seed in tqdm(SEEDS, unit="seed")]
    results = {regime: against([r[regime] for r in runs], "labels alone") for regime in runs[0]}
    for regime, found in results.items():
        for arm, entry in found.items():
            print(regime, "|", arm, "|", entry.get("accuracy_difference"))
    store(
        "u02_soft_targets",
        {
            "claim": "accuracy (points) and NLL (nats) against labels alone, 10,000 test images",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "teacher_accuracy": teacher_info()["accuracy"],
            "results": results,
        },
        headlines=[
            headline(claim, results[regime][arm]["accuracy_difference"], "points", "10 seeds")
            for claim, regime, arm in HEADLINES
        ],
    )


if __name__ == "__main__":
    main()
