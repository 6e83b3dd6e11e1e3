"""Limits around one call of a student's function: time, forbidden shortcuts, noise, chance."""

from __future__ import annotations

import contextlib
import ctypes
import io
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import FrameType

import numpy as np
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


_LONGEST_IMPORT = 60.0  # seconds that imports may add
_BUSY = 5  # how many times as long a machine may take that others are using


class _Clock:
    """Decides, when time is up, whether it is up for the answer: others have their own time.

    An import does, and so have the other programs of a busy machine: what counts is the processor
    time of this one, unless the answer does nothing at all for `_BUSY` times its seconds.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun, self.used = time.monotonic(), time.process_time()
        self.last = self.begun + seconds + _LONGEST_IMPORT
        self.modules = len(sys.modules)
        self.running = True

    def more(self, frame: FrameType | None) -> bool:
        """Say whether the answer gets its seconds once more."""
        before, self.modules = self.modules, len(sys.modules)
        while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        now = time.monotonic()
        if frame or self.modules > before:
            self.begun, self.used = now, time.process_time()
            return now < self.last
        idle = time.process_time() - self.used < 0.9 * self.seconds
        return idle and now - self.begun < _BUSY * self.seconds


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` in the current thread after `seconds`, on every platform.

    With SIGALRM where there is one (it also ends a sleep), otherwise with an asynchronous
    exception, which arrives at the next Python instruction. Where modules were imported meanwhile
    the time starts anew, and an import is never cut: the first use of `torch.func` or of an
    optimiser loads for a second or two, and half a module is worse than none.
    """
    main = threading.current_thread() is threading.main_thread()
    limit = _alarm if main and hasattr(signal, "SIGALRM") else _timer
    clock = _Clock(seconds)
    with limit(clock):
        try:
            yield
        finally:
            clock.running = False


@contextlib.contextmanager
def _alarm(clock: _Clock) -> Iterator[None]:
    def ring(signum: int, frame: FrameType | None) -> None:
        if clock.running and clock.more(frame):
            start()
        elif clock.running:
            raise TookTooLong

    def start() -> None:
        signal.setitimer(signal.ITIMER_REAL, clock.seconds, min(0.2, clock.seconds))

    before = signal.signal(signal.SIGALRM, ring)
    masked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    start()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


@contextlib.contextmanager
def _timer(clock: _Clock) -> Iterator[None]:
    thread = threading.get_ident()
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def ring() -> None:
        if not clock.running:
            return
        if clock.more(sys._current_frames().get(thread)):
            start()
        else:
            raise_in(ctypes.c_ulong(thread), ctypes.py_object(TookTooLong))

    def start() -> None:
        timer = threading.Timer(clock.seconds, ring)
        timer.daemon = True
        timers.append(timer)
        timer.start()

    timers: list[threading.Timer] = []
    start()
    try:
        yield
    finally:
        timers[-1].cancel()


@contextlib.contextmanager
def quiet_and_repeatable(seed: int) -> Iterator[io.StringIO]:
    """Hide prints and warnings, seed torch, NumPy and Python, give the caller's states back.

    Yields:
        What was printed.
    """
    printed = io.StringIO()
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002, it is what students use
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(printed),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # torch.manual_seed looks at every device
        try:
            yield printed
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
