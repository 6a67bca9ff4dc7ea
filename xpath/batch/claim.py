"""Two processes, one slide: the first takes it, the other goes on.

A claim is a small file that only one process can create; it names its process. What a dead process
of this machine left behind is taken over; claims of other machines are believed, because from here
nobody can tell whether their process lives.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from xpath.store.process import Process, is_dead, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Busy", "claim", "claimant", "lock_of"]

UNREADABLE_SECONDS = 60.0
"""A lock without content is being written. After this time it is one that never will be."""


class Busy(Exception):
    """Raised by work on a slide that another process is working on."""


class Claimed(NamedTuple):
    """The content of a lock."""

    process: Process
    since: str
    """Date and time, UTC."""


@contextmanager
def claim(output: Path) -> Iterator[bool]:
    """True if this process now owns the making of an output, False if another one does.

    Args:
        output: The file or folder to be made; the lock is a hidden file beside it.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(output)
    owned = _create(lock) or _take_over(lock)
    try:
        yield owned
    finally:
        if owned:
            lock.unlink(missing_ok=True)


def claimant(output: Path) -> str:
    """Who makes an output now and what to do if nobody does, in words. Empty without a lock."""
    lock = lock_of(output)
    claimed = _read(lock)
    if claimed is None:
        return f"another process; if none is running, remove {lock}" if lock.exists() else ""
    process = claimed.process
    return (
        f"process {process.pid} on {process.host} since {claimed.since};"
        f" if it is gone, remove {lock}"
    )


def lock_of(output: Path) -> Path:
    """The lock of an output."""
    return output.with_name(f".{output.name}.lock")


def _create(lock: Path) -> bool:
    """Creates the lock, unless it exists."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(handle, _content())
    except OSError:  # the disk is full
        lock.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return True


def _take_over(lock: Path) -> bool:
    """Makes a dead process's lock ours.

    The lock is rewritten in place, while the system holds others of this machine off it: were it
    removed and made anew, a second process could remove the one that was just made.
    """
    try:
        import fcntl

        handle = os.open(lock, os.O_RDWR)
    except (ImportError, OSError):  # no such thing on Windows; or the lock has gone just now
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.fstat(handle).st_ino == lock.stat().st_ino
        if not (same and _is_stale(lock)):
            return False
        os.ftruncate(handle, 0)
        os.write(handle, _content())
    except OSError:  # held by another process that is taking over
        return False
    else:
        return True
    finally:
        os.close(handle)


def _is_stale(lock: Path) -> bool:
    claimed = _read(lock)
    if claimed is not None:
        return is_dead(claimed.process)
    return time.time() - lock.stat().st_mtime > UNREADABLE_SECONDS


def _content() -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({**this_process()._asdict(), "time": now}).encode()


def _read(lock: Path) -> Claimed | None:
    """The content of a lock, or None if it is gone or being written."""
    try:
        content = json.loads(lock.read_text())
        process = Process(int(content["pid"]), str(content["host"]), str(content["started"]))
        return Claimed(process, str(content["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
