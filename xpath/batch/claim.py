"""Two processes, one slide: the first takes it, the other goes on.

A claim is a small file that only one process can create. It names its process, which touches it
every few seconds while it works. What a dead process of this machine left behind is taken over at
once, and the claim of any other machine when it was not touched for two minutes. Ages are taken
from the clock of the file system, which all machines share.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from xpath.errors import XPathError
from xpath.store.process import Process, is_dead, this_process
from xpath.store.schema import fenced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Busy", "at_work", "claim", "claim_in_turn", "claimant", "is_orphan", "lock_of"]

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""How often a claimant touches its locks."""
LEASE_SECONDS = 120.0
"""A lock that was not touched for so long belongs to nobody: its machine is lost."""

POLL_SECONDS = 0.2
"""How often to look whether another process is through."""


class Busy(XPathError):
    """Another process is working on this. Wait for it, or call again later."""


class Claimed(NamedTuple):
    """The content of a lock."""

    process: Process
    since: str
    """Date and time, UTC."""
    token: str
    """Tells this claim from every other."""


@contextmanager
def claim(output: Path) -> Iterator[bool]:
    """True if this process now owns the making of an output, False if another one does.

    Should this process stand still for so long that another takes over, ``atomic`` refuses to write
    the output with ``Busy``: the successor's stays.

    Args:
        output: The file or folder to be made; the lock is a hidden file beside it.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lock, token = lock_of(output), uuid4().hex
    owned = _create(lock, token) or _take_over(lock, token)
    if not owned:
        yield False
        return
    with _heart.beating_for(lock), fenced(output, partial(_refuse_lost, output, token)):
        try:
            yield True
        finally:
            if _holds(lock, token):  # else it was taken over
                lock.unlink(missing_ok=True)


@contextmanager
def claim_in_turn(output: Path) -> Iterator[None]:
    """Waits until this process owns the making of an output, however long another one takes."""
    waiting_for = ""
    while True:
        with claim(output) as owned:
            if owned:
                yield
                return
        if waiting_for != (waiting_for := claimant(output)) and waiting_for:
            logger.warning("waiting for %s, which is at work on %s", waiting_for, output.name)
        time.sleep(POLL_SECONDS)


def claimant(output: Path) -> str:
    """Who makes an output now, in words. Empty without a lock."""
    lock = lock_of(output)
    claimed = _read(lock)
    if claimed is None:
        return "another process" if lock.exists() else ""
    process = claimed.process
    return f"process {process.pid} on {process.host} since {claimed.since}"


def at_work(outputs: Iterable[Path]) -> str:
    """Who makes one of several outputs now, in words. Empty if nobody does any more."""
    for output in outputs:
        if lock_of(output).exists() and not is_orphan(lock_of(output)):
            return claimant(output)
    return ""


def lock_of(output: Path) -> Path:
    """The lock of an output."""
    return output.with_name(f".{output.name}.lock")


def is_orphan(lock: Path) -> bool:
    """True if nobody works under a lock any more, so that the next claim takes it over."""
    claimed = _read(lock)
    if claimed is not None and is_dead(claimed.process):
        return True
    try:
        return _now(lock.parent) - lock.stat().st_mtime > LEASE_SECONDS
    except OSError:  # it has gone just now
        return False


class _Heart:
    """Touches the locks that this process holds."""

    def __init__(self) -> None:
        self._locks: set[Path] = set()
        self._pid = 0
        """The process the thread runs in, which a fork does not copy."""
        self._beginning = threading.Lock()

    @contextmanager
    def beating_for(self, lock: Path) -> Iterator[None]:
        """Keeps a lock alive for as long as the block takes."""
        with self._beginning:
            if self._pid != os.getpid():
                self._pid, self._locks = os.getpid(), set()
                threading.Thread(target=self._beat, name="xpath claims", daemon=True).start()
            self._locks.add(lock)
        try:
            yield
        finally:
            self._locks.discard(lock)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            for lock in tuple(self._locks):
                with suppress(OSError):  # given back just now, or the server is away
                    os.utime(lock)


_heart = _Heart()


def _holds(lock: Path, token: str) -> bool:
    claimed = _read(lock)
    return claimed is not None and claimed.token == token


def _refuse_lost(output: Path, token: str) -> None:
    """Refuses to write an output that another process took over, because this one stood still.

    Raises:
        Busy: The lock is another's, or gone.
    """
    if not _holds(lock_of(output), token):
        raise Busy(f"{output.name} was taken over by {claimant(output) or 'another process'}")


def _create(lock: Path, token: str) -> bool:
    """Creates the lock, unless it exists."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(handle, _content(token))
    except OSError:  # the disk is full
        lock.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return True


def _take_over(lock: Path, token: str) -> bool:
    """Makes the lock of a dead process or a lost machine ours.

    The lock is rewritten in place, while the system holds others off it: were it removed and made
    anew, a second process could remove the one that was just made.
    """
    if not is_orphan(lock):
        return False
    try:
        import fcntl

        handle = os.open(lock, os.O_RDWR)
    except (ImportError, OSError):  # no such thing on Windows; or the lock has gone just now
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.fstat(handle).st_ino == lock.stat().st_ino
        if not (same and is_orphan(lock)):
            return False
        os.ftruncate(handle, 0)
        os.write(handle, _content(token))
    except OSError:  # held by another process that is taking over
        return False
    else:
        return True
    finally:
        os.close(handle)


def _now(folder: Path) -> float:
    """The time of the file system, which may be that of another machine."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _content(token: str) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({**this_process()._asdict(), "time": now, "token": token}).encode()


def _read(lock: Path) -> Claimed | None:
    """The content of a lock, or None if it is gone or being written."""
    try:
        content = json.loads(lock.read_text())
        process = Process(
            int(content["pid"]),
            str(content["host"]),
            str(content["machine"]),
            str(content["started"]),
        )
        return Claimed(process, str(content["time"]), str(content["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
