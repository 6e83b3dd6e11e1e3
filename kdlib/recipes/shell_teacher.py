"""A teacher that errs: a small GPT on `kdlib.data.shell_game`, stopped half-way.

It learns from worked steps and is stopped as soon as half of the traces that it samples at T = 1
end with the right answer. That is the point of it: its traces are worth filtering.

Run with `python -m kdlib.recipes.shell_teacher` (seconds).
"""

from __future__ import annotations

import argparse
import json

import torch
from safetensors.torch import save_file
from torch import Tensor

from kdlib.assets import FOLDER, register
from kdlib.data import shell_game as game
from kdlib.losses import sft_loss
from kdlib.models import GPT, GPTConfig, seeded
from kdlib.training import fit_tokens

CONFIG = GPTConfig(vocabulary=game.VOCABULARY, width=32, layers=2, heads=4, context=32)
PROMPT = game.SWAPS + 2


def completion_loss(model: torch.nn.Module, rows: Tensor, prompt: int = PROMPT) -> Tensor:
    """Negative log-likelihood of what follows the prompt, up to the first EOS."""
    lengths = (rows != game.EOS).sum(1) + 1
    starts = torch.full_like(lengths, prompt)
    return sft_loss(model(rows), rows, starts, lengths.clamp(max=rows.shape[1]))


def train_until(level: float, seed: int, every: int = 5, most: int = 600) -> tuple[GPT, int]:
    """Train a fresh GPT in rounds until a share `level` of its sampled answers is right."""
    model = seeded(1000 + seed, GPT, CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(1000 + seed)
    for step in range(1, most + 1):
        loss = completion_loss(model, game.worked(game.problems(64, generator)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % every == 0 and game.exact_answer(model, 200, 1.0) >= level:
            break
    return model.eval(), step


def fit_student(rows: Tensor, seed: int, steps: int = 150, prompt: int = PROMPT) -> GPT:
    """Train a fresh student of the teacher's size on whole rows `(n, T)`."""
    model = seeded(seed, GPT, CONFIG)
    fit_tokens(
        model,
        lambda g: rows[torch.randint(len(rows), (64,), generator=g)],
        lambda m, batch: completion_loss(m, batch, prompt),
        steps=steps,
        lr=8e-3,
        seed=seed,
        progress=False,
    )
    return model


def main() -> None:
    """Train, test the float16 weights, write the file and its manifest entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, steps = train_until(args.level, args.seed)
    model = model.half().float().eval()
    facts = {
        "accuracy": round(game.exact_answer(model, 2000), 4),
        "accuracy_sampled": round(game.exact_answer(model, 2000, 1.0), 4),
        "config": model.facts(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": "kdlib.data.shell_game, endless problems with worked steps",
        "steps": steps,
        "batch_size": 64,
        "seed": args.seed,
        "torch": torch.__version__.split("+")[0],
    }
    print(json.dumps(facts))
    name, how = "shell_gpt.safetensors", f"--level {args.level} --seed {args.seed}"
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, FOLDER / name, metadata={"kdlib": json.dumps(facts)})
    register(
        name,
        licence="MIT",
        source="trained by this project on kdlib.data.shell_game",
        recipe=f"python -m kdlib.recipes.shell_teacher {how}",
        accuracy=facts["accuracy"],
    )


if __name__ == "__main__":
    main()
