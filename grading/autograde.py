"""`kdgrade autograde`: submissions in, grades in nbgrader's gradebook out."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nbgrader.coursedir import CourseDirectory
from tqdm import tqdm

from grading.collect import Attempts
from grading.gradebook import CourseError, Writer, read_config
from grading.outcome import Job, Outcome
from grading.pool import LocalPool
from grading.reading import Refused, read_file
from grading.sandbox import Limits, require_sandbox
from grading.store import Store, code_digest, digest
from grading.template import Template


@dataclass(frozen=True)
class Settings:
    """What the command line chose.

    Attributes:
        jobs: worker processes.
        sandboxed: False runs students' code as the user who grades.
        everything: True runs the cells after the last check, too.
        force: True grades also what has not changed.
        policy: which attempt counts, "latest" or "best".
        db: a gradebook other than the configured one.
        scheduler: address of a dask scheduler, or "" for processes on this machine.
        limits: for each submission.
    """

    jobs: int = max(1, os.cpu_count() or 1)
    sandboxed: bool = True
    everything: bool = False
    force: bool = False
    policy: str = "latest"
    db: str = ""
    scheduler: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass
class Tally:
    """How a run went."""

    graded: int = 0
    unchanged: int = 0
    refused: int = 0
    failed: int = 0


def autograde(root: Path, units: list[str], settings: Settings) -> Tally:
    """Grade what is new or changed in `submitted/` and enter it in the gradebook.

    Raises:
        NoSandbox: students' code cannot be shut off here.
        CourseError: the course folder is not ready.
    """
    if settings.sandboxed and not settings.scheduler:
        require_sandbox()
    config = read_config(root, settings.db)
    writer = Writer(config)
    tally = Tally()
    for unit in units:
        writer.require(unit)
        _autograde_unit(root, unit, settings, writer, tally)
    return tally


def _autograde_unit(
    root: Path, unit: str, settings: Settings, writer: Writer, tally: Tally
) -> None:
    store = Store(root, unit)
    standing = writer.graded(unit)
    waiting: dict[str, list[Job]] = defaultdict(list)
    for job in _jobs(root, writer.coursedir, unit, settings):
        waiting[job.student].append(job)
    done = {s: [store.last(job, len(jobs) > 1) for job in jobs] for s, jobs in waiting.items()}
    if settings.force:
        done = {student: [None] * len(jobs) for student, jobs in waiting.items()}
    todo = [j for s, jobs in waiting.items() for j, o in zip(jobs, done[s], strict=True) if not o]
    ready = []
    for student, outcomes in done.items():
        if all(outcomes):
            best = _best(outcomes)
            entered = store.is_entered(best, writer.url) and student in standing
            if best.status == "graded" and not entered:
                ready.append(best)
            else:
                tally.unchanged += 1
    pool = _pool(settings, len(todo))
    with tqdm(total=len(todo) + len(ready), desc=unit, unit="submission") as bar:
        try:
            for outcome in ready:
                if store.outcome(outcome.student) != outcome:
                    store.keep(outcome)
                _enter(outcome, store, writer, tally, bar)
                bar.update()
            for outcome in pool.run(todo) if todo else ():
                jobs, outcomes = waiting[outcome.student], done[outcome.student]
                if len(jobs) > 1:
                    store.keep_try(outcome)
                outcomes[[job.key for job in jobs].index(outcome.key)] = outcome
                if all(outcomes):
                    best = _best(outcomes)
                    store.keep(best)
                    _enter(best, store, writer, tally, bar)
                bar.update()
        finally:
            pool.close()


def _best(outcomes: list[Outcome]) -> Outcome:
    """Of several attempts, give the last of those with the most points."""
    return max(reversed(outcomes), key=lambda o: (o.status == "graded", o.points))


def _pool(settings: Settings, count: int):
    if settings.scheduler:
        from grading.cluster import DaskPool

        return DaskPool(settings.scheduler)
    return LocalPool(min(settings.jobs, count))


def _enter(outcome: Outcome, store: Store, writer: Writer, tally: Tally, bar: tqdm) -> None:
    """Enter what was graded; say what was not."""
    if outcome.status == "graded":
        try:
            writer.enter(outcome)
            store.note_entered(outcome, writer.url)
            tally.graded += 1
        except CourseError as error:
            tally.failed += 1
            bar.write(f"{outcome.unit} {outcome.student}: graded, but not entered: {error}")
    elif outcome.status == "refused":
        tally.refused += 1
        bar.write(f"{outcome.unit} {outcome.student}: refused. {outcome.words}")
    else:
        tally.failed += 1
        bar.write(f"{outcome.unit} {outcome.student}: failed. {outcome.words}")
    bar.set_postfix(refused=tally.refused, failed=tally.failed, refresh=False)


def _jobs(root: Path, coursedir: CourseDirectory, unit: str, settings: Settings) -> Iterator[Job]:
    """Make a job of each submission of a unit; of each attempt, if the best one counts."""
    path = Path(coursedir.format_path(coursedir.release_directory, ".", unit)) / f"{unit}.ipynb"
    if not path.is_file():
        raise CourseError(f"There is no released notebook {path}.")
    release = path.read_text("utf-8")
    try:
        template = Template.read(path)
    except ValueError as error:
        raise CourseError(str(error)) from None
    # Drawn anew for each run: a record from anywhere else is worth nothing.
    seeds = {name: secrets.randbits(31) for name in template.by_check}
    chosen = repr(sorted(asdict(settings.limits).items())) + str(settings.everything)
    context = digest(release.encode(), code_digest().encode(), chosen.encode())
    for student, folder in submissions(coursedir, unit):
        content, refused = b"", ""
        try:
            content = read_file(find_notebook(folder, unit))
        except Refused as reason:
            refused = str(reason)
        earlier = Attempts(root, unit, student).contents() if settings.policy == "best" else []
        for attempt in [*(c for c in earlier if c != content), content]:
            words = refused if attempt is content else ""
            yield Job(
                unit,
                student,
                digest(context.encode(), attempt, words.encode()),
                attempt,
                release,
                seeds,
                limits=settings.limits,
                sandboxed=settings.sandboxed,
                everything=settings.everything,
                refused=words,
            )


def submissions(coursedir: CourseDirectory, unit: str) -> Iterator[tuple[str, Path]]:
    """Find who handed a unit in, and the folder, by nbgrader's own layout."""
    pattern = coursedir.format_path(coursedir.submitted_directory, "*", unit)
    before, _, after = pattern.partition("*")
    students = Path(before)
    if not students.is_dir():
        return
    for student in sorted(students.iterdir()):
        folder = Path(f"{before}{student.name}{after}")
        if not student.name.startswith(".") and folder.is_dir() and not folder.is_symlink():
            yield student.name, folder


def find_notebook(folder: Path, unit: str) -> Path:
    """Find the notebook in a submission: by its name, else the only one.

    Raises:
        Refused: there is none, or it is unclear which.
    """
    named = folder / f"{unit}.ipynb"
    if os.path.lexists(named):
        return named
    found = [p for p in sorted(folder.iterdir()) if p.suffix == ".ipynb" and p.name[0] != "."]
    if len(found) == 1:
        return found[0]
    if not found:
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise Refused(f"There is no notebook in the submission, only {names}.")
    raise Refused(
        f"There are {len(found)} notebooks in the submission and none is called {unit}.ipynb: "
        f"{', '.join(p.name for p in found[:5])}."
    )
