"""Unit 00: what temperature scaling does to a teacher's NLL, and that it leaves accuracy alone.

For each seed the 10,000 test images are split at random: T is fitted on 1,000 of them and judged
on the other 9,000. The control fits T to the same 1,000 images with their labels shuffled. The
splits share one test set, so the interval speaks about the choice of calibration images, not about
other teachers.
"""

from __future__ import annotations

import torch

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, ece, fit_temperature, nll, predict
from kdlib.evidence import against, headline, store
from kdlib.models import load_teacher, teacher_info

SEEDS = range(30)
CALIBRATION = 1000


def run(seed: int, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, dict[str, float]]:
    """Split once, fit on one part, measure on the other: arm -> T, accuracy, NLL, ECE."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    fit, rest = order[:CALIBRATION], order[CALIBRATION:]
    shuffled = targets[fit][torch.randperm(CALIBRATION, generator=generator)]
    temperatures = {
        "T = 1": 1.0,
        "fitted": fit_temperature(logits[fit], targets[fit]),
        "fitted to shuffled labels": fit_temperature(logits[fit], shuffled),
    }
    return {
        arm: {
            "temperature": temperature,
            "accuracy": accuracy(logits[rest] / temperature, targets[rest]),
            "nll": nll(logits[rest] / temperature, targets[rest]),
            "ece": ece(logits[rest] / temperature, targets[rest]),
        }
        for arm, temperature in temperatures.items()
    }


def main() -> None:
    """Run all splits and store raw numbers and paired intervals against T = 1."""
    torch.set_num_threads(1)
    test = fashion_mnist(train=False)
    logits = predict(load_teacher(), test.inputs).double()
    runs = [run(seed, logits, test.targets) for seed in SEEDS]
    results = against(runs, "T = 1", digits=6)
    for arm, found in results.items():
        print(arm, "|", {k: v for k, v in found.items() if k.endswith("difference")})
    store(
        "u00_temperature_scaling",
        {
            "claim": "differences against T = 1 on the 9,000 test images that T was not fitted on",
            "seeds": list(SEEDS),
            "calibration_images": CALIBRATION,
            "teacher_accuracy": teacher_info()["accuracy"],
            "results": results,
        },
        headlines=[
            headline(
                "temperature scaling lowers the teacher's NLL and leaves its accuracy as it is",
                results["fitted"]["nll_difference"],
                "nats",
                "30 splits",
                places=3,
            )
        ],
    )


if __name__ == "__main__":
    main()
