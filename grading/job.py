"""One submission from its bytes to its outcome: everything that a worker does for it."""

from __future__ import annotations

import asyncio
import time

import nbformat

from grading.forkserver import ForkServer
from grading.judging import Verdict, judged, lost, outputs
from grading.normalise import Normalised, normalise
from grading.outcome import Job, Outcome
from grading.reading import Refused
from grading.relevance import relevant
from grading.replay import Check, Replay, Run, Step
from grading.store import digest
from grading.suspect import suspicions
from grading.template import Template
from kdlib.checks import catalogue


def grade(job: Job, server: ForkServer) -> Outcome:
    """Grade one submission; whatever goes wrong becomes an outcome, too."""
    start = time.monotonic()
    outcome = Outcome(job.unit, job.student, job.key, "graded", file=digest(job.content))
    try:
        if job.refused:
            raise Refused(job.refused)
        template = Template(nbformat.reads(job.release, as_version=4), job.unit)
        normalised = normalise(job.content, template)
        steps = plan(normalised, job)
        run = asyncio.run(Replay(steps, server, job.limits).run())
        _judge(outcome, normalised, steps, run)
        outcome.notebook = nbformat.writes(normalised.notebook)
    except Refused as refused:
        outcome.status, outcome.words = "refused", str(refused)
    outcome.seconds = time.monotonic() - start
    return outcome


def plan(normalised: Normalised, job: Job) -> list[Step]:
    """List the code cells to run: all, or those that an answer may depend on."""
    steps: list[Step] = []
    question = ""
    for cell in normalised.notebook.cells:
        slot = normalised.slots.get(cell.id)
        if cell.cell_type != "code":
            continue
        released = cell.id in normalised.released
        if slot and slot.role == "check":
            exercise = catalogue().get(slot.question)
            if exercise is None:
                raise ValueError(f"{job.unit} checks {slot.question}, which is no exercise")
            seconds = exercise.seconds * (len(exercise.probes) + 2) + job.limits.cell
            check = Check(slot.question, slot.name, job.seeds[slot.question], seconds)
            steps.append(Step(cell, check, slot.question, released))
        else:
            question = slot.question if slot and slot.role == "answer" else ""
            steps.append(Step(cell, None, question, released))
    if job.everything:
        return steps
    last = max((n for n, step in enumerate(steps) if step.check), default=-1)
    steps = steps[: last + 1]
    sources = [(s.cell.source, bool(s.check or s.question) or not s.released) for s in steps]
    return [step for step, keep in zip(steps, relevant(sources), strict=True) if keep]


def _judge(outcome: Outcome, normalised: Normalised, steps: list[Step], run: Run) -> None:
    for step in steps:
        if not step.check:
            continue
        name = step.check.exercise_id
        exercise = catalogue()[name]
        verdict: Verdict
        if name in run.lost:
            verdict = lost(exercise, run.lost[name])
            outcome.eye.append(f"{name}: {run.lost[name]}")
        else:
            verdict, problem = judged(exercise, run.records.get(name), step.check.seed)
            if problem:
                outcome.eye.append(f"{name}: {problem}")
        step.cell.outputs = outputs(verdict)
        outcome.verdicts[name] = {
            "points": verdict.points,
            "max_points": verdict.max_points,
            "started": verdict.started,
            "note": verdict.note,
            "results": [[r.name, r.points, r.passed, r.message] for r in verdict.results],
            "diagnoses": [d.name for d in verdict.diagnoses],
        }
    if run.lives > 1:
        stopped = "the process had to be started again"
        outcome.eye.append(f"{stopped} {run.lives - 1} time{'s' if run.lives > 2 else ''}")
    outcome.repairs = normalised.repairs
    cells = (slot.cell for slot in normalised.slots.values())
    given = [cell.source for cell in cells if cell.cell_type == "code"]
    outcome.eye += suspicions(_own_code(normalised), given)
    outcome.lives, outcome.peak = run.lives, run.peak


def _own_code(normalised: Normalised) -> dict[str, str]:
    """The student's code, by the question."""
    found: dict[str, str] = {}
    for cell in normalised.notebook.cells:
        if cell.cell_type == "code" and cell.id not in normalised.released:
            slot = normalised.slots.get(cell.id)
            where = slot.question if slot and slot.question else "another cell"
            found.setdefault(where, "")
            found[where] += cell.source + "\n"
    return found
