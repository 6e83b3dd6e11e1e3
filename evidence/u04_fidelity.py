"""Unit 04: fidelity against the length of training, for three ways to show images to the teacher.

A CNN of 16 and 32 channels learns from 1,000 unlabelled images and the teacher's soft targets at
T = 1. Within a seed all arms have the same images, initial weights, order of batches and number of
updates, and the two arms with mixup see the very same blended images:

- "fixed": teacher and student see the image itself, so the teacher was asked once, in advance;
- "mixup, answers blended": the student sees a blend; its target is the blend of the two answers
  that the teacher gave to the unblended images (what a cache allows);
- "mixup, one view": teacher and student see the same blend.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, agreement, predict, predictive_kl
from kdlib.evidence import against, headline, store
from kdlib.losses import kl_divergence
from kdlib.models import CNN, load_teacher, seeded
from kdlib.museum import batches
from kdlib.training import draw_mixup, mixup

SEEDS = range(5)
STEPS = (200, 800, 3200)
IMAGES, BATCH = 1000, 32
FIXED, BLENDED, ONE_VIEW = "fixed", "mixup, answers blended", "mixup, one view"
ARMS = (FIXED, BLENDED, ONE_VIEW)


def stream(images: Tensor, logits: Tensor, teacher, seed: int) -> list[dict[str, tuple]]:
    """Give the batches of the longest run: for each arm what the student sees and its target."""
    generator, found = torch.Generator().manual_seed(seed), []
    for rows in batches(len(images), max(STEPS), seed, BATCH):
        order, weight = draw_mixup(len(rows), generator)
        view = mixup(images[rows], order, weight)
        blend = mixup(logits[rows].softmax(-1), order, weight)
        found.append(
            {
                FIXED: (images[rows], logits[rows]),
                BLENDED: (view, blend.clamp_min(1e-30).log()),
                ONE_VIEW: (view, predict(teacher, view)),
            }
        )
    return found


def train(data: list[dict[str, tuple]], arm: str, steps: int, seed: int):
    """Train one student with AdamW and a one-cycle schedule, as `kdlib.training.fit` does."""
    student = seeded(seed, CNN, 16)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps, pct_start=0.2
    )
    for batch in data[:steps]:
        inputs, target = batch[arm]
        loss = kl_divergence(target, student(inputs)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return student


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    data, test = fashion_mnist(), fashion_mnist(train=False)
    teacher = load_teacher()
    on_test = predict(teacher, test.inputs)
    runs: dict[int, list[dict]] = {steps: [] for steps in STEPS}
    for seed in tqdm(SEEDS, unit="seed"):
        rows = torch.randperm(len(data.targets), generator=torch.Generator().manual_seed(seed))
        images = data.inputs[rows[:IMAGES]]
        logits = predict(teacher, images)
        batches_of = stream(images, logits, teacher, seed)
        for steps in STEPS:
            found = {}
            for arm in ARMS:
                student = train(batches_of, arm, steps, seed)
                z = predict(student, test.inputs)
                found[arm] = {
                    "accuracy": 100 * accuracy(z, test.targets),
                    "agreement": 100 * agreement(z, on_test),
                    "predictive_kl": predictive_kl(on_test, z),
                    "agreement_on_transfer_images": 100
                    * agreement(predict(student, images), logits),
                }
            runs[steps].append(found)
            print(seed, steps, {a: [round(v, 3) for v in m.values()] for a, m in found.items()})
    results = {str(steps): against(r, FIXED) for steps, r in runs.items()}
    # the same seeds again: one view against the answers blended, and long against short training
    longest = max(STEPS)
    views = against([{a: r[a] for a in (BLENDED, ONE_VIEW)} for r in runs[longest]], BLENDED)
    patience = {
        arm: against(
            [
                {"short": a[arm], "long": b[arm]}
                for a, b in zip(runs[800], runs[longest], strict=True)
            ],
            "short",
        )["long"]
        for arm in ARMS
    }
    last = results[str(longest)][ONE_VIEW]
    store(
        "u04_fidelity",
        {
            "claim": "fidelity on 10,000 test images; differences are against the fixed teacher",
            "seeds": list(SEEDS),
            "steps": list(STEPS),
            "images": IMAGES,
            "teacher_accuracy": round(100 * accuracy(on_test, test.targets), 2),
            "results": results,
            "one view against answers blended": views[ONE_VIEW],
            "long against short": patience,
        },
        headlines=[
            headline(
                f"One blended view for teacher and student against a fixed teacher, "
                f"{longest} steps: agreement on test images",
                last["agreement_difference"],
                "points",
                f"{len(SEEDS)} seeds",
            ),
        ],
    )


if __name__ == "__main__":
    main()
