"""The one writer: outcomes into the gradebook and the autograded folder, by nbgrader's hand."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    OverwriteCells,
    SaveAutoGrades,
)
from sqlalchemy.exc import SAWarning
from traitlets import List
from traitlets.config import Config, PyFileConfigLoader

from grading.outcome import Outcome


class CourseError(Exception):
    """The course folder is not ready; the message says what to do."""


class UnknownUnit(CourseError):
    """There is no such unit, or it was not generated yet; the message says which there are."""


def read_config(root: Path, db: str = "") -> Config:
    """Read the course's nbgrader_config.py, from its folder, as nbgrader does."""
    if not (root / "nbgrader_config.py").exists():
        raise CourseError(f"There is no nbgrader_config.py in {root}: run kdgrade in the course.")
    before = os.getcwd()
    os.chdir(root)
    try:
        config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
    finally:
        os.chdir(before)
    config.CourseDirectory.root = str(root)
    if db:
        config.CourseDirectory.db_url = db
    return config


class EnterOutcome(Autograde):
    """nbgrader's autograde with a notebook that was executed elsewhere."""

    outcome: Outcome | None = None
    preprocessors = List([])

    def init_notebooks(self) -> None:
        """Take the one submission, whatever its file is called."""
        folder = self._format_source(self.coursedir.assignment_id, self.coursedir.student_id)
        notebook = os.path.join(folder, f"{self.coursedir.assignment_id}.ipynb")
        self.assignments = {folder: [notebook]}
        self.notebooks = []

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Enter the submission as nbgrader does, and keep when it was handed in."""
        super().init_assignment(assignment_id, student_id)
        stamp = Path(self._format_source(assignment_id, student_id)) / "timestamp.txt"
        if stamp.is_file() and not stamp.is_symlink():
            folder = Path(self._format_dest(assignment_id, student_id))
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(stamp, folder / "timestamp.txt")

    def _init_preprocessors(self) -> None:
        self.exporter._preprocessors = []
        for step in (OverwriteCells, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata):
            self.exporter.register_preprocessor(step, enabled=True)

    def convert_single_notebook(self, notebook_filename: str) -> None:
        """Enter the points and write the autograded notebook."""
        assert self.outcome
        resources = self.init_single_notebook_resources(notebook_filename)
        self._init_preprocessors()
        notebook = nbformat.reads(self.outcome.notebook, as_version=4)
        output, resources = self.exporter.from_notebook_node(notebook, resources)
        self.write_single_notebook(output, resources)


class Writer:
    """Enters outcomes, one after the other."""

    def __init__(self, config: Config) -> None:
        self.config = config.copy()
        self.config.CourseDirectory.ignore = ["*"]  # nothing but the notebook is anyone's business
        self.log = logging.getLogger("kdgrade.nbgrader")
        self.log.setLevel(logging.ERROR)
        self.coursedir = CourseDirectory(config=self.config)

    @property
    def url(self) -> str:
        """Where the gradebook is."""
        return self.coursedir.db_url

    def require(self, unit: str) -> None:
        """Refuse a unit that the gradebook does not know."""
        with Gradebook(self.url, self.coursedir.course_id) as gradebook:
            try:
                gradebook.find_notebook(unit, unit)
            except MissingEntry:
                raise UnknownUnit(
                    f"The gradebook does not know {unit}. Run `nbgrader generate_assignment "
                    f"{unit} --force` first, in the instructor's copy of the course."
                ) from None

    def graded(self, unit: str) -> set[str]:
        """Who has a submission of the unit in the gradebook and an autograded notebook."""
        with Gradebook(self.url, self.coursedir.course_id) as gradebook:
            known = {s.student_id for s in gradebook.assignment_submissions(unit)}
        return {student for student in known if self._autograded(unit, student).exists()}

    def enter(self, outcome: Outcome) -> None:
        """Enter one outcome; entering it again changes nothing.

        Raises:
            CourseError: nbgrader could not; the message has its last words.
        """
        said = _Ear()
        self.log.addHandler(said)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SAWarning)  # nbgrader's own, on a new submission
                self._enter(outcome)
        except Exception as error:
            words = " ".join(said.lines[-2:]) or f"{type(error).__name__}: {error}"
            raise CourseError(words) from error
        finally:
            self.log.removeHandler(said)
        if not self._autograded(outcome.unit, outcome.student).exists():
            raise CourseError(" ".join(said.lines[-2:]) or "no autograded notebook was written")

    def _enter(self, outcome: Outcome) -> None:
        self.coursedir.assignment_id = outcome.unit
        self.coursedir.student_id = outcome.student
        converter = EnterOutcome(
            coursedir=self.coursedir, config=self.config, log=self.log, force=True
        )
        converter.outcome = outcome
        converter.start()

    def _autograded(self, unit: str, student: str) -> Path:
        folder = self.coursedir.format_path(self.coursedir.autograded_directory, student, unit)
        return Path(folder) / f"{unit}.ipynb"


class _Ear(logging.Handler):
    """Remembers what nbgrader says goes wrong."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage()[-500:])
