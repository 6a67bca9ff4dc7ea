"""Two processes, one slide: the first takes it, the other goes on."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["claim"]


@contextmanager
def claim(output: Path) -> Iterator[bool]:
    """True if this process now owns the making of an output, False if another one does.

    The lock is a file that only one process can create. A lock whose process is dead is taken
    over, if that process ran on this host; locks of other hosts are believed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = output.with_name(f".{output.name}.lock")
    owned = _take(lock) or (_is_stale(lock) and _take_over(lock))
    try:
        yield owned
    finally:
        if owned:
            lock.unlink(missing_ok=True)


def _take(lock: Path) -> bool:
    me = {"pid": os.getpid(), "host": socket.gethostname(), "born": _birth(os.getpid())}
    draft = lock.with_name(f"{lock.name}.{os.getpid()}")
    draft.write_text(json.dumps(me))
    try:
        os.link(draft, lock)  # atomic, and never seen half-written
    except FileExistsError:
        return False
    else:
        return True
    finally:
        draft.unlink()


def _take_over(lock: Path) -> bool:
    """Removes a stale lock under a name of our own first, so that two cannot both take over."""
    old = lock.with_name(f"{lock.name}.{os.getpid()}.stale")
    try:
        lock.rename(old)
    except FileNotFoundError:
        return False
    old.unlink()
    return _take(lock)


def _is_stale(lock: Path) -> bool:
    try:
        owner = json.loads(lock.read_text())
        pid, host, born = int(owner["pid"]), owner["host"], owner["born"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(host == socket.gethostname() and _birth(pid) != born)


def _birth(pid: int) -> str:
    """When a process was started, so that a re-used pid is not mistaken; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
