"""Unit 07: what a teacher's geometry teaches a student of another width and kind, and where not.

Two experiments on Fashion-MNIST at 14x14; within a seed every arm has the same images, initial
weights, order of batches and number of updates. What a seed gave is kept in `build/evidence/` as it
comes, so a run that was stopped goes on where it was.

**Embeddings.** A multilayer perceptron with 16 outputs learns from the teacher's 512 features of
3,000 images, without a label (but where an arm says so). Measured with the k nearest neighbours.
**Labels.** A small CNN learns to classify from 300 labels, with a relational loss on top, at the
weight that RepDistiller's scripts give it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, knn_accuracy, paired_interval, precision_at_k, predict
from kdlib.evidence import against, headline, store
from kdlib.losses import (
    attention_map,
    contrastive_loss,
    kd_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    sp_loss,
)
from kdlib.models import CNN, MLP, FashionTeacher, load_teacher, seeded, teacher_info

SEEDS = range(5)
STEPS, BATCH, RATE = 400, 32, 3e-3
IMAGES, LABELS = 3000, 300
WIDTH, HIDDEN, CHANNELS = 16, 128, 8
TEMPERATURE = 0.1
SNAPSHOTS = (0, 10, 25, 50, 100, 200, 400)
SHOWN = 150  # test images in the moving picture
KEPT = Path(__file__).parents[1] / "build" / "evidence" / "u07_relations"
WEIGHTS = {  # RepDistiller's scripts/run_cifar_distill.sh, at b84f547
    "SP": 3000.0,
    "RKD distance": 25.0,
    "RKD angle": 50.0,
    "PKT": 30000.0 / BATCH,  # theirs is a mean over B x B entries, ours over B rows
    "contrastive": 0.8,
    "attention transfer": 1000.0,
    "hint": 100.0,
}
RKD = "RKD, distances and angles"
MASKED = "contrastive, same class left out"
FORGOTTEN = "contrastive, heads in no optimiser"
LEARNED = "labels of all images"
OTHERS = "PKT of other images"

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Kept:
    """A teacher's features, and the images that they belong to."""

    def __init__(self, teacher: FashionTeacher, images: Tensor, targets: Tensor) -> None:
        self.x, self.y = images, targets
        with torch.no_grad():
            self.maps = torch.cat([teacher.features(x) for x in images.split(500)])
            self.features = teacher.head[:2](self.maps)  # (N, 512)
            self.logits = teacher.head(self.maps)


def train(
    model: nn.Module,
    step_loss: Callable[[Tensor], Tensor],
    n: int,
    seed: int,
    heads: tuple[nn.Module, ...] = (),
    watch: Callable[[int], None] = lambda step: None,
) -> None:
    """Train on `step_loss(rows)`: AdamW, one-cycle schedule, shuffled epochs."""
    learn = [p for part in (model, *heads) for p in part.parameters()]
    optimizer = torch.optim.AdamW(learn, RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=STEPS, pct_start=0.2
    )
    generator, queue = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    model.train()
    for step in range(STEPS):
        watch(step)
        if len(queue) < BATCH:
            queue = torch.randperm(n, generator=generator)
        rows, queue = queue[:BATCH], queue[BATCH:]
        loss = step_loss(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    watch(STEPS)


def heads_for(seed: int, width: int, teacher_width: int = 512, shared: int = 64):
    """Give the two heads of the contrastive loss."""
    return seeded(seed + 1, nn.Linear, width, shared), seeded(
        seed + 2, nn.Linear, teacher_width, shared
    )


def relational(name: str) -> Loss:
    """Give a loss on (student's features, teacher's features), with its weight."""
    losses = {
        "SP": lambda s, t: WEIGHTS["SP"] * sp_loss(s, t),
        "RKD distance": lambda s, t: WEIGHTS["RKD distance"] * rkd_distance_loss(s, t),
        "RKD angle": lambda s, t: WEIGHTS["RKD angle"] * rkd_angle_loss(s, t),
        "PKT": lambda s, t: WEIGHTS["PKT"] * pkt_loss(s, t),
    }
    losses[RKD] = lambda s, t: losses["RKD distance"](s, t) + losses["RKD angle"](s, t)
    return losses[name]


def embeddings(seed: int, data: Kept, blind: Tensor, test: Kept, scene: Tensor | None) -> dict:
    """Train every arm of the first experiment: arm -> metric; and the moving picture."""
    found, pictures = {}, {}
    x, y, t = data.x, data.y, data.features

    def measure(gallery: Tensor, queries: Tensor) -> dict[str, float]:
        return {
            "accuracy": 100 * knn_accuracy(queries, test.y, gallery, y, k=5),
            "precision": 100 * precision_at_k(queries[:2000], test.y[:2000], k=10),
        }

    def learn(name: str, step_loss, heads=(), watched=False) -> None:
        model, seen = seeded(seed, MLP, HIDDEN, classes=WIDTH), {}

        def watch(step: int) -> None:
            if watched and scene is not None and step in SNAPSHOTS:
                with torch.no_grad():
                    seen[step] = flat(model(scene)), measure(model(x), model(test.x))["accuracy"]

        train(model, lambda rows: step_loss(model(x[rows]), rows), len(x), seed, heads, watch)
        with torch.no_grad():
            found[name] = measure(model(x), model(test.x))
        if seen:
            pictures.update({str(k): {"points": p, "accuracy": a} for k, (p, a) in seen.items()})

    found["pixels"] = measure(x.flatten(1), test.x.flatten(1))
    found["teacher"] = measure(t, test.features)
    with torch.no_grad():
        nobody = seeded(seed, MLP, HIDDEN, classes=WIDTH)
        found["untrained"] = measure(nobody(x), nobody(test.x))
    for name in ("SP", "RKD distance", "RKD angle", RKD, "PKT"):
        loss = relational(name)
        learn(name, lambda z, rows, loss=loss: loss(z, t[rows]), watched=name == "PKT")
    regressor = seeded(seed + 3, nn.Linear, WIDTH, t.shape[1])
    learn("hint", lambda z, rows: F.mse_loss(regressor(z), t[rows]), (regressor,))
    for name, labelled, hold in (
        ("contrastive", False, True),
        (MASKED, True, True),
        (FORGOTTEN, False, False),
    ):
        mine, theirs = heads_for(seed, WIDTH)

        def contrast(z, rows, mine=mine, theirs=theirs, labelled=labelled):
            labels = y[rows] if labelled else None
            return contrastive_loss(mine(z), theirs(t[rows]), TEMPERATURE, labels)

        learn(name, contrast, (mine, theirs) if hold else ())
    classifier = seeded(seed + 4, nn.Linear, WIDTH, 10)
    learn(LEARNED, lambda z, rows: F.cross_entropy(classifier(z), y[rows]), (classifier,))
    other = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    learn(OTHERS, lambda z, rows: relational("PKT")(z, t[other[rows]]))
    learn("PKT of an untrained teacher", lambda z, rows: relational("PKT")(z, blind[rows]))
    return {"arms": found, "pictures": pictures}


def labels(seed: int, data: Kept, test: Kept) -> dict:
    """Train every arm of the second experiment: arm -> metric."""
    found = {}
    x, y, t = data.x, data.y, data.features
    attention = attention_map(data.maps)

    def learn(name: str, extra, heads=(), soft=False) -> None:
        model = seeded(seed, CNN, CHANNELS)
        convolutions = nn.Sequential(*list(model)[:4])

        def step_loss(rows):
            f = convolutions(x[rows])  # (B, 16, 4, 4)
            z = model[5](f.flatten(1))
            if soft:
                return kd_loss(z, data.logits[rows], y[rows], 2.0, 0.9)
            return F.cross_entropy(z, y[rows]) + extra(f, rows)

        train(model, step_loss, len(x), seed, heads)
        found[name] = {"accuracy": 100 * accuracy(predict(model, test.x), test.y)}

    width = 2 * CHANNELS * 16
    learn("labels alone", lambda f, rows: 0.0)
    learn("KD", None, soft=True)
    for name in ("SP", RKD, "PKT"):
        loss = relational(name)
        learn(name, lambda f, rows, loss=loss: loss(f, t[rows]))
    for name, masked in (("contrastive", False), (MASKED, True)):
        mine, theirs = heads_for(seed, width)

        def contrast(f, rows, mine=mine, theirs=theirs, masked=masked):
            z = mine(f.flatten(1)), theirs(t[rows])
            own = y[rows] if masked else None
            return WEIGHTS["contrastive"] * contrastive_loss(*z, TEMPERATURE, own)

        learn(name, contrast, (mine, theirs))
    for name, weight in (
        ("attention transfer", WEIGHTS["attention transfer"]),
        ("attention transfer, a tenth of its weight", WEIGHTS["attention transfer"] / 10),
    ):
        learn(
            name,
            lambda f, rows, w=weight: w * (attention_map(f) - attention[rows]).square().mean(),
        )
    regressor = seeded(seed + 3, nn.Linear, width, t.shape[1])
    learn(
        "hint",
        lambda f, rows: WEIGHTS["hint"] * F.mse_loss(regressor(f.flatten(1)), t[rows]),
        (regressor,),
    )
    return {"arms": found}


def flat(z: Tensor) -> list[list[float]]:
    """Give embeddings as points of the plane: directions, on their two principal axes."""
    unit = F.normalize(z, dim=1)
    unit = unit - unit.mean(dim=0)
    _, _, axes = torch.linalg.svd(unit, full_matrices=False)
    points = unit @ axes[:2].T
    return [[round(float(v), 3) for v in row] for row in points]


def turned(points: list[list[float]], target: list[list[float]]) -> list[list[float]]:
    """Turn (or mirror) a picture so that it lies as near to another one as it can."""
    a, b = torch.tensor(points), torch.tensor(target)
    u, _, v = torch.linalg.svd(a.T @ b)
    return [[round(float(x), 3) for x in row] for row in a @ (u @ v)]


def run(seed: int, train_set, test: Kept, teacher, blind: FashionTeacher) -> dict:
    """Run one seed, or read what it gave before."""
    file = KEPT / f"{seed}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    start = time.perf_counter()
    order = torch.randperm(len(train_set.inputs), generator=torch.Generator().manual_seed(seed))
    parts = [
        (train_set.inputs[rows], train_set.targets[rows])
        for rows in (order[:IMAGES], order[:LABELS])
    ]
    data, few = (Kept(teacher, *part) for part in parts)
    scene = test.x[:SHOWN] if seed == 0 else None
    found = {
        "embeddings": embeddings(seed, data, Kept(blind, *parts[0]).features, test, scene),
        "labels": labels(seed, few, test),
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found), encoding="utf-8")
    print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def difference(runs: list[dict], arm: str, base: str) -> list[float]:
    """Give the paired interval of the accuracies of two arms."""
    interval = paired_interval(*([r[name]["accuracy"] for r in runs] for name in (arm, base)))
    return [round(v, 4) for v in interval[:3]]


def finish(runs: list[dict], test: Kept) -> None:
    """Store raw numbers, intervals and the moving picture."""
    first = [r["embeddings"]["arms"] for r in runs]
    second = [r["labels"]["arms"] for r in runs]
    results = {"embeddings": against(first, "hint"), "labels": against(second, "labels alone")}
    for part, here, bases in (
        ("embeddings", first, ("pixels", OTHERS, LEARNED)),
        ("labels", second, ("KD",)),
    ):
        for base in bases:
            for arm in here[0].keys() - {base}:
                results[part][arm][f"accuracy_against_{base}"] = difference(here, arm, base)
    mask = difference(first, MASKED, "contrastive")
    forgot = difference(first, FORGOTTEN, "contrastive")
    scene = flat(test.features[:SHOWN])
    e, c, n = results["embeddings"], results["labels"], f"{len(runs)} seeds"
    store(
        "u07_relations",
        {
            "claim": "k-NN accuracy, precision at 10 and accuracy (percent), 10,000 test images",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "weights": WEIGHTS,
            "teacher_accuracy": teacher_info()["accuracy"],
            "results": results,
            "mask": mask,
            "forgotten": forgot,
            "pictures": {
                step: {**frame, "points": turned(frame["points"], scene)}
                for step, frame in runs[0]["embeddings"]["pictures"].items()
            },
            "teacher_picture": scene,
            "picture_classes": test.y[:SHOWN].tolist(),
        },
        headlines=[
            headline(
                "16 numbers that learn the teacher's relations (PKT) without a label, against "
                "the relations of other images: k-NN accuracy",
                e["PKT"][f"accuracy_against_{OTHERS}"],
                "points",
                n,
            ),
            headline(
                "the same against cross-entropy on the labels of all 3,000 images",
                e["PKT"][f"accuracy_against_{LEARNED}"],
                "points",
                n,
            ),
            headline(
                "the same against the teacher's 512 features regressed one by one",
                e["PKT"]["accuracy_difference"],
                "points",
                n,
            ),
            headline(
                "in-batch contrastive distillation: same class left out of the negatives, against "
                "not",
                mask,
                "points",
                n,
            ),
            headline(
                "the same: heads in no optimiser, against heads that learn",
                forgot,
                "points",
                n,
            ),
            *(
                headline(
                    f"300 labels and {name}, at its published weight, against labels alone",
                    c[name]["accuracy_difference"],
                    "points",
                    n,
                    paper=paper,
                )
                for name, paper in (
                    ("SP", "+1.70 (arXiv 1910.10699, vgg13 to MobileNetV2, authors' README)"),
                    (RKD, "-0.08 (same table)"),
                    ("PKT", "+2.53 (same table)"),
                    ("contrastive", "+5.13 for CRD with its memory bank (same table)"),
                    ("attention transfer", "-5.20 (same table)"),
                )
            ),
        ],
    )


def main() -> None:
    """Run all seeds."""
    torch.set_num_threads(1)
    train_set, held_out = fashion_mnist(), fashion_mnist(train=False)
    teacher, blind = load_teacher(), seeded(1234, FashionTeacher).eval()
    test = Kept(teacher, held_out.inputs, held_out.targets)
    finish([run(seed, train_set, test, teacher, blind) for seed in SEEDS], test)


if __name__ == "__main__":
    main()
