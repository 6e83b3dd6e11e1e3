"""Unit 05: the target against the rest, standardised logits and correlations, at equal budget.

A CNN of 16 and 32 channels learns Fashion-MNIST at 14x14. Within a seed every arm has the same
images, initial weights, order of batches and number of updates. The soft term is
T^2 (TCKD + w NCKD) with T = 4 in all arms of the decoupled kind, and w is what differs: 1 - p_y of
each row in plain distillation, the mean of 1 - p_y over the batch (decoupled, at the same weight),
or a constant beta. Controls: a soft term ten times as heavy, and either half alone. The second part
multiplies the teacher's logits, which leaves every prediction of the teacher as it is.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, fit_temperature, nll, predict
from kdlib.evidence import against, headline, store
from kdlib.losses import dist_loss, dkd_loss, kd_loss, split_kd, standardised_kd
from kdlib.models import CNN, load_teacher, seeded, teacher_info
from kdlib.training import fit

SEEDS = range(10)
STEPS = 600
TEMPERATURE = 4.0
ALPHA = 0.9
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
REGIMES = {
    "300 labels": (300, 1.0),
    "300 labels, teacher's logits x4": (300, 4.0),
    "2000 labels": (2000, 1.0),
}


def mixed(soft, alpha: float = ALPHA):
    """Add the hard labels: alpha soft + (1 - alpha) CE, as in every arm."""

    def loss(z: Tensor, v: Tensor, y: Tensor) -> Tensor:
        return alpha * soft(z, v, y) + (1 - alpha) * F.cross_entropy(z, y)

    return loss


def same_weight(z: Tensor, v: Tensor, y: Tensor) -> Tensor:
    """Weigh each row's NCKD with the batch's mean of 1 - p_y."""
    p = (v / TEMPERATURE).softmax(-1).gather(1, y[:, None])
    tckd, nckd = split_kd(z, v, y, TEMPERATURE)
    return TEMPERATURE**2 * (tckd + (1 - p).mean() * nckd).mean()


def decoupled(alpha: float, beta: float, soft: float = ALPHA):
    """Give DKD with these weights, mixed with the hard labels."""
    return mixed(partial(dkd_loss, temperature=TEMPERATURE, alpha=alpha, beta=beta), soft)


PLAIN = partial(kd_loss, temperature=TEMPERATURE, alpha=ALPHA)
STANDARDISED = partial(standardised_kd, temperature=2.0, alpha=ALPHA)
# alpha found on two seeds: with more, the correlations leave the student undecided
CORRELATIONS = mixed(lambda z, v, y: dist_loss(z, v, TEMPERATURE), 0.06)
ARMS = {
    "plain KD": PLAIN,
    "plain KD, soft weight x10": partial(kd_loss, temperature=TEMPERATURE, alpha=90 / 91),
    "TCKD alone": decoupled(1.0, 0.0),
    "NCKD alone": decoupled(0.0, 1.0),
    "NCKD alone, labels as heavy": decoupled(0.0, 1.0, soft=0.5),
    "DKD, beta = mean of 1 - p_y": mixed(same_weight),
    "DKD, beta = 1": decoupled(1.0, 1.0),
    "DKD, beta = 2": decoupled(1.0, 2.0),
    "DKD, beta = 4": decoupled(1.0, 4.0),
    "DKD, beta = 8": decoupled(1.0, 8.0),
    "DKD, beta = 8, labels heavier": decoupled(1.0, 8.0, soft=0.5),
    "standardised KD": STANDARDISED,
    "DIST": CORRELATIONS,
}
DKD_PAPER = (
    "+3.0 points, CIFAR-100, ResNet32x4 to ResNet8x4 (arXiv 2203.08679, the authors' repository)"
)
WITH_MORE_LABELS = (
    "plain KD",
    "TCKD alone",
    "NCKD alone",
    "DKD, beta = 1",
    "DKD, beta = 8",
    "standardised KD",
    "DIST",
)
RESCALED = {
    "plain KD": PLAIN,
    "DKD, beta = 1": ARMS["DKD, beta = 1"],
    "standardised KD": STANDARDISED,
    "DIST": CORRELATIONS,
}


def run(seed: int, data: dict) -> dict[str, dict[str, dict[str, float]]]:
    """Train every arm for one seed: regime -> arm -> accuracy in percent and NLL in nats.

    The second NLL is that after temperature scaling on 2,000 images that nobody trained on.
    """
    order = torch.randperm(len(data["x"]), generator=torch.Generator().manual_seed(seed))

    def student(n: int, scale: float, loss=None) -> dict[str, float]:
        rows = order[:n]
        model = seeded(seed, CNN, 16)
        how = {"targets": data["y"][rows], "steps": STEPS, "seed": seed, "progress": False}
        if loss is not None:
            how |= {"teacher_logits": scale * data["logits"][rows], "loss_fn": loss}
        fit(model, data["x"][rows], **how)
        logits, y = predict(model, data["test_x"]), data["test_y"]
        held_out = order[-2000:]
        fitted = fit_temperature(predict(model, data["x"][held_out]), data["y"][held_out])
        return {
            "accuracy": 100 * accuracy(logits, y),
            "nll": nll(logits, y),
            "nll_fitted": nll(logits / fitted, y),
        }

    alone = {n: student(n, 1.0) for n in (300, 2000)}
    found = {}
    for regime, (n, scale) in REGIMES.items():
        chosen = ARMS if n == 300 else WITH_MORE_LABELS
        trained = {arm: student(n, scale, ARMS[arm]) for arm in chosen}
        found[regime] = {"labels alone": alone[n], **trained}
    known = {1.0: "300 labels", 4.0: "300 labels, teacher's logits x4"}
    for scale in SCALES:
        found[f"x{scale:g}"] = {"labels alone": alone[300]} | {
            arm: found[known[scale]][arm] if scale in known else student(300, scale, loss)
            for arm, loss in RESCALED.items()
        }
    return found


def summarise(runs: list[dict]) -> tuple[dict, list[dict]]:
    """Turn the runs into what is stored: intervals against plain KD and against labels alone."""
    results, gains, rescaled = {}, {}, {}
    for regime in REGIMES:
        of_regime = [r[regime] for r in runs]
        results[regime] = against(of_regime, "plain KD")
        gains[regime] = {
            arm: entry["accuracy_difference"]
            for arm, entry in against(of_regime, "labels alone").items()
            if arm != "labels alone"
        }
    for scale in SCALES:
        rescaled[f"x{scale:g}"] = against([r[f"x{scale:g}"] for r in runs], "labels alone")
    # what a factor of 4 on the teacher's logits does to each loss's student
    drift = {}
    for arm in RESCALED:
        pairs = [{"as it is": r["x1"][arm], "x4": r["x4"][arm]} for r in runs]
        drift[arm] = against(pairs, "as it is")["x4"]
    few, hard = results["300 labels"], results["300 labels, teacher's logits x4"]
    rows = (
        ("300 labels, plain KD against labels alone", gains["300 labels"]["plain KD"], ""),
        ("the same with the target's half (TCKD) alone", gains["300 labels"]["TCKD alone"], ""),
        ("DKD at plain KD's weight, against plain KD", few["DKD, beta = mean of 1 - p_y"], ""),
        ("the same, teacher's logits x4", hard["DKD, beta = mean of 1 - p_y"], ""),
        ("DKD with beta = 8, against plain KD", few["DKD, beta = 8"], DKD_PAPER),
        ("teacher's logits x4: what plain KD loses", drift["plain KD"], ""),
        ("teacher's logits x4: what standardised KD loses", drift["standardised KD"], ""),
        ("standardised against plain KD, teacher as it is", few["standardised KD"], ""),
        ("standardised against plain KD, teacher's logits x4", hard["standardised KD"], ""),
    )
    headlines = [
        headline(
            claim,
            found if isinstance(found, list) else found["accuracy_difference"],
            "points",
            f"{len(runs)} seeds",
            paper=paper,
        )
        for claim, found, paper in rows
    ]
    return {
        "results": results,
        "gains": gains,
        "rescaled": rescaled,
        "drift": drift,
    }, headlines


def data() -> dict:
    """Load images and labels, and ask the teacher once."""
    train, test = fashion_mnist(), fashion_mnist(train=False)
    return {
        "x": train.inputs,
        "y": train.targets,
        "test_x": test.inputs,
        "test_y": test.targets,
        "logits": predict(load_teacher(), train.inputs),
    }


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    loaded = data()
    payload, headlines = summarise([run(seed, loaded) for seed in tqdm(SEEDS, unit="seed")])
    store(
        "u05_logit_structure",
        {
            "claim": "accuracy (points) and NLL (nats) on 10,000 test images",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "temperature": TEMPERATURE,
            "alpha": ALPHA,
            "arms": list(ARMS),
            "regimes": list(REGIMES),
            "teacher_accuracy": teacher_info()["accuracy"],
            **payload,
        },
        headlines=headlines,
    )


if __name__ == "__main__":
    main()
