"""Unit 04: what each bug of the museum does to accuracy, agreement and the predictive KL.

Within a seed, the script as found and the repaired one have the same 300 images, initial weights,
order of batches and number of updates.
"""

from __future__ import annotations

import torch
from tqdm import tqdm

from kdlib.evidence import against, headline, store
from kdlib.museum import AS_FOUND, REPAIRED, Bench

SEEDS = range(10)


def headlines(results: dict) -> list[dict]:
    """Make the README's rows: a bug that accuracy hides, and one that no number shows."""
    claims = {
        "3": "Bug museum, the same logits on both sides of the KL, against the repaired script",
        "4": "Bug museum, a teacher left in train mode, against the repaired script",
    }
    return [
        headline(
            f"{claim}: accuracy",
            results[number]["as found"]["accuracy_difference"],
            "points",
            f"{len(SEEDS)} seeds",
        )
        for number, claim in claims.items()
    ]


def main() -> None:
    """Run all seeds and store raw numbers and intervals."""
    torch.set_num_threads(1)
    bench, results = Bench(), {}
    for number in AS_FOUND:
        scripts = {"repaired": REPAIRED[number], "as found": AS_FOUND[number]}
        runs = [
            {arm: bench.measure(number, script, seed) for arm, script in scripts.items()}
            for seed in tqdm(SEEDS, desc=f"exhibit {number}", unit="seed")
        ]
        results[str(number)] = found = against(runs, "repaired")
        for metric in ("accuracy", "agreement", "predictive_kl"):
            print(number, metric, found["as found"][f"{metric}_difference"], flush=True)
    store(
        "u04_museum",
        {
            "claim": "script as found against repaired: points, points, nats; 10,000 test images",
            "seeds": list(SEEDS),
            "images": bench.images,
            "steps": bench.steps,
            "results": results,
        },
        headlines=headlines(results),
    )


if __name__ == "__main__":
    main()
