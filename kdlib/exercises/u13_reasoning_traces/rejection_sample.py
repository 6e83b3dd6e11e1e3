"""13.rejection_sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from kdlib.checks.criteria import facts, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Criterion, Exercise, Mistake, Probe
from kdlib.training import rejection_sample

DRAWS = 12
RIGHT = (9, 3, 6, 0, 7, 1, 0, 5)  # right traces of DRAWS, problem by problem


class Referee:
    """A verifier that nobody can write anew: it has a list of what is right.

    Args:
        right: pairs of a text and the answer for which it is right.
    """

    def __init__(self, right: set[tuple[str, int]]) -> None:
        self.right = right

    def __call__(self, text: str, answer: int) -> bool:
        """Say whether a text is right."""
        return (text, answer) in self.right


def _drawn(keep: int, gap: int = 0):
    """Draw traces for problems from easy to impossible, with repetitions, and one without traces.

    Traces are numbers and a cup, "1342#3". A trace of one problem also occurs for another, and the
    cup does not tell right from wrong: the referee looks at the steps.
    """

    def make(g: torch.Generator) -> Arguments:
        answers = (torch.randint(5, (len(RIGHT),), generator=g) + 1).tolist()
        answers[0] = answers[2]
        traces, known = [], set()
        for number, (answer, right) in enumerate(zip(answers, RIGHT, strict=True)):
            pool = [f"{_digits(g)}#{answer}" for _ in range(4)]
            pool.insert(0, f"99#{answer}")  # the same words for every problem with this answer
            bad = [f"{_digits(g)}#{cup}" for cup in (answer, answer, answer % 5 + 1, 1)]
            row = [pool[int(torch.randint(5, (1,), generator=g))] for _ in range(right - 1)]
            row += [pool[0]] if right else []
            row += [bad[int(torch.randint(4, (1,), generator=g))] for _ in range(DRAWS - right)]
            row = [row[i] for i in torch.randperm(DRAWS, generator=g).tolist()]
            # the first trace of every second problem is wrong
            if number % 2 and row[0] in pool:
                last = max(i for i, t in enumerate(row) if t in bad)
                row[0], row[last] = row[last], row[0]
            if number in (2, 4):  # a right trace that occurs once, at an end
                pool.append(f"{_digits(g)}#{answer}")
                row[0 if number == 4 else -1] = pool[-1]
            if number == 0:  # the first two are the same, and there is another
                row[:2], row[-1] = [pool[0], pool[0]], pool[1]
            traces.append(row)
            known |= {(t, answer) for t in pool}
        traces[6] = []
        answers = answers[: len(answers) - gap] if gap >= 0 else [*answers, 1]
        return {"traces": traces, "answers": answers, "verifier": Referee(known), "keep": keep}

    return make


def _digits(g: torch.Generator) -> str:
    return "".join(map(str, torch.randint(1, 6, (6,), generator=g).tolist()))


def _collect(answer: Callable, a: Arguments) -> dict:
    """Run the answer and count what it kept."""
    rows, answers = [list(row) for row in a["traces"]], list(a["answers"])
    right = a["verifier"]
    kept = answer(*a.values())
    pairs = [(int(problem), str(trace)) for problem, trace in kept]
    solvable = {
        i
        for i, (row, y) in enumerate(zip(rows, answers, strict=True))
        if any(right(t, y) for t in row)
    }
    counts = Counter(problem for problem, _ in pairs)
    return {
        "problems": str(rows),
        "wrong traces": sum(not right(t, answers[i]) for i, t in pairs),
        "repetitions": len(pairs) - len(set(pairs)),
        "solvable problems left out": len(solvable - set(counts)),
        "most traces of one problem": max(counts.values(), default=0),
        "traces": len(pairs),
        "kind": type(kept).__name__,
        "list of pairs": " ".join(f"{i}:{t}" for i, t in pairs),
    }


def _nobody(g: torch.Generator) -> Arguments:
    return {"traces": [], "answers": [], "verifier": Referee(set()), "keep": 2}


def _kept(name: str, points: float, *entries: tuple, unless: tuple | None = None) -> Criterion:
    """State facts about what was kept of the plain problems, those of this seed."""
    told = facts(name, points, "plain", *entries, unless=unless)

    def test(evidence) -> str | None:
        if problem := told.test(evidence):
            return problem
        asked = evidence.expected["plain"].fields()["problems"]
        return None if evidence.value("plain", "problems") == asked else "These are other problems."

    return Criterion(name, points, test)


def _sampler(choose, checked=True):
    """Assemble a wrong answer from `choose(drawn, right, keep)`, which gives a problem's traces."""

    def wrong(traces, answers, verifier, keep):
        if checked and (len(traces) != len(answers) or keep < 1):
            raise ValueError("lengths differ, or keep < 1")
        return [
            (i, trace)
            for i, (drawn, answer) in enumerate(zip(traces, answers, strict=False))
            for trace in choose(drawn, [t for t in drawn if verifier(t, answer)], keep)
        ]

    return wrong


def _distinct(found: list[str]) -> list[str]:
    return list(dict.fromkeys(found))


def _first_draws(drawn, right, keep):
    return _distinct([t for t in drawn[:keep] if t in right])


def _cut_first(drawn, right, keep):
    """Cut before repetitions are removed."""
    return _distinct(right[:keep])


def _fallback(drawn, right, keep):
    return _distinct(right)[:keep] or drawn[:1]


def _padded(drawn, right, keep):
    found = _distinct(right)[:keep]
    return found + [found[0]] * (keep - len(found)) if found else []


def _only_easy(drawn, right, keep):
    return _distinct(right)[:keep] if 2 * len(right) > len(drawn) else []


def _across(traces, answers, verifier, keep):
    """Remove repetitions across problems."""
    if len(traces) != len(answers) or keep < 1:
        raise ValueError("lengths differ, or keep < 1")
    kept, seen = [], set()
    for i, (drawn, answer) in enumerate(zip(traces, answers, strict=True)):
        count = 0
        for trace in drawn:
            if verifier(trace, answer) and trace not in seen and count < keep:
                seen.add(trace)
                kept.append((i, trace))
                count += 1
    return kept


_right = _sampler(lambda drawn, right, keep: _distinct(right)[:keep])


def _renumbered(traces, answers, verifier, keep):
    """Number the problems that are left from zero."""
    kept = _right(traces, answers, verifier, keep)
    order = {problem: i for i, problem in enumerate(dict.fromkeys(p for p, _ in kept))}
    return [(order[p], t) for p, t in kept]


REJECTION_SAMPLE = Exercise(
    id="13.rejection_sample",
    title="Keep what the verifier accepts",
    reference=rejection_sample,
    probes=(
        Probe("plain", "8 problems with 12 traces each, keep = 2", _drawn(2), run=_collect),
        Probe("one each", "the same traces, keep = 1", _drawn(1), run=_collect),
        Probe("plenty", "the same traces, keep = 50", _drawn(50), run=_collect),
        Probe("nobody", "no problem at all", _nobody, run=_collect),
        Probe("keep = 0", "keep = 0", _drawn(0)),
        Probe("keep < 0", "keep = -2", _drawn(-2)),
        Probe("few answers", "8 problems and 7 answers", _drawn(2, gap=1)),
        Probe("many answers", "8 problems and 9 answers", _drawn(2, gap=-1)),
    ),
    criteria=(
        _kept(
            "only verified traces",
            0.75,
            ("wrong traces", 0, "You keep {seen} traces that the verifier rejects."),
            unless=("traces", 0, "You keep nothing."),
        ),
        _kept(
            "each trace of a problem once",
            0.5,
            ("repetitions", 0, "{seen} of the traces you keep are there twice."),
            unless=("traces", 0, "You keep nothing."),
        ),
        _kept(
            "at most `keep` traces of a problem, and no solvable problem lost",
            0.75,
            ("most traces of one problem", 2, "With keep = 2, one problem has {seen} traces."),
            (
                "solvable problems left out",
                0,
                "{seen} problems for which a right trace was drawn have none in your result.",
            ),
        ),
        matches(
            "the first ones, in order, with their problem's number",
            0.5,
            *("plain", "one each", "plenty", "nobody"),
            keys=("list of pairs", "kind"),
        ),
        rejects(
            "bad input is refused", 0.25, "keep = 0", "keep < 0", "few answers", "many answers"
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "nothing is filtered",
            _sampler(lambda drawn, right, keep: _distinct(drawn)[:keep]),
            "You keep traces without asking the verifier, so the student learns the teacher's "
            "errors along with its skill.",
        ),
        Mistake(
            "only the first draws are looked at",
            _sampler(_first_draws),
            "You verify the first few traces only. A problem whose first draws are wrong is lost, "
            "although a right trace was drawn later; and those are the hard problems.",
        ),
        Mistake(
            "repetitions kept",
            _sampler(lambda drawn, right, keep: right[:keep]),
            "The same trace is in your set more than once. A copy teaches nothing new, and it "
            "takes the place of another way to the answer.",
        ),
        Mistake(
            "cut before repetitions are removed",
            _sampler(_cut_first),
            "You take the first `keep` right traces and remove repetitions afterwards, so fewer "
            "are left than there could be.",
        ),
        Mistake(
            "no limit for a problem",
            _sampler(lambda drawn, right, keep: _distinct(right)),
            "Some problem has more than `keep` traces. Nearly every trace of an easy problem is "
            "right, so without a limit the easy problems crowd out the hard ones.",
        ),
        Mistake(
            "a wrong trace where there is no right one",
            _sampler(_fallback),
            "A problem without a right trace gets a wrong one in your set. It has none to give.",
        ),
        Mistake(
            "filled up with copies",
            _sampler(_padded),
            "You fill a problem's share up to `keep` with copies.",
        ),
        Mistake(
            "only problems that are mostly solved",
            _sampler(_only_easy),
            "You drop problems of which most traces are wrong. One right trace is enough, and the "
            "hard problems are where the student has most to learn.",
        ),
        Mistake(
            "repetitions across problems",
            _across,
            "You remove a trace because another problem has the same words. It belongs to its own "
            "problem: traces are compared within a problem only.",
        ),
        Mistake(
            "the last ones",
            _sampler(lambda drawn, right, keep: _distinct(right)[-keep:]),
            "You keep the last right traces of a problem, not the first. Then the result changes "
            "with every draw that is added.",
        ),
        Mistake(
            "problems renumbered",
            _renumbered,
            "The numbers in your pairs count the problems that are left. They have to be the "
            "problems' own, or traces will be joined to other problems' prompts.",
        ),
        Mistake(
            "bad input passes",
            _sampler(lambda drawn, right, keep: _distinct(right)[: max(keep, 0)], checked=False),
            "With keep = 0, or more problems than answers, you return something. It would be "
            "found out later, at a place that has nothing to do with the cause.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
