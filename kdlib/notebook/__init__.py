"""What a notebook shows: plots, knobs, tables, progress, and what a submission lacks."""

from kdlib.notebook.progress import Dashboard
from kdlib.notebook.submission import Submission, check_submission
from kdlib.notebook.widgets import knobs

__all__ = ["Dashboard", "Submission", "check_submission", "knobs"]
