"""11.beam_search."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import decoding
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw

ROWS = "table of results (one call a line, filled up with -1)"
SCORES = "list of scores (one of each call)"


def _language(
    beams: tuple[int, int],
    vocabulary: tuple[int, int] = (6, 8),
    length: tuple[int, int] = (4, 6),
    end: float = -9.0,
    begun: bool = False,
    prompt: tuple[int, int] = (1, 3),
    single: bool = False,
    scale: float = 1.5,
    calls: int = 4,
):
    """Build a language in which the next token depends on the last two, and prompts in it.

    All sizes are drawn. Logits are no log-probabilities: each row of them has a constant of its
    own.

    Args:
        beams: the least and the largest number of them.
        vocabulary: the same for the number of tokens.
        length: the same for the tokens to add.
        end: added to the logits of EOS.
        begun: whether prompts begin with an EOS.
        prompt: the least and the largest length of prompts.
        single: float32, and another constant in the hundreds.
        scale: of the logits; where it is small many rows are nearly as good.
        calls: from how many prompts to search.
    """

    def make(g: torch.Generator) -> Arguments:
        V, P = between(g, *vocabulary), between(g, *prompt)
        eos = between(g, 0, V - 1)
        table = draw(g, V, V, V, scale=scale) + draw(g, V, V, 1, scale=2.0)
        table[..., eos] += end
        prompts = (eos + torch.randint(1, V, (calls, P), generator=g)) % V
        if begun:
            prompts[:, 0] = eos
        return {
            "table": (table + 300).float() if single else table,
            "prompts": prompts,
            "length": between(g, *length),
            "beams": between(g, *beams),
            "eos": eos,
        }

    return make


def _all_prompts(answer, a: Arguments) -> dict:
    """Search from every prompt. Rows are filled with -1."""
    table, prompts = a["table"], a["prompts"]

    def next_logits(rows: Tensor) -> Tensor:
        return table[rows[:, -min(2, rows.shape[1])], rows[:, -1]]

    rows, scores = [], []
    for prompt in prompts:
        row, score = answer(next_logits, prompt, a["length"], a["beams"], a["eos"])
        rows.append(row)
        scores.append(float(score))
    widest = max(prompts.shape[1] + a["length"], *map(len, rows))
    table_of_rows = torch.stack([F.pad(row, (0, widest - len(row)), value=-1) for row in rows])
    return {ROWS: table_of_rows, SCORES: torch.tensor(scores, dtype=torch.float64)}


def _search(
    score=lambda scores, log_q: scores[:, None] + log_q,
    log_probs=lambda z: z.double().log_softmax(-1),
    after_end="kept",
    pick=lambda total, beams: total.flatten().topk(min(beams, int(total.isfinite().sum()))),
    follow=True,
    best=lambda scores, rows, eos, P: 0,
    cut=lambda row, end, eos, P: row[:end],
    report=lambda score, added: score,
    width=lambda beams: beams,
    steps=lambda length: length,
    prompt_ends=False,
    impatient=False,
):
    """Assemble a beam search with one part wrong.

    After its end a row is "kept" with its score, goes "on", pays for EOS again ("paid"), or is
    "dropped".
    """

    def wrong(next_logits, prompt, length, beams, eos):
        P, beams = len(prompt), width(beams)
        rows = prompt[None]
        scores = torch.zeros(len(rows), dtype=torch.float64)
        ended = (rows == eos).any(1) & prompt_ends
        for _ in range(steps(length)):
            log_q = log_probs(next_logits(rows))
            if after_end != "on":
                stay = log_q[ended, eos] if after_end == "paid" else 0.0
                log_q[ended] = float("-inf")
                if after_end != "dropped" or bool(ended.all()):
                    log_q[ended, eos] = stay
            scores, found = pick(score(scores, log_q), beams)
            parent, token = found // log_q.shape[-1], found % log_q.shape[-1]
            if not follow:
                parent = torch.arange(len(found)).clamp(max=len(rows) - 1)
            rows = torch.cat([rows[parent], token[:, None]], dim=1)
            ended = ended[parent] | (token == eos)
            if impatient and bool(ended.any()):
                break
        chosen = best(scores, rows, eos, P)
        row = rows[chosen]
        end = _end(row, eos, P)
        return cut(row, end, eos, P), report(scores[chosen].item(), end - P)

    return wrong


def _end(row: Tensor, eos: int, P: int) -> int:
    """Say where a row ends: behind its first new EOS."""
    stops = (row[P:] == eos).nonzero()
    return len(row) if len(stops) == 0 else P + int(stops[0]) + 1


def _without_eos(row: Tensor, end: int, eos: int, P: int) -> Tensor:
    return row[: end - 1] if row[end - 1] == eos else row


def _first_eos_of_all(row: Tensor, end: int, eos: int, P: int) -> Tensor:
    """Cut at the first EOS, be it in the prompt."""
    return row[: _end(row, eos, 0)]


def _per_token(scores: Tensor, rows: Tensor, eos: int, P: int) -> int:
    added = torch.tensor([_end(row, eos, P) - P for row in rows])
    return int((scores / added).argmax())


def _own_best(total: Tensor, beams: int):
    """Let each prefix keep its own best extension, once there are several."""
    if len(total) == 1:
        return total.flatten().topk(min(beams, total.shape[1]))
    best = total.max(dim=1)
    return best.values, torch.arange(len(total)) * total.shape[1] + best.indices


BEAM_SEARCH = Exercise(
    id="11.beam_search",
    title="Beam search",
    reference=decoding.beam_search,
    probes=tuple(
        Probe(name, about, make, run=_all_prompts, atol=1e-3 if name == "float32" else 1e-8)
        for name, about, make in (
            ("greedy", "one beam", _language((1, 1))),
            (
                "several beams",
                "several beams in a language that rarely ends",
                _language((3, 4), length=(5, 6), prompt=(2, 3), scale=0.5, calls=12),
            ),
            (
                "endings",
                "several beams in a language that ends often",
                _language((3, 5), (5, 7), (5, 6), end=1.5, prompt=(2, 3), calls=6),
            ),
            (
                "EOS in front",
                "prompts that begin with an EOS",
                _language((2, 3), (6, 8), (3, 5), end=-0.5, begun=True, scale=0.7),
            ),
            (
                "wide",
                "more beams than there are tokens",
                _language((6, 8), (4, 5), (2, 3), end=0.0, prompt=(2, 3), scale=0.4, calls=6),
            ),
            (
                "float32",
                "float32 logits in the hundreds, one token to add",
                _language((2, 4), (5, 8), (1, 1), end=0.0, prompt=(2, 4), single=True),
            ),
        )
    ),
    criteria=(
        matches("one beam is greedy decoding", 1.0, "greedy", keys=(ROWS, SCORES)),
        matches("several beams", 1.0, "several beams", "wide", "float32", keys=(ROWS, SCORES)),
        matches("rows that end", 1.0, "endings", "EOS in front", keys=(ROWS, SCORES)),
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
                after_end="on",
            ),
            "You add up probabilities. The probability of a sequence is a product; in which space "
            "does a product become a sum?",
        ),
        Mistake(
            "ended rows go on",
            _search(after_end="on"),
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
            _search(cut=_without_eos),
            "Your rows stop before their EOS. The student is to learn it too.",
        ),
        Mistake(
            "not cut at EOS",
            _search(cut=lambda row, end, eos, P: row),
            "What you return goes on behind the first EOS.",
        ),
        Mistake(
            "cut at an EOS of the prompt",
            _search(cut=_first_eos_of_all),
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
            _search(prompt_ends=True, cut=_first_eos_of_all),
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
            _search(best=_per_token, report=lambda score, added: score / added),
            "You divide the scores by the length. That is a length penalty, which many decoders "
            "have and this one has not: the contract asks for the log-probability itself.",
        ),
        Mistake(
            "the last beam is returned",
            _search(best=lambda scores, rows, eos, P: len(rows) - 1),
            "You return the beam with the lowest score. How does `topk` order its result?",
        ),
        Mistake(
            "each prefix keeps its own best",
            _search(pick=_own_best, best=lambda scores, rows, eos, P: int(scores.argmax())),
            "Each of your prefixes is followed by its own best token, so none ever gives way to "
            "two extensions of another. The best are to be found among the extensions of all "
            "prefixes together.",
        ),
        Mistake(
            "an ended row pays on",
            _search(after_end="paid"),
            "Your ended rows pay for one more EOS in each step. A row that has ended keeps its "
            "score.",
        ),
        Mistake(
            "ended rows are dropped",
            _search(after_end="dropped"),
            "A row that has ended drops out of your search, however good it was, as long as there "
            "is another one. It is to stay in the race.",
        ),
        Mistake(
            "one token too few",
            _search(steps=lambda length: max(length - 1, 1)),
            "Your search makes one step too few.",
        ),
        Mistake(
            "one token too many",
            _search(steps=lambda length: length + 1),
            "Your search makes one step too many: more tokens are added than were asked for.",
        ),
        Mistake(
            "the prompt is left out",
            _search(cut=lambda row, end, eos, P: row[P:end]),
            "You return what was added. The whole row is asked for, prompt included.",
        ),
        Mistake(
            "a cost in place of a score",
            _search(report=lambda score, added: -score),
            "The sign of your score is turned round. A log-probability is never positive.",
        ),
        Mistake(
            "a probability in place of its logarithm",
            _search(report=lambda score, added: math.exp(score)),
            "You return the probability of the row. Its logarithm is asked for.",
        ),
    ),
    minutes=20,
    difficulty=3,
)
