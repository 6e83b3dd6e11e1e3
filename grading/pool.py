"""Worker processes for jobs: each with a sandbox of its own, replaced when it dies."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from grading.outcome import Job, Outcome, failed

_server: Any = None  # of this worker process


def work(job: Job, tries: int = 2) -> Outcome:
    """Grade a job in this process, on a fork server that it keeps.

    This is all that an executor has to be able to run elsewhere: a function of plain data.

    Args:
        job: what to grade.
        tries: how many fork servers the job may see end.
    """
    from grading.forkserver import ServerGone
    from grading.job import grade
    from grading.sandbox import require_sandbox

    try:
        if job.sandboxed:
            require_sandbox()
        return grade(job, _fork_server(job))
    except ServerGone:
        close()
        return work(job, tries - 1) if tries > 1 else failed(job, traceback.format_exc(limit=-3))
    except Exception:
        close()  # whatever it is in, a new one is in a known state
        return failed(job, traceback.format_exc(limit=-3))


def _fork_server(job: Job) -> Any:
    """Give this process's fork server; a new one where it ended or was made for other limits."""
    from grading.forkserver import ForkServer

    global _server
    made_for = job.limits, job.sandboxed
    if _server is None or _server.process.poll() is not None or _server.made_for != made_for:
        close()
        _server = ForkServer(*made_for)
        _server.made_for = made_for
    return _server


def close() -> None:
    """End this process's fork server."""
    global _server
    if _server is not None:
        _server.close()
        _server = None


class LocalPool:
    """A number of worker processes on this machine.

    Args:
        count: how many.
        tries: how often a job is given out again when the worker that had it died.
    """

    def __init__(self, count: int, tries: int = 2) -> None:
        self.count, self.tries = max(1, count), tries
        self.context = multiprocessing.get_context("spawn")
        self.workers: dict[Connection, Any] = {}

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Grade the jobs and yield the outcomes as they come."""
        waiting = iter(jobs)
        busy: dict[Connection, tuple[Job, int]] = {}

        def give(connection: Connection, job: Job | None, tried: int = 0) -> None:
            job = job or next(waiting, None)
            if job is None:
                self._dismiss(connection)
            else:
                busy[connection] = (job, tried)
                connection.send(job)

        for _ in range(self.count):
            give(self._hire(), None)
        while busy:
            for connection in wait(list(busy)):
                job, tried = busy.pop(connection)
                try:
                    outcome: Outcome | None = connection.recv()
                except (EOFError, OSError):
                    outcome = None
                if outcome is not None:
                    yield outcome
                    give(connection, None)
                    continue
                self._dismiss(connection)
                if tried + 1 < self.tries:
                    give(self._hire(), job, tried + 1)
                else:
                    yield failed(job, "the worker process died while grading it")
                    give(self._hire(), None)

    def close(self) -> None:
        """End the workers."""
        for connection in list(self.workers):
            self._dismiss(connection)

    def _hire(self) -> Connection:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        self.workers[ours] = process
        return ours

    def _dismiss(self, connection: Connection) -> None:
        process = self.workers.pop(connection, None)
        connection.close()
        if process is not None:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(connection: Connection, parent: int) -> None:
    """Take jobs until there are no more, or until nobody is there to give any."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the parent
        if os.getppid() != parent:
            return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that collects
    try:
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, OSError):
        pass
    finally:
        close()
