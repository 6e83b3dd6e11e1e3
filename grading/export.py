"""`kdgrade export`: the gradebook as a table that a spreadsheet, Canvas or Moodle takes in."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory

from grading import register
from grading.collect import Attempts
from grading.gradebook import CourseError, UnknownUnit, read_config
from grading.register import Person
from grading.store import Store

Scores = dict[str, dict[str, float]]
People = dict[str, dict[str, Person]]
FORMATS = ("csv", "canvas", "moodle")


def export(root: Path, form: str, units: list[str], db: str = "") -> str:
    """Write the grades of the units, all when none is named, with the marks that people gave.

    Args:
        root: the course folder.
        form: "csv" (a line for each student and unit: whether marks are still missing, and what was
            refused), "canvas" (its gradebook import) or "moodle" (the grading worksheet of one
            assignment, where a Moodle archive was collected; else its grade import by username).
        units: names.
        db: URL of another gradebook.

    Raises:
        UnknownUnit: a unit is not in the gradebook.
        CourseError: Moodle's participants have other numbers in every assignment.
    """
    coursedir = CourseDirectory(config=read_config(root, db))
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        there = {assignment.name for assignment in gradebook.assignments}
        if unknown := [name for name in units if name not in there]:
            known = ", ".join(sorted(there)) or "none"
            raise UnknownUnit(f"The gradebook does not know {', '.join(unknown)}; it has {known}.")
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
    people = {name: register.people(root, name) for name in names}
    if form == "csv":
        rows = _csv(root, names, scores, most, open_yet)
    elif form == "canvas":
        rows = _canvas(names, scores, most, people)
    else:
        rows = _moodle(names, scores, most, people)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [[_plain(field) for field in row] for row in rows]
    )
    return text.getvalue()


def _csv(
    root: Path,
    names: list[str],
    scores: Scores,
    most: dict[str, float],
    open_yet: set[tuple[str, str]],
) -> list[list[object]]:
    rows: list[list[object]] = [["student", "unit", "score", "of", "marks missing", "remark"]]
    refused = _refused(root, names)
    for student in sorted({*scores, *(who for who, _ in refused)}):
        for name in names:
            remark = refused.get((student, name), "")
            if name in scores.get(student, {}):
                missing = "yes" if (student, name) in open_yet else "no"
                score = f"{scores[student][name]:g}"
                rows.append([student, name, score, f"{most[name]:g}", missing, remark])
            elif remark:
                rows.append([student, name, "", f"{most[name]:g}", "", remark])
    unclear = [r for r in register.refusals(root) if not r.student or not r.unit]
    return rows + [[r.student, r.unit, "", "", "", f"{r.label}: {r.words}"] for r in unclear]


def _refused(root: Path, names: list[str]) -> dict[tuple[str, str], str]:
    """Say of whom something was refused, and nothing was taken since."""
    found: dict[tuple[str, str], str] = {}
    for name in names:
        for outcome in Store(root, name).outcomes():
            if outcome.status == "refused":
                found[outcome.student, name] = f"refused: {outcome.words}"
        for refusal in register.refusals(root, name):
            later = [n["when"] for n in Attempts(root, name, refusal.student).all()]
            if refusal.student and refusal.unit and not any(w > refusal.when for w in later):
                found[refusal.student, name] = f"refused: {refusal.words}"
    return found


def _canvas(
    names: list[str], scores: Scores, most: dict[str, float], people: People
) -> list[list[object]]:
    """Canvas finds a student by its own ID, which its archives tell, else by the login."""
    rows: list[list[object]] = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names],
        ["    Points Possible", "", "", "", "", *(f"{most[n]:g}" for n in names)],
    ]
    for student in sorted(scores):
        known = [people[n][student] for n in names if student in people[n]]
        person = next((p for p in known if p.platform == "canvas"), None)
        who = (person.name, person.number, "", "") if person else (student, "", "", student)
        rows.append([*who, "", *_row(scores[student], names)])
    return rows


def _moodle(
    names: list[str], scores: Scores, most: dict[str, float], people: People
) -> list[list[object]]:
    known = {n: {s: p for s, p in people[n].items() if p.platform == "moodle"} for n in names}
    if not any(known.values()):
        return [["username", *names]] + [[s, *_row(scores[s], names)] for s in sorted(scores)]
    if len(names) > 1:
        raise CourseError(
            "Moodle gives its participants other numbers in every assignment: export one unit at a "
            f"time. There are {', '.join(names)}."
        )
    (name,) = names
    rows: list[list[object]] = [
        ["Identifier", "Full name", "Grade", "Maximum grade", "Last modified (grade)"]
    ]
    for student, grades in sorted(scores.items()):
        person = known[name].get(student)
        who = (f"Participant {person.number}", person.name) if person else ("", student)
        rows.append([*who, *_row(grades, names), f"{most[name]:g}", "-"])
    return rows


def _row(scores: dict[str, float], names: list[str]) -> list[str]:
    return [f"{scores[name]:g}" if name in scores else "" for name in names]


def _plain(field: object) -> str:
    """Keep a spreadsheet from taking a student's name for a formula."""
    text = str(field)
    formula = text[:1] in ("=", "+", "-", "@", "\t") and text != "-"
    return f"'{text}" if formula else text
