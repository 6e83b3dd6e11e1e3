"""Unit 12: exposure bias as a curve over position, and what on-policy training does to it.

A small GPT learns a little of Jane Austen by heart. Then it is distilled from `austen_gpt`, for the
same number of updates or for the same time, on the text or on what it writes itself after prompts
from that text. Within a seed all arms start from the same student and see the same prompts.
"""

from __future__ import annotations

import copy
import itertools
import re
import time

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from kdlib.data.text import austen, decode, windows
from kdlib.decoding import generate
from kdlib.evaluation import text_bits_per_byte
from kdlib.evidence import against, headline, store
from kdlib.losses import reverse_kl
from kdlib.models import GPT, GPTConfig, load_teacher, seeded
from kdlib.training import divergence_by_position, fit_tokens, token_log_probs

SEEDS = range(5)
BYTES, WARM, STEPS, BATCH = 12_000, 600, 120, 8
PROMPT, WRITE, LONG = 16, 48, 96  # bytes: given, written in training, written in the test
EDGES = (0, 2, 4, 8, 16, 32, 64, 96)
CONFIG = GPTConfig(257, 64, layers=2, heads=4, context=128)
# arm: whether on its own text, training length
ARMS = {
    "reverse KL": (False, 1.0),
    "reverse KL, as long as on-policy takes": (False, 1.8),
    "reverse KL, on-policy": (True, 1.0),
}
BASELINE = "reverse KL"


@torch.no_grad()
def measure(model: GPT, teacher: GPT, data: dict) -> dict[str, float]:
    """Let the student write after prompts that it was trained on; nats, and words in percent."""
    rows = data["prompts"]
    generator = torch.Generator().manual_seed(4)
    own = generate(model, rows[:, :PROMPT], LONG, 1.0, None, generator)
    found: dict[str, float] = {}
    for name, text in (("own", own), ("text", rows)):
        curve = divergence_by_position(model, teacher, text, PROMPT, reverse=False)
        for low, high in itertools.pairwise(EDGES):
            found[f"{name} {low}-{high}"] = curve[low:high].mean().item()
        reverse = divergence_by_position(model, teacher, text, PROMPT)
        found[f"{name} reverse"] = reverse.mean().item()
    said = token_log_probs(teacher(own[:, :-1]), own[:, 1:])[:, PROMPT - 1 :]
    words = [w for r in own for w in re.findall(r"[a-z']+", decode(r[PROMPT:]).lower())[1:-1]]
    return {
        **found,
        "teacher_nll": -said.mean().item(),
        "real_words": 100 * sum(w in data["words"] for w in words) / len(words),
        "bits": text_bits_per_byte(model, data["held_out"], 112, 64),
    }


def train(model: GPT, teacher: GPT, text: Tensor, arm: str, seed: int) -> None:
    """Take the updates of one arm."""
    own, longer = ARMS[arm]
    generator = torch.Generator().manual_seed(9000 + seed)
    mask = (torch.arange(1, PROMPT + WRITE) >= PROMPT).expand(BATCH, -1)

    def loss(student: GPT, rows: Tensor) -> Tensor:
        if own:
            rows = generate(student, rows[:, :PROMPT], WRITE, 1.0, None, generator)
        z = student(rows[:, :-1])
        with torch.no_grad():
            v = teacher(rows[:, :-1])
        return reverse_kl(z, v, mask)

    fit_tokens(
        model,
        lambda g: windows(text, BATCH, PROMPT + WRITE - 1, g),
        loss,
        steps=int(STEPS * longer),
        lr=1e-3,
        seed=seed,
        progress=False,
    )


def by_heart(text: Tensor, seed: int) -> GPT:
    """Train a student on a short text until it knows it too well."""
    model = seeded(seed, GPT, CONFIG)

    def nll(student: GPT, rows: Tensor) -> Tensor:
        return F.cross_entropy(student(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    fit_tokens(model, lambda g: windows(text, 8, 96, g), nll, steps=WARM, seed=seed, progress=False)
    return model


def run(teacher: GPT, seed: int, words: set[str]) -> dict[str, dict[str, float]]:
    """Train every arm for one seed: arm -> metric -> number."""
    text = austen()[seed * 500_000 :][:BYTES]  # another piece of the novels for each seed
    data = {
        "prompts": windows(text, 64, PROMPT + LONG - 1, torch.Generator().manual_seed(3)),
        "held_out": austen(train=False),
        "words": words,
    }
    start = by_heart(text, seed)
    found = {"at the start": {**measure(start, teacher, data), "seconds": 0.0}}
    for arm in ARMS:
        model, clock = copy.deepcopy(start), time.process_time()
        train(model, teacher, text, arm, seed)
        seconds = time.process_time() - clock
        found[arm] = {**measure(model, teacher, data), "seconds": seconds}
    return found


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    teacher = load_teacher("austen_gpt")
    words = set(re.findall(r"[a-z']+", decode(austen()).lower()))
    runs = [run(teacher, seed, words) for seed in tqdm(SEEDS, unit="seed")]
    results = against(runs, BASELINE)
    equal_time = against(runs, "reverse KL, as long as on-policy takes")["reverse KL, on-policy"]
    for arm, e in results.items():
        print(f"{arm:40s}", {k: round(sum(v) / len(v), 3) for k, v in e.items() if "diff" not in k})
    over = f"{len(runs)} seeds"
    store(
        "u12_exposure",
        {
            "claim": "real words in samples (percent) and divergence along the position",
            "seeds": list(SEEDS),
            "bytes": BYTES,
            "steps": STEPS,
            "edges": list(EDGES),
            "results": results,
            "equal_time": {k: v for k, v in equal_time.items() if k.endswith("_difference")},
        },
        headlines=[
            headline(
                "Divergence 64 to 96 bytes into the student's own text: on-policy against "
                "off-policy at equal time",
                equal_time["own 64-96_difference"],
                "nats per byte",
                over,
                places=2,
            ),
            headline(
                "The same for held-out text",
                equal_time["bits_difference"],
                "bits per byte",
                over,
                places=2,
            ),
            headline(
                "The same for the teacher's NLL of the student's samples: on-policy is worse",
                equal_time["teacher_nll_difference"],
                "nats per byte",
                over,
                places=2,
            ),
        ],
    )


if __name__ == "__main__":
    main()
