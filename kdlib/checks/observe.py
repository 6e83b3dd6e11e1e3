"""The first half of a check: run an answer on the probes and write down what happens."""

from __future__ import annotations

import dis
import sysconfig
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from kdlib.checks.exercise import Arguments, Exercise, Probe
from kdlib.checks.footprint import Footprint, seeded_again
from kdlib.checks.guard import Forbid, ForbiddenCall, TookTooLong, quiet_and_repeatable, time_limit
from kdlib.checks.modes import known_modes
from kdlib.checks.pristine import Builtins
from kdlib.checks.record import Observation, as_tensor, plain, same
from kdlib.seal import SealedError, sealed

STUB = "your answer goes here"  # what the stub of a released notebook raises
_LIBRARIES = (
    str(Path(__file__).parents[1]),
    str(Path(torch.__file__).parents[1]),
    sysconfig.get_path("stdlib"),
    "<frozen",
)
_RAISE = dis.opmap["RAISE_VARARGS"]
_OTHER_SEED = 0x5EED
_COINS = 0x5EED_0000  # no number that a student would give to `manual_seed`


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
    for number, probe in enumerate(exercise.probes):
        if stop:
            record[probe.name] = Observation(status="skipped")
            continue
        again = number == 0 and not is_reference
        seen = observe_probe(exercise, probe, answer, seed, is_reference, again)
        record[probe.name] = seen
        stop = seen.status == "timeout"
    return record


def observe_probe(
    exercise: Exercise,
    probe: Probe,
    answer: Callable,
    seed: int = 0,
    is_reference: bool = False,
    again: bool = False,
) -> Observation:
    """Run `answer` on one probe.

    Args:
        exercise: that the probe belongs to.
        probe: the situation.
        answer: what `observe` takes.
        seed: of the probe inputs.
        is_reference: as for `observe`.
        again: True calls the answer on other inputs of the same sizes, too, and then on the first
            ones once more, to see whether it remembers anything.

    Returns:
        What the first call showed, with `steady` and `echoes` from the later ones.
    """
    first = _observe_once(exercise, probe, answer, seed, is_reference)
    if again and first.status == "returned":
        other = _observe_once(exercise, probe, answer, seed ^ _OTHER_SEED, is_reference, salt=1)
        second = _observe_once(exercise, probe, answer, seed, is_reference, salt=1)
        a = first.fields()
        exact = {} if is_reference else {"rtol": 0.0, "atol": 0.0}
        first.echoes = _has_numbers(a) and _agree(a, other.fields(), **exact)
        first.steady = exercise.random or _agree(a, second.fields())
    return first


def _agree(a: dict, b: dict, **tolerance: float) -> bool:
    return a.keys() == b.keys() and all(same(a[key], b[key], **tolerance) for key in a)


def _has_numbers(fields: dict) -> bool:
    return any((isinstance(x, Tensor) and x.numel()) or type(x) is float for x in fields.values())


def _observe_once(
    exercise: Exercise, probe: Probe, answer: Callable, seed: int, is_reference: bool, salt: int = 0
) -> Observation:
    seals = nullcontext() if is_reference else sealed(exercise.id, *exercise.seals)
    forbid = nullcontext() if is_reference or not exercise.forbids else Forbid(exercise.forbids)
    seen = Observation()
    modes: list[str] = []
    coins = _COINS + seed + salt
    with quiet_and_repeatable(coins), known_modes(modes):
        arguments = probe.make(torch.Generator().manual_seed(seed))
        for name in probe.gradients:
            arguments[name].requires_grad_(True)
        prints = Footprint(arguments)
        start = time.perf_counter()
        try:
            with time_limit(exercise.seconds), seals:
                with forbid, Builtins():
                    result = (probe.run or _call)(answer, arguments)
                seen.value = plain(result)
                seen.gradients = _gradients(result, arguments, probe)
        except KeyboardInterrupt as error:
            if not _by_own_hand(error):
                raise
            _write_down(error, seen)
        except BaseException as error:  # SystemExit and the like are the answer's, too
            _write_down(error, seen)
        seen.seconds = time.perf_counter() - start
        changed, left = prints.traces()
        seen.changed = [name for name in changed if name not in probe.leaves]
        seen.left = [trace for trace in left if trace.partition(": ")[2] not in probe.leaves]
        if seeded_again(coins):
            seen.left.append("seed: torch")
    seen.left += [f"setting: {name}" for name in modes]
    return seen


def _write_down(error: BaseException, seen: Observation) -> None:
    """Say in the observation how the call ended."""
    match error:
        case TookTooLong():
            seen.status = "timeout"
            return
        case SealedError():
            seen.status = "sealed"
        case ForbiddenCall():
            seen.status = "forbidden"
        case NotImplementedError() if _is_stub(error):
            seen.status = "not implemented"
            return
        case _:
            kind = ValueError if isinstance(error, ValueError) else type(error)
            seen.status, seen.error_type = "raised", kind.__name__
    seen.error, seen.where = words_of(error), _where(error)


def words_of(error: BaseException) -> str:
    """Give an error's text, empty where it cannot be had."""
    try:
        return str(error)
    except Exception:
        return ""


def _is_stub(error: NotImplementedError) -> bool:
    """Tell the stub's own line from a library that cannot do what it was asked."""
    return words_of(error) in ("", STUB) and _by_own_hand(error)


def _by_own_hand(error: BaseException) -> bool:
    """Say whether a `raise` in the student's own code raised it: not torch, not a signal."""
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    code = last.tb_frame.f_code
    own = not code.co_filename.startswith(_LIBRARIES)
    return own and code.co_code[last.tb_lasti] == _RAISE


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
    try:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(_LIBRARIES)
        ]
    except Exception:  # the source is gone, or the error's traceback is none
        return ""
    if not frames:
        return ""
    last = frames[-1]
    return f"line {last.lineno} of {last.name}: {last.line}" if last.line else ""
