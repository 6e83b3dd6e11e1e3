"""Unit 13: a teacher's traces as they are, filtered by their answers, filtered by their steps.

Every seed trains teachers of its own, stopped when 30, 50 or 95 % of their sampled answers are
right. A teacher solves 1,000 problems four times; students learn from its traces for equal numbers
of updates. Filtering leaves fewer traces, so there is a control with as few unfiltered ones.
Two ways of rejection sampling: the first two different right traces of each problem, and the most
frequent right trace of each. The erring teacher, where the spread is widest, has twice the seeds.
"""

from __future__ import annotations

import torch
from tqdm import tqdm

from kdlib.data import shell_game as game
from kdlib.evidence import against, headline, store
from kdlib.models import GPT
from kdlib.recipes.shell_teacher import PROMPT, fit_student, train_until
from kdlib.training import rejection_sample

PROBLEMS, DRAWS = 1000, 4
LEVELS = {"weak teacher": 0.3, "erring teacher": 0.5, "near-perfect teacher": 0.95}
SEEDS = {"weak teacher": 6, "erring teacher": 12, "near-perfect teacher": 6}
TEST = 1000
PAPER = "GSM8K 35.9 to 49.3 % for LLaMA-7B, against SFT (2308.01825, abstract)"


def rejection_sampled(
    rows: torch.Tensor, given: game.Problems, keep: int, by_frequency: bool = False
) -> torch.Tensor:
    """Keep at most `keep` different right traces of each problem, the first or most frequent."""
    texts = game.completions(rows, PROMPT)
    traces = [texts[i : i + DRAWS] for i in range(0, len(texts), DRAWS)]
    offered = [sorted(t, key=t.count, reverse=True) for t in traces] if by_frequency else traces
    answers = given.answers[::DRAWS].tolist()
    kept = rejection_sample(offered, answers, game.verify, keep)
    return rows[[i * DRAWS + traces[i].index(trace) for i, trace in kept]]


def run(level: float, seed: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Train a teacher and its students: arm -> accuracy, and what is known of the traces."""
    teacher, _ = train_until(level, seed)
    generator = torch.Generator().manual_seed(2000 + seed)
    drawn = game.problems(PROBLEMS, generator)
    given = game.Problems(*(x.repeat_interleave(DRAWS, dim=0) for x in drawn))
    rows = torch.cat([game.play(teacher, p, 1.0, generator) for p in given.prompts.split(1000)])
    right, steps = game.right_answers(rows, given), game.right_steps(rows, given)
    few = torch.randperm(len(rows), generator=generator)[: int(right.sum())]
    arms = {
        "all traces": rows,
        "as few traces, unfiltered": rows[few],
        "right answer": rows[right],
        "right answer, 2 different for each problem": rejection_sampled(rows, given, 2),
        "right answer, the most frequent for each problem": rejection_sampled(rows, given, 1, True),
        "every step right": rows[steps],
    }
    found = {"the teacher itself": {"accuracy": 100 * game.exact_answer(teacher, TEST)}}
    for arm, kept in arms.items():
        student: GPT = fit_student(kept, seed)
        found[arm] = {"accuracy": 100 * game.exact_answer(student, TEST)}
    traces = {
        "right_answer": 100 * right.double().mean().item(),
        "right_steps": 100 * steps.double().mean().item(),
        "right_answer_wrong_steps": 100 * (right & ~steps).sum().item() / int(right.sum()),
        "problems_left_out": 100 * (~right.view(PROBLEMS, DRAWS).any(1)).double().mean().item(),
        "kept_by_rejection_sampling": len(arms["right answer, 2 different for each problem"]),
    }
    return found, traces


def main() -> None:
    """Run all seeds and store raw numbers and paired intervals against all traces."""
    torch.set_num_threads(1)
    results, traces = {}, {}
    for name, level in LEVELS.items():
        runs = [run(level, seed) for seed in tqdm(range(SEEDS[name]), desc=name)]
        results[name] = against([found for found, _ in runs], "all traces", digits=2)
        traces[name] = {k: [round(t[k], 2) for _, t in runs] for k in runs[0][1]}
        for arm, e in results[name].items():
            print(name, "|", arm, e["accuracy"], e.get("accuracy_difference"))
        print(name, traces[name])
    store(
        "u13_verified_traces",
        {
            "claim": "greedy accuracy (percent) against students of all traces",
            "seeds": SEEDS,
            "levels": LEVELS,
            "problems": PROBLEMS,
            "draws": DRAWS,
            "test_problems": TEST,
            "traces": traces,
            "results": results,
        },
        headlines=[
            headline(
                f"Keeping traces with the right answer: {name}",
                results[name]["right answer"]["accuracy_difference"],
                "points",
                f"{SEEDS[name]} teachers",
                paper=PAPER if name == "erring teacher" else "",
            )
            for name in LEVELS
        ]
        + [
            headline(
                "Keeping traces with every step right: weak teacher",
                results["weak teacher"]["every step right"]["accuracy_difference"],
                "points",
                f"{SEEDS['weak teacher']} teachers",
            )
        ],
    )


if __name__ == "__main__":
    main()
