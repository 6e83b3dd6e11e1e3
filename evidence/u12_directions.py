"""Unit 12: divergences, lambda and policy gradients on a task with more than one right answer.

Students of one layer learn the task of `kdlib.data.translators` from 4,000 sentences. Within a
seed all arms start from the same student (1,200 updates of ordinary training) and take 400 more,
with the same prompts in the same order. On the data the teacher is asked once (a cache); on the
student's own rows it has to be asked each time, so one control trains longer, for about the same
time.
"""

from __future__ import annotations

import copy
import time

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from kdlib.data import translators as task
from kdlib.decoding import beam_search_batch as beam_search
from kdlib.decoding import generate
from kdlib.evidence import against, headline, store
from kdlib.losses import sequences as losses
from kdlib.models import GPT, GPTConfig, load_teacher, seeded
from kdlib.recipes.translators_teacher import translation_nll
from kdlib.training import (
    divergence_by_position,
    fit_tokens,
    on_policy_batch,
    per_token_loss,
    reverse_kl_surrogate,
    taid_loss,
    token_log_probs,
)

SEEDS = range(5)
SENTENCES, WARM, STEPS, BATCH, TEST = 4000, 1200, 400, 64, 1000
CONFIG = GPTConfig(task.VOCABULARY, 32, layers=1, heads=2, context=16)
BASELINE = "forward KL"
EQUAL_TIME = "reverse KL, as long as lambda = 1 takes"
# arm: what is minimised, lambda, training length
ARMS = {
    "forward KL": ("forward", 0.0, 1.0),
    "reverse KL": ("reverse", 0.0, 1.0),
    "JSD, beta = 0.5": ("jsd", 0.0, 1.0),
    "skew KL, alpha = 0.1": ("skew", 0.0, 1.0),
    "TAID, t from 0.4 to 1": ("taid", 0.0, 1.0),
    EQUAL_TIME: ("reverse", 0.0, 2.7),
    "reverse KL, lambda = 0.5": ("reverse", 0.5, 1.0),
    "reverse KL, lambda = 1": ("reverse", 1.0, 1.0),
    "per-token loss": ("token", 1.0, 1.0),
    "sequence gradient": ("sequence", 1.0, 1.0),
    "teacher's beam outputs (unit 11)": ("beam", 0.0, 1.0),
}


def padded(rows: Tensor) -> Tensor:
    """Fill rows up to 14 tokens."""
    return F.pad(rows, (0, 14 - rows.shape[1]), value=task.EOS)


@torch.no_grad()
def measure(model: GPT, teacher: GPT) -> dict[str, float]:
    """Test on fresh sentences; percent, nats, and the number of translators that are in use."""
    generator = torch.Generator().manual_seed(77)
    prompt, fresh = task.prompts(TEST, generator), task.corpus(TEST, generator)
    own = padded(generate(model, prompt, task.LENGTH + 1, 1.0, task.EOS, generator))
    greedy = padded(generate(model, prompt, task.LENGTH + 1, 0.0, task.EOS))
    could = task.faithful(own).double()
    could = could / could.sum(1, keepdim=True).clamp_min(1)  # a row that two could have written
    shares = could.sum(0) / could.sum().clamp_min(1)
    per_position = {
        "own": divergence_by_position(model, teacher, own, task.PROMPT),
        "data": divergence_by_position(model, teacher, fresh, task.PROMPT),
    }
    return {
        "sampled": 100 * task.faithful(own).any(1).double().mean().item(),
        "greedy": 100 * task.faithful(greedy).any(1).double().mean().item(),
        "translators": torch.special.entr(shares).sum().exp().item(),
        "nll": translation_nll(model, fresh).item(),
        "sequence_kl": per_position["own"].sum().item(),
        **{f"{k} {i + 1}": x for k, v in per_position.items() for i, x in enumerate(v.tolist())},
    }


def train(model: GPT, teacher: GPT, data: Tensor, arm: str, seed: int) -> None:
    """Take the updates of one arm."""
    kind, fraction, longer = ARMS[arm]
    generator = torch.Generator().manual_seed(9000 + seed)
    steps, done = int(STEPS * longer), 0
    with torch.no_grad():
        cache = torch.cat([teacher(x[:, :-1]) for x in data.split(1000)]) if fraction == 0 else None

    def loss(student: GPT, batch: Tensor) -> Tensor:
        nonlocal done
        done += 1
        if kind == "beam":
            return translation_nll(student, data[batch])
        rows, mask = on_policy_batch(
            student, data[batch], task.PROMPT, fraction, task.EOS, generator
        )
        with torch.no_grad():
            v = teacher(rows[:, :-1]) if cache is None else cache[batch]
        z = student(rows[:, :-1])
        if kind in ("token", "sequence"):
            log_q, log_p = (token_log_probs(x, rows[:, 1:]) for x in (z, v))
            if kind == "token":
                return per_token_loss(log_q, log_p, mask)
            return reverse_kl_surrogate(log_q, log_p, mask) / mask.sum(1).double().mean()
        if kind == "taid":
            return taid_loss(z, v, mask, 0.4 + 0.6 * done / steps)
        return {
            "forward": losses.word_level_kd,
            "reverse": losses.reverse_kl,
            "jsd": losses.jsd,
            "skew": losses.skew_kl,
        }[kind](z, v, mask)

    fit_tokens(model, prompts, loss, steps=steps, lr=2e-3, seed=seed, progress=False)


def prompts(generator: torch.Generator) -> Tensor:
    """Draw the sentences of one batch."""
    return torch.randint(SENTENCES, (BATCH,), generator=generator)


def run(teacher: GPT, seed: int) -> dict[str, dict[str, float]]:
    """Train every arm for one seed: arm -> metric -> number."""
    data = task.corpus(SENTENCES, torch.Generator().manual_seed(1000 + seed))
    start = seeded(seed, GPT, CONFIG)

    def nll(model: GPT, batch: Tensor) -> Tensor:
        return translation_nll(model, data[batch])

    fit_tokens(start, prompts, nll, steps=WARM, seed=seed, progress=False)
    with torch.no_grad():
        beams = [beam_search(teacher, p, 7, 5, task.EOS)[0] for p in data[:, :7].split(1000)]
    beam = torch.cat([padded(b) for b in beams])
    found = {"at the start": {**measure(start, teacher), "seconds": 0.0}}
    for arm, (kind, *_) in ARMS.items():
        model, clock = copy.deepcopy(start), time.process_time()
        train(model, teacher, beam if kind == "beam" else data, arm, seed)
        seconds = time.process_time() - clock
        found[arm] = {**measure(model, teacher), "seconds": seconds}
    return found


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    teacher = load_teacher("translators_gpt")
    runs = [run(teacher, seed) for seed in tqdm(SEEDS, unit="seed")]
    results = against(runs, BASELINE)
    pairs = {
        "sequence gradient against per-token loss": ("sequence gradient", "per-token loss"),
        "reverse KL: lambda = 1 against equal time": ("reverse KL, lambda = 1", EQUAL_TIME),
        "reverse KL: lambda = 1 against lambda = 0": ("reverse KL, lambda = 1", "reverse KL"),
    }
    compared = {
        name: {
            k: v
            for k, v in against(runs, other)[arm].items()
            if k in ("sampled_difference", "greedy_difference", "nll_difference")
        }
        for name, (arm, other) in pairs.items()
    }
    for arm, e in results.items():
        print(f"{arm:45s}", {k: round(sum(e[k]) / len(e[k]), 2) for k in list(e)[:5]})
    over = f"{len(runs)} seeds"
    store(
        "u12_directions",
        {
            "claim": "sampled translations that are faithful (percent), against forward KL",
            "seeds": list(SEEDS),
            "steps": STEPS,
            "warm": WARM,
            "sentences": SENTENCES,
            "test_sentences": TEST,
            "teacher": measure(teacher, teacher),
            "results": results,
            "compared": compared,
        },
        headlines=[
            headline(
                "Faithful samples: sequence-level reverse KL gradient against the token level's, "
                "both on-policy",
                against(runs, "reverse KL, lambda = 1")["sequence gradient"]["sampled_difference"],
                "points",
                over,
            ),
            headline(
                "The price of that: NLL on the translators' own text",
                against(runs, "reverse KL, lambda = 1")["sequence gradient"]["nll_difference"],
                "nats per token",
                over,
                places=2,
            ),
            headline(
                "Token-level reverse KL, on-policy against off-policy at equal time",
                compared["reverse KL: lambda = 1 against equal time"]["sampled_difference"],
                "points",
                over,
            ),
        ],
    )


if __name__ == "__main__":
    main()
