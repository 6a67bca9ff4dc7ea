"""Work that ended its whole process is known at the next start, and set aside after two such ends.

Native code may abort, and the system ends a process that takes all memory: then no ``except`` runs
and nothing is written down afterwards. So a line is written before the work, and removed after it.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xpath.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "MOST_DEATHS",
    "attempt",
    "attempts_path",
    "ended_from_outside",
    "forget_attempts",
    "has_attempts",
]

logger = logging.getLogger(__name__)

MOST_DEATHS = 2
"""So many processes may end in the middle of the same work."""


@contextmanager
def attempt(output: Path, key: str) -> Iterator[None]:
    """Surrounds the making of an output, which only its claimant may enter.

    Work that ends, well or by an exception, leaves no trace. Other settings, hence another key,
    give an output a new chance.

    Args:
        output: File or folder that is made; the lines are kept in a hidden file beside it.
        key: Key over all settings and inputs.

    Raises:
        SlideError: The process ended in the middle of this work twice.
    """
    marker = attempts_path(output)
    deaths = [line for line in _lines(marker) if line.partition(" ")[0] == key]
    if len(deaths) >= MOST_DEATHS:
        raise SlideError(
            f"{output.name} is set aside: the process ended while it was made, {len(deaths)} times"
            f" ({'; '.join(line.partition(' ')[2] for line in deaths)}), out of memory, in native"
            f" code or by a kill from outside; leave the slide out, or, if it is sound, give the"
            f" same command with --retry-failed"
        )
    if deaths:
        logger.warning("the process ended while %s was made; it is tried once more", output.name)
    own = f"{key} {_who()}"
    marker.parent.mkdir(parents=True, exist_ok=True)
    with marker.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in [*deaths, own])
        file.flush()
        os.fsync(file.fileno())
    try:
        yield
    finally:
        if _lines(marker)[-1:] == [own]:  # else another process took over
            marker.unlink(missing_ok=True)


def attempts_path(output: Path) -> Path:
    """Where the lines on an output are kept."""
    return output.with_name(f".{output.name}.attempts")


def has_attempts(folder: Path) -> bool:
    """True if a process works on something in the folder of a slide, or ended in the middle."""
    return any(folder.glob(".*.attempts"))


def forget_attempts(folder: Path) -> None:
    """Gives everything in the folder of a slide that was set aside a new chance."""
    for marker in folder.glob(".*.attempts"):
        marker.unlink(missing_ok=True)


@contextmanager
def ended_from_outside(folder: Path) -> Iterator[None]:
    """Surrounds the end of a process that is at work in the folder of a slide, by no fault of it.

    Its line is removed if it could not do so itself.
    """
    begun = {marker: _lines(marker)[-1:] for marker in folder.glob(".*.attempts")}
    yield
    for marker, last in begun.items():
        left = _lines(marker)
        if last != left[-1:]:  # it was removed, or another process took over
            continue
        if len(left) > 1:
            marker.write_text("".join(f"{line}\n" for line in left[:-1]), encoding="utf-8")
        else:
            marker.unlink(missing_ok=True)


def _lines(marker: Path) -> list[str]:
    try:
        return marker.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _who() -> str:
    return f"process {os.getpid()} at {datetime.now(UTC).isoformat(timespec='seconds')}"
