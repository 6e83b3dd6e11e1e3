"""The first half of a check: run an answer on the probes and write down what happens."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlib.checks.exercise import Arguments, Exercise, Probe
from kdlib.checks.guard import Forbid, ForbiddenCall, TookTooLong, quiet_and_repeatable, time_limit
from kdlib.checks.record import Observation, as_tensor, plain, same
from kdlib.seal import SealedError, sealed

_LIBRARIES = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parents[1]))


def observe(
    exercise: Exercise, answer: Callable, seed: int = 0, is_reference: bool = False
) -> dict[str, Observation]:
    """Run `answer` on every probe of `exercise`.

    Args:
        exercise: where the probes come from.
        answer: the student's function or class, a known mistake, or the reference.
        seed: of the probe inputs; every probe draws from a generator with this seed, so that two
            probes can share their inputs up to what is being varied.
        is_reference: True leaves the reference unsealed and lets it call what it likes.

    Returns:
        The record: one `Observation` for each probe, plain data only.
    """
    record: dict[str, Observation] = {}
    stop = False
    if any(probe.run for probe in exercise.probes):
        _warm_up()
    for number, probe in enumerate(exercise.probes):
        if stop:
            record[probe.name] = Observation(status="skipped")
            continue
        first = _observe_once(exercise, probe, answer, seed, is_reference)
        if number == 0 and first.status == "returned" and not (exercise.random or is_reference):
            again = _observe_once(exercise, probe, answer, seed, is_reference, salt=1)
            a, b = first.fields(), again.fields()
            first.steady = a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        record[probe.name] = first
        stop = first.status == "timeout"
    return record


@functools.cache
def _warm_up() -> None:
    """Step once: the first optimiser imports for a second, which is not the student's time."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight]).step()


def _observe_once(
    exercise: Exercise, probe: Probe, answer: Callable, seed: int, is_reference: bool, salt: int = 0
) -> Observation:
    arguments = probe.make(torch.Generator().manual_seed(seed))
    for name in probe.gradients:
        arguments[name].requires_grad_(True)
    before = {k: v.detach().clone() for k, v in arguments.items() if isinstance(v, Tensor)}
    free = is_reference
    seals = nullcontext() if free else sealed(exercise.id, *exercise.seals)
    forbid = nullcontext() if free or not exercise.forbids else Forbid(exercise.forbids)
    seen = Observation()
    start = time.perf_counter()
    try:
        with quiet_and_repeatable(seed + salt), time_limit(exercise.seconds), seals, forbid:
            result = (probe.run or _call)(answer, arguments)
            seen.value = plain(result)
        seen.gradients = _gradients(result, arguments, probe)
    except NotImplementedError:
        seen.status = "not implemented"
    except TookTooLong:
        seen.status = "timeout"
    except (SealedError, ForbiddenCall) as error:
        seen.status = "sealed" if isinstance(error, SealedError) else "forbidden"
        seen.error, seen.where = str(error), _where(error)
    except (Exception, SystemExit) as error:
        seen.status, seen.error_type = "raised", type(error).__name__
        seen.error, seen.where = str(error), _where(error)
    seen.seconds = time.perf_counter() - start
    seen.changed = [
        name for name, old in before.items() if not same(arguments[name], old, rtol=0.0, atol=0.0)
    ]
    return seen


def _call(answer: Callable, arguments: Arguments) -> Any:
    return answer(*arguments.values())


def _gradients(result: Any, arguments: Arguments, probe: Probe) -> dict[str, Tensor | None]:
    """Differentiate the result's sum; None stands for 'no gradient arrives'."""
    inputs = [arguments[name] for name in probe.gradients]
    if not inputs:
        return {}
    total = as_tensor(result)
    if total is None or not total.requires_grad:
        return dict.fromkeys(probe.gradients)
    found = torch.autograd.grad(total.sum(), inputs, allow_unused=True)
    return {
        name: None if gradient is None else gradient.detach()
        for name, gradient in zip(probe.gradients, found, strict=True)
    }


def _where(error: BaseException) -> str:
    """Name the last line of the student's own code: not ours, not a library's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_LIBRARIES)
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f"line {last.lineno} of {last.name}: {last.line}" if last.line else ""
