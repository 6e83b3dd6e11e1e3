"""13.verify."""

from __future__ import annotations

import re

import torch

from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.data import shell_game as reasoning

NUMBER = re.compile(r"\s*(-?)\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.0+)?\.?\s*", re.ASCII)


def _case(name: str, text: str, answer: int) -> Probe:
    def make(g: torch.Generator) -> Arguments:
        return {"text": text, "answer": answer}

    return Probe(name, f"{text!r} with the right answer {answer:,}", make)


PROBES = (
    _case("right", "3344#4", 4),
    _case("wrong", "3345#5", 4),
    _case("in the steps only", "3445#5", 4),
    _case("the first number", "4 + 3 = 7. #7", 4),
    _case("longer number", "12 + 2 = 14 #14", 4),
    _case("run on", "#4 Next problem: 5 - 2 = 3", 4),
    _case("other number last", "so #5, or rather 4", 4),
    _case("spaces", "so it is # 4 ", 4),
    _case("dollars", "7.50 + 21.50 = 29 #$29.00", 29),
    _case("thousands", "#1,234.", 1234),
    _case("negative", "2 - 6 #-4", -4),
    _case("sign lost", "6 - 2 #4", -4),
    _case("corrected", "#5 no, that is wrong: #4", 4),
    _case("overturned", "#4 no, that is wrong: #5", 4),
    _case("broken off", "#4 let me look again: #", 4),
    _case("hedged", "#4 or 5", 4),
    _case("hedged, commas", "#3,4", 34),
    _case("decimals", "#4.7", 4),
    _case("large", "#9007199254740993", 9007199254740992),
    _case("no mark", "it is under cup 4", 4),
    _case("no number", "#four", 4),
    _case("empty", "", 4),
)


def _verifier(read, compare=lambda found, answer: found == answer, missing=False):
    """Assemble a wrong verifier: `read(text)` gives a number or None."""

    def wrong(text: str, answer: int) -> bool:
        found = read(text)
        return missing if found is None else bool(compare(found, answer))

    return wrong


def _number(match: re.Match | None) -> int | None:
    return int(match[1] + match[2].replace(",", "")) if match else None


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
        matches(
            "reads the answer, not the steps",
            0.75,
            *("right", "wrong", "in the steps only", "the first number", "longer number"),
        ),
        matches(
            "the last mark counts, and only what stands behind it",
            0.75,
            *("corrected", "overturned", "broken off", "other number last", "run on"),
        ),
        matches(
            "a number is a number however it is written",
            0.75,
            *("spaces", "dollars", "thousands", "negative", "sign lost"),
        ),
        matches(
            "one answer, whole and exact", 0.75, "hedged", "hedged, commas", "decimals", "large"
        ),
        matches("no answer is a wrong answer", 0.75, "no mark", "no number", "empty"),
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
