"""The grader's handle on the process that kernels are forked from."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from grading import sandbox
from grading.sandbox import MEGABYTE, Limits

LOCK = ".lock"
PRELOAD = (
    *("torch", "torch.nn", "torch.nn.functional", "torch.optim", "numpy", "safetensors.torch"),
    *("matplotlib", "matplotlib.pyplot", "tqdm.auto"),
    *("ipykernel.kernelapp", "IPython.display", "kdlib", "kdlib.notebook.plots"),
    # imported by the first optimiser and figure, by the exercises, and by a kernel that starts
    *("torch._dynamo", "torch.distributed", "matplotlib.backends.backend_agg"),
    *("ipykernel.ipkernel", "ipykernel.debugger", "ipykernel.zmqshell", "tornado.platform.asyncio"),
    *("IPython.core.completerlib", "IPython.core.debugger", "IPython.core.oinspect"),
    *("IPython.extensions.storemagic", "faulthandler", "pdb"),
    *("kdlib.checks:catalogue", "kdlib.checks.observe:_warm_up"),
)


class ServerGone(RuntimeError):
    """The fork server ended, was killed, or does not answer; another one may do better."""


class ForkServer:
    """One running process inside the sandbox, from which kernels are forked, one at a time.

    Attributes:
        folder: a short-lived folder shared with the sandbox, for the kernels' sockets.
        spare: the manager of a kernel that was forked ahead of need, or None.
    """

    spare: Any = None

    def __init__(self, limits: Limits, sandboxed: bool = True) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix="kdg-")).resolve()
        self._lock = _locked(self.folder)
        self.scratch = Path(sandbox.SCRATCH) if sandboxed else self.folder / "scratch"
        if not sandboxed:
            self.scratch.mkdir()
        settings = {
            "sandbox": sandboxed,
            "scratch": str(self.scratch),
            "disk": limits.disk,
            "memory": limits.memory * MEGABYTE,
            "processes": limits.processes,
            "preload": PRELOAD,
            "limits": {
                "memory": 2 * limits.memory * MEGABYTE,
                "file_size": limits.disk * MEGABYTE,
                "processes": 4 * limits.processes if sandboxed else 1 << 20,
                "files": 512,
            },
        }
        inside = f"{sandbox.PLACE}/inside" if sandboxed else str(sandbox.INSIDE)
        wrapped = sandbox.command([self.folder]) if sandboxed else []
        self._log = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - closed by close
        self.process = subprocess.Popen(
            [*wrapped, sys.executable, f"{inside}/forkserver.py", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=sandbox.environment(sandboxed),
            text=True,
            bufsize=1,
        )
        self._count = 0
        self._answer(timeout=300)

    def room(self) -> Path:
        """Make an empty folder for a kernel's sockets; what was in the shared folder is removed."""
        for path in self.folder.iterdir():
            if path not in (self.scratch, self.folder / LOCK):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self._count += 1
        room = self.folder / f"k{self._count}"
        room.mkdir(mode=0o700)
        return room

    def ask(self, do: str, **arguments: str) -> dict:
        """Send one request and give the answer."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise ServerGone(self._last_words()) from error
        return self._answer(timeout=60)

    def _answer(self, timeout: float) -> dict:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.close()
            raise ServerGone(f"the fork server did not answer within {timeout:g} s")
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise ServerGone(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)  # its pipes close a moment before it is gone
        self._log.seek(0)
        said = self._log.read()[-2000:].decode(errors="replace").strip()
        return f"the fork server ended (exit status {self.process.poll()}): {said or 'no message'}"

    def close(self) -> None:
        """End the process, the sandbox and all that runs in it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            with contextlib.suppress(OSError):
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _locked(folder: Path) -> int:
    """Hold a lock in a folder for as long as this process lives."""
    number = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return number


def _sweep() -> None:
    """Remove the folders of processes that were killed: nobody holds their lock any more."""
    for folder in Path(tempfile.gettempdir()).glob("kdg-*"):
        try:
            status = folder.lstat()
            old = time.time() - status.st_mtime > 60  # a new one may not have its lock yet
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or not old:
                continue
            lock = _locked(folder)
        except OSError:  # it is in use, or somebody else was faster
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
