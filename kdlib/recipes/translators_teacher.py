"""Train the teacher `translators_gpt` on sentences of `kdlib.data.translators` (half a minute)."""

from __future__ import annotations

import argparse
import json

import torch
from safetensors.torch import save_file

from kdlib.assets import FOLDER, register
from kdlib.data import translators as task
from kdlib.decoding import beam_search_batch as beam_search
from kdlib.decoding import generate
from kdlib.losses import sequence_nll, shift_and_mask
from kdlib.models import GPT, GPTConfig, seeded
from kdlib.training import fit_tokens


def main() -> None:
    """Train, test the float16 weights, write the file and its manifest entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = GPTConfig(vocabulary=task.VOCABULARY, width=64, layers=2, heads=4, context=16)
    model = seeded(args.seed, GPT, config)
    fit_tokens(
        model, lambda g: task.corpus(128, g), translation_nll, steps=args.steps, seed=args.seed
    )
    model = model.half().float().eval()
    prompt = task.prompts(1000, torch.Generator().manual_seed(10_000))
    beams, _ = beam_search(model, prompt, task.LENGTH + 1, beams=5, eos=task.EOS)
    greedy = generate(model, prompt, task.LENGTH + 1, temperature=0.0, eos=task.EOS)
    facts = {
        "faithful": round(task.faithful(beams).any(1).float().mean().item(), 4),
        "faithful_greedy": round(task.faithful(greedy).any(1).float().mean().item(), 4),
        "config": model.facts(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": "kdlib.data.translators, endless sentences",
        "steps": args.steps,
        "batch_size": 128,
        "seed": args.seed,
        "torch": torch.__version__.split("+")[0],
    }
    print(json.dumps(facts))
    name, how = "translators_gpt.safetensors", f"--steps {args.steps} --seed {args.seed}"
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, FOLDER / name, metadata={"kdlib": json.dumps(facts)})
    register(
        name,
        licence="MIT",
        source="trained by this project on kdlib.data.translators",
        recipe=f"python -m kdlib.recipes.translators_teacher {how}",
        faithful=facts["faithful"],
    )


def translation_nll(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the translations alone."""
    lengths = torch.full((len(rows),), rows.shape[1])
    start = torch.full((len(rows),), task.PROMPT)
    inputs, targets, mask = shift_and_mask(rows, lengths, start)
    return sequence_nll(model(inputs), targets, mask)


if __name__ == "__main__":
    main()
