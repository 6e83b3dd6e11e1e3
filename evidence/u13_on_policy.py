"""Unit 13: on-policy distillation against fine-tuning on traces and against policy gradient.

A student that gets 30 % of its sampled answers right goes on in one of these ways. Fine-tuning
(SFT) learns from a fixed set of traces that the teacher sampled. On-policy distillation lets the
student write and asks the teacher about every token (reverse KL). Policy gradient lets the student
write and asks the verifier about the answer: REINFORCE, where the mean reward of the four samples
of a problem is subtracted. An update on the student's own writing costs the writing, so SFT runs
once for as many updates and once for as much computing time (UPDATES x RATIO; seconds are stored).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from kdlib import reasoning as game
from kdlib.evidence import against, headline, store
from kdlib.gpt import GPT
from kdlib.recipes.shell_teacher import PROMPT, completion_loss, train_until
from kdlib.sequence_losses import mask_until_eos, reverse_kl, valid_rows

SEEDS = range(6)
UPDATES, BATCH, GROUP, RATIO = 80, 64, 4, 3
TRACES = 4000
LR = 2e-3
TEST = 1000


def write(model: GPT, given: game.Problems, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Let the student write; give rows and the mask of the tokens it wrote, up to EOS."""
    rows = game.play(model, given.prompts, 1.0, g)
    mask = torch.zeros_like(rows[:, 1:], dtype=torch.bool)
    mask[:, PROMPT - 1 :] = mask_until_eos(rows[:, PROMPT:], game.EOS)
    return rows, mask


def on_policy(model: GPT, teacher: GPT, g: torch.Generator) -> Tensor:
    """Reverse KL to the teacher on what the student writes."""
    rows, mask = write(model, game.problems(BATCH, g), g)
    with torch.no_grad():
        wanted = teacher(rows[:, :-1])
    return reverse_kl(model(rows[:, :-1]), wanted, mask)


def policy_gradient(model: GPT, teacher: GPT, g: torch.Generator) -> Tensor:
    """REINFORCE with the verifier's 0 or 1, the group's mean as baseline; no teacher."""
    drawn = game.problems(BATCH // GROUP, g)
    given = game.Problems(*(x.repeat_interleave(GROUP, dim=0) for x in drawn))
    rows, mask = write(model, given, g)
    reward = game.right_answers(rows, given).double().view(-1, GROUP)
    advantage = (reward - reward.mean(dim=1, keepdim=True)).flatten().float()
    log_q = model(rows[:, :-1]).log_softmax(-1).gather(-1, rows[:, 1:, None])[..., 0]
    return -valid_rows(mask, ("terms", advantage[:, None] * log_q))[0].mean()


def go_on(
    start: GPT, loss: Callable[[GPT, torch.Generator], Tensor], updates: int, seed: int
) -> tuple[GPT, float]:
    """Train a copy of the student; give it and the processor seconds that it took."""
    model = copy.deepcopy(start).train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(3000 + seed)
    before = time.process_time()
    for _ in range(updates):
        value = loss(model, generator)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), time.process_time() - before


def run(level: float, seed: int) -> dict[str, dict[str, float]]:
    """Train the teacher, the student's start and every arm: arm -> accuracy, seconds."""
    teacher, _ = train_until(level, seed)
    teacher.requires_grad_(False)
    start, _ = train_until(0.3, 500 + seed)
    g = torch.Generator().manual_seed(4000 + seed)
    given = game.problems(TRACES, g)
    traces = torch.cat([game.play(teacher, p, 1.0, g) for p in given.prompts.split(1000)])
    verified = traces[game.right_answers(traces, given)]

    def sft(rows: Tensor) -> Callable[[GPT, torch.Generator], Tensor]:
        return lambda m, g: completion_loss(
            m, rows[torch.randint(len(rows), (BATCH,), generator=g)]
        )

    arms = {
        "SFT on traces, equal updates": (sft(traces), UPDATES),
        "SFT on traces, equal time": (sft(traces), RATIO * UPDATES),
        "SFT on verified traces, equal time": (sft(verified), RATIO * UPDATES),
        "on-policy distillation": (lambda m, g: on_policy(m, teacher, g), UPDATES),
        "policy gradient": (lambda m, g: policy_gradient(m, teacher, g), UPDATES),
    }
    found = {
        "the teacher itself": {"accuracy": 100 * game.exact_answer(teacher, TEST), "seconds": 0.0},
        "the student's start": {"accuracy": 100 * game.exact_answer(start, TEST), "seconds": 0.0},
    }
    for arm, (loss, updates) in arms.items():
        model, seconds = go_on(start, loss, updates, seed)
        found[arm] = {"accuracy": 100 * game.exact_answer(model, TEST), "seconds": seconds}
    return found


def main() -> None:
    """Run all seeds for both teachers and store numbers and intervals against SFT."""
    torch.set_num_threads(1)
    results = {}
    for name, level in (("near-perfect teacher", 0.95), ("erring teacher", 0.5)):
        runs = [run(level, seed) for seed in tqdm(SEEDS, unit="seed", desc=name)]
        results[name] = against(runs, "SFT on traces, equal time", digits=2)
        for arm, e in results[name].items():
            print(name, "|", arm, e["accuracy"], e.get("accuracy_difference"), e["seconds"])
    good = results["near-perfect teacher"]
    over = f"{len(SEEDS)} seeds"
    store(
        "u13_on_policy",
        {
            "claim": "greedy accuracy (percent) against SFT on the teacher's traces at equal time",
            "seeds": list(SEEDS),
            "updates": UPDATES,
            "batch": BATCH,
            "updates_of_sft_for_one": RATIO,
            "test_problems": TEST,
            "results": results,
        },
        headlines=[
            headline(
                "On-policy distillation against SFT on a near-perfect teacher's traces, equal time",
                good["on-policy distillation"]["accuracy_difference"],
                "points",
                over,
            ),
            headline(
                "Policy gradient with the verifier's reward against SFT, equal time",
                good["policy gradient"]["accuracy_difference"],
                "points",
                over,
            ),
        ],
    )


if __name__ == "__main__":
    main()
