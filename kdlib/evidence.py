"""The stored results of the course's experiments: read by notebooks, written by `evidence/`."""

from __future__ import annotations

import json
import os
import platform

from kdlib.assets import FOLDER

_RESULTS = FOLDER / "evidence"


def load(name: str) -> dict:
    """Read a stored result, such as "u02_soft_targets".

    Raises:
        FileNotFoundError: there is none of that name.
    """
    file = _RESULTS / f"{name}.json"
    if not file.exists():
        known = sorted(f.stem for f in _RESULTS.glob("*.json"))
        raise FileNotFoundError(f"no stored result {name!r}; there are {known}")
    return json.loads(file.read_text(encoding="utf-8"))


def store(name: str, payload: dict) -> None:
    """Write a result together with the environment it was made in, atomically.

    Args:
        name: the module in `evidence/` that made it.
        payload: plain data: settings, seeds, raw numbers, intervals.
    """
    import torch

    environment = {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    _RESULTS.mkdir(exist_ok=True)
    file = _RESULTS / f"{name}.json"
    new = file.with_suffix(".tmp")
    text = json.dumps({**payload, "environment": environment}, indent=1, sort_keys=True)
    new.write_text(text + "\n", encoding="utf-8")
    os.replace(new, file)
