"""A forked process shuts itself off: own namespaces, own scratch disk, no capabilities, limits.

Runs inside the outer sandbox, on the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_libc = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NETWORK = 0x20000, 1 << 27, 1 << 28, 1 << 29, 1 << 30
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 1 << 14, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT = 1, 38, 24, 47


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def unshare() -> None:
    """Take namespaces of one's own; children (not this process) have process ids of their own."""
    user, group = os.getuid(), os.getgid()
    _call("unshare", NEW_USER | NEW_MOUNTS | NEW_IPC | NEW_PIDS | NEW_NETWORK)
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def private_disk(*folders: str, megabytes: int) -> None:
    """Put an empty disk of limited size, which nobody else sees, over each folder."""
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    options = f"size={megabytes}m,nr_inodes=20k,mode=700".encode()
    for folder in folders:
        _call("mount", b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)


def limits(memory: int, file_size: int, processes: int, files: int) -> None:
    """Set what this process and each of its children may use (bytes, bytes, counts)."""
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def die_with_parent() -> None:
    """Ask to be killed when the process that forked this one ends."""
    _libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every right that being the first user of a namespace brings, for good."""
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    _libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)())
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def close_all_but(kept: set[int]) -> None:
    """Close every file that was inherited, and read from and write to nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(number)
