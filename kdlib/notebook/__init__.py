"""What a notebook shows: plots, sliders, tables, progress, and what a submission lacks."""

from kdlib.notebook.progress import Dashboard
from kdlib.notebook.submission import Submission, check_submission
from kdlib.notebook.widgets import slider

__all__ = ["Dashboard", "Submission", "check_submission", "slider"]
