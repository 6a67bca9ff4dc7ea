"""Which process wrote something, and whether it still lives.

Drafts and claims carry these facts, so that leftovers of a killed process can be distinguished from
the work of a living one.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Process", "is_dead", "this_machine", "this_process"]


class Process(NamedTuple):
    """A process of some machine."""

    pid: int
    host: str
    """Name of the machine, for messages."""
    machine: str
    """Where the pid is valid, as ``this_machine``."""
    started: str
    """Clock tick at which it started, empty where the system does not say.

    A pid is given out again after a while; together with its start it is not.
    """


def this_process() -> Process:
    """The process that runs now."""
    pid = os.getpid()
    return Process(pid, socket.gethostname(), this_machine(), _started(pid))


@cache
def this_machine() -> str:
    """Name, boot and pid namespace: what two processes must share to see each other's pids.

    A name alone is not enough, for containers of many machines may bear the same.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        boot = namespace = ""
    return ":".join((socket.gethostname(), boot, namespace))


def is_dead(process: Process) -> bool:
    """True if it surely runs no more, False also where we cannot know, as on other machines."""
    if os.name != "posix" or process.machine != this_machine():
        return False  # on Windows, signal 0 would end the process
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, under another user
    status = _status(process.pid)
    if status and status[0] in "ZX":  # ended, only its parent has not asked how
        return True
    return bool(process.started and status and status[19] != process.started)


def _started(pid: int) -> str:
    """Start tick of a process from ``/proc``, empty on systems without."""
    status = _status(pid)
    return status[19] if status else ""


def _status(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the third on: state first, start tick at 19."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return status.rpartition(")")[2].split()  # the name before may hold blanks and brackets
