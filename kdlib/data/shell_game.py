"""The shell game: problems whose answer takes several steps and can be checked.

A ball lies under one of five cups in a row, neighbouring cups change places, and the question is
where the ball ends. A problem, its worked steps and its answer are one line of text:

    adcb>33344#4

Swap cups 1 and 2 (a), 4 and 5 (d), 3 and 4 (c), 2 and 3 (b), the ball starting under cup 3. After
each swap it is under 3, 3, 4, 4; the answer is 4. A character is a token. Rows end with EOS, and
the same token fills short rows. A swap moves different cups to different places, so right steps
never turn a wrong position into the right one: whoever errs once and only once ends wrong.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from kdlib.decoding import generate
from kdlib.models import GPT
from kdlib.seal import reference

__all__ = [
    "CUPS",
    "EOS",
    "SWAPS",
    "VOCABULARY",
    "Problems",
    "answers_only",
    "completions",
    "encode",
    "exact_answer",
    "final_answer",
    "play",
    "problems",
    "right_answers",
    "right_steps",
    "verify",
    "worked",
]

CUPS, SWAPS = 5, 10
ALPHABET = "12345abcd>#"
EOS = len(ALPHABET)
VOCABULARY = EOS + 1
FROM, MARK = ALPHABET.index(">"), ALPHABET.index("#")


class Problems(NamedTuple):
    """Problems with as many swaps each.

    Attributes:
        prompts: `(n, K + 2)`, token ids: K swaps, `>`, the ball's first cup.
        steps: `(n, K)`, the ball's cup after each swap, 1 to 5.
        answers: `(n,)`, the last of them.
    """

    prompts: Tensor
    steps: Tensor
    answers: Tensor


def problems(n: int, generator: torch.Generator, swaps: int = SWAPS) -> Problems:
    """Draw problems: swaps of neighbours and the ball's first cup, all equally likely.

    Raises:
        ValueError: `n` or `swaps` < 1.
    """
    if n < 1 or swaps < 1:
        raise ValueError(f"n and swaps must be at least 1, got {n} and {swaps}")
    left = torch.randint(CUPS - 1, (n, swaps), generator=generator)  # of the two cups, from 0
    start = torch.randint(CUPS, (n, 1), generator=generator)
    position, steps = start, []
    for cup in left.split(1, dim=1):
        position = position + (position == cup).long() - (position == cup + 1).long()
        steps.append(position)
    prompts = torch.cat([left + CUPS, _column(FROM, n), start], dim=1)
    walked = torch.cat(steps, dim=1) + 1
    return Problems(prompts, walked, walked[:, -1])


def _column(token: int, n: int) -> Tensor:
    return torch.full((n, 1), token)


def worked(given: Problems) -> Tensor:
    """Write whole rows with every step: prompt, `3344#4`, EOS; `(n, 2 K + 5)`."""
    n = len(given.answers)
    answer = (given.answers - 1)[:, None]
    steps = given.steps - 1
    return torch.cat([given.prompts, steps, _column(MARK, n), answer, _column(EOS, n)], dim=1)


def answers_only(given: Problems) -> Tensor:
    """Write whole rows without steps: prompt, `#4`, EOS; `(n, K + 5)`."""
    n = len(given.answers)
    answer = (given.answers - 1)[:, None]
    return torch.cat([given.prompts, _column(MARK, n), answer, _column(EOS, n)], dim=1)


def encode(text: str) -> Tensor:
    """Give the token ids of a text, `(T,)`.

    Raises:
        ValueError: a character that is no token.
    """
    if unknown := set(text) - set(ALPHABET):
        raise ValueError(f"text may hold {ALPHABET!r} only, got {''.join(sorted(unknown))!r}")
    return torch.tensor([ALPHABET.index(c) for c in text], dtype=torch.long)


def completions(rows: Tensor, prompt_length: int) -> list[str]:
    """Give what follows the prompt in each row `(n, T)` as text, up to the first EOS."""
    texts = []
    for row in rows[:, prompt_length:].tolist():
        row = row[: row.index(EOS)] if EOS in row else row
        texts.append("".join(ALPHABET[i] for i in row))
    return texts


# one whole number and nothing else: 1234, 1,234, -5, $29.00 and a full stop at the end
_NUMBER = re.compile(r"\s*(-?)\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.0+)?\.?\s*", re.ASCII)


@reference("13.verify")
def final_answer(text: str) -> int | None:
    """Read the whole number that stands alone after the last `#`, or None where there is none.

    A number of more than 4,300 digits, which Python's `int` refuses, is none either.
    """
    _, mark, rest = text.rpartition("#")
    found = _NUMBER.fullmatch(rest) if mark else None
    try:
        return int(found[1] + found[2].replace(",", "")) if found else None
    except ValueError:
        return None


@reference("13.verify")
def verify(text: str, answer: int) -> bool:
    """Say whether a text ends with the right answer.

    The answer is the whole number after the last `#`, and nothing else may stand there: spaces, a
    dollar sign, commas between thousands, zeros after a decimal point and a full stop do not
    matter. A text without a readable answer is wrong.

    Args:
        text: what a model wrote.
        answer: the right answer.
    """
    return final_answer(text) == answer


def play(
    model: GPT, prompts: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Let a model write, `(n, P) -> (n, P + SWAPS + 3)`, rows filled with EOS; T = 0 is greedy."""
    length = SWAPS + 3
    rows = generate(model, prompts, length, temperature, EOS, generator)
    missing = prompts.shape[1] + length - rows.shape[1]
    return torch.nn.functional.pad(rows, (0, missing), value=EOS)


def right_answers(rows: Tensor, given: Problems) -> Tensor:
    """Say which rows end with the right answer, `(n, T) -> (n,)`, boolean."""
    texts = completions(rows, given.prompts.shape[1])
    pairs = zip(texts, given.answers.tolist(), strict=True)
    return torch.tensor([final_answer(text) == answer for text, answer in pairs])


def exact_answer(model: GPT, n: int = 500, temperature: float = 0.0, seed: int = 10_000) -> float:
    """Share of `n` fresh problems whose answer a model gets right; T = 0 is greedy."""
    generator = torch.Generator().manual_seed(seed)
    given = problems(n, generator)
    return (
        right_answers(play(model, given.prompts, temperature, generator), given)
        .float()
        .mean()
        .item()
    )


def right_steps(rows: Tensor, given: Problems) -> Tensor:
    """Say which rows hold every step right, `(n, T) -> (n,)`: a check of the way, not of its end.

    Rows that end early or hold anything else in a step's place are not right.
    """
    start, swaps = given.prompts.shape[1], given.steps.shape[1]
    written = rows[:, start : start + swaps]
    if written.shape[1] < swaps:
        return torch.zeros(len(rows), dtype=torch.bool)
    return (written == given.steps - 1).all(dim=1)
