"""A progress bar where someone is looking."""

from __future__ import annotations

import os
import sys

__all__ = ["bar"]


def bar(steps: range, wanted: bool | None = None, unit: str = "step"):
    """Show a bar where someone is looking; a short run shows none (it appears after 2 s)."""
    if wanted is None:
        batch = os.environ.get("NBGRADER_EXECUTION") or os.environ.get("CI")
        wanted = not batch and ("ipykernel" in sys.modules or sys.stderr.isatty())
    if not wanted:
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, delay=2, leave=False, unit=unit)
