"""Settings of every nbgrader command, of the formgrader and of the builder."""

import os
from pathlib import Path

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme, GetGrades

c = get_config()  # noqa: F821 - given by nbgrader
root = Path(__file__).resolve().parent

# The course's folders. solutions/ and notebooks/ are built by `make release`.
c.CourseDirectory.root = str(root)
c.CourseDirectory.course_id = "kd"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "notebooks"
c.CourseDirectory.ignore = [
    ".ipynb_checkpoints",
    "*.pyc",
    "__pycache__",
    "feedback",
    "*.bak.ipynb",  # a student's work that the builder set aside
]

# Where released and submitted work changes hands: a folder that all can write to. One machine
# needs nothing; on a shared disk, give its path in NBGRADER_EXCHANGE.
exchange = Path(os.environ.get("NBGRADER_EXCHANGE", root / ".exchange"))
exchange.mkdir(parents=True, exist_ok=True)
c.Exchange.root = str(exchange)
# Students work in notebooks/, so that is where fetch puts units and submit takes them from.
c.Exchange.assignment_dir = str(root / "notebooks")

# What a student finds in place of an answer. The rubric of a written answer stands in a locked
# cell after it: removed here, put back by autograde for the grader to see.
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("your answer goes here")'}
c.ClearSolutions.text_stub = "*Your answer goes here: double-click, and write over this line.*"
c.ClearMarkScheme.enforce_metadata = False

# Autograding. stderr (a warning, a progress bar) never costs a point: real failures arrive as
# errors. A check that was deleted is put back.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "(?s).*"
c.OverwriteCells.add_missing_cells = True
c.Execute.timeout = 300
c.Execute.startup_timeout = 180  # a busy machine takes its time to start a kernel
c.Execute.shutdown_kernel = "immediate"

# Feedback holds neither hidden tests nor rubrics.
c.GenerateFeedback.preprocessors = [
    GetGrades,
    ClearHiddenTests,
    ClearMarkScheme,
    CSSHTMLHeaderPreprocessor,
]

# zip_collect: downloaded/02_soft_targets/archive/ada_02_soft_targets.ipynb, or that notebook in
# ada.zip or in a folder ada/.
c.FileNameCollectorPlugin.named_regexp = (
    r".*/extracted/(?:[^/]+/)*?(?P<student_id>[^/_]+)[_/](?:.*/)?(?P<file_id>\d\d_\w+)"
)
