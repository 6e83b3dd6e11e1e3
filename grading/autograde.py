"""`kdgrade autograde`: submissions in, grades in nbgrader's gradebook out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
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
    run = _Run.open(root, writer.coursedir, unit, settings, store)
    tickets = run.tickets()
    done = {
        student: [None if settings.force else _light(store.last(t, len(of))) for t in of]
        for student, of in tickets.items()
    }
    todo = [t for s, of in tickets.items() for t, o in zip(of, done[s], strict=True) if not o]
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
    failed = tally.failed
    with tqdm(total=len(todo) + len(ready), desc=unit, unit="submission") as bar:

        def finish(best: Outcome) -> None:
            attempts = len(tickets[best.student])
            best = store.last(best, attempts) or best
            if attempts > 1:
                store.keep(best)
            _enter(best, store, writer, tally, bar)

        try:
            for best in ready:
                finish(best)
                bar.update()
            for outcome in pool.run(map(run.job, todo)) if todo else ():
                of, outcomes = tickets[outcome.student], done[outcome.student]
                if len(of) == 1:
                    _compare(outcome, store.outcome(outcome.student))
                store.keep_try(outcome, len(of))
                place = [ticket.key for ticket in of].index(outcome.key)
                outcomes[place] = _light(outcome)
                if all(outcomes):
                    finish(_best(outcomes))
                bar.update()
        finally:
            pool.close()
    if tally.failed == failed:
        store.end_run()


def _light(outcome: Outcome | None) -> Outcome | None:
    """Leave the notebook out, so that a thousand outcomes fit into memory."""
    return outcome and replace(outcome, notebook="")


def _compare(outcome: Outcome, before: Outcome | None) -> None:
    """Warn of a file that earns less than the one that stood before it."""
    known = before and before.status == "graded" and before.file not in ("", outcome.file)
    if before and known and outcome.points < before.points:
        words = f"{before.points:g} points, this one {outcome.points:g}"
        outcome.eye.append(f"the file graded before this one earned {words}")


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


@dataclass(frozen=True)
class Ticket:
    """One file that is to be graded: all of a job but its content, which is read when needed.

    Attributes:
        student: whose it is.
        key: a hash of all that the result depends on.
        file: a hash of its content.
        path: where it lies.
        refused: why it cannot be read, or "".
    """

    student: str
    key: str
    file: str
    path: Path | None
    refused: str = ""


@dataclass(frozen=True)
class _Run:
    """What all jobs of a unit in one run share."""

    root: Path
    coursedir: CourseDirectory
    unit: str
    settings: Settings
    release: str
    context: str
    seeds: dict[str, int]

    @classmethod
    def open(
        cls, root: Path, coursedir: CourseDirectory, unit: str, settings: Settings, store: Store
    ) -> _Run:
        """Begin a run, or go on with the one that was interrupted, with its seeds."""
        folder = coursedir.format_path(coursedir.release_directory, ".", unit)
        path = Path(folder) / f"{unit}.ipynb"
        if not path.is_file():
            raise CourseError(f"There is no released notebook {path}.")
        release = path.read_text("utf-8")
        try:
            template = Template.read(path)
        except ValueError as error:
            raise CourseError(str(error)) from None
        chosen = repr(sorted(asdict(settings.limits).items())) + str(settings.everything)
        context = digest(release.encode(), code_digest().encode(), chosen.encode())
        seeds = store.begin_run(context, sorted(template.by_check))
        return cls(root, coursedir, unit, settings, release, context, seeds)

    def tickets(self) -> dict[str, list[Ticket]]:
        """List what was handed in, by the student; each attempt, if the best one counts."""
        found: dict[str, list[Ticket]] = {}
        for student, folder in submissions(self.coursedir, self.unit):
            try:
                last = self._ticket(student, find_notebook(folder, self.unit))
            except Refused as reason:
                last = self._ticket(student, None, str(reason))
            best = self.settings.policy == "best"
            paths = Attempts(self.root, self.unit, student).files() if best else []
            earlier = [self._ticket(student, path) for path in paths]
            found[student] = [*(t for t in earlier if t.file != last.file), last]
        return found

    def _ticket(self, student: str, path: Path | None, refused: str = "") -> Ticket:
        content = b"" if path is None else read_file(path)
        key = digest(self.context.encode(), content, refused.encode())
        return Ticket(student, key, digest(content), path, refused)

    def job(self, ticket: Ticket) -> Job:
        """Make a job, now that a worker is free."""
        content, refused = b"", ticket.refused
        try:
            content = read_file(ticket.path) if ticket.path else b""
        except Refused as reason:
            refused = str(reason)
        return Job(
            self.unit,
            ticket.student,
            ticket.key,
            content,
            self.release,
            self.seeds,
            limits=self.settings.limits,
            sandboxed=self.settings.sandboxed,
            everything=self.settings.everything,
            refused=refused,
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
