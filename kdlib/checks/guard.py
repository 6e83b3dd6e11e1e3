"""Limits around one call of a student's function: time, forbidden shortcuts, noise, chance."""

from __future__ import annotations

import contextlib
import ctypes
import io
import signal
import threading
import warnings
from collections.abc import Iterator

import torch
from torch.overrides import TorchFunctionMode


class TookTooLong(BaseException):
    """Raised inside the student's function when its time is up.

    Not an `Exception`, so that `except Exception` in an endless loop does not swallow it.
    """


class ForbiddenCall(RuntimeError):
    """The answer called a torch function that the exercise asks to do without."""


class Forbid(TorchFunctionMode):
    """Refuse the named torch functions, however they are reached (torch, Tensor, functional)."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = frozenset(names)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Raise when `func` is one of the forbidden names, else call it."""
        name = getattr(func, "__name__", "")
        if name.strip("_") in self.names:
            raise ForbiddenCall(name)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` in the current thread after `seconds`, on every platform.

    With SIGALRM where there is one (it also ends a sleep), otherwise with an asynchronous
    exception, which arrives at the next Python instruction.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and hasattr(signal, "SIGALRM"):

        def ring(signum, frame):
            raise TookTooLong

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return

    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, raise_in, (thread, ctypes.py_object(TookTooLong)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def quiet_and_repeatable(seed: int) -> Iterator[io.StringIO]:
    """Hide prints and warnings, seed torch, and give the caller's random state back afterwards.

    Yields:
        What was printed.
    """
    printed = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(printed),
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
    ):
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)  # torch.manual_seed looks at every device
        yield printed
