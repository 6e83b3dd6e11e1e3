"""`make grade-demo`: three invented students go through nbgrader's own commands.

Ada answers everything as the solution does; Bob answers the first half and leaves the rest; Eve
gives a known mistake to every exercise. Nothing here is special to the demonstration: what is run
is what an instructor types.
"""

from __future__ import annotations

import csv
import shutil
import time

from grading.course import Course
from grading.notebooks import REPOSITORY, answers, exercises, fill, mistake, solution, units
from kdlib.checks import catalogue

ROOT = REPOSITORY / "build" / "grade-demo"


def students(unit: str) -> dict[str, dict[str, str]]:
    """What each student writes into the answer cells of a unit."""
    right = answers(solution(unit))
    half = dict(list(right.items())[: len(right) // 2])
    wrong = {
        cell: mistake(name, catalogue()[name].mistakes[0].name)
        for name, cell in exercises(unit).items()
    }
    return {"ada": right, "bob": half, "eve": wrong}


def step(course: Course, *arguments: str) -> None:
    """Run one nbgrader command, saying so and how long it took."""
    print(f"$ nbgrader {' '.join(arguments)}", end="", flush=True)
    start = time.perf_counter()
    course.nbgrader(*arguments)
    print(f"   ({time.perf_counter() - start:.0f} s)")


def gradebook(course: Course) -> str:
    """What `nbgrader export` wrote, as a table."""
    with (course.root / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [f"{'unit':<20}{'student':<10}{'score':>7}{'of':>7}"]
    for row in rows:
        score, most = float(row["score"]), float(row["max_score"])
        lines.append(f"{row['assignment']:<20}{row['student_id']:<10}{score:>7g}{most:>7g}")
    return "\n".join(lines)


def table(course: Course, unit: str) -> str:
    """The autograded points of a unit, exercise by exercise."""
    scores = course.scores(unit)
    lines = [f"{unit:<34}" + "".join(f"{name:>8}" for name in scores) + f"{'of':>8}"]
    for name in exercises(unit):
        cell = name.replace(".", "-", 1)
        earned = "".join(f"{scores[student][cell]:>8g}" for student in scores)
        lines.append(f"  {name:<32}{earned}{catalogue()[name].points:>8g}")
    return "\n".join(lines)


def main() -> None:
    """Build the course folder, grade, and say where everything lies."""
    shutil.rmtree(ROOT, ignore_errors=True)
    print(f"A course folder with {len(units())} units, in {ROOT.relative_to(REPOSITORY)}/ ...")
    course = Course.create(ROOT, units())
    for unit in units():
        for student, filled in students(unit).items():
            course.submit(student, unit, fill(unit, filled))
    for unit in units():
        step(course, "autograde", unit)
        step(course, "generate_feedback", unit)
    step(course, "export", "--to", "grades.csv")

    print("\nAutograded points:\n")
    for unit in units():
        print(table(course, unit) + "\n")
    print("The gradebook (written answers are still to be marked, with formgrader):\n")
    print(gradebook(course))
    print("\nWhat the students read:")
    for page in sorted(ROOT.glob("feedback/*/*/*.html")):
        print(f"  {page.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
