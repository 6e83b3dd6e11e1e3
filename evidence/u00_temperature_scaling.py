"""Unit 00: what temperature scaling does to a teacher's NLL, and that it leaves accuracy alone.

For each seed the 10,000 test images are split at random: T is fitted on 1,000 of them and judged
on the other 9,000. The control fits T to the same 1,000 images with their labels shuffled. The
splits share one test set, so the interval speaks about the choice of calibration images, not about
other teachers.
"""

from __future__ import annotations

import torch

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, ece, fit_temperature, nll, paired_interval, predict
from kdlib.evidence import store
from kdlib.teachers import load_teacher, teacher_info

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
    results: dict[str, dict] = {}
    for arm, measured in runs[0].items():
        results[arm] = {key: [round(r[arm][key], 6) for r in runs] for key in measured}
        if arm == "T = 1":
            continue
        for key in ("accuracy", "nll", "ece"):
            interval = paired_interval([r[arm][key] for r in runs], [r["T = 1"][key] for r in runs])
            results[arm][f"{key}_difference"] = [round(v, 6) for v in interval[:3]]
            print(f"{arm} | {key} | {results[arm][f'{key}_difference']}")
    store(
        "u00_temperature_scaling",
        {
            "claim": "differences against T = 1 on the 9,000 test images that T was not fitted on",
            "seeds": list(SEEDS),
            "calibration_images": CALIBRATION,
            "teacher_accuracy": teacher_info()["accuracy"],
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
