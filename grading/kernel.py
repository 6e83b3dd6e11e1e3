"""jupyter_client's side of a sandboxed kernel: its provisioner, its manager, its client."""

from __future__ import annotations

import asyncio
from typing import Any

import zmq
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.connect import KernelConnectionInfo, channel_socket_types
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import KernelProvisionerBase

from grading.forkserver import ForkServer, ServerGone

LARGEST_MESSAGE = 64 << 20
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class ForkProvisioner(KernelProvisionerBase):
    """Starts kernels by forking the fork server, and ends them through it."""

    server: ForkServer
    _started = False

    @property
    def has_process(self) -> bool:
        """Whether a kernel was started and not ended."""
        return self._started

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Write the connection file; there is no command to format."""
        self.parent.write_connection_file()
        self.connection_info = self.parent.get_connection_info()
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Give the connection of the kernel that the manager had forked; `cmd` is not used."""
        self._started = True
        return self.connection_info

    async def poll(self) -> int | None:
        """Give None while the kernel runs, else its exit status; with its server it is gone, too.

        nbclient, which asks this while a cell runs, knows a dead kernel but no ServerGone.
        """
        if not self._started:
            return 0
        try:
            return self.server.ask("poll")["status"]
        except ServerGone:
            return 1

    async def wait(self) -> int | None:
        """Wait until the kernel has ended."""
        while (status := await self.poll()) is None:
            await asyncio.sleep(0.05)
        self._started = False
        return status

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and every process in its namespace."""
        self.server.ask("kill")

    async def terminate(self, restart: bool = False) -> None:
        """End the kernel as `kill` does: there is nothing to be polite to."""
        self.server.ask("kill")

    async def send_signal(self, signum: int) -> None:
        """Nothing: what has to stop is killed, and what was lost is run again."""

    async def cleanup(self, restart: bool = False) -> None:
        """Nothing: the next kernel's folder is made anew."""


class BoundedClient(AsyncKernelClient):
    """A client that takes no message above a size, and never asks anyone for input."""

    def _create_connected_socket(
        self, channel: str, identity: bytes | None = None
    ) -> zmq.sugar.socket.Socket:
        sock = self.context.socket(channel_socket_types[channel])
        sock.linger = 0
        sock.maxmsgsize = LARGEST_MESSAGE
        if identity:
            sock.identity = identity
        sock.connect(self._make_url(channel))
        return sock

    def start_channels(self, *args: bool, **kwargs: bool) -> None:
        """Start those that are needed: no input, no heartbeat (the provisioner knows)."""
        super().start_channels(stdin=False, hb=False)


class ForkedKernelManager(AsyncKernelManager):
    """Manages one kernel of a fork server, over sockets in a folder of its own.

    The kernel is forked at once: one that is made ahead of need is ready when it is started.
    """

    def __init__(self, server: ForkServer) -> None:
        room = server.room()
        ports = {f"{channel}_port": n for n, channel in enumerate(CHANNELS, 1)}
        super().__init__(
            transport="ipc",
            ip=str(room / "s"),
            connection_file=str(room / "c.json"),
            client_factory=BoundedClient,
            **ports,
        )
        self._kernel_spec = KernelSpec(argv=["fork"], display_name="kdgrade", language="python")
        self.provisioner = ForkProvisioner(
            kernel_id="kdgrade", kernel_spec=self._kernel_spec, parent=self
        )
        self.provisioner.server = server
        self.write_connection_file()
        server.ask("launch", connection_file=self.connection_file)
