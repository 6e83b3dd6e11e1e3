"""The stored results of the course's experiments: read by notebooks, written by `evidence/`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence

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


def against(
    runs: Sequence[Mapping[str, Mapping[str, float]]], baseline: str, digits: int = 4
) -> dict[str, dict[str, list[float]]]:
    """Turn the runs of all seeds into raw numbers and paired intervals against one arm.

    Args:
        runs: for each seed, arm -> metric -> number; every seed has the same arms and metrics.
        baseline: the arm that the others are compared with.
        digits: kept after the point.

    Returns:
        arm -> metric -> the numbers of all seeds, and for every arm but the baseline
        `"<metric>_difference"` -> [mean, low, high], the paired 95 % interval.

    Raises:
        ValueError: there is no such arm, or fewer than two seeds.
    """
    from kdlib.evaluation import paired_interval

    if len(runs) < 2 or baseline not in runs[0]:
        arms = sorted(runs[0]) if runs else []
        raise ValueError(f"needs 2 seeds and the arm {baseline!r}, got {len(runs)} of {arms}")
    found: dict[str, dict[str, list[float]]] = {}
    for arm, metrics in runs[0].items():
        found[arm] = {m: [round(float(run[arm][m]), digits) for run in runs] for m in metrics}
        for m in metrics if arm != baseline else ():
            interval = paired_interval([r[arm][m] for r in runs], [r[baseline][m] for r in runs])
            found[arm][f"{m}_difference"] = [round(v, digits) for v in interval[:3]]
    return found


def headline(
    claim: str,
    interval: Sequence[float],
    unit: str,
    over: str,
    places: int = 1,
    paper: str = "",
) -> dict:
    """Make one row of the README's table of what the experiments show.

    Args:
        claim: a short sentence.
        interval: mean, low, high, taken from the results.
        unit: of the effect, such as "points".
        over: what was repeated, such as "10 seeds".
        places: digits shown after the point.
        paper: what the paper reports, with its arXiv id and table.
    """
    mean, low, high = (round(float(v), 6) for v in interval[:3])
    if not low <= mean <= high:
        raise ValueError(f"interval must be mean, low, high; got {mean}, {low}, {high}")
    return {
        "claim": claim,
        "interval": [mean, low, high],
        "unit": unit,
        "over": over,
        "places": places,
        "paper": paper,
    }


def store(name: str, payload: dict, headlines: Sequence[dict] = ()) -> None:
    """Write a result together with the environment it was made in, atomically.

    Args:
        name: the module in `evidence/` that made it, such as "u02_soft_targets".
        payload: plain data: settings, seeds, raw numbers, intervals.
        headlines: rows for the README, made by `headline`.
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
    whole = {**payload, "headlines": list(headlines), "environment": environment}
    text = json.dumps(whole, indent=1, sort_keys=True)
    new.write_text(text + "\n", encoding="utf-8")
    os.replace(new, file)
