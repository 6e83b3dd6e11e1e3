"""A course folder, and nbgrader's own commands run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook

from grading.notebooks import REPOSITORY


@dataclass(frozen=True)
class Course:
    """A folder with the configuration and the solutions of this repository, and its gradebook.

    Attributes:
        root: the folder; `Course.create` makes it.
    """

    root: Path

    @classmethod
    def create(cls, root: Path, units: list[str]) -> Course:
        """Make the folder and generate the units' assignments, which fills the gradebook."""
        course = cls(root)
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "nbgrader_config.py", root)
        for unit in units:
            shutil.copytree(REPOSITORY / "solutions" / unit, root / "solutions" / unit)
            course.nbgrader("generate_assignment", unit)
        return course

    def nbgrader(self, *arguments: str, cwd: Path | None = None, fails: bool = False) -> str:
        """Run `nbgrader ARGUMENTS` in the course folder and return what it printed.

        Raises:
            RuntimeError: it failed, unless `fails` says that it may.
        """
        # What the course's tests set for themselves is no part of an instructor's environment.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KDLIB_")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=cwd or self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode and not fails:
            raise RuntimeError(f"nbgrader {' '.join(arguments)} failed:\n{done.stdout[-4000:]}")
        return done.stdout

    def submit(self, student: str, unit: str, notebook: NotebookNode) -> None:
        """Put a notebook where `nbgrader collect` would have put it."""
        folder = self.root / "submitted" / student / unit
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / f"{unit}.ipynb")

    def scores(self, unit: str) -> dict[str, dict[str, float]]:
        """The autograded points: student -> grade_id -> points."""
        with Gradebook(f"sqlite:///{self.root / 'gradebook.db'}") as gradebook:
            return {
                submission.student.id: {
                    grade.name: grade.auto_score or 0.0
                    for notebook in submission.notebooks
                    for grade in notebook.grades
                    if grade.cell.cell_type == "code"
                }
                for submission in gradebook.assignment_submissions(unit)
            }

    def feedback(self, student: str, unit: str) -> Path:
        """Where `nbgrader generate_feedback` left a student's page."""
        return self.root / "feedback" / student / unit / f"{unit}.html"
