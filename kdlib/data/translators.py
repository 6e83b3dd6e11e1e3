"""A made-up translation task with more than one right answer, small enough to learn in a minute.

Three translators share the work, each with a dictionary of its own, word for word. Chance decides
who translates a sentence: 40 % go to the first, 30 % to each of the others. The second and the
third agree on half of the words, so word by word their choice is the most probable one there
(60 %), while sentence by sentence the first translator's is (40 %). A translation is faithful when
one translator could have written all of it.

A row is six words, SEP, six words, EOS: 14 tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "DICTIONARIES",
    "EOS",
    "LENGTH",
    "PROMPT",
    "SEP",
    "SHARES",
    "VOCABULARY",
    "WORDS",
    "corpus",
    "faithful",
    "prompts",
    "show",
    "translate",
]

WORDS, LENGTH = 12, 6
SEP, EOS = WORDS, WORDS + 1
VOCABULARY = WORDS + 2
PROMPT = LENGTH + 1  # tokens before the translation starts
SHARES = (0.4, 0.3, 0.3)
# what each translator (row) writes for each source word (column); rows 1 and 2 agree on six
DICTIONARIES = torch.tensor(
    [
        [7, 11, 5, 1, 2, 8, 10, 4, 6, 9, 3, 0],
        [11, 1, 8, 9, 0, 2, 3, 6, 10, 4, 7, 5],
        [6, 1, 3, 9, 0, 2, 4, 7, 10, 8, 11, 5],
    ]
)


def prompts(n: int, generator: torch.Generator) -> Tensor:
    """Draw source sentences, each followed by SEP: `(n, 7)`."""
    source = torch.randint(WORDS, (n, LENGTH), generator=generator)
    return torch.cat([source, torch.full((n, 1), SEP)], dim=1)


def translate(prompt: Tensor, translator: Tensor) -> Tensor:
    """Let translators 0, 1 or 2 `(n,)` finish the rows `(n, 7)`: `(n, 14)`."""
    target = DICTIONARIES[translator[:, None], prompt[:, :LENGTH]]
    return torch.cat([prompt, target, torch.full((len(prompt), 1), EOS)], dim=1)


def corpus(n: int, generator: torch.Generator) -> Tensor:
    """Draw sentences, and for each a translator by the shares: `(n, 14)`."""
    prompt = prompts(n, generator)
    who = torch.multinomial(torch.tensor(SHARES), n, replacement=True, generator=generator)
    return translate(prompt, who)


def faithful(rows: Tensor) -> Tensor:
    """Say which translators could have written each row, `(n, >= 13) -> (n, 3)`, boolean.

    EOS and what follows it is not looked at.

    Raises:
        ValueError: rows too short to hold a translation.
    """
    if rows.dim() != 2 or rows.shape[1] < PROMPT + LENGTH:
        raise ValueError(
            f"rows must have shape (n, {PROMPT + LENGTH} or more), got {tuple(rows.shape)}"
        )
    could = DICTIONARIES[:, rows[:, :LENGTH]]  # (3, n, 6)
    return (could == rows[:, PROMPT : PROMPT + LENGTH]).all(dim=2).T


def show(row: Tensor) -> str:
    """Write a row with letters: 'cablef > HJKCAB.'."""
    letters = "abcdefghijkl"
    source = "".join(letters[i] for i in row[:LENGTH])
    written = row[PROMPT:].tolist()
    written = written[: written.index(EOS)] if EOS in written else written
    return f"{source} > {''.join(letters[i].upper() if i < WORDS else '?' for i in written)}"
