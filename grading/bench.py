"""`make bench-grading`: nbgrader's serial autograde and kdgrade on the same submissions.

Sixty invented students hand in a unit: a third right, a third with a known mistake in every
exercise, a third half done. `--many 1000` grades so many with kdgrade alone and prints what memory
its processes hold on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from grading.course import Course
from grading.notebooks import REPOSITORY, answers, exercises, fill, mistake, solution
from grading.store import Store
from kdlib.checks import catalogue

ROOT = REPOSITORY / "build" / "bench-grading"


def answers_of(unit: str, number: int) -> dict[str, str]:
    """What student `number` wrote: right, wrong in every exercise, or half of it, in turn."""
    right = answers(solution(unit))
    if number % 3 == 0:
        return right
    if number % 3 == 1:
        ids = exercises(unit).items()
        known = {name: catalogue()[name].mistakes for name, _ in ids}
        return {
            cell: mistake(name, known[name][number // 3 % len(known[name])].name)
            for name, cell in ids
        }
    return dict(list(right.items())[: len(right) // 2])


def make(root: Path, unit: str, count: int) -> Course:
    """A course folder with this many submissions; each has a line of its own."""
    shutil.rmtree(root, ignore_errors=True)
    course = Course.create(root, [unit])
    for number in range(count):
        notebook = fill(unit, answers_of(unit, number))
        notebook.cells[0].source += f"\n\nStudent {number}"
        course.submit(f"s{number:03}", unit, notebook)
    return course


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds on the clock, and of all processors together."""

    wall: float
    cpu: float


def run(root: Path, *line: str, watch: Callable[[psutil.Process], None] | None = None) -> Cost:
    """Run a command in a folder; `watch` is called with its process twice a second."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KDLIB_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(REPOSITORY)
    start, used = time.perf_counter(), _cpu()
    with (root / "bench.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *line], cwd=root, env=environment, stdout=log, stderr=log
        )
        while process.poll() is None:
            if watch:
                with contextlib.suppress(psutil.Error):
                    watch(psutil.Process(process.pid))
            time.sleep(0.5 if watch else 0.05)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(line)} failed:\n{log.read()[-4000:]}")
    return Cost(time.perf_counter() - start, _cpu() - used)


def _cpu() -> float:
    """Seconds of processor time that children which have ended took, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def points(course: Course, unit: str) -> dict[str, float]:
    """Each student's autograded points."""
    return {student: sum(grades.values()) for student, grades in course.scores(unit).items()}


def peak(course: Course, unit: str) -> float:
    """The most memory that one submission's processes used, in MB."""
    return max(outcome.peak for outcome in Store(course.root, unit).outcomes()) / 2**20


def compare(unit: str, count: int, jobs: int) -> None:
    """Print both times, whether the points agree, and the ratio."""
    course = make(ROOT / "compare", unit, count)
    print(f"{count} submissions of {unit}, {jobs} jobs, sandboxed")
    ours = run(course.root, "grading", "autograde", unit, "--jobs", str(jobs))
    kdgrade = points(course, unit)
    _say("kdgrade autograde", ours, count)
    shutil.rmtree(course.root / "autograded")
    (course.root / "gradebook.db").unlink()
    course.nbgrader("generate_assignment", unit, "--force")
    stock = run(course.root, "nbgrader", "autograde", unit)
    _say("nbgrader autograde", stock, count)
    same = kdgrade == points(course, unit)
    print(f"  the points {'agree' if same else 'DIFFER'}")
    ratios = f"{stock.wall / ours.wall:.1f} by the clock, {stock.cpu / ours.cpu:.1f} in CPU time"
    print(f"  ratio {ratios}, starting included")
    print(f"  at most {peak(course, unit):.0f} MB for one submission")


def _say(what: str, cost: Cost, count: int) -> None:
    each = f"{cost.wall / count:6.2f} s each, {cost.cpu / count:6.2f} s CPU each"
    print(f"  {what:<18} {cost.wall:7.1f} s  {each}", flush=True)


def many(unit: str, count: int, jobs: int) -> None:
    """Print what memory the processes of kdgrade hold while they grade so many submissions."""
    course = make(ROOT / "many", unit, count)
    done = course.root / ".kdgrade" / unit / "entered"
    print(f"{count} submissions of {unit}, {jobs} jobs; MB of the writer, of workers and kernels")
    steps = iter(range(0, count + 1, max(1, count // 10)))
    following = next(steps)

    def watch(process: psutil.Process) -> None:
        nonlocal following
        entered = len(list(done.glob("*.json"))) if done.is_dir() else 0
        if following is not None and entered >= following:
            held = process.memory_info().rss / 2**20
            others = [_private(child) for child in process.children(recursive=True)]
            print(f"  {entered:5} entered  {held:6.0f}  {sum(others):6.0f}", flush=True)
            while following is not None and following <= entered:
                following = next(steps, None)

    cost = run(course.root, "grading", "autograde", unit, "--jobs", str(jobs), watch=watch)
    _say("kdgrade autograde", cost, count)
    print(f"  at most {peak(course, unit):.0f} MB for one submission")


def _private(process: psutil.Process) -> float:
    """Megabytes that a process shares with nobody."""
    with contextlib.suppress(psutil.Error):
        return process.memory_full_info().uss / 2**20
    return 0.0


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="grading.bench", description=__doc__)
    parser.add_argument("--unit", default="02_soft_targets")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--many", type=int, default=0, help="instead: memory over so many")
    chosen = parser.parse_args()
    if chosen.many:
        many(chosen.unit, chosen.many, chosen.jobs)
    else:
        compare(chosen.unit, chosen.count, chosen.jobs)


if __name__ == "__main__":
    main()
