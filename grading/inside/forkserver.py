"""The process that kernels are forked from: it has imported torch and kdlib, and waits.

Started once for each worker, inside the outer sandbox; no student's code ever runs in this
process. Reads one JSON request a line from standard input and answers each with a line.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys

import isolate


class Kernels:
    """The one kernel that is alive at a time, and a watch on what it uses."""

    def __init__(self, settings: dict) -> None:
        self.settings = settings
        self.pid = 0  # of the process that was forked
        self.first = 0  # of the first process in the kernel's own namespace; itself without one
        self.status: int | None = None
        self.why = ""
        self.peak = 0

    def launch(self, connection_file: str) -> dict:
        self.kill()
        self.status, self.why, self.peak = None, "", 0
        told, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become_kernel(connection_file, self.settings, tell)
            except BaseException as error:
                _say_why(connection_file, error)
            os._exit(71)
        os.close(tell)
        with os.fdopen(told) as answer:
            self.first = int(answer.readline() or self.pid)
        return {"pid": self.pid}

    def poll(self) -> dict:
        if self.pid and self.status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if done else None
        return {"status": self.status, "why": self.why, "peak": self.peak}

    def kill(self) -> dict:
        """End the kernel, and wait until the last process of its namespace is gone."""
        if self.pid and self.status is None:
            try:
                os.kill(self.first, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.poll()

    def check(self) -> dict:
        """Look now, so that what one cell has taken is not blamed on the next."""
        self.watch()
        return self.poll()

    def watch(self) -> None:
        """End the kernel when its processes are too many or use too much together."""
        if not self.pid or self.poll()["status"] is not None or not self.settings["sandbox"]:
            return
        processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        ours = [pid for pid in processes if pid not in (1, os.getpid(), self.pid)]
        sizes = [_memory(pid) for pid in ours]
        used = sum(private for private, _ in sizes)
        asked_for = max((virtual for _, virtual in sizes), default=0) - _memory(os.getpid())[1]
        self.peak = max(self.peak, used)
        most = self.settings["memory"]
        if used > most or asked_for > 1.5 * most:  # at 2 * most, nothing more is given
            self.why = "memory"
        elif len(ours) > self.settings["processes"]:
            self.why = "processes"
        if self.why:
            self.kill()


def _memory(pid: int) -> tuple[int, int]:
    """Give the bytes that a process has for itself, and those that it has asked for."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            virtual, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return (resident - shared) * page, virtual * page


def _become_kernel(connection_file: str, settings: dict, tell: int) -> None:
    """Shut this process off and run a kernel in it, until the kernel ends."""
    isolate.die_with_parent()
    with open(connection_file) as file:
        connection = json.load(file)
    if settings["sandbox"]:
        isolate.unshare()
        child = os.fork()  # the first process of the new process ids
        if child:
            os.write(tell, f"{child}\n".encode())
            isolate.close_all_but(set())
            os._exit(_wait_for(child))
        isolate.die_with_parent()
    listening = _open_doors(connection)
    if settings["sandbox"]:
        shared = os.path.dirname(os.path.dirname(connection_file))
        private = (shared, "/tmp", "/dev/shm", settings["scratch"])
        isolate.private_disk(*private, megabytes=settings["disk"])
        isolate.drop_capabilities()
    isolate.close_all_but(set(listening.values()))
    os.setsid()
    os.chdir(settings["scratch"])
    limits = dict(settings["limits"])
    with open("/proc/self/statm") as file:
        limits["memory"] += int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    isolate.limits(**limits)
    random.seed()
    import numpy

    numpy.random.seed()  # noqa: NPY002
    _run_kernel(connection, listening)


def _open_doors(connection: dict) -> dict[int, int]:
    """Listen on the kernel's sockets: port -> file descriptor."""
    listening = {}
    for channel in ("shell", "iopub", "stdin", "control"):
        port = connection[f"{channel}_port"]
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.bind(f"{connection['ip']}-{port}")
        door.listen(16)
        listening[port] = door.detach()
    return listening


def _run_kernel(connection: dict, listening: dict[int, int]) -> None:
    import zmq
    from ipykernel.kernelapp import IPKernelApp

    class Kernel(IPKernelApp):
        """A kernel on sockets that were opened before it gave up the right to open them."""

        def _try_bind_socket(self, s, port):
            s.setsockopt(zmq.USE_FD, listening[port])
            return super()._try_bind_socket(s, port)

        def init_heartbeat(self) -> None:
            """None: whether the process lives is asked of its parent."""

        def init_connection_file(self) -> None:
            self.load_connection_info(connection)

        def write_connection_file(self, **kwargs) -> None:
            """None: the grader wrote it, and it is out of sight by now."""

        def init_crash_handler(self) -> None:
            """None: the report would be ours."""

    app = Kernel.instance(log_level=50)
    app.initialize(["--HistoryManager.enabled=False", "--HistoryManager.hist_file=:memory:"])
    app.start()


def _wait_for(child: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _say_why(connection_file: str, error: BaseException) -> None:
    """Leave a note for the grader; impossible, and needless, once the folder is read-only."""
    try:
        with open(os.path.join(os.path.dirname(connection_file), "why"), "w") as file:
            file.write(f"{type(error).__name__}: {error}")
    except OSError:
        pass


def main() -> None:
    """Import what takes long, say so, and serve."""
    settings = json.loads(sys.argv[1])
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what an import prints is no answer
    sys.modules["debugpy"] = None  # nobody debugs here, and each kernel would import it
    for name in settings["preload"]:
        module, _, function = name.partition(":")
        with contextlib.suppress(ImportError, AttributeError):  # then the kernels do without
            module = importlib.import_module(module)
            if function:
                getattr(module, function)()
    gc.collect()
    gc.freeze()  # what was imported is shared with the kernels, and their collector leaves it be
    kernels = Kernels(settings)
    print(json.dumps({"ready": os.getpid()}), file=answers)
    while True:
        if not select.select([requests], [], [], 0.1)[0]:
            kernels.watch()
            continue
        line = requests.readline()
        if not line:
            break
        request = json.loads(line)
        what = request.pop("do")
        print(json.dumps(getattr(kernels, what)(**request)), file=answers)
    kernels.kill()


if __name__ == "__main__":
    main()
