"""`kdgrade export`: the gradebook as a table that a spreadsheet, Canvas or Moodle takes in."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory

from grading.gradebook import read_config

FORMATS = ("csv", "canvas", "moodle")


def export(root: Path, form: str, units: list[str], db: str = "") -> str:
    """Write the grades of the units, all when none is named, with the marks that people gave.

    Args:
        root: the course folder.
        form: "csv" (a line for each student and unit, and whether marks are still missing),
            "canvas" (its gradebook import) or "moodle" (its grade import).
        units: names.
        db: URL of another gradebook.
    """
    coursedir = CourseDirectory(config=read_config(root, db))
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        assignments = [a for a in gradebook.assignments if not units or a.name in units]
        names = [assignment.name for assignment in assignments]
        most = {assignment.name: assignment.max_score for assignment in assignments}
        scores: dict[str, dict[str, float]] = {}
        open_yet: set[tuple[str, str]] = set()
        for name in names:
            for submission in gradebook.assignment_submissions(name):
                student = submission.student.id
                late = submission.late_submission_penalty or 0.0
                scores.setdefault(student, {})[name] = max(0.0, submission.score - late)
                if submission.needs_manual_grade:
                    open_yet.add((student, name))
    students = sorted(scores)
    rows: list[list[object]]
    if form == "csv":
        rows = [["student", "unit", "score", "of", "marks missing"]]
        rows += [
            [s, n, f"{scores[s][n]:g}", f"{most[n]:g}", "yes" if (s, n) in open_yet else "no"]
            for s in students
            for n in names
            if n in scores[s]
        ]
    elif form == "canvas":
        rows = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names]]
        rows += [["    Points Possible", "", "", "", "", *(f"{most[n]:g}" for n in names)]]
        rows += [[s, "", "", s, "", *_row(scores[s], names)] for s in students]
    else:
        rows = [["username", *names]]
        rows += [[s, *_row(scores[s], names)] for s in students]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [[_plain(field) for field in row] for row in rows]
    )
    return text.getvalue()


def _row(scores: dict[str, float], names: list[str]) -> list[str]:
    return [f"{scores[name]:g}" if name in scores else "" for name in names]


def _plain(field: object) -> str:
    """Keep a spreadsheet from taking a student's name for a formula."""
    text = str(field)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
