"""`make bench`: importing kdlib against torch alone, and each check on every known answer."""

from __future__ import annotations

import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

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


def optimiser_seconds() -> float:
    """CPU seconds that a fresh process spends on its first optimiser, where torch loads a compiler.

    The first training step of a notebook pays this once, be it in a cell or in a check.
    """
    code = (
        "import time, torch; w = torch.zeros(1, requires_grad=True); t = time.process_time();"
        "w.sum().backward(); torch.optim.SGD([w]).step(); print(time.process_time() - t)"
    )
    return float(subprocess.check_output([sys.executable, "-c", code], text=True))


def checks(rounds: int = 3) -> None:
    """Time `check` for each exercise, in CPU time: a right answer, the stub, each known mistake.

    Cold is a check of a process that knows nothing of the exercise yet; warm, one that comes after
    others of the same exercise.
    """
    import torch

    from kdlib.checks import catalogue, check
    from kdlib.checks.known import known

    def stub(*args, **kwargs):
        raise NotImplementedError("your answer goes here")

    def ms(exercise_id: str, answer: Callable) -> float:
        start = time.process_time()
        check(exercise_id, answer)
        return 1000 * (time.process_time() - start)

    torch.optim.SGD([torch.zeros(1, requires_grad=True)]).step()
    right = {e.id: answers_of(e.id)[0] for e in catalogue().values()}
    print(f"{'check, ms of CPU: cold / warm':<30}{'right':>14}{'stub':>14}{'wrong':>14}   slowest")
    every: dict[str, list[float]] = {"cold": [], "warm": []}
    for exercise in catalogue().values():
        answers = {"right": right[exercise.id], "stub": stub}
        answers |= {m.name: m.answer for m in exercise.mistakes}
        cold, warm = {}, {}
        for name, answer in answers.items():
            known.cache_clear()
            cold[name] = ms(exercise.id, answer)
            warm[name] = statistics.median(ms(exercise.id, answer) for _ in range(rounds))
        every["cold"] += cold.values()
        every["warm"] += warm.values()
        worst = max(cold, key=cold.__getitem__)
        columns = [f"{cold[name]:>7.0f} /{warm[name]:>4.0f} " for name in ("right", "stub")] + [
            f"{middle(cold):>7.0f} /{middle(warm):>4.0f} "
        ]
        print(f"{exercise.id:<30}{''.join(columns)}  {cold[worst]:>4.0f} ({worst})", flush=True)
    for name, times in every.items():
        times = sorted(times)
        print(
            f"{name}: median {statistics.median(times):.0f} ms, "
            f"99 of 100 under {times[int(0.99 * len(times))]:.0f} ms, slowest {times[-1]:.0f} ms"
        )
    print(f"the first optimiser of a process, once: {1000 * optimiser_seconds():.0f} ms")


def middle(times: dict[str, float]) -> float:
    """Median over the known mistakes."""
    return statistics.median(t for name, t in times.items() if name not in ("right", "stub"))


def answers_of(exercise_id: str) -> list[Callable]:
    """Right answers to an exercise, out of the tests."""
    return importlib.import_module(f"tests.answers.u{exercise_id[:2]}").ANSWERS[exercise_id]


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    imports()
    checks()
