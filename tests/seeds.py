"""Right answers stay right: each of `tests/answers` on many seeds, none refused.

`make test-seeds` runs all units; `ARGS="02 03"` some of them, `ARGS="--seeds 20"` fewer seeds. It
is no part of `make test`. What has passed is kept in `build/seeds.json` and not run again while
neither the answers of its unit nor kdlib change, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from kdlib.checks import catalogue, units
from kdlib.checks.exercise import Exercise
from kdlib.checks.judge import judge
from kdlib.checks.observe import observe

ROOT = Path(__file__).parents[1]
STATE = ROOT / "build" / "seeds.json"
CHUNK = 10


@dataclass
class Tally:
    """What became of an exercise's answers, or of a part of its seeds.

    Attributes:
        refused: a text for each answer and seed that did not earn full marks.
        slow: the same for those that were stopped, and passed when they were run again.
        seconds: of work, in all processes together.
        left: how many parts are still to come.
    """

    refused: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    seconds: float = 0.0
    left: int = 0

    def add(self, part: Tally) -> None:
        """Take in a part."""
        self.refused += part.refused
        self.slow += part.slow
        self.seconds += part.seconds
        self.left -= 1


def answers(unit: str) -> dict[str, list[Callable]]:
    """Give the right answers to each exercise of a unit, such as "02"."""
    return importlib.import_module(f"tests.answers.u{unit}").ANSWERS


def draw_seeds(exercise_id: str, count: int) -> list[int]:
    """Draw different seeds, the same ones in every run; more of them begin with fewer of them."""
    draw, found = random.Random(exercise_id), {}
    while len(found) < count:
        found[draw.randrange(2**31)] = None
    return list(found)


def fingerprint(unit: str) -> str:
    """Hash what a unit's results depend on: its answers and kdlib."""
    files = [ROOT / "tests" / "answers" / f"u{unit}.py", *sorted(ROOT.glob("kdlib/**/*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def try_answers(exercise: Exercise, right: list[Callable], seeds: list[int]) -> Tally:
    """Check each answer on each seed; one that was stopped gets a second try."""
    tally, start = Tally(), time.perf_counter()
    for seed in seeds:
        for answer in right:
            for again in (False, True):
                record = observe(exercise, answer, seed)
                verdict = judge(exercise, record, seed)
                stopped = any(seen.status == "timeout" for seen in record.values())
                what = f"{answer.__name__}, seed {seed}"
                if verdict.passed:
                    tally.slow += [f"{exercise.id}: {what}"] if again else []
                    break
                if again or not stopped:
                    tally.refused.append(f"{what}\n{verdict}")
                    break
    tally.seconds = time.perf_counter() - start
    return tally


def _part(exercise_id: str, seeds: list[int]) -> Tally:
    right = answers(exercise_id[:2])[exercise_id]
    return try_answers(catalogue()[exercise_id], right, seeds)


def _run(work: dict[str, list[int]], processes: int) -> Iterator[tuple[str, Tally]]:
    """Yield each exercise and its tally as it is done."""
    parts = [
        (exercise_id, seeds[start : start + CHUNK])
        for exercise_id, seeds in work.items()
        for start in range(0, len(seeds), CHUNK)
    ]
    tallies = {e: Tally(left=-(-len(seeds) // CHUNK)) for e, seeds in work.items()}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(_part, *part): part[0] for part in parts}
        for done, future in enumerate(as_completed(futures), start=1):
            exercise_id = futures[future]
            tallies[exercise_id].add(future.result())
            share = f"{done / len(parts):5.1%} {exercise_id}"
            print(f"\r{share:40}", end="", file=sys.stderr, flush=True)
            if not tallies[exercise_id].left:
                yield exercise_id, tallies[exercise_id]


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for and not yet known; give 1 when an answer was refused."""
    known_units = sorted(unit[1:3] for unit in units())
    parser = argparse.ArgumentParser(prog="python -m tests.seeds", description=__doc__)
    parser.add_argument("units", nargs="*", metavar="unit", help=f"of {', '.join(known_units)}")
    parser.add_argument("--seeds", type=int, default=200, help="for each answer (200)")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    if unknown := set(given.units) - set(known_units):
        parser.error(f"no such unit: {', '.join(sorted(unknown))}")
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    prints = {unit: fingerprint(unit) for unit in given.units or known_units}
    work = {}
    for unit, mark in prints.items():
        for exercise_id in answers(unit):
            known = state.get(exercise_id, {})
            have = known.get("seeds", 0) if known.get("fingerprint") == mark else 0
            if todo := draw_seeds(exercise_id, given.seeds)[have:]:
                work[exercise_id] = todo
    refused = 0
    for exercise_id, tally in _run(work, given.processes):
        count, unit = len(answers(exercise_id[:2])[exercise_id]), exercise_id[:2]
        refused += len(tally.refused)
        print(
            f"\r{exercise_id}: {count} answers, {len(work[exercise_id])} seeds, "
            f"{len(tally.refused)} refused, {tally.seconds:.0f} s of work",
            flush=True,
        )
        for text in tally.slow:
            print(f"  stopped, and right when run again: {text}")
        for text in tally.refused[:3]:
            print(f"  refused: {text}")
        if not tally.refused:
            state[exercise_id] = {"fingerprint": prints[unit], "seeds": given.seeds}
            STATE.parent.mkdir(exist_ok=True)
            STATE.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")
    done = [e for unit in prints for e in answers(unit) if e not in work]
    print(f"{len(work)} exercises run, {len(done)} known from before, {refused} refusals")
    return min(refused, 1)


if __name__ == "__main__":
    sys.exit(main())
