"""`make bench`: importing kdlib against torch alone, and each check on every known answer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

os.environ["KDLIB_PROGRESS"] = "off"


def import_seconds(module: str, before: str = "") -> float:
    """Seconds that a fresh interpreter needs to import a module, once `before` has run."""
    timed = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    code = f"{before}\n{timed}"
    return float(subprocess.check_output([sys.executable, "-c", code], text=True))


def imports(rounds: int = 9) -> None:
    """Import torch and kdlib in turn, so that whatever else the machine does hits both alike."""
    pairs = [(import_seconds("torch"), import_seconds("kdlib")) for _ in range(rounds + 1)][1:]
    torch_s, kdlib_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(kdlib / torch for torch, kdlib in pairs)
    print(f"import torch {torch_s:.3f} s, import kdlib {kdlib_s:.3f} s: medians of {rounds} rounds")
    print(f"ratio within a round: {ratio:.3f}")
    extra = statistics.median(import_seconds("kdlib", before="import torch") for _ in range(rounds))
    print(f"import kdlib after torch, in the same process: {1000 * extra:.1f} ms\n")


def checks(rounds: int = 5) -> None:
    """Time `check` for each exercise: on the reference, and on every known mistake."""
    from kdlib.checks import catalogue, check

    for exercise in catalogue().values():  # the first check of a process pays for imports
        check(exercise.id, exercise.reference)
    print(f"{'check':<34}{'right, ms':>10}{'wrong, ms':>10}   slowest, ms")
    right, slowest = [], []
    for exercise in catalogue().values():
        answers = {"right": exercise.reference} | {m.name: m.answer for m in exercise.mistakes}
        medians = {}
        for name, answer in answers.items():
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                check(exercise.id, answer)
                times.append(1000 * (time.perf_counter() - start))
            medians[name] = statistics.median(times)
        right.append(medians.pop("right"))
        worst = max(medians, key=medians.__getitem__)
        slowest.append(max(right[-1], medians[worst]))
        wrong = statistics.median(medians.values())
        print(f"{exercise.id:<34}{right[-1]:>10.0f}{wrong:>10.0f}   {medians[worst]:.0f} ({worst})")
    print(f"\nmedian over the catalogue {statistics.median(right):.0f} ms (right answers)")
    print(f"slowest of all {max(slowest):.0f} ms")


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    imports()
    checks()
