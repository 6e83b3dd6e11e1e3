"""Unit 04: one small effect over forty seeds, to see how two or three of them mislead.

An MLP learns from 1,000 labels, alone or with the teacher's soft targets at three temperatures.
Within a seed all arms have the same images, initial weights, order of batches and updates.
"""

from __future__ import annotations

import torch
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, predict
from kdlib.evidence import against, headline, store
from kdlib.models import MLP, load_teacher, seeded
from kdlib.training import fit

SEEDS = range(40)
LABELS, STEPS = 1000, 400
ARMS = {
    "labels alone": None,
    "distilled, T = 1": 1.0,
    "distilled, T = 1.5": 1.5,
    "distilled, T = 2": 2.0,
}


def run(seed: int, train, test, teacher) -> dict[str, dict[str, float]]:
    """Train every arm for one seed."""
    rows = torch.randperm(len(train.targets), generator=torch.Generator().manual_seed(seed))
    x, y = train.inputs[rows[:LABELS]], train.targets[rows[:LABELS]]
    logits, found = predict(teacher, x), {}
    for arm, temperature in ARMS.items():
        student = seeded(seed, MLP, 64)
        how = {} if temperature is None else {"teacher_logits": logits, "temperature": temperature}
        fit(student, x, y, steps=STEPS, seed=seed, progress=False, **how)
        found[arm] = {"accuracy": 100 * accuracy(predict(student, test.inputs), test.targets)}
    return found


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    train, test, teacher = fashion_mnist(), fashion_mnist(train=False), load_teacher()
    runs = [run(seed, train, test, teacher) for seed in tqdm(SEEDS, unit="seed")]
    results = against(runs, "labels alone")
    for arm in list(ARMS)[1:]:
        print(arm, results[arm]["accuracy_difference"])
    store(
        "u04_seeds",
        {
            "claim": "accuracy in percent on 10,000 test images; differences are in points",
            "seeds": list(SEEDS),
            "labels": LABELS,
            "steps": STEPS,
            "results": results,
        },
        headlines=[
            headline(
                "An MLP with 1,000 labels, distilled at T = 1.5, against labels alone: accuracy",
                results["distilled, T = 1.5"]["accuracy_difference"],
                "points",
                f"{len(SEEDS)} seeds",
                places=2,
            )
        ],
    )


if __name__ == "__main__":
    main()
