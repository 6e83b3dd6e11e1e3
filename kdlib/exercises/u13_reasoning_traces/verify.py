"""13.verify."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from kdlib.checks.criteria import tidy
from kdlib.checks.exercise import Arguments, Criterion, Evidence, Exercise, Mistake, Probe
from kdlib.checks.words import show, trouble
from kdlib.data import shell_game as reasoning

NUMBER = re.compile(r"\s*(-?)\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.0+)?\.?\s*", re.ASCII)
Case = tuple[str, int]


class Numbers:
    """Numbers drawn for one probe: `n` and `m` of one digit, `big` of seven digits, and others.

    Args:
        g: where they are drawn.
    """

    def __init__(self, g: torch.Generator) -> None:
        self.g = g
        self.n, self.m = (torch.randperm(8, generator=g)[:2] + 2).tolist()
        self.tens = self.between(11, 98)
        self.big = self.between(1_000_000, 9_999_999)
        self.huge = 2**53 + 4 * self.between(1, 10**6)

    def between(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return int(torch.randint(low, high + 1, (), generator=self.g))


def _steps(k: Numbers) -> list[Case]:
    n, m, tens = k.n, k.m, k.tens
    return [
        (f"3{n}{m}{n}#{n}", n),
        (f"3{n}{m}{n}#{n}", m),
        (f"{n} + {m} = {n + m}. #{n + m}", n + m),
        (f"{n} + {m} = {n + m}. #{n + m}", n),
        (f"so it is {n}\nor rather\n#{m}", m),
        (f"so it is {n}\nor rather\n#{m}", n),
        (f"10 + {n} = 1{n} #1{n}", n),
        (f"{tens} times 10 #{tens}0", 10 * tens),
        (f"{tens} times 10 #{tens}0", tens),
        (f"#{n}00", n),
        (f"#{tens}", int(str(tens)[::-1]) + 11),
    ]


def _marks(k: Numbers) -> list[Case]:
    n, m = k.n, k.m
    return [
        (f"#{m} no, that is wrong: #{n}", n),
        (f"#{n} no, that is wrong: #{m}", n),
        (f"#{m} #{m} # {n}", n),
        (f"#{n}#{m}#{n}{m}", n),
        (f"##{n}", n),
        (f"#{n} let me look again: #", n),
        (f"#{n}\n#\n", n),
        (f"so #{m}, or rather {n}", n),
        (f"#{n} Next problem: 5 - 2 = {m}", n),
        (f"#{n} Next problem: 5 - 2 = {m}", m),
    ]


def _written(k: Numbers) -> list[Case]:
    n, m, tens, big = k.n, k.m, k.tens, k.big
    return [
        (f"so it is # {n} ", n),
        (f"so it is #  {n}\n", n),
        (f"{tens - 1} + 1 = {tens} #${tens}.00", tens),
        (f"{tens - 1} + 1 = {tens} #${tens}.00", tens - 1),
        (f"#${n}", n),
        (f"#{n}.", n),
        (f"#{n}.0", n),
        (f"#{n}.0.", n),
        (f"#{n}0.000", 10 * n),
        (f"#{n}0.000", n),
        (f"#1,{tens}{n}.", 1000 + 10 * tens + n),
        (f"#{big:,}", big),
        (f"#{big:,}", big + 1),
        (f"#{big}", big),
        (f"#{m},000,000", m * 10**6),
        (f"{n} - {n + m} #-{m}", -m),
        (f"{n} - {n + m} #-{m}", m),
        (f"{n + m} - {n} #{m}", -m),
        (f" #-${n}", -n),
        (f"# -${big:,}.00. ", -big),
        (f"#{tens},{m}00", 1000 * tens + 100 * m),
        (f"#{n}{tens},{m}00", 10**5 * n + 1000 * tens + 100 * m),
        (f"#00{n}", n),
        (f"#-0{n}.0", -n),
        ("it is gone #0", 0),
        ("it is gone #00", 0),
        ("it is gone #-0", 0),
        ("it is gone #0.00", 0),
    ]


def _whole(k: Numbers) -> list[Case]:
    n, m, tens, big, huge = k.n, k.m, k.tens, k.big, k.huge
    return [
        (f"#{n}", n),
        (f"#{n} or {m}", n),
        (f"#{n} or {m}", m),
        (f"#{n} {m}", 10 * n + m),
        (f"#{n},{m}", 10 * n + m),
        (f"#{n},{tens}", 100 * n + tens),
        (f"#{big},000", 1000 * big),
        (f"#{tens}{n}{m},000", 1000 * (100 * tens + 10 * n + m)),
        (f"#{n},,000", 1000 * n),
        (f"#,{n}00", 100 * n),
        (f"#{n},{tens},000", 1000 * (100 * n + tens)),
        (f"#{n},000,{tens}", 10**5 * n + tens),
        (f"#{n},000{m}", 10**4 * n + m),
        (f"#{n}a", n),
        (f"#a{n}", n),
        (f"#{n}a{m}", 10 * n + m),
        (f"#{n},0a0", 1000 * n),
        (f"#{n},00a", 1000 * n),
        (f"#{n}a,000", 1000 * n),
        (f"#{n},000,a00", 10**6 * n),
        (f"#{n},000,a", 1000 * n),
        (f"#{n},000,", 1000 * n),
        (f"#{tens}{n}{m}000", tens * 10**5 + n * 10**4 + m * 10**3),
        (f"#{n}.7", n),
        (f"#{n}.07", n),
        (f"#{n}.70", n),
        (f"#{n}x00", n),
        (f"#{n}x", n),
        (f"#{n}..", n),
        (f"#{n}.0..", n),
        (f"#{n}.x", n),
        (f"#{n}.0x", n),
        (f"#{n}.x0", n),
        (f"#{n}.5.0", n),
        (f"#{n}.0.0", n),
        (f"#{n}.0,000", n),
        (f"#{n}e0", n),
        (f"#{n} cups", n),
        (f"#{n}%", n),
        (f"#{n}$", n),
        (f"#cup {n}", n),
        (f"#+{n}", n),
        (f"#--{n}", -n),
        (f"#--{n}", n),
        (f"#$${n}", n),
        (f"#-$${n}", -n),
        (f"#$-{n}", -n),
        (f"#{n}-", -n),
        (f"#{n}_000", 1000 * n),
        (f"#{huge + 1}", huge),
        (f"#{huge + 1}", huge + 1),
        (f"#{huge}.0", huge),
    ]


def _nothing(k: Numbers) -> list[Case]:
    n = k.n
    return [
        (f"under cup #{n}", n),
        (f"under cup {n}", n),
        (str(n), n),
        ("#four", 4),
        ("#\N{SUPERSCRIPT TWO}", 2),
        ("", n),
        ("", 0),
        (" ", 0),
        ("#", n),
        ("#", 0),
        ("#.", 0),
        ("#.0", 0),
        ("#-", 0),
        ("#$", 0),
        ("#,", 0),
        ("#None", 0),
        (f"#{n}" * 3 + "#nan", n),
    ]


def _endless(k: Numbers) -> list[Case]:
    n = k.n
    return [(f"#{n}", n), ("#" + str(n) * 5000, n), ("#-" + str(n) * 5000 + ".0", n)]


def _texts(build: Callable[[Numbers], list[Case]]):
    def make(g: torch.Generator) -> Arguments:
        cases = build(Numbers(g))
        order = torch.randperm(len(cases), generator=g).tolist()
        return {"cases": [cases[i] for i in order]}

    return make


def _judged(answer: Callable, a: Arguments) -> dict:
    """Give what the answer says of each text, by the text and the right answer."""
    return {_told(text, right): answer(text, right) for text, right in a["cases"]}


def _told(text: str, right: int) -> str:
    shown = text if len(text) < 60 else f"{text[:12]}... ({len(text):,} characters)"
    return f"{shown!r} where {right:,} is right"


def _reads(name: str, points: float, *probes: str) -> Criterion:
    """The answer says of each text of these probes what the reference says."""

    def test(evidence: Evidence) -> str | None:
        for probe in probes:
            seen = evidence.student[probe]
            if problem := trouble(seen, evidence.probes[probe]):
                return problem
            found = seen.fields()
            for told, right in evidence.expected[probe].fields().items():
                if found.get(told) is None or found[told] != right:
                    return f"For {told} you return {show(found.get(told))}."
        return None

    return Criterion(name, points, test)


PROBES = tuple(
    Probe(name, about, _texts(build), run=_judged)
    for name, about, build in (
        ("steps", "texts with numbers before the mark, such as '3344#4'", _steps),
        ("marks", "texts with several marks, such as '#5 no, that is wrong: #4'", _marks),
        ("written", "answers such as '# 4 ', '#$29.00', '#1,234.' and '#-$4'", _written),
        ("whole", "texts such as '#4 or 5', '#3,4' and '#4.7'", _whole),
        ("nothing", "texts without an answer, such as '', '#' and '#four'", _nothing),
        ("endless", "an answer of 5,000 digits", _endless),
    )
)


def _verifier(read, compare=lambda found, answer: found == answer, missing=False):
    """Assemble a wrong verifier: `read(text)` gives a number or None."""

    def wrong(text: str, answer: int) -> bool:
        found = read(text)
        return missing if found is None else bool(compare(found, answer))

    return wrong


def _number(match: re.Match | None) -> int | None:
    digits = match[2].replace(",", "") if match else ""
    return int(match[1] + digits) if 0 < len(digits) <= 4300 else None


def _after(text: str, last: bool = True) -> str | None:
    if "#" not in text:
        return None
    return text.rsplit("#", 1)[1] if last else text.split("#")[1]


def _contract(text: str) -> int | None:
    rest = _after(text)
    return None if rest is None else _number(NUMBER.fullmatch(rest))


def _first_anywhere(text: str) -> int | None:
    return _number(re.search(r"(-?)\$?(\d[\d,]*)", text))


def _last_anywhere(text: str) -> int | None:
    found = list(re.finditer(r"(-?)\$?(\d[\d,]*)(?:\.0+)?", text))
    return _number(found[-1]) if found else None


def _first_mark(text: str) -> int | None:
    rest = _after(text, last=False)
    return None if rest is None else _number(NUMBER.fullmatch(rest))


def _falls_back(text: str) -> int | None:
    for rest in reversed(text.split("#")[1:]):
        if (found := NUMBER.fullmatch(rest)) or (
            rest != text.split("#")[-1] and (found := NUMBER.match(rest))
        ):
            return _number(found)
    return None


def _ignores_the_rest(text: str) -> int | None:
    rest = _after(text)
    return None if rest is None else _number(re.match(r"\s*(-?)\$?(\d[\d,]*)", rest))


def _no_sign(text: str) -> int | None:
    found = _contract(text)
    return None if found is None else abs(found)


def _as_written(text: str, answer: int) -> bool:
    return _after(text) == str(answer)


def _stops(text: str, answer: int) -> bool:
    rest = text.rsplit("#", 1)[1]
    found = NUMBER.fullmatch(rest)
    return int(found[1] + found[2].replace(",", "")) == answer


def _rounded(text: str) -> int | None:
    rest = _after(text)
    try:
        exact = _contract(text)
        return exact if exact is not None else int(float(rest))
    except (TypeError, ValueError):
        return None


VERIFY = Exercise(
    id="13.verify",
    title="Is the answer right?",
    reference=reasoning.verify,
    probes=PROBES,
    criteria=(
        _reads("reads the answer, not the steps", 0.75, "steps"),
        _reads("the last mark counts, and only what stands behind it", 0.75, "marks"),
        _reads("a number is a number however it is written", 0.75, "written"),
        _reads("one answer, whole and exact", 0.75, "whole"),
        _reads("no answer is a wrong answer", 0.75, "nothing", "endless"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "looks for the answer anywhere",
            lambda text, answer: str(answer) in text,
            "You accept every text in which the right digits occur: among the steps, or inside a "
            "longer number. A model that is rewarded for that learns to name all numbers.",
            "PrimeIntellect-ai/verifiers #763; Liuziyu77/Visual-RFT #176, where an empty answer "
            "earned full reward",
        ),
        Mistake(
            "takes the first number",
            _verifier(_first_anywhere),
            "You read the first number of the text. In a worked solution that is the first step, "
            "not the answer.",
            "EleutherAI/lm-evaluation-harness #2278, as a question",
        ),
        Mistake(
            "takes the last number",
            _verifier(_last_anywhere),
            "You read the last number of the text, marked or not. A model that runs on, or "
            "hedges, is judged by something that it did not give as its answer.",
            "sgl-project/sglang #29933",
        ),
        Mistake(
            "takes the first mark",
            _verifier(_first_mark),
            "You read what stands after the first mark. A model that corrects itself says its "
            "last word last.",
        ),
        Mistake(
            "falls back on an earlier mark",
            _verifier(_falls_back),
            "Where nothing readable follows the last mark, you go back to an earlier one, which "
            "the model had given up. What does a text say whose last word was cut off?",
            "marin-community/marin #9163",
        ),
        Mistake(
            "one right answer among several",
            _verifier(_ignores_the_rest),
            "You read the number after the mark and ignore what follows it, so 'this or that' "
            "passes if 'this' is right, and the part before a decimal point passes for the whole. "
            "Does the rest of the text agree with the number that you read?",
            "huggingface/Math-Verify #47, as a question",
        ),
        Mistake(
            "compares texts",
            _as_written,
            "You compare characters, so an amount with a dollar sign, thousands with a comma and "
            "a number after a space are wrong for you. Which numbers do the two texts stand for?",
            "EleutherAI/lm-evaluation-harness #3214",
        ),
        Mistake(
            "compares floats",
            _verifier(_contract, lambda found, answer: float(found) == float(answer)),
            "Beyond 2^53 a float no longer tells neighbouring whole numbers apart, and your "
            "verifier accepts the wrong one. Whole numbers can be compared as whole numbers.",
        ),
        Mistake(
            "cuts decimals off",
            _verifier(_rounded),
            "You turn the answer into a whole number by cutting off its decimals, so a wrong "
            "answer with the right whole part passes.",
        ),
        Mistake(
            "loses the sign",
            _verifier(_no_sign),
            "You read the digits without the minus sign in front of them.",
        ),
        Mistake(
            "no answer passes",
            _verifier(_contract, missing=True),
            "A text from which you can read no answer counts as right. That is the cheapest way "
            "to a perfect score that a model can find.",
            "huggingface/open-r1 #55, as a question",
        ),
        Mistake(
            "stops where there is no answer",
            _stops,
            "On a text without a readable answer your verifier stops with an error. One such text "
            "among a million would end the run; a text without an answer is simply wrong.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
