"""The grader's handle on the process that kernels are forked from."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grading import sandbox
from grading.sandbox import MEGABYTE, Limits

PRELOAD = (
    *("torch", "torch.nn", "torch.nn.functional", "torch.optim", "numpy", "safetensors.torch"),
    *("matplotlib", "matplotlib.pyplot", "tqdm.auto"),
    *("ipykernel.kernelapp", "IPython.display", "kdlib", "kdlib.notebook.plots"),
    # imported by the first optimiser and figure, and by the exercises
    *("torch._dynamo", "torch.distributed", "matplotlib.backends.backend_agg"),
    "kdlib.checks:catalogue",
)


class ForkServer:
    """One running process inside the sandbox, from which kernels are forked, one at a time.

    Attributes:
        folder: a short-lived folder shared with the sandbox, for the kernels' sockets.
    """

    def __init__(self, limits: Limits, sandboxed: bool = True) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"kdg-{os.getpid()}-")).resolve()
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
            if path != self.scratch:
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
            raise RuntimeError(self._last_words()) from error
        return self._answer(timeout=60)

    def _answer(self, timeout: float) -> dict:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.close()
            raise RuntimeError(f"the fork server did not answer within {timeout:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
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


def _sweep() -> None:
    """Remove what processes that were killed left behind."""
    for folder in Path(tempfile.gettempdir()).glob("kdg-*-*"):
        owner = folder.name.split("-")[1]
        gone = owner.isdigit() and not Path(f"/proc/{owner}").exists()
        status = folder.stat()
        if gone and status.st_uid == os.getuid() and time.time() - status.st_mtime > 86_400:
            shutil.rmtree(folder, ignore_errors=True)
