"""Unit 16: ten of SmolLM2's thirty layers learn again, from text or from the teacher's numbers.

All arms start from the ten layers that removal keeps (see u16_layers), see the same stories in the
same order within a seed, and make the same number of updates with the same optimiser. The stories
are the teacher's own, so that plain fine-tuning is already sequence-level distillation (unit 11).
Controls: twice the updates for plain fine-tuning, since the teacher's numbers have to be computed
once (the arm pays for more than that); ten layers chosen blindly; a student of the same size with
fresh weights. Each run is kept as soon as it is done, and a second start goes on from there.
"""

from __future__ import annotations

import json
import time

import torch
from torch import Tensor, nn

from evidence.u16_layers import DEPTHS, story_logits, trimmed
from kdlib.decoding import acceptance
from kdlib.evidence import against, headline, load, store
from kdlib.losses import cached_kd, sequence_nll
from kdlib.models import keep_layers, smollm2
from kdlib.training import fit_tokens

SEEDS = range(5)
KEPT, STEPS, BATCH, RATE, TOP = DEPTHS[-1], 80, 4, 5e-4, 32
ARMS = {  # arm -> weight of the distillation loss, layers, share of STEPS
    "fine-tuning": (0.0, "removal", 1),
    "distillation": (1.0, "removal", 1),
    "half and half": (0.5, "removal", 1),
    "fine-tuning, twice the updates": (0.0, "removal", 2),
    "half and half, the first ten layers": (0.5, "first", 1),
    "half and half, fresh weights": (0.5, "fresh", 1),
}


class Task:
    """The teacher, what it says about the stories, and the pruned students."""

    def __init__(self, device: str = "cpu", progress: bool | None = None) -> None:
        self.device = device
        self.train, self.test = smollm2.stories(), smollm2.stories(train=False)
        self.teacher = trimmed().to(device)
        started = time.process_time()
        self.cache = smollm2.top_k(self.teacher, self.train.ids, TOP, progress)
        self.cache_seconds = time.process_time() - started
        self.expected = story_logits(self.teacher, self.test, device).log_softmax(-1)
        chosen = load("u16_layers")["results"][str(KEPT)]
        self.layers = {
            "removal": chosen["removal"]["layers"][0],  # by the first set of stories
            "first": chosen["the first ones"]["layers"],
        }

    def student(self, layers: str, seed: int) -> nn.Module:
        """Cut a student out of the teacher; "fresh" draws its weights anew, embeddings excepted."""
        kept = self.layers["removal" if layers == "fresh" else layers]
        model = keep_layers(self.teacher, kept)
        if layers == "fresh":
            torch.manual_seed(seed)
            for name, weight in model.model.layers.named_parameters():
                if weight.dim() == 2:
                    last = name.endswith(("o_proj.weight", "down_proj.weight"))
                    gain = 0.5 * (2 * KEPT) ** -0.5 if last else 1.0
                    nn.init.normal_(weight, std=gain * weight.shape[1] ** -0.5)
                else:
                    nn.init.ones_(weight)
        return model.requires_grad_(True)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """How far a model is from the stories and from the teacher."""
        logits = story_logits(model, self.test, self.device)
        targets, mask = self.test.ids[:, 1:].to(self.device), self.test.mask.to(self.device)
        log_p, log_q = self.expected[mask], logits[mask].log_softmax(-1)
        return {
            "nll": sequence_nll(logits, targets, mask).item(),
            "kl": (log_p.exp() * (log_p - log_q)).sum(-1).mean().item(),
            "acceptance": 100 * acceptance(self.expected, logits, mask).item(),
            "agreement": 100 * (log_p.argmax(-1) == log_q.argmax(-1)).double().mean().item(),
        }

    def recover(
        self, arm: str, seed: int, steps: int = STEPS
    ) -> tuple[nn.Module, dict[str, float]]:
        """Train one student: the model, and what was measured of it."""
        weight, layers, times = ARMS[arm]
        model = self.student(layers, seed)
        tokens, values = self.cache

        def loss(m: nn.Module, rows: Tensor) -> Tensor:
            ids, mask = self.train.ids[rows].to(self.device), self.train.mask[rows].to(self.device)
            with smollm2.autocast(self.device):
                logits = m(ids).logits[:, :-1]
            logits = logits.float()
            total = logits.new_zeros(())
            if weight < 1:
                total = total + (1 - weight) * sequence_nll(logits, ids[:, 1:], mask)
            if weight > 0:
                known = tokens[rows, :-1].long().to(self.device)
                log_p = values[rows, :-1].float().to(self.device)
                total = total + weight * cached_kd(logits, known, log_p, mask)
            return total

        started = time.process_time()
        fit_tokens(
            model,
            lambda g: torch.randint(len(self.train.ids), (BATCH,), generator=g),
            loss,
            steps=steps * times,
            lr=RATE,
            seed=seed,
            progress=False,
        )
        spent = time.process_time() - started
        return model, {**self.measure(model), "seconds": spent}


def runs_file():
    """Where finished runs are kept."""
    from grading.notebooks import REPOSITORY

    file = REPOSITORY / "build" / "evidence" / "u16_recovery.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def finished() -> dict[tuple[str, int], dict[str, float]]:
    """Read the runs that are done: (arm, seed) -> numbers."""
    file = runs_file()
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept = [json.loads(line) for line in lines]
    return {(k["arm"], k["seed"]): k["found"] for k in kept if k["steps"] == STEPS}


def run_all(seeds=SEEDS) -> Task:
    """Make every run of these seeds that is not there yet."""
    torch.set_num_threads(1)
    task = Task(progress=False)
    print("layers", task.layers, "cache", round(task.cache_seconds), "s", flush=True)
    for seed in seeds:
        for arm in ARMS:
            if (arm, seed) in finished():
                continue
            _, found = task.recover(arm, seed)
            with runs_file().open("a", encoding="utf-8") as out:
                out.write(
                    json.dumps({"arm": arm, "seed": seed, "steps": STEPS, "found": found}) + "\n"
                )
            print(arm, seed, {k: round(v, 3) for k, v in found.items()}, flush=True)
    return task


def main() -> None:
    """Make the runs that are missing, and store all with paired intervals against fine-tuning."""
    task = run_all()
    done = finished()
    runs = [{arm: done[arm, seed] for arm in ARMS} for seed in SEEDS]
    results = against(runs, "fine-tuning", digits=3)
    longer = against(runs, "fine-tuning, twice the updates", digits=3)
    chosen = against(runs, "half and half", digits=3)
    for arm, e in results.items():
        print(arm, e["nll"], e["kl"], e.get("nll_difference"))
    over = f"{len(runs)} seeds"
    store(
        "u16_recovery",
        {
            "claim": "ten of thirty layers, recovered on 372 stories; test: 60 other stories",
            "seeds": list(SEEDS),
            "updates": STEPS,
            "stories_in_a_batch": BATCH,
            "top_k": TOP,
            "layers": task.layers,
            "cache_seconds": round(task.cache_seconds),
            "teacher": {k: round(v, 3) for k, v in task.measure(task.teacher).items()},
            "weights": {
                "teacher": sum(p.numel() for p in task.teacher.parameters()),
                "student": sum(p.numel() for p in task.student("removal", 0).parameters()),
            },
            "results": results,
            "against_fine_tuning_twice_the_updates": longer["distillation"],
        },
        headlines=[
            headline(
                "SmolLM2 cut to ten layers: distillation against fine-tuning at equal tokens",
                results["distillation"]["nll_difference"],
                "nats per token",
                over,
                places=2,
            ),
            headline(
                "... against twice the updates, which cost what the teacher's answers do",
                longer["distillation"]["nll_difference"],
                "nats per token",
                over,
                places=2,
            ),
            headline(
                "... the probability that a drafted token stays",
                results["distillation"]["acceptance_difference"],
                "points",
                over,
                paper="distilled drafts decode 10 to 45 % faster (2310.08461, abstract)",
            ),
            headline(
                "... the same against fine-tuning with twice the updates",
                longer["distillation"]["acceptance_difference"],
                "points",
                over,
            ),
            headline(
                "The first ten layers instead of ten chosen ones, after the same training",
                chosen["half and half, the first ten layers"]["nll_difference"],
                "nats per token",
                over,
                places=2,
            ),
        ],
    )


if __name__ == "__main__":
    main()
