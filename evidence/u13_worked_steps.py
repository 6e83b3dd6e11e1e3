"""Unit 13: answers alone against worked steps, and what could explain the difference away.

Students of one size start from the same weights within a seed and see the same 4,000 problems.
"Equal updates" is not equal work, since a row with steps is longer, so answers alone also get as
many processed tokens, and as many learned tokens. The filler control writes as many tokens as the
worked steps do, without any content: more computation before the answer, and nothing to learn
from it. The last arm has the same steps as a second task (distilling step-by-step) and is asked
for the answer alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from kdlib.data import shell_game as game
from kdlib.decoding import generate
from kdlib.evidence import against, headline, store
from kdlib.models import GPT, seeded
from kdlib.recipes.shell_teacher import CONFIG, PROMPT, completion_loss, fit_student
from kdlib.training import fit_tokens

SEEDS = range(6)
PROBLEMS, STEPS = 4000, 150
TEST = 1000


def direct(model: GPT) -> float:
    """Ask for the answer alone: the prompt ends with the mark, one token is read."""
    given = game.problems(TEST, torch.Generator().manual_seed(10_000))
    asked = torch.cat([given.prompts, torch.full((TEST, 1), game.MARK)], dim=1)
    answer = generate(model, asked, 1, 0.0)[:, -1] + 1
    return (answer == given.answers).double().mean().item()


def two_tasks(given: game.Problems, seed: int) -> GPT:
    """Learn the answer (after the mark) and the steps (after the prompt) in every update."""
    model = seeded(seed, GPT, CONFIG)
    short, long = game.answers_only(given), game.worked(given)

    def loss(m: GPT, batch: Tensor) -> Tensor:
        # lambda = 1; the mark that tells the tasks apart belongs to the prompt
        answer = completion_loss(m, short[batch], PROMPT + 1)
        return answer + completion_loss(m, long[batch])

    fit_tokens(
        model,
        lambda g: torch.randint(PROBLEMS, (64,), generator=g),
        loss,
        steps=STEPS,
        lr=8e-3,
        seed=seed,
        progress=False,
    )
    return model


def run(seed: int) -> dict[str, dict[str, float]]:
    """Train every arm for one seed: arm -> accuracy in percent, tokens processed."""
    given = game.problems(PROBLEMS, torch.Generator().manual_seed(seed))
    short, long = game.answers_only(given), game.worked(given)
    filler = long.clone()
    filler[:, PROMPT : PROMPT + game.SWAPS] = game.FROM
    processed = round(STEPS * long.shape[1] / short.shape[1])
    learned = round(STEPS * (long.shape[1] - PROMPT) / (short.shape[1] - PROMPT))
    found = {}
    for arm, rows, steps in (
        ("answers alone", short, STEPS),
        ("answers alone, as many processed tokens", short, processed),
        ("answers alone, as many learned tokens", short, learned),
        ("filler tokens, then the answer", filler, STEPS),
        ("worked steps", long, STEPS),
    ):
        model = fit_student(rows, seed, steps)
        found[arm] = {
            "accuracy": 100 * game.exact_answer(model, TEST),
            "updates": steps,
            "processed_tokens": steps * 64 * rows.shape[1],
        }
    tokens = STEPS * 64 * (short.shape[1] + long.shape[1])
    model = two_tasks(given, seed)
    found["step-by-step, answer asked directly"] = {
        "accuracy": 100 * direct(model),
        "updates": STEPS,
        "processed_tokens": tokens,
    }
    found["step-by-step, steps written first"] = {
        "accuracy": 100 * game.exact_answer(model, TEST),
        "updates": STEPS,
        "processed_tokens": tokens,
    }
    return found


def main() -> None:
    """Run all seeds and store raw numbers and paired intervals against answers alone."""
    torch.set_num_threads(1)
    runs = [run(seed) for seed in tqdm(SEEDS, unit="seed")]
    results = against(runs, "answers alone", digits=2)
    for e in results.values():  # the work is the same for all seeds
        for work in ("updates", "processed_tokens"):
            e[work] = round(e[work][0])
            e.pop(f"{work}_difference", None)
    for arm, e in results.items():
        print(arm, e["accuracy"], e.get("accuracy_difference"))
    versus = against(runs, "answers alone, as many learned tokens", digits=2)
    tokens = versus["worked steps"]["accuracy_difference"]
    over = f"{len(runs)} seeds"
    store(
        "u13_worked_steps",
        {
            "claim": "greedy accuracy (percent) against answers alone at equal updates",
            "seeds": list(SEEDS),
            "problems": PROBLEMS,
            "test_problems": TEST,
            "swaps": game.SWAPS,
            "results": results,
            "worked_steps_against_equal_learned_tokens": tokens,
        },
        headlines=[
            headline(
                "Worked steps teach what answers alone do not (at equal learned tokens)",
                tokens,
                "points",
                over,
            ),
            headline(
                "As many filler tokens before the answer do not help",
                results["filler tokens, then the answer"]["accuracy_difference"],
                "points",
                over,
            ),
            headline(
                "Steps as a second task, the answer asked directly (distilling step-by-step)",
                results["step-by-step, answer asked directly"]["accuracy_difference"],
                "points",
                over,
                paper="a 770M T5 beats few-shot 540B PaLM with 80 % of a benchmark's data "
                "(2305.02301, abstract)",
            ),
        ],
    )


if __name__ == "__main__":
    main()
