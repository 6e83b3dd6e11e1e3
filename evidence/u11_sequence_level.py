"""Unit 11: word-level against sequence-level distillation where several outputs are right.

Students of one layer learn the task of `kdlib.data.translators` from 4,000 sentences. Within a seed
every arm has the same sentences, initial weights, order of batches and, within a regime, number of
updates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from kdlib.data import translators as task
from kdlib.decoding import beam_search_batch as beam_search
from kdlib.decoding import generate
from kdlib.evidence import against, headline, store
from kdlib.losses import word_level_kd
from kdlib.models import GPT, GPTConfig, load_teacher, seeded, teacher_info
from kdlib.recipes.translators_teacher import translation_nll
from kdlib.training import fit_tokens

SEEDS = range(5)
SENTENCES, STEPS, BATCH, BEAMS = 4000, 600, 64, 5
TEST = 500


@torch.no_grad()
def decode(model: GPT, prompt: Tensor, beams: int) -> Tensor:
    """Translate with beam search, `beams` = 1 being greedy: `(n, 7) -> (n, 14)`."""
    parts = [beam_search(model, p, task.LENGTH + 1, beams, task.EOS)[0] for p in prompt.split(500)]
    return torch.cat(
        [torch.nn.functional.pad(x, (0, 14 - x.shape[1]), value=task.EOS) for x in parts]
    )


@torch.no_grad()
def measure(model: GPT) -> dict[str, float]:
    """Test on fresh sentences: faithful translations in percent, NLL in nats per token."""
    generator = torch.Generator().manual_seed(77)
    prompt, fresh = task.prompts(TEST, generator), task.corpus(2000, generator)
    greedy, beam = decode(model, prompt, 1), decode(model, prompt, BEAMS)
    log_q = model(greedy[:, :-1]).log_softmax(-1)[:, task.PROMPT - 1 :]
    own = log_q.gather(-1, greedy[:, task.PROMPT :, None])[..., 0].sum(-1).exp()
    return {
        "greedy": 100 * task.faithful(greedy).any(1).double().mean().item(),
        "beam": 100 * task.faithful(beam).any(1).double().mean().item(),
        "first": 100 * task.faithful(greedy)[:, 0].double().mean().item(),
        "mass": 100 * own.double().mean().item(),
        "nll": translation_nll(model, fresh).item(),
    }


def transfer_sets(teacher: GPT, seed: int) -> dict[str, Tensor]:
    """Give the same sentences with several translations, each `(4000, 14)`."""
    generator = torch.Generator().manual_seed(1000 + seed)
    data = task.corpus(SENTENCES, generator)
    prompt = data[:, : task.PROMPT]
    sampled = generate(teacher, prompt, task.LENGTH + 1, 1.0, task.EOS, generator)
    return {
        "data": data,
        "beam": decode(teacher, prompt, BEAMS),
        "greedy": decode(teacher, prompt, 1),
        "sampled": torch.nn.functional.pad(sampled, (0, 14 - sampled.shape[1]), value=task.EOS),
        "first": task.translate(prompt, torch.zeros(SENTENCES, dtype=torch.long)),
    }


# arm: whose translations, whether with the teacher's distributions, and its temperature
ARMS = {
    "data": ("data", False, 1.0),
    "word level": ("data", True, 1.0),
    "word level, teacher at T = 1/2": ("data", True, 0.5),
    "sequence level": ("beam", False, 1.0),
    "sequence level, teacher greedy": ("greedy", False, 1.0),
    "sequence level, teacher sampled": ("sampled", False, 1.0),
    "both: word level on the beam's output": ("beam", True, 1.0),
    "data of the first translator alone": ("first", False, 1.0),
}
FEW = ("data", "word level", "sequence level", "sequence level, teacher sampled")
LONG = ("word level", "sequence level")
REGIMES = {  # width, times as long, arms
    "width 16": (16, 1, FEW),
    "width 32": (32, 1, tuple(ARMS)),
    "width 32, 3x as long": (32, 3, LONG),
}


def run(teacher: GPT, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Train every arm for one seed: regime -> arm -> metric -> number."""
    rows = transfer_sets(teacher, seed)
    with torch.no_grad():
        logits = {name: teacher(rows[name][:, :-1]) for name in ("data", "beam")}
    mask = (torch.arange(1, 14) >= task.PROMPT).expand(BATCH, -1)
    found: dict[str, dict] = {}
    for regime, (width, longer, members) in REGIMES.items():
        config = GPTConfig(task.VOCABULARY, width, layers=1, heads=2, context=16)
        found[regime] = {}
        for arm, (which, soft, temperature) in ARMS.items():
            if arm not in members:
                continue

            def loss(model, batch, which=which, soft=soft, temperature=temperature):
                if not soft:
                    return translation_nll(model, rows[which][batch])
                z = model(rows[which][batch][:, :-1])
                return word_level_kd(z, logits[which][batch] / temperature, mask)

            model = seeded(seed, GPT, config)
            fit_tokens(
                model,
                lambda g: torch.randint(SENTENCES, (BATCH,), generator=g),
                loss,
                steps=STEPS * longer,
                seed=seed,
                progress=False,
            )
            found[regime][arm] = measure(model)
    return found


def headlines(results: dict, over: str) -> list[dict]:
    """Give the rows for the README."""
    middle = results["width 32"]
    beam = "4.2 BLEU over its baseline with greedy decoding, 1.7 with beam search"
    return [
        headline(
            "Three translators: faithful greedy translations, distilled from the teacher's beam "
            "outputs against its next-word distributions",
            middle["sequence level"]["greedy_difference"],
            "points",
            over,
            paper=f"{beam} (arXiv 1606.07947, abstract)",
        ),
        headline(
            "The same from outputs that the teacher sampled",
            middle["sequence level, teacher sampled"]["greedy_difference"],
            "points",
            over,
        ),
        headline(
            "The price of the beam's outputs: NLL on the translators' own text",
            middle["sequence level"]["nll_difference"],
            "nats per token",
            over,
            places=2,
        ),
    ]


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    teacher = load_teacher("translators_gpt")
    runs = [run(teacher, seed) for seed in tqdm(SEEDS, unit="seed")]
    results = {w: against([r[w] for r in runs], "word level") for w in runs[0]}
    for w, arms in results.items():
        for arm, e in arms.items():
            print(w, "|", arm, "|", sum(e["greedy"]) / len(runs), e.get("greedy_difference"))
    store(
        "u11_sequence_level",
        {
            "claim": "faithful greedy translations (percent) against word-level distillation",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "sentences": SENTENCES,
            "test_sentences": TEST,
            "teacher": {
                **measure(teacher),
                "recorded": teacher_info("translators_gpt")["faithful"],
            },
            "results": results,
        },
        headlines=headlines(results, f"{len(runs)} seeds"),
    )


if __name__ == "__main__":
    main()
