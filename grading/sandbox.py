"""The outer sandbox: what a worker's kernels can see, through bubblewrap.

Everything is read-only and nothing is there but Python, its packages and kdlib: no home, no
network, no course, no gradebook, no other submission. `grading/inside/` does the rest: each kernel
gets namespaces, a scratch disk and limits of its own.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSIDE = Path(__file__).resolve().parent / "inside"
LIBRARY = Path(importlib.util.find_spec("kdlib").origin).resolve().parent
PLACE = "/opt/kdgrade"
SCRATCH = f"{PLACE}/scratch"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
SYSTEM += ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
SYSTEM += ("/etc/fonts", "/etc/localtime")
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Attributes:
        memory: megabytes that all its processes may use together, beyond what was imported.
        processes: how many processes.
        disk: megabytes on each of its scratch disks, which lie in memory.
        output: megabytes of output that are kept of it.
        cell: seconds for one cell.
        total: seconds for the whole submission.
    """

    memory: int = 2048
    processes: int = 64
    disk: int = 64
    output: int = 4
    cell: float = 90.0
    total: float = 900.0


KILLED = (-9, -15, 137, 143)  # by a signal, or a program that was


class NoSandbox(RuntimeError):
    """Student code cannot be shut off on this machine; the message says why and what to do."""


@functools.cache
def require_sandbox() -> None:
    """Try the sandbox out.

    Raises:
        NoSandbox: it does not work here.
    """
    remedy = (
        "Students' code is not run without a sandbox. Install bubblewrap (Debian, Ubuntu: "
        "`apt install bubblewrap`; Fedora: `dnf install bubblewrap`), use a Linux machine that "
        "allows user namespaces, or read what `--no-sandbox` means in `kdgrade autograde --help`."
    )
    if sys.platform != "linux":
        raise NoSandbox(f"The sandbox needs Linux; this is {sys.platform}. {remedy}")
    if not shutil.which("bwrap"):
        raise NoSandbox(f"There is no `bwrap` on the PATH. {remedy}")
    if hidden := [path for path in _python() if path.startswith("/tmp/")]:
        raise NoSandbox(
            f"This Python lies in {hidden[0]}, and the sandbox has a /tmp of its own: install "
            "the course into an environment elsewhere."
        )
    probe = (
        f"import sys; sys.path.insert(0, {PLACE + '/inside'!r}); import isolate; "
        "isolate.unshare(); isolate.private_disk('/tmp', megabytes=1)"
    )
    done = _try_out(probe)
    if done.returncode in KILLED:
        done = _try_out(probe)
    if done.returncode in KILLED:
        raise NoSandbox(
            "The trial of the sandbox was killed twice, by somebody or because memory ran out. "
            "bubblewrap itself is there; run it again when the machine has room."
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NoSandbox(f"bubblewrap is installed, but does not work here: {last}. {remedy}")


def _try_out(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command([]), sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )


def command(writable: list[Path]) -> list[str]:
    """Give the bubblewrap command line up to the program; only `writable` can be written to."""
    seen = [part for path in SYSTEM for part in ("--ro-bind-try", path, path)]
    for path in _python():
        seen += ["--ro-bind", path, path]
    shared = [part for path in writable for part in ("--bind", str(path), str(path))]
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--uid", "1000", "--gid", "1000", "--hostname", "kdgrade"),
        *seen,
        *("--ro-bind", str(LIBRARY), f"{PLACE}/lib/kdlib"),
        *("--ro-bind", str(INSIDE), f"{PLACE}/inside"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", SCRATCH),
        *shared,
        *("--remount-ro", "/", "--remount-ro", "/dev", "--chdir", "/"),
    ]


def environment(sandboxed: bool = True) -> dict[str, str]:
    """Give the whole environment of the student's code: nothing of the instructor's is in it."""
    library = f"{PLACE}/lib" if sandboxed else str(LIBRARY.parent)
    return {
        "HOME": SCRATCH if sandboxed else "/tmp",
        "IPYTHONDIR": f"{SCRATCH if sandboxed else '/tmp'}/.ipython",
        "KDLIB_PROGRESS": "off",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": "/tmp",
        "NBGRADER_EXECUTION": "autograde",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": library,
    }


def _python() -> list[str]:
    """The folders that this Python and its packages lie in, without those inside of others."""
    paths = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)}
    paths |= {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    paths |= {path.resolve() for path in list(paths)}
    paths.add(Path(os.path.realpath(sys.executable)).parent.parent)
    kept: list[str] = []
    for path in sorted(map(str, paths)):
        if not any(path == k or path.startswith(f"{k}/") for k in (*kept, "/usr")):
            kept.append(path)
    return kept
