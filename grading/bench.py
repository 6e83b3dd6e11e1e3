"""`make bench-grading`: nbgrader's serial autograde and kdgrade on the same submissions.

Sixty invented students hand in a unit: a third right, a third with a known mistake in every
exercise, a third half done. `--scale` grades 10, 100 and 300 with kdgrade alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

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


def seconds(root: Path, *line: str) -> float:
    """How long a command takes in a folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KDLIB_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(REPOSITORY)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *line], cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def points(course: Course, unit: str) -> dict[str, float]:
    """Each student's autograded points."""
    return {student: sum(grades.values()) for student, grades in course.scores(unit).items()}


def peak(course: Course, unit: str) -> float:
    """The most memory that one submission's processes used, in MB."""
    return max(outcome.peak for outcome in Store(course.root, unit).outcomes()) / 2**20


def compare(unit: str, count: int, jobs: int) -> None:
    """Print both times, whether the points agree, and the ratio."""
    course = make(ROOT / "compare", unit, count)
    print(f"{count} submissions of {unit}, {jobs} jobs")
    ours = seconds(course.root, "grading", "autograde", unit, "--jobs", str(jobs))
    kdgrade = points(course, unit)
    print(f"  kdgrade autograde   {ours:7.1f} s   {ours / count:6.2f} s each")
    shutil.rmtree(course.root / "autograded")
    (course.root / "gradebook.db").unlink()
    course.nbgrader("generate_assignment", unit, "--force")
    stock = seconds(course.root, "nbgrader", "autograde", unit)
    print(f"  nbgrader autograde  {stock:7.1f} s   {stock / count:6.2f} s each")
    same = kdgrade == points(course, unit)
    print(f"  ratio {stock / ours:.2f}; the points {'agree' if same else 'DIFFER'}")
    print(f"  at most {peak(course, unit):.0f} MB for one submission")


def scale(unit: str, counts: list[int], jobs: int) -> None:
    """Print how the time and the memory of kdgrade grow with the number of submissions."""
    for count in counts:
        course = make(ROOT / "scale", unit, count)
        took = seconds(course.root, "grading", "autograde", unit, "--jobs", str(jobs))
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"  {count:4} submissions {took:7.1f} s  {took / count:5.2f} s each; largest process "
            f"so far {largest:.0f} MB, student code {peak(course, unit):.0f} MB"
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="grading.bench", description=__doc__)
    parser.add_argument("--unit", default="02_soft_targets")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scale", type=int, nargs="*", help="instead: these many submissions")
    chosen = parser.parse_args()
    if chosen.scale is not None:
        scale(chosen.unit, chosen.scale or [10, 100, 300], chosen.jobs)
    else:
        compare(chosen.unit, chosen.count, chosen.jobs)


if __name__ == "__main__":
    main()
