"""Unit 03: an ensemble and the one student that is trained on what it says.

Eight CNNs of 16 and 32 channels learn the same 300 labelled images, from different initial
weights. Students of the same size learn from the ensemble, from one member, or from the labels,
with the same initial weights, on the 300 images or on all 20,000, whose labels nobody uses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, nll, predict
from kdlib.evidence import against, headline, store
from kdlib.losses import ensemble_soft_targets
from kdlib.models import CNN, seeded
from kdlib.training import fit

SEEDS = range(8)
MEMBERS = 8
LABELS = 300
STEPS = 600  # of a member; the students take twice as many


def trained(seed: int, x: Tensor, steps: int, **arguments) -> torch.nn.Module:
    """Train one network of the one size that all arms share."""
    model = seeded(seed, CNN, 16)
    fit(model, x, steps=steps, seed=seed, progress=False, **arguments)
    return model


def run(seed: int, train, test) -> dict[str, dict[str, float]]:
    """Train the members and every student of one seed: arm -> accuracy and NLL."""
    order = torch.randperm(len(train.inputs), generator=torch.Generator().manual_seed(seed))
    rows = order[:LABELS]
    x, y = train.inputs[rows], train.targets[rows]
    members = [trained(1000 * (seed + 1) + m, x, STEPS, targets=y) for m in range(MEMBERS)]
    everywhere = torch.stack([predict(m, train.inputs) for m in members])
    on_test = torch.stack([predict(m, test.inputs) for m in members])
    tiny = torch.finfo(torch.float32).tiny
    average = ensemble_soft_targets(everywhere).clamp_min(tiny).log()

    def measured(logits: Tensor) -> dict[str, float]:
        return {
            "accuracy": 100 * accuracy(logits, test.targets),
            "nll": nll(logits, test.targets),
        }

    def student(inputs: Tensor, **arguments) -> dict[str, float]:
        return measured(
            predict(trained(seed, inputs, 2 * STEPS, temperature=1.0, **arguments), test.inputs)
        )

    each = [measured(z) for z in on_test]
    return {
        "one member": {k: sum(e[k] for e in each) / MEMBERS for k in each[0]},
        "ensemble, probabilities averaged": measured(
            ensemble_soft_targets(on_test).clamp_min(tiny).log()
        ),
        "ensemble, logits averaged": measured(on_test.mean(dim=0)),
        "labels alone": student(x, targets=y),
        "student of the ensemble, 300 images": student(x, teacher_logits=average[rows]),
        "student of the ensemble": student(train.inputs, teacher_logits=average),
        "student of averaged logits": student(train.inputs, teacher_logits=everywhere.mean(dim=0)),
        "student of one member": student(train.inputs, teacher_logits=everywhere[0]),
    }


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    train, test = fashion_mnist(), fashion_mnist(train=False)
    runs = [run(seed, train, test) for seed in tqdm(SEEDS, unit="seed")]
    results = against(runs, "labels alone")
    pairs = {
        "ensemble against one member": ("ensemble, probabilities averaged", "one member"),
        "student of the ensemble against student of one member": (
            "student of the ensemble",
            "student of one member",
        ),
        "ensemble, probabilities against logits": (
            "ensemble, probabilities averaged",
            "ensemble, logits averaged",
        ),
        "student, probabilities against logits": (
            "student of the ensemble",
            "student of averaged logits",
        ),
    }
    differences = {
        name: {
            k: v
            for k, v in against([{a: r[a], b: r[b]} for r in runs], b)[a].items()
            if k.endswith("_difference")
        }
        for name, (a, b) in pairs.items()
    }
    for arm, entry in results.items():
        means = [sum(entry[m]) / len(runs) for m in ("accuracy", "nll")]
        print(arm, "|", means, "|", entry.get("accuracy_difference"))
    for name, entry in differences.items():
        print(name, entry)
    store(
        "u03_ensemble",
        {
            "claim": "accuracy (points) and NLL (nats) against labels alone, 10,000 test images",
            "seeds": list(SEEDS),
            "members": MEMBERS,
            "labels": LABELS,
            "steps": {"member": STEPS, "student": 2 * STEPS},
            "temperature": 1.0,
            "results": results,
            "differences": differences,
        },
        headlines=[
            headline(
                "One student of an ensemble of eight, against the same network on the labels alone",
                results["student of the ensemble"]["accuracy_difference"],
                "points",
                f"{len(SEEDS)} seeds",
                paper="speech: baseline 58.9 %, ensemble of ten 61.1 %, distilled 60.8 % "
                "(arXiv 1503.02531, table 1)",
            ),
            headline(
                "Probabilities averaged against logits averaged, NLL of the ensemble",
                differences["ensemble, probabilities against logits"]["nll_difference"],
                "nats",
                f"{len(SEEDS)} seeds",
                places=2,
            ),
        ],
    )


if __name__ == "__main__":
    main()
