"""Train the teacher `fashion_cnn` on all 60,000 Fashion-MNIST images at 14x14 (about 5 minutes).

AdamW with a one-cycle schedule, horizontal flips as the only augmentation (shifts by two pixels,
a seventh of the image, cost accuracy), dropout before the last layer. Stored as float16.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from kdlib.assets import FOLDER, register
from kdlib.data.images import MEAN, STD
from kdlib.models import FashionTeacher, seeded
from kdlib.recipes.fashion_data import DEBIAN, originals


def main() -> None:
    """Train, test the float16 weights, write the file and its manifest entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEBIAN)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    args = parser.parse_args()

    def load(part: str):
        pixels, targets = originals(args.folder, part)
        return ((pixels.float() / 255 - MEAN) / STD)[:, None], targets.long()

    (train_x, train_y), (test_x, test_y) = load("train"), load("t10k")
    torch.manual_seed(args.seed)
    model = seeded(args.seed, FashionTeacher)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=1e-2)
    per_epoch = len(train_x) // args.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, total_steps=args.epochs * per_epoch, pct_start=0.2
    )
    start = time.perf_counter()
    for epoch in range(args.epochs):
        model.train()
        for batch in torch.randperm(len(train_x))[: per_epoch * args.batch_size].split(
            args.batch_size
        ):
            images = train_x[batch]
            flip = torch.rand(len(batch)) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
            loss = F.cross_entropy(model(images), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = test_accuracy(model, test_x, test_y)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: test accuracy {accuracy:.2%}, {seconds:.0f} s", flush=True)
    model = model.half().float()
    facts = {
        "accuracy": test_accuracy(model, test_x, test_y),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": "Fashion-MNIST, 60,000 training images, average-pooled to 14x14",
        "epochs": args.epochs,
        "seed": args.seed,
        "lr": args.lr,
        "batch_size": args.batch_size,
        "torch": torch.__version__.split("+")[0],
    }
    name = "fashion_cnn.safetensors"
    weights = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }
    save_file(weights, FOLDER / name, metadata={"kdlib": json.dumps(facts)})
    register(
        name,
        licence="MIT",
        source="trained by this project on Fashion-MNIST",
        recipe=f"python -m kdlib.recipes.fashion_teacher --epochs {args.epochs} --seed {args.seed}",
        accuracy=facts["accuracy"],
    )
    print(json.dumps(facts))


@torch.no_grad()
def test_accuracy(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of right answers in eval mode."""
    model.eval()
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(inputs.split(1000), targets.split(1000), strict=True)
    )
    return right / len(targets)


if __name__ == "__main__":
    main()
