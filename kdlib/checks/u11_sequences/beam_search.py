"""11.beam_search."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import decoding
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw

PROMPTS, P = 6, 2


def _language(vocabulary: int, length: int, beams: int, end: float = 0.0, scale: float = 1.5):
    """Build a language in which the next token depends on the last two, and prompts in it."""

    def make(g: torch.Generator) -> Arguments:
        table = draw(g, vocabulary, vocabulary, vocabulary, scale=scale)
        table += draw(g, vocabulary, vocabulary, 1, scale=2.0)  # logits are no log-probabilities
        table[..., 0] += end
        prompts = torch.randint(1, vocabulary, (PROMPTS, P), generator=g)
        return {"table": table, "prompts": prompts, "length": length, "beams": beams}

    return make


def _all_prompts(answer, a: Arguments) -> dict:
    """Search from every prompt; token 0 is EOS. Rows are filled with -1."""
    table = a["table"]

    def next_logits(rows: Tensor) -> Tensor:
        return table[rows[:, -2], rows[:, -1]].clone()

    rows, scores = [], []
    for prompt in a["prompts"]:
        row, score = answer(next_logits, prompt.clone(), a["length"], a["beams"], 0)
        missing = P + a["length"] - len(row)
        rows.append(F.pad(row, (0, missing), value=-1) if missing >= 0 else row)
        scores.append(float(score))
    return {"rows": torch.stack(rows), "scores": torch.tensor(scores, dtype=torch.float64)}


def _search(
    score=lambda scores, log_q: scores[:, None] + log_q,
    log_probs=lambda z: z.double().log_softmax(-1),
    stop=True,
    follow=True,
    best=lambda scores, rows: 0,
    cut=lambda row, end: row[:end],
    report=lambda s, n: s,
    width=lambda beams: beams,
):
    """Assemble a beam search with one part wrong."""

    def wrong(next_logits, prompt, length, beams, eos):
        beams = width(beams)
        rows = prompt[None]
        scores = torch.zeros(len(rows), dtype=torch.float64)
        ended = torch.zeros(len(rows), dtype=torch.bool)
        for _ in range(length):
            log_q = log_probs(next_logits(rows))
            if stop:
                log_q[ended] = float("-inf")
                log_q[ended, eos] = 0.0
            everything = score(scores, log_q).flatten()
            scores, found = everything.topk(min(beams, int((everything > float("-inf")).sum())))
            parent, token = found // log_q.shape[-1], found % log_q.shape[-1]
            if not follow:
                parent = torch.arange(len(found)).clamp(max=len(rows) - 1)
            rows = torch.cat([rows[parent], token[:, None]], dim=1)
            ended = ended[parent] | (token == eos)
        chosen = best(scores, rows)
        row = rows[chosen]
        stops = (row[len(prompt) :] == eos).nonzero()
        end = len(row) if len(stops) == 0 else len(prompt) + int(stops[0]) + 1
        return cut(row, end), report(scores[chosen].item(), end - len(prompt))

    return wrong


def _per_token(scores: Tensor, rows: Tensor) -> int:
    after = (rows[:, P:] == 0).long().cumsum(1)
    length = (after == 0).sum(1) + (after > 0).any(1).long()
    return int((scores / length).argmax())


BEAM_SEARCH = Exercise(
    id="11.beam_search",
    title="Beam search",
    reference=decoding.beam_search,
    probes=(
        Probe(
            "greedy",
            "one beam, 5 tokens to add",
            _language(7, 5, 1, -9.0),
            run=_all_prompts,
        ),
        Probe(
            "three beams",
            "three beams, 5 tokens to add, a language that rarely ends",
            _language(7, 5, 3, -9.0),
            run=_all_prompts,
        ),
        Probe(
            "endings",
            "four beams, 6 tokens to add, a language that ends often",
            _language(6, 6, 4, 1.5),
            run=_all_prompts,
        ),
    ),
    criteria=(
        matches("one beam is greedy decoding", 1.0, "greedy", keys=("rows", "scores")),
        matches("several beams", 1.0, "three beams", keys=("rows", "scores")),
        matches("rows that end", 1.0, "endings", keys=("rows", "scores")),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "greedy",
            _search(width=lambda beams: 1),
            "Whatever number of beams is asked for, you get what one beam gets. Either you keep "
            "one prefix, or all of yours are alike: copies of the prompt have the same best "
            "extension. How many different prefixes are there at the start?",
        ),
        Mistake(
            "only the last token's score",
            _search(score=lambda scores, log_q: log_q + 0.0 * scores[:, None].clamp(min=-1e9)),
            "You rank by the last token alone and forget what the prefix has cost. The score of a "
            "sequence is the sum over all of its tokens.",
        ),
        Mistake(
            "logits added up",
            _search(log_probs=lambda z: z.double()),
            "You add up logits. Two rows of logits may differ by a constant without meaning "
            "anything else, so sums of them cannot be compared.",
        ),
        Mistake(
            "probabilities added up",
            _search(
                log_probs=lambda z: z.double().softmax(-1),
                stop=False,
            ),
            "You add up probabilities. The probability of a sequence is a product; in which space "
            "does a product become a sum?",
        ),
        Mistake(
            "ended rows go on",
            _search(stop=False),
            "Your rows go on after EOS, and pay for tokens that nobody reads. A row that has ended "
            "keeps its score and competes on.",
        ),
        Mistake(
            "tokens and prefixes mixed up",
            _search(follow=False),
            "The best extensions may come from any prefix, but you append the k-th token to the "
            "k-th row. Which row does an extension belong to?",
        ),
        Mistake(
            "EOS cut off",
            _search(
                cut=lambda row, end: (
                    row[:-1]
                    if end == len(row) and row[-1] == 0
                    else row[: end - 1]
                    if row[end - 1] == 0
                    else row
                )
            ),
            "Your rows stop before their EOS. The student is to learn it too.",
        ),
        Mistake(
            "not cut at EOS",
            _search(cut=lambda row, end: row),
            "What you return goes on behind the first EOS.",
        ),
        Mistake(
            "score per token",
            _search(best=_per_token, report=lambda s, n: s / n),
            "You divide the scores by the length. That is a length penalty, which many decoders "
            "have and this one has not: the contract asks for the log-probability itself.",
        ),
        Mistake(
            "the last beam is returned",
            _search(best=lambda scores, rows: len(rows) - 1),
            "You return the beam with the lowest score. How does `topk` order its result?",
        ),
    ),
    minutes=20,
    difficulty=3,
)
