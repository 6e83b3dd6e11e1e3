"""Unit 16: which layers of SmolLM2 can go, by five ways to choose, before any training.

Two ways look at the model and at eight stories: block influence (one forward pass) and removal (one
forward pass for each layer, with that layer left out). Five sets of eight stories say how much the
choice depends on them. Three ways look at neither: spread evenly, drop the middle, keep the first.
The figure of merit is what the pruned model pays on 60 other stories.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from kdlib.evaluation import paired_interval
from kdlib.evidence import headline, store
from kdlib.models import block_influence, keep_layers, smollm2

SETS, STORIES = range(5), 8
DEPTHS = (25, 20, 15, 10)


def trimmed() -> nn.Module:
    """Load SmolLM2 with the tokens of the stories alone."""
    model, _ = smollm2.load("pypi")
    return smollm2.trim_vocabulary(model, smollm2.stories().vocabulary)


@torch.no_grad()
def story_logits(model: nn.Module, data: smollm2.Stories, device: str = "cpu") -> Tensor:
    """What a model says about each next token of the stories, `(N, T - 1, V)`."""
    found = []
    for ids in data.ids.split(4):
        with smollm2.autocast(device):
            found.append(model(ids.to(device)).logits[:, :-1].float())
    return torch.cat(found)


def story_nll(model: nn.Module, data: smollm2.Stories) -> Tensor:
    """Negative log-likelihood of each story, `(N,)` in nats per token."""
    logits = story_logits(model, data).transpose(1, 2)
    terms = F.cross_entropy(logits, data.ids[:, 1:], reduction="none")
    return torch.where(data.mask, terms, 0.0).sum(1) / data.mask.sum(1)


def part(data: smollm2.Stories, number: int) -> smollm2.Stories:
    """Give the stories of one calibration set."""
    rows = slice(number * STORIES, (number + 1) * STORIES)
    return data._replace(
        ids=data.ids[rows],
        lengths=data.lengths[rows],
        prompt_lengths=data.prompt_lengths[rows],
    )


@torch.no_grad()
def influence(model: nn.Module, data: smollm2.Stories) -> Tensor:
    """Block influence of each layer on these stories."""
    with smollm2.autocast():
        hidden = model(data.ids, output_hidden_states=True).hidden_states
    counts = F.pad(data.mask, (0, 1))
    return block_influence([h.float() for h in hidden], counts)


def removal(model: nn.Module, data: smollm2.Stories) -> Tensor:
    """What the stories cost without each layer in turn."""
    depth = len(model.model.layers)
    return torch.stack(
        [
            story_nll(keep_layers(model, [i for i in range(depth) if i != out]), data).mean()
            for out in range(depth)
        ]
    )


def blind_choices(depth: int, keep: int) -> dict[str, list[int]]:
    """Choices that look at nothing."""
    front = keep // 2
    return {
        "spread evenly": sorted({round(i * (depth - 1) / (keep - 1)) for i in range(keep)}),
        "drop the middle": [*range(front), *range(depth - keep + front, depth)],
        "the first ones": list(range(keep)),
    }


def headlines(choices: dict) -> list[dict]:
    """Removal against block influence at three depths, and against a blind choice."""

    def row(claim: str, depth: int, other: str) -> dict:
        at = choices[str(depth)]
        x = paired_interval(at["removal"]["nll"], at[other]["nll"])
        over = f"{len(SETS)} calibration sets"
        return headline(claim, (x.mean, x.low, x.high), "nats per token", over, places=2)

    first = "SmolLM2 cut to 15 of 30 layers: chosen by removal, not by block influence"
    return [
        row(first, 15, "block influence"),
        row("... to 20 layers", 20, "block influence"),
        row("... to 10 layers", 10, "block influence"),
        row("... to 10 layers: chosen by removal, not spread evenly", 10, "spread evenly"),
    ]


def main() -> None:
    """Measure each layer on each set, and store what every choice costs."""
    torch.set_num_threads(1)
    model, train, test = trimmed(), smollm2.stories(), smollm2.stories(train=False)
    depth = len(model.model.layers)
    measured = {"block influence": [], "removal": []}
    for number in tqdm(SETS, unit="set"):
        some = part(train, number)
        measured["block influence"].append(influence(model, some))
        measured["removal"].append(removal(model, some))
    whole = story_nll(model, test)
    choices: dict[str, dict] = {}
    for keep in tqdm(DEPTHS, unit="depth"):
        at = choices[str(keep)] = {}
        for way, layers in blind_choices(depth, keep).items():
            cost = story_nll(keep_layers(model, layers), test).mean().item()
            at[way] = {"nll": [round(cost, 3)] * len(SETS), "layers": layers}
        for way, scores in measured.items():
            kept = [sorted(s.topk(keep).indices.tolist()) for s in scores]
            costs = [story_nll(keep_layers(model, k), test).mean().item() for k in kept]
            at[way] = {"nll": [round(c, 3) for c in costs], "layers": kept}
        for way, e in at.items():
            print(keep, way, e["nll"])
    store(
        "u16_layers",
        {
            "claim": "negative log-likelihood (nats per token) of 60 stories after pruning",
            "calibration_sets": len(SETS),
            "stories_in_a_set": STORIES,
            "teacher_nll": round(whole.mean().item(), 3),
            "scores": {
                way: [[round(v, 4) for v in s.tolist()] for s in scores]
                for way, scores in measured.items()
            },
            "results": choices,
        },
        headlines=headlines(choices),
    )


if __name__ == "__main__":
    main()
