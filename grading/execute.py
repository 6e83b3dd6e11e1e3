"""Running one submission's cells: a notebook client with limits, and what is kept of outputs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from grading.forkserver import ForkServer, ServerGone
from grading.kernel import ForkedKernelManager
from grading.sandbox import MEGABYTE, Limits
from kdlib.checks import wire

SAFE = ("text/plain", "image/png", "image/jpeg")  # nothing that a browser would run
MOST_IN_A_CELL = MEGABYTE
CUT = "\n[the grader kept only the beginning of this output]\n"


class Lost(Exception):
    """The kernel is gone, or had to go.

    Attributes:
        why: in words for the student, as they fit after the name of what was run.
        died: True when it ended by itself or for what all its processes used; then the cell that
            was running is not necessarily the one to blame.
    """

    def __init__(self, why: str, died: bool = False) -> None:
        super().__init__(why)
        self.why, self.died = why, died


class Client(NotebookClient):
    """nbclient's, keeping harmless outputs only, up to a size, and records aside."""

    def __init__(self, km: AsyncKernelManager, limits: Limits) -> None:
        super().__init__(
            new_notebook(),
            km=km,
            allow_errors=True,
            store_widget_state=False,
            coalesce_streams=True,
            shutdown_kernel="immediate",
            startup_timeout=180,
            iopub_timeout=10,
            raise_on_iopub_timeout=False,
        )
        self.limits = limits
        self.kept = 0  # characters, of the whole submission
        self.kept_here = 0  # of this cell
        self.records: list[Any] = []

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        """Let a message through if it is well formed, safe and not too large."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "status":
            return super().process_message(msg, cell, cell_index)
        data = content.get("data")
        if kind == "display_data" and isinstance(data, dict) and wire.MIME in data:
            self.records.append(data[wire.MIME])
            return None
        if (output := _harmless(kind, content)) is None:
            return None
        size = _size(output)
        if self.kept_here >= 0 and self._fits(size):
            self.kept += size
            self.kept_here += size
            cell.outputs.append(output)
        elif self.kept_here >= 0:
            cell.outputs.append(new_output("stream", name="stdout", text=CUT))
            self.kept_here = -1
        return None

    def _fits(self, size: int) -> bool:
        here = self.kept_here + size <= MOST_IN_A_CELL
        return here and self.kept + size <= self.limits.output * MEGABYTE


def _harmless(kind: str, content: dict) -> NotebookNode | None:
    """Make an output out of what is safe in a message; None when nothing is."""
    if kind == "stream" and isinstance(content.get("text"), str):
        name = "stderr" if content.get("name") == "stderr" else "stdout"
        return new_output("stream", name=name, text=_clean(content["text"]))
    if kind == "error":
        name, value = (_clean(str(content.get(k, "")))[:10_000] for k in ("ename", "evalue"))
        lines = content.get("traceback")
        lines = [_clean(str(x)) for x in lines[:200]] if isinstance(lines, list) else []
        return new_output("error", ename=name, evalue=value, traceback=lines)
    if kind in ("display_data", "execute_result") and isinstance(content.get("data"), dict):
        data = {k: _clean(v) for k, v in content["data"].items() if k in SAFE and type(v) is str}
        # Never an execute_result: nbgrader would read points from it, were the cell graded.
        return new_output("display_data", data=data) if data else None
    return None


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")


def _size(output: NotebookNode) -> int:
    if output.output_type == "stream":
        return len(output.text)
    if output.output_type == "error":
        return len(output.evalue) + sum(map(len, output.traceback))
    return sum(map(len, output.data.values()))


class Life:
    """One kernel from its start to its end."""

    def __init__(self, server: ForkServer, limits: Limits, deadline: float) -> None:
        self.server, self.limits, self.deadline = server, limits, deadline

    async def __aenter__(self) -> Life:
        """Start the kernel, and once more if it does not answer."""
        try:
            await self._start()
        except ServerGone:
            raise
        except RuntimeError:
            self.server.ask("kill")
            await self._start()
        return self

    async def _start(self) -> None:
        manager, self.server.spare = self.server.spare, None
        self.client = Client(manager or ForkedKernelManager(self.server), self.limits)
        await self.client.async_start_new_kernel()
        await self.client.async_start_new_kernel_client()

    async def __aexit__(self, *error: object) -> None:
        """End it, whatever happened, and have the next one forked while others work."""
        try:
            await self.client._async_cleanup_kernel()
        except ServerGone:
            raise
        except Exception:
            self.server.ask("kill")
        self.server.spare = ForkedKernelManager(self.server)

    async def run(self, source: str, limit: float | None = None) -> list[NotebookNode]:
        """Run some source and give its outputs.

        Raises:
            Lost: the kernel is of no more use; the message says why, in words for the student.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Lost(f"the whole notebook took more than {self.limits.total:g} s")
        seconds = min(limit or self.limits.cell, left)
        cell = new_code_cell(source)
        self.client.nb.cells = [cell]
        self.client.kept_here = 0
        self.client.timeout = max(1, round(seconds))
        try:
            await asyncio.wait_for(self.client.async_execute_cell(cell, 0), seconds + 30)
        except ServerGone:
            raise
        except (CellTimeoutError, TimeoutError):
            raise Lost(f"it was stopped after {seconds:.0f} s") from None
        except DeadKernelError:
            raise Lost(self._cause(), died=True) from None
        except Exception as error:  # a malformed message, say
            raise Lost(f"its messages could not be read ({type(error).__name__})") from error
        if self.server.ask("check")["status"] is not None:
            raise Lost(self._cause(), died=True)
        return cell.outputs

    async def observe(self, exercise_id: str, name: str, seed: int, limit: float) -> Any:
        """Have an answer observed in the kernel and give what came back: one text, or None."""
        self.client.records = []
        await self.run(
            f"__import__('kdlib.checks.wire', fromlist=['*']).publish("
            f"{exercise_id!r}, lambda: {name}, {seed})",
            limit,
        )
        return self.client.records[0] if len(self.client.records) == 1 else None

    def _cause(self) -> str:
        end = self.server.ask("poll")
        if end["why"] == "memory":
            return f"it took more than {self.limits.memory} MB of memory"
        if end["why"] == "processes":
            return f"it started more than {self.limits.processes} processes"
        return "it ended the Python process"
