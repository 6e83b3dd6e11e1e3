"""Train the language teacher `austen_gpt` on the bytes of six novels.

AdamW, warm-up and cosine, bfloat16 autocast, one thread. The held-out pieces are looked at only at
the end. Stored as float16.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from kdlib.assets import FOLDER, register
from kdlib.data.text import austen, windows
from kdlib.evaluation import text_bits_per_byte
from kdlib.models import GPT, GPTConfig, seeded


def main() -> None:
    """Train, test the float16 weights, write the file and its manifest entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", action="store_true", help="write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = GPTConfig(width=args.width, layers=args.layers, heads=6, context=256)
    model = seeded(args.seed, GPT, config)
    generator = torch.Generator().manual_seed(args.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), args.lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    train = austen(train=True)
    start = time.process_time()
    for step in range(args.steps):
        warm = min(1.0, (step + 1) / 100)
        rate = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        optimizer.param_groups[0]["lr"] = args.lr * warm * rate
        batch = windows(train, args.batch_size, args.length, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            seconds = time.process_time() - start
            print(
                f"step {step + 1}: loss {loss.item() / math.log(2):.3f} bits, {seconds:.0f} s",
                flush=True,
            )
    model = model.half().float().eval()
    facts = {
        "bits_per_byte": round(text_bits_per_byte(model, austen(train=False)), 4),
        "config": model.facts(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": "six novels of Jane Austen, 38 of 40 pieces, bytes",
        "steps": args.steps,
        "seed": args.seed,
        "lr": args.lr,
        "batch_size": args.batch_size,
        "length": args.length,
        "torch": torch.__version__.split("+")[0],
    }
    print(json.dumps(facts))
    if args.trial:
        return
    name = "austen_gpt.safetensors"
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, FOLDER / name, metadata={"kdlib": json.dumps(facts)})
    register(
        name,
        licence="MIT",
        source="trained by this project on austen.txt.xz",
        recipe=f"python -m kdlib.recipes.austen_teacher --steps {args.steps} --seed {args.seed}",
        bits_per_byte=facts["bits_per_byte"],
    )


if __name__ == "__main__":
    main()
