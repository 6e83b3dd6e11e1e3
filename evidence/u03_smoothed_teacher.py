"""Unit 03: does a teacher that was trained with label smoothing teach worse?

Two teachers of one size, CNNs of 32 and 64 channels, with the same initial weights and order of
batches: one learns from plain labels, one with label smoothing 0.1. Their students, CNNs of 16 and
32 channels, get soft targets alone, on the teacher's own training images, as in Mueller, Kornblith,
Hinton (2019, arXiv 1906.02629). Two regimes: a teacher that cannot learn its 20,000
images by heart in its budget, and one that does so with 3,000.

Then the test that asks for what smoothing erases: students of the first regime's teachers that
never see one of the ten classes, with the bias correction of `u03_omitted_class`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, nll, predict
from kdlib.evidence import against, headline, store
from kdlib.losses import class_bias
from kdlib.models import CNN, seeded
from kdlib.training import fit

SEEDS = range(6)
IMAGES = (3000, 20_000)
TEMPERATURES = (1.0, 4.0)
SMOOTHING = 0.1
STEPS = {"teacher": 1500, "student": 600, "student without a class": 400}


def spread_within_classes(logits: Tensor, targets: Tensor) -> float:
    """Say how much the wrong classes' log-probabilities vary among images of one class (nats).

    The standard deviation over the images of a class, averaged over the wrong classes: what a
    teacher says about an image beyond what it says about every image of its class.
    """
    log_p = logits.double().log_softmax(dim=-1)
    wrong = ~torch.nn.functional.one_hot(targets, logits.shape[-1]).bool()
    parts = [
        log_p[targets == c].std(dim=0)[wrong[targets == c][0]].mean() for c in targets.unique()
    ]
    return torch.stack(parts).mean().item()


def taught(seed: int, x: Tensor, y: Tensor, smoothing: float) -> torch.nn.Module:
    """Train one teacher."""
    teacher = seeded(100 + seed, CNN, 32)
    fit(
        teacher,
        x,
        y,
        steps=STEPS["teacher"],
        seed=seed,
        label_smoothing=smoothing,
        progress=False,
    )
    return teacher


def omitted(seed: int, train, test) -> dict[str, dict[str, float]]:
    """Leave out each class in turn: kind of teacher -> recall after the correction, mean of ten."""
    order = torch.randperm(len(train.inputs), generator=torch.Generator().manual_seed(seed))
    x, y = train.inputs[order], train.targets[order]
    found = {}
    for name, smoothing in (("plain", 0.0), ("smoothed", SMOOTHING)):
        v = predict(taught(seed, x, y, smoothing), x)
        recalls = []
        for c in range(10):
            student, seen = seeded(seed, CNN, 16), y != c
            fit(
                student,
                x[seen],
                teacher_logits=v[seen],
                temperature=1.0,
                steps=STEPS["student without a class"],
                seed=seed,
                progress=False,
            )
            bias = class_bias(predict(student, x), c, 0.1)
            z = predict(student, test.inputs[test.targets == c])
            z[:, c] += bias
            recalls.append(100 * (z.argmax(dim=1) == c).double().mean().item())
        found[name] = {"recall": sum(recalls) / 10}
        found[name].update(zip(train.class_names, recalls, strict=True))
    return found


def run(seed: int, train, test) -> dict[str, dict[str, dict[str, float]]]:
    """Train both teachers and their students in both regimes: regime -> arm -> numbers."""
    order = torch.randperm(len(train.inputs), generator=torch.Generator().manual_seed(seed))
    found: dict[str, dict] = {}
    for n in IMAGES:
        x, y = train.inputs[order[:n]], train.targets[order[:n]]
        arms: dict[str, dict[str, float]] = {}
        for name, smoothing in (("plain", 0.0), ("smoothed", SMOOTHING)):
            teacher = taught(seed, x, y, smoothing)
            v, on_test = predict(teacher, x), predict(teacher, test.inputs)
            arms[f"{name} teacher"] = {
                "accuracy": 100 * accuracy(on_test, test.targets),
                "nll": nll(on_test, test.targets),
                "train accuracy": 100 * accuracy(v, y),
                "spread": spread_within_classes(v, y),
            }
            for temperature in TEMPERATURES:
                student = seeded(seed, CNN, 16)
                fit(
                    student,
                    x,
                    teacher_logits=v,
                    temperature=temperature,
                    steps=STEPS["student"],
                    seed=seed,
                    progress=False,
                )
                z = predict(student, test.inputs)
                arms[f"student of the {name} teacher, T = {temperature:g}"] = {
                    "accuracy": 100 * accuracy(z, test.targets),
                    "nll": nll(z, test.targets),
                }
        found[f"{n} images"] = arms
    return found


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    train, test = fashion_mnist(), fashion_mnist(train=False)
    runs = [run(seed, train, test) for seed in tqdm(SEEDS, unit="seed")]
    results, differences = {}, {}
    for regime, arms in runs[0].items():
        results[regime] = {
            arm: {m: [round(r[regime][arm][m], 4) for r in runs] for m in arms[arm]} for arm in arms
        }
        differences[regime] = {}
        for arm in [a for a in arms if "smoothed" in a]:
            other = arm.replace("smoothed", "plain")
            pair = against([{k: r[regime][k] for k in (arm, other)} for r in runs], other)[arm]
            differences[regime][arm] = {k: v for k, v in pair.items() if k.endswith("_difference")}
            print(regime, "|", arm, "|", differences[regime][arm])
    without = against([omitted(seed, train, test) for seed in tqdm(SEEDS, unit="seed")], "plain")
    print("omitted", without["smoothed"]["recall_difference"])
    key = f"{IMAGES[0]} images"
    arm = f"student of the smoothed teacher, T = {TEMPERATURES[-1]:g}"
    store(
        "u03_smoothed_teacher",
        {
            "claim": "smoothed against plain teacher: accuracy (points), NLL (nats)",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "smoothing": SMOOTHING,
            "results": results,
            "differences": differences,
            "omitted class": without,
        },
        headlines=[
            headline(
                "A student of a teacher with label smoothing against one of a plain teacher "
                "(3,000 images, T = 4)",
                differences[key][arm]["accuracy_difference"],
                "points",
                f"{len(SEEDS)} seeds",
                paper="distillation from a smoothed teacher is much less effective "
                "(arXiv 1906.02629, abstract)",
            ),
            headline(
                "Recall of a class never seen: student of a smoothed teacher against one of a "
                "plain teacher, mean over ten classes",
                without["smoothed"]["recall_difference"],
                "points",
                f"{len(SEEDS)} seeds",
            ),
        ],
    )


if __name__ == "__main__":
    main()
