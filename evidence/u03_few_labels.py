"""Unit 03: soft targets as a regulariser at 1, 3, 10 and 100 % of the labels, and a transfer set.

All labels are the 20,000 training images that ship. A CNN of 16 and 32 channels; within a seed all
arms share images, initial weights, order of batches and number of updates (but for the control
that trains three times as long). The transfer set: 200 labelled images, and up to 19,800 more
without their labels.
"""

from __future__ import annotations

import torch
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, nll, predict
from kdlib.evidence import against, headline, store
from kdlib.losses import transfer_loss
from kdlib.models import CNN, load_teacher, seeded, teacher_info
from kdlib.training import fit

SEEDS = range(8)
STEPS = 600
LABELS = {"1 %": 200, "3 %": 600, "10 %": 2000, "100 %": 20_000}
UNLABELLED = (600, 2000, 6000, 19_800)
TEMPERATURE = 1.0


def student(seed: int, data: dict, rows: torch.Tensor, **arguments) -> dict[str, float]:
    """Train one student on `rows`: accuracy in percent and NLL in nats."""
    model = seeded(seed, CNN, 16)
    fit(model, data["x"][rows], **{"steps": STEPS, "seed": seed, "progress": False, **arguments})
    logits = predict(model, data["test_x"])
    return {
        "accuracy": 100 * accuracy(logits, data["test_y"]),
        "nll": nll(logits, data["test_y"]),
    }


def run(seed: int, data: dict) -> tuple[dict, dict]:
    """Train every arm for one seed: labels -> arm -> numbers, and the same for transfer sets."""
    order = torch.randperm(len(data["x"]), generator=torch.Generator().manual_seed(seed))
    curve = {}
    for share, n in LABELS.items():
        rows = order[:n]
        y, v = data["y"][rows], data["logits"][rows]
        arms = {
            "hard labels": {"targets": y},
            "hard labels, 3x as long": {"targets": y, "steps": 3 * STEPS},
            "label smoothing 0.1": {"targets": y, "label_smoothing": 0.1},
            "soft targets": {"targets": y, "teacher_logits": v, "temperature": TEMPERATURE},
            "soft targets, T = 4": {"targets": y, "teacher_logits": v, "temperature": 4.0},
        }
        curve[share] = {name: student(seed, data, rows, **a) for name, a in arms.items()}

    transfer = {"0": {name: curve["1 %"][name] for name in ("hard labels", "soft targets")}}
    for extra in UNLABELLED:
        rows = order[: 200 + extra]
        v = data["logits"][rows]
        guessed = v.argmax(dim=1)
        guessed[:200] = data["y"][order[:200]]
        transfer[str(extra)] = {
            "hard labels": student(seed, data, rows, targets=guessed),
            "soft targets": transfer_student(seed, data, rows),
        }
    return curve, transfer


def transfer_student(seed: int, data: dict, rows: torch.Tensor) -> dict[str, float]:
    """Train on 200 labelled rows and the rest without labels, in the same batches."""
    labels = data["y"][rows].clone()
    labels[200:] = -1

    def loss(z: torch.Tensor, v: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return transfer_loss(z, v, y, TEMPERATURE, 0.9)

    v = data["logits"][rows]
    return student(seed, data, rows, targets=labels, teacher_logits=v, loss_fn=loss)


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    train, test = fashion_mnist(), fashion_mnist(train=False)
    data = {"x": train.inputs, "y": train.targets, "test_x": test.inputs, "test_y": test.targets}
    data["logits"] = predict(load_teacher(), train.inputs)
    runs = [run(seed, data) for seed in tqdm(SEEDS, unit="seed")]
    curve = {s: against([c[s] for c, _ in runs], "hard labels") for s in LABELS}
    transfer = {}
    for extra in runs[0][1]:
        both = [{**t[extra], "labels alone": t["0"]["hard labels"]} for _, t in runs]
        transfer[extra] = against(both, "labels alone")
        pair = against([t[extra] for _, t in runs], "hard labels")["soft targets"]
        transfer[extra]["soft against hard"] = {
            k: v for k, v in pair.items() if k.endswith("_difference")
        }
    for name, table in (("labels", curve), ("unlabelled", transfer)):
        for key, arms in table.items():
            for arm, entry in arms.items():
                print(name, key, "|", arm, "|", entry.get("accuracy_difference"))
    gain = curve["1 %"]["soft targets"]["accuracy_difference"]
    far = transfer[str(UNLABELLED[-1])]["soft targets"]["accuracy_difference"]
    store(
        "u03_few_labels",
        {
            "claim": "accuracy (points) and NLL (nats) against hard labels, 10,000 test images",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "temperature": TEMPERATURE,
            "labels": LABELS,
            "teacher_accuracy": teacher_info()["accuracy"],
            "curve": curve,
            "transfer": transfer,
        },
        headlines=[
            headline(
                "Soft targets on 1 % of 20,000 labels, against the labels alone",
                gain,
                "points",
                f"{len(SEEDS)} seeds",
                paper="speech, 3 % of the data: frame accuracy 44.5 % with hard targets, 57.0 % "
                "with soft ones (arXiv 1503.02531, table 5)",
            ),
            headline(
                "200 labels and 19,800 images without labels, against the 200 labels alone",
                far,
                "points",
                f"{len(SEEDS)} seeds",
            ),
        ],
    )


if __name__ == "__main__":
    main()
