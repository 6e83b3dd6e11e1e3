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
TABLE = "table of results (one call a line, filled up with -1)"
SCORES = "list of scores (one of each call)"


def _language(
    vocabulary: int,
    length: int,
    beams: int,
    end: float = 0.0,
    scale: float = 1.5,
    begun: bool = False,
):
    """Build a language in which the next token depends on the last two, and prompts in it."""

    def make(g: torch.Generator) -> Arguments:
        table = draw(g, vocabulary, vocabulary, vocabulary, scale=scale)
        table += draw(g, vocabulary, vocabulary, 1, scale=2.0)  # logits are no log-probabilities
        table[..., 0] += end
        prompts = torch.randint(1, vocabulary, (PROMPTS, P), generator=g)
        if begun:
            prompts[:, 0] = 0
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
    return {TABLE: torch.stack(rows), SCORES: torch.tensor(scores, dtype=torch.float64)}


def _search(
    score=lambda scores, log_q: scores[:, None] + log_q,
    log_probs=lambda z: z.double().log_softmax(-1),
    stop=True,
    follow=True,
    best=lambda scores, rows: 0,
    cut=lambda row, end: row[:end],
    report=lambda s, n: s,
    width=lambda beams: beams,
    prompt_ends=False,
    impatient=False,
):
    """Assemble a beam search with one part wrong."""

    def wrong(next_logits, prompt, length, beams, eos):
        beams = width(beams)
        rows = prompt[None]
        scores = torch.zeros(len(rows), dtype=torch.float64)
        ended = (rows == eos).any(1) & prompt_ends
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
            if impatient and bool(ended.any()):
                break
        chosen = best(scores, rows)
        row = rows[chosen]
        stops = (row[len(prompt) :] == eos).nonzero()
        end = len(row) if len(stops) == 0 else len(prompt) + int(stops[0]) + 1
        return cut(row, end), report(scores[chosen].item(), end - len(prompt))

    return wrong


def _whole_row(row: Tensor, end: int) -> Tensor:
    """Cut at the first EOS, be it in the prompt."""
    stops = (row == 0).nonzero()
    return row[: int(stops[0]) + 1] if len(stops) else row


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
        Probe(
            "EOS in front",
            "prompts that begin with an EOS, three beams, 4 tokens to add",
            _language(7, 4, 3, -1.0, begun=True),
            run=_all_prompts,
        ),
    ),
    criteria=(
        matches("one beam is greedy decoding", 1.0, "greedy", keys=(TABLE, SCORES)),
        matches("several beams", 1.0, "three beams", keys=(TABLE, SCORES)),
        matches("rows that end", 1.0, "endings", "EOS in front", keys=(TABLE, SCORES)),
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
            "cut at an EOS of the prompt",
            _search(cut=_whole_row),
            "You cut at the first EOS of the whole row. A prompt may hold one, between two texts "
            "or in front of the first; what the model added is lost then. Only a new EOS ends a "
            "row.",
        ),
        Mistake(
            "ended by an EOS of the prompt",
            _search(prompt_ends=True),
            "A row whose prompt holds an EOS has ended for you before anything is added to it. "
            "Only a new EOS ends a row.",
        ),
        Mistake(
            "ended and cut by an EOS of the prompt",
            _search(prompt_ends=True, cut=_whole_row),
            "You look for EOS in the whole row, so a prompt that holds one has ended before "
            "anything is added, and is cut there. Only a new EOS ends a row.",
        ),
        Mistake(
            "over when one row has ended",
            _search(impatient=True),
            "Your search is over as soon as any row has ended. A row that is still growing may "
            "overtake it, and what you return may not have ended at all. When is there nothing "
            "left to extend?",
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
