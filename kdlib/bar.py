"""A progress bar where someone is looking."""

from __future__ import annotations

import sys

__all__ = ["bar", "watched"]


def watched() -> bool:
    """Say whether somebody looks on while this runs: at a notebook's page, or at a terminal.

    A page lets a cell ask its reader something (`allow_stdin`); nbclient, and so the builder,
    nbgrader and nbval, do not.
    """
    if "ipykernel" not in sys.modules:
        return sys.stderr.isatty()
    if "google.colab" in sys.modules:  # it asks in a way of its own
        return True
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel else {}
    return bool(request.get("content", {}).get("allow_stdin"))


def bar(steps: range, wanted: bool | None = None, unit: str = "step"):
    """Show a bar where someone is looking; a short run shows none (it appears after 2 s)."""
    if not (watched() if wanted is None else wanted):
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, delay=2, leave=False, unit=unit)
