"""13.rejection_sample."""

from __future__ import annotations

from collections import Counter

import torch

from kdlib.checks.criteria import facts, matches, rejects
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.data import shell_game as reasoning
from kdlib.training import rejection_sample

DRAWS = 12


def _drawn(keep: int, problems: int = 8, gap: int = 0):
    """Draw traces for problems from easy to impossible, with repetitions.

    Traces are numbers and a cup, "1342#3"; a trace of one problem also occurs for another.
    """

    def make(g: torch.Generator) -> Arguments:
        answers = (torch.randint(5, (problems,), generator=g) + 1).tolist()
        answers[0] = answers[2]
        traces = []
        for number, answer in enumerate(answers):
            wrong = answer % 5 + 1
            pool = [f"{100 + 7 * number + i}#{answer}" for i in range(5)]
            pool[0] = f"99#{answer}"  # the same words for every problem with this answer
            bad = [f"{300 + 7 * number + i}#{wrong}" for i in range(4)]
            right = (9, 3, 6, 0, 7, 1, 0, 5)[number % 8]  # right traces of DRAWS
            row = [pool[int(torch.randint(5, (1,), generator=g))] for _ in range(right - 1)]
            row += [pool[0]] if right else []
            row += [bad[int(torch.randint(4, (1,), generator=g))] for _ in range(DRAWS - right)]
            order = torch.randperm(DRAWS, generator=g).tolist()
            row = [row[i] for i in order]
            # the first trace of every second problem is wrong
            if number % 2 and right and reasoning.final_answer(row[0]) == answer:
                last = max(i for i, t in enumerate(row) if t in bad)
                row[0], row[last] = row[last], row[0]
            traces.append(row)
        return {"traces": traces, "answers": answers[: problems - gap], "keep": keep}

    return make


def _checks(text: str, answer: int) -> bool:
    return reasoning.final_answer(text) == answer


def _collect(answer, a: Arguments) -> dict:
    """Run the answer and count what it kept."""
    traces, answers = a["traces"], a["answers"]
    kept = answer([list(row) for row in traces], list(answers), _checks, a["keep"])
    pairs = [(int(problem), str(trace)) for problem, trace in kept]
    solvable = {
        i
        for i, (row, y) in enumerate(zip(traces, answers, strict=True))
        if any(_checks(t, y) for t in row)
    }
    counts = Counter(problem for problem, _ in pairs)
    return {
        "wrong traces": sum(not _checks(t, answers[i]) for i, t in pairs),
        "repetitions": len(pairs) - len(set(pairs)),
        "solvable problems left out": len(solvable - set(counts)),
        "most traces of one problem": max(counts.values(), default=0),
        "traces": len(pairs),
        "list of pairs": " ".join(f"{i}:{t}" for i, t in pairs),
    }


def _try(answer, a: Arguments):
    return answer([list(row) for row in a["traces"]], list(a["answers"]), _checks, a["keep"])


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
        Probe("keep = 0", "keep = 0", _drawn(0), run=_try),
        Probe("lengths", "8 problems and 7 answers", _drawn(2, gap=1), run=_try),
    ),
    criteria=(
        facts(
            "only verified traces",
            0.75,
            "plain",
            ("wrong traces", 0, "You keep {seen} traces that the verifier rejects."),
            unless=("traces", 0, "You keep nothing."),
        ),
        facts(
            "each trace of a problem once",
            0.5,
            "plain",
            ("repetitions", 0, "{seen} of the traces you keep are there twice."),
            unless=("traces", 0, "You keep nothing."),
        ),
        facts(
            "at most `keep` traces of a problem, and no solvable problem lost",
            0.75,
            "plain",
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
            *("plain", "one each", "plenty"),
            keys=("list of pairs",),
        ),
        rejects("keep = 0 and lengths that differ are refused", 0.5, "keep = 0", "lengths"),
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
