"""Unit 06: what a teacher's features add to its soft targets, and what the bugs cost.

Thin, deep students (8, 16 and 32 channels in three stages) learn Fashion-MNIST at 14x14. Within a
seed every arm has the same images, initial weights, order of batches and number of updates; the
updates of a hint stage count. Two regimes of labels for a student of 9 convolutions with
BatchNorm, and three depths without BatchNorm, which is where hints come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, nll, paired_interval, predict
from kdlib.evidence import against, headline, store
from kdlib.losses import SimKDStudent, attention_loss, capture_features, hint_loss, kd_loss
from kdlib.models import FashionTeacher, ThinDeep, load_teacher, seeded, teacher_info
from kdlib.training import fit

SEEDS = range(10)
LABELS = (300, 3000)
DEPTHS = (3, 6)  # convolutions in each of three stages, without BatchNorm
STEPS, HINT_STEPS = 400, 200
RATE, FEATURE_RATE = 5e-3, 1e-2
WIDTH = 8
DECAYING = "hint at a decaying rate, then distilled"
TWO_STAGES = "soft targets in the hint's place, then distilled"
UNTRAINED = "hint of an untrained teacher, then distilled"
STAGES = ("features.5", "features.11", "features.17")


HEADLINES = (  # claim, regime, arm, which interval, seeds, what the paper reports
    (
        "a hint first, then soft targets, against soft targets alone, 300 labels",
        "300 labels",
        "hint, then distilled",
        "accuracy_against_distilled",
        10,
        "",
    ),
    (
        "the same against soft targets at the hint stage's rate and updates",
        "300 labels",
        "hint, then distilled",
        f"accuracy_against_{TWO_STAGES}",
        10,
        "",
    ),
    (
        "the same, the hint stage's learning rate decaying to zero (a null)",
        "300 labels",
        DECAYING,
        "accuracy_against_distilled",
        10,
        "",
    ),
    (
        "a hint first, then soft targets, with 3,000 labels, 400 updates in all",
        "3000 labels",
        "hint, then distilled",
        "accuracy_against_distilled",
        10,
        "",
    ),
    (
        "a hint whose regressor is in no optimiser, against one whose regressor learns",
        "300 labels",
        "hint without its regressor in the optimiser",
        "accuracy_against_hint, then distilled",
        10,
        "",
    ),
    (
        "attention transfer and soft targets, against soft targets alone, 3,000 labels",
        "3000 labels",
        "attention transfer and distilled",
        "accuracy_against_distilled",
        10,
        "",
    ),
    (
        "SimKD, against soft targets, 3,000 labels, 400 updates in all",
        "3000 labels",
        "SimKD",
        "accuracy_against_distilled",
        10,
        "",
    ),
    (
        "SimKD, against soft targets, 300 labels",
        "300 labels",
        "SimKD",
        "accuracy_against_distilled",
        10,
        "+3.7 on CIFAR-100 (authors' code for 2203.14001, README, ResNet-8x4)",
    ),
    (
        "9 convolutions without BatchNorm: a hint first, against labels alone, 300 labels",
        "9 convolutions without BatchNorm",
        DECAYING,
        "accuracy_difference",
        5,
        "a thin, deep student beats its teacher on CIFAR-10 (1412.6550, abstract)",
    ),
)


def features(network: nn.Module, images: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    """Give the outputs of the named layers for all images."""
    parts = []
    with torch.no_grad(), capture_features(network.eval(), names) as found:
        for chunk in images.split(500):
            network(chunk)
            parts.append([found[name] for name in names])
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def batches(n: int, steps: int, generator: torch.Generator, size: int = 32) -> Iterator[Tensor]:
    """Yield the indices of shuffled batches, epoch after epoch."""
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(queue) < size:
            queue = torch.randperm(n, generator=generator)
        yield queue[:size]
        queue = queue[size:]


def match(
    lower: nn.Module,
    regressor: nn.Module,
    images: Tensor,
    target: Tensor,
    steps: int,
    seed: int,
    hold: bool = True,
    decay: bool = False,
) -> list[float]:
    """Train `lower` on the hint loss; `hold=False` leaves the regressor out of the optimiser."""
    parameters = [*lower.parameters(), *(regressor.parameters() if hold else [])]
    optimizer = torch.optim.Adam(parameters, FEATURE_RATE)
    schedule = decay and torch.optim.lr_scheduler.OneCycleLR(
        optimizer, FEATURE_RATE, total_steps=steps, pct_start=0.2
    )
    generator = torch.Generator().manual_seed(seed)
    losses = []
    lower.train()
    for batch in batches(len(images), steps, generator):
        loss = hint_loss(lower(images[batch]), target[batch], regressor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if decay:
            schedule.step()
        losses.append(loss.item())
    lower.eval()
    return losses


class Arms:
    """All arms for one seed and one set of images."""

    def __init__(self, seed: int, images: Tensor, targets: Tensor, test, **network) -> None:
        self.seed, self.x, self.y, self.test = seed, images, targets, test
        self.network = network
        teacher = load_teacher()
        self.head = teacher.head
        self.logits = predict(teacher, images)
        self.maps = features(teacher, images, STAGES)
        self.losses: dict[str, list[float]] = {}

    def new(self, he: bool = False) -> ThinDeep:
        model = seeded(self.seed, ThinDeep, WIDTH, **self.network)
        generator = torch.Generator().manual_seed(self.seed)
        for layer in model.modules():
            if he and isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        return model

    def measure(self, model: nn.Module) -> dict[str, float]:
        logits = predict(model, self.test.inputs)
        return {
            "accuracy": 100 * accuracy(logits, self.test.targets),
            "nll": nll(logits, self.test.targets),
        }

    def fit(self, model: nn.Module, steps: int = STEPS, lr: float = RATE, **how):
        how = {"batch_size": 32, "seed": self.seed, "progress": False, **how}
        fit(model, self.x, self.y, steps=steps, lr=lr, **how)
        return self.measure(model)

    def labels(self):
        return self.fit(self.new())

    def distilled(self, lr: float = RATE, he: bool = False):
        return self.fit(self.new(he), lr=lr, teacher_logits=self.logits)

    def hinted(
        self, name: str, hint: Tensor | None = None, hold: bool = True, decay: bool = False
    ) -> dict[str, float]:
        model = self.new()
        hint = self.maps[1] if hint is None else hint
        regressor = seeded(self.seed + 100, nn.Conv2d, 2 * WIDTH, hint.shape[1], 1)
        how = {"hold": hold, "decay": decay}
        lower, steps = model.stages[:2], HINT_STEPS
        self.losses[name] = match(lower, regressor, self.x, hint, steps, self.seed, **how)
        return self.fit(model, STEPS - steps, teacher_logits=self.logits)

    def two_stages(self) -> dict[str, float]:
        """Spend the hint stage's updates, at its rate, on soft targets: the schedule's control."""
        model = self.new()
        optimizer = torch.optim.Adam(model.parameters(), FEATURE_RATE)
        generator = torch.Generator().manual_seed(self.seed)
        model.train()
        for rows in batches(len(self.x), HINT_STEPS, generator):
            loss = kd_loss(model(self.x[rows]), self.logits[rows], self.y[rows], 2.0, 0.9)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self.fit(model, STEPS - HINT_STEPS, teacher_logits=self.logits)

    def untrained(self) -> dict[str, float]:
        """Hint towards features of a teacher that knows nothing."""
        nobody = seeded(1234, FashionTeacher)
        return self.hinted("untrained", features(nobody, self.x, STAGES[1:2])[0])

    def simkd(self):
        model = self.new()
        projector = seeded(self.seed + 100, nn.Conv2d, 4 * WIDTH, self.maps[2].shape[1], 1)
        match(model.stages, projector, self.x, self.maps[2], STEPS, self.seed, decay=True)
        return self.measure(SimKDStudent(model.stages, projector, self.head))

    def attention(self):
        model = self.new()
        rows = torch.arange(len(self.x))[:, None].float()  # lets the loss find the teacher's maps
        names = ["stages.0", "stages.1", "stages.2"]
        with capture_features(model, names) as seen:

            def loss(z, logits_and_row, y):
                logits, row = logits_and_row[:, :-1], logits_and_row[:, -1].long()
                pairs = zip(seen.values(), self.maps, strict=True)
                distance = sum(attention_loss(mine, theirs[row]) for mine, theirs in pairs)
                return kd_loss(z, logits, y, 2.0, 0.9) + distance

            both = torch.cat([self.logits, rows], dim=1)
            return self.fit(model, teacher_logits=both, loss_fn=loss)


def run(seed: int, train, test) -> tuple[dict, dict]:
    """Train every arm for one seed: regime -> arm -> metric; and the hint losses."""
    order = torch.randperm(len(train.inputs), generator=torch.Generator().manual_seed(seed))
    found: dict[str, dict] = {}
    for n in LABELS:
        rows = order[:n]
        arms = Arms(seed, train.inputs[rows], train.targets[rows], test, depth=3)
        mine = found[f"{n} labels"] = {
            "labels alone": arms.labels(),
            "distilled": arms.distilled(),
            "hint, then distilled": arms.hinted("held"),
            DECAYING: arms.hinted("decaying", decay=True),
            "attention transfer and distilled": arms.attention(),
            "SimKD": arms.simkd(),
        }
        if n == LABELS[0]:
            shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
            mine["hint without its regressor in the optimiser"] = arms.hinted(
                "left out", hold=False
            )
            mine["distilled, learning rate of the hints"] = arms.distilled(FEATURE_RATE)
            mine[TWO_STAGES] = arms.two_stages()
            mine[UNTRAINED] = arms.untrained()
            mine["hint of another image"] = arms.hinted("shuffled", arms.maps[1][shuffle])
            centred = arms.maps[1] - arms.maps[1].mean(dim=0)
            curves = {
                "held": arms.losses["held"],
                "left out": arms.losses["left out"],
                "mean feature": 0.5 * centred.square().sum(dim=(1, 2, 3)).mean().item(),
            }
    for depth in DEPTHS if seed < 5 else ():
        rows = order[: LABELS[0]]
        arms = Arms(seed, train.inputs[rows], train.targets[rows], test, depth=depth, norm=False)
        found[f"{3 * depth} convolutions without BatchNorm"] = {
            "labels alone": arms.labels(),
            "distilled": arms.distilled(),
            DECAYING: arms.hinted("plain", decay=True),
            "distilled, He initialisation": arms.distilled(he=True),
        }
    return found, curves


def finish(runs: list[tuple[dict, dict]]) -> None:
    """Store raw numbers, intervals and the mean curves of the hint loss."""
    results: dict[str, dict] = {}
    for regime in runs[0][0]:
        here = [found[regime] for found, _ in runs if regime in found]
        results[regime] = against(here, "labels alone")
        for arm, entry in results[regime].items():
            for base in {"distilled", "hint, then distilled", TWO_STAGES} & set(here[0]) - {arm}:
                mine, theirs = ([r[a]["accuracy"] for r in here] for a in (arm, base))
                interval = paired_interval(mine, theirs)[:3]
                entry[f"accuracy_against_{base}"] = [round(v, 4) for v in interval]
            print(regime, "|", arm, "|", entry.get("accuracy_difference"))
    curves = [curve for _, curve in runs]
    store(
        "u06_features",
        {
            "claim": "accuracy (points) and NLL (nats) of thin, deep students, 10,000 test images",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "hint_steps": HINT_STEPS,
            "teacher_accuracy": teacher_info()["accuracy"],
            "results": results,
            "hint_losses": {
                name: [
                    round(sum(step) / len(step), 1)
                    for step in zip(*(curve[name] for curve in curves), strict=True)
                ]
                for name in ("held", "left out")
            },
            "hint_loss_of_mean_feature": round(
                sum(curve["mean feature"] for curve in curves) / len(curves), 1
            ),
        },
        headlines=[
            headline(claim, results[regime][arm][key], "points", f"{n} seeds", paper=paper)
            for claim, regime, arm, key, n, paper in HEADLINES
        ],
    )


def main() -> None:
    """Run all seeds."""
    torch.set_num_threads(1)
    train, test = fashion_mnist(), fashion_mnist(train=False)
    finish([run(seed, train, test) for seed in tqdm(SEEDS, unit="seed")])


if __name__ == "__main__":
    main()
