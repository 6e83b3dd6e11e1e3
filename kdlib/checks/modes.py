"""The process's modes: known ones for each call of an answer, the caller's own afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch.overrides import _get_current_function_mode_stack, _pop_mode

_DEPTH = 3_000  # frames; IPython itself needs more than Python's default of 1,000


class _Mode(NamedTuple):
    """A global setting: its name for students, how to read and write it, what a check expects."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], Any]
    known: Any


def _set_determinism(level: int) -> None:
    # `use_deterministic_algorithms` may import torch's compiler, which takes a second
    torch._C._set_deterministic_algorithms(level > 0, warn_only=level == 1)


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


_MODES = (
    _Mode("the default device", torch.get_default_device, torch.set_default_device, None),
    _Mode("the default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    _Mode("grad mode", torch.is_grad_enabled, torch.set_grad_enabled, True),
    _Mode("the number of threads", torch.get_num_threads, torch.set_num_threads, 1),
    _Mode("determinism", torch.get_deterministic_debug_mode, _set_determinism, 0),
    _Mode(
        "anomaly detection",
        _anomaly,
        lambda m: torch.autograd.set_detect_anomaly(*m),
        (False, True),
    ),
    _Mode(
        "autocast",
        lambda: torch.is_autocast_enabled("cpu"),
        lambda on: torch.set_autocast_enabled("cpu", on),
        False,
    ),
    _Mode(
        "the precision of matrix products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "highest",
    ),
)
_CPU = torch.device("cpu")


@contextlib.contextmanager
def known_modes(left: list[str] | None = None) -> Iterator[None]:
    """Set torch's global modes to what a check expects, and put the caller's back afterwards.

    Args:
        left: takes the names of the modes that were changed within the block and not put back.
    """
    depth = sys.getrecursionlimit()
    before = [_known(mode.get()) for mode in _MODES]
    functions = len(_get_current_function_mode_stack())
    training = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with training:
        try:
            _write([mode.known for mode in _MODES], before)
            if depth < _DEPTH:
                sys.setrecursionlimit(_DEPTH)
            yield
        finally:
            now = [_known(mode.get()) for mode in _MODES]
            if left is not None:
                left += [
                    mode.name
                    for mode, value in zip(_MODES, now, strict=True)
                    if value != mode.known
                ]
            _write(before, now)
            while len(_get_current_function_mode_stack()) > functions:
                _pop_mode()
            sys.setrecursionlimit(depth)


def _known(value: Any) -> Any:
    """Write the CPU as None, which is what takes a default device away again."""
    return None if value == _CPU else value


def _write(wanted: list, found: list) -> None:
    for mode, want, have in zip(_MODES, wanted, found, strict=True):
        if want != have:
            mode.set(want)
