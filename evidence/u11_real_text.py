"""Unit 11: the bytes of six novels, from little text and from much.

A student of 0.1 million parameters learns from 16 KB of text, or from all 3.8 MB. Within a seed
every arm has the same initial weights, order of batches and number of updates (but for the arm
that trains longer, to use as much processor time as distillation without a cache).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from kdlib.data.text import austen, decode, windows
from kdlib.decoding import beam_search_batch as beam_search
from kdlib.decoding import generate
from kdlib.evaluation import text_bits_per_byte
from kdlib.evidence import against, headline, store
from kdlib.losses import sequence_nll, word_level_kd
from kdlib.models import GPT, GPTConfig, load_teacher, seeded, teacher_info
from kdlib.training import fit_tokens

SEEDS = range(5)
STEPS, ROWS, LENGTH, PROMPT, START = 250, 128, 128, 16, 1_000_000
ONLINE = 150  # updates where the teacher is asked at every step
STUDENT = GPTConfig(width=64, layers=2, heads=4, context=256)
LITTLE, MUCH = "16 KB of text", "3.8 MB of text"


def nll(logits: Tensor, rows: Tensor) -> Tensor:
    """Mean over every byte after the first."""
    targets = rows[:, 1:]
    return sequence_nll(logits, targets, torch.ones_like(targets, dtype=torch.bool))


@torch.no_grad()
def teacher_writes(teacher: GPT, rows: Tensor) -> dict[str, Tensor]:
    """Let the teacher go on from the first bytes of each row: sampled four times, and by beam."""
    prompts, more = rows[:, :PROMPT], LENGTH + 1 - PROMPT
    generator = torch.Generator().manual_seed(1)
    sampled = [generate(teacher, prompts, more, generator=generator) for _ in range(4)]
    beam = [beam_search(teacher, p, more, beams=4)[0] for p in prompts.split(128)]
    return {"sampled": sampled[0], "sampled, 4x": torch.cat(sampled), "beam": torch.cat(beam)}


@torch.no_grad()
def teachers_bits(teacher: GPT, student: GPT, held_out: Tensor, seed: int) -> float:
    """Bits per byte that the teacher needs for what the student writes."""
    prompts = held_out[: 64 * 256].view(64, 256)[:, :PROMPT]
    generator = torch.Generator().manual_seed(seed)
    rows = generate(student, prompts, LENGTH - PROMPT, generator=generator)
    nats = F.cross_entropy(
        teacher(rows[:, :-1])[:, PROMPT - 1 :].flatten(0, 1), rows[:, PROMPT:].flatten()
    )
    return nats.item() / math.log(2)


def train(
    seed: int, draw: Callable, loss: Callable, teacher: GPT, held_out: Tensor, steps: int = STEPS
) -> dict[str, float]:
    """Train one student; held-out bits per byte at the end, at the best moment, and the rest."""
    model, seen, step, aside = seeded(seed, GPT, STUDENT), [], 0, 0.0

    def watched(model, batch):
        nonlocal step, aside
        if step % (steps // 5) == 0 and step:
            pause = time.process_time()
            seen.append(text_bits_per_byte(model, held_out, LENGTH, 64))
            aside += time.process_time() - pause
        step += 1
        return loss(model, batch)

    start = time.process_time()
    fit_tokens(model, draw, watched, steps=steps, seed=seed, progress=False)
    seconds = time.process_time() - start - aside
    seen.append(text_bits_per_byte(model, held_out, LENGTH, 64))
    return {
        "bits": text_bits_per_byte(model, held_out, LENGTH, 512),
        "best": min(seen),
        "teacher_bits": teachers_bits(teacher, model, held_out, seed),
        "seconds": seconds,
    }


def headlines(results: dict, over: str) -> list[dict]:
    """Give the rows for the README."""
    rows = (
        ("Held-out text after word-level distillation from 16 KB", LITTLE, "word level"),
        ("The same from one text that the teacher sampled", LITTLE, "sequence level, sampled"),
        ("The same from what the teacher's beam search wrote", LITTLE, "sequence level, beam"),
        ("From 3.8 MB, word level, equal updates", MUCH, "word level"),
        ("The same processor time on four times the updates instead", MUCH, "data, 4x as long"),
    )
    return [
        headline(claim, results[regime][arm]["bits_difference"], "bits per byte", over, places=2)
        for claim, regime, arm in rows
    ]


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    teacher = load_teacher("austen_gpt")
    text, held_out = austen(train=True), austen(train=False)
    rows = text[START : START + ROWS * LENGTH + 1].unfold(0, LENGTH + 1, LENGTH)
    start = time.process_time()
    with torch.no_grad():
        logits = torch.cat([teacher(x[:, :-1]) for x in rows.split(64)])
    cached = time.process_time() - start
    written = teacher_writes(teacher, rows)
    print("teacher wrote", time.process_time() - start - cached, "s", flush=True)

    def soft(model, batch):
        z = model(rows[batch][:, :-1])
        return word_level_kd(z, logits[batch], torch.ones(z.shape[:2], dtype=torch.bool))

    def hard(texts: Tensor, begin: int):
        def loss(model, batch):
            x = texts[batch]
            mask = torch.arange(1, LENGTH + 1) >= begin
            return sequence_nll(model(x[:, :-1]), x[:, 1:], mask.expand(len(x), -1))

        return loss

    def some(count: int):
        return lambda g: torch.randint(count, (8,), generator=g)

    def online(model, x):
        with torch.no_grad():
            v = teacher(x[:, :-1])
        return word_level_kd(model(x[:, :-1]), v, torch.ones(v.shape[:2], dtype=torch.bool))

    def anywhere(g):
        return windows(text, 8, LENGTH, g)

    few, many = some(ROWS), some(4 * ROWS)
    arms = {
        LITTLE: {
            "data": (few, hard(rows, 1), STEPS),
            "word level": (few, soft, STEPS),
            "sequence level, sampled": (few, hard(written["sampled"], PROMPT), STEPS),
            "sequence level, sampled, 4x": (many, hard(written["sampled, 4x"], PROMPT), STEPS),
            "sequence level, beam": (few, hard(written["beam"], PROMPT), STEPS),
        },
        MUCH: {
            "data": (anywhere, lambda m, x: nll(m(x[:, :-1]), x), ONLINE),
            "data, 4x as long": (anywhere, lambda m, x: nll(m(x[:, :-1]), x), 4 * ONLINE),
            "word level": (anywhere, online, ONLINE),
        },
    }
    runs = [
        {
            regime: {
                arm: train(seed, draw, loss, teacher, held_out, steps)
                for arm, (draw, loss, steps) in members.items()
            }
            for regime, members in arms.items()
        }
        for seed in tqdm(SEEDS, unit="seed")
    ]
    results = {regime: against([r[regime] for r in runs], "data") for regime in arms}
    for regime, found in results.items():
        for arm, e in found.items():
            print(regime, "|", arm, "|", e["bits"], e["best"], e["teacher_bits"], e["seconds"])
    store(
        "u11_real_text",
        {
            "claim": "held-out bits per byte against training on the text itself",
            "seeds": list(SEEDS),
            "steps": {LITTLE: STEPS, MUCH: ONLINE},
            "teacher": teacher_info("austen_gpt")["bits_per_byte"],
            "cache_seconds": round(cached, 1),
            "beam_sample": decode(written["beam"][3]),
            "results": results,
        },
        headlines=headlines(results, f"{len(runs)} seeds"),
    )


if __name__ == "__main__":
    main()
