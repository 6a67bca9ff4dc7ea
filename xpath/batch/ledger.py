"""How every slide fared in every stage: the table ``slides.csv`` of a run."""

from __future__ import annotations

import csv
import logging
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from xpath.batch.claim import claim, claimant
from xpath.errors import StoreError
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Ledger", "Line", "StageReport"]

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""How long to wait for another process that writes the ledger."""


@dataclass(kw_only=True, slots=True)
class Line:
    """What happened to a slide in a stage."""

    slide_id: str
    stage: str
    status: str = "failed"
    """``done``, ``failed`` or ``busy``."""
    reason: str = ""
    """Why it failed or who is at it."""
    attempts: int = 0
    """How often work on it ran to an end, good or bad."""
    seconds: float = 0.0
    """Duration of the last attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """How a stage went, by slide id."""

    stage: str
    done: tuple[str, ...]
    failed: tuple[str, ...]
    busy: tuple[str, ...]
    """Another process works on them; they may be done soon, or fail."""

    @property
    def ok(self) -> bool:
        """True if no slide failed."""
        return not self.failed


class Ledger:
    """``slides.csv``: one line per slide and stage, rewritten whole after every slide.

    Several processes may keep the same ledger: each reads again what is there before it adds a
    line of its own.
    """

    def __init__(self, path: Path, logs: Path) -> None:
        """Reads what earlier runs wrote.

        Args:
            path: The table; it need not exist.
            logs: Folder for the tracebacks of failures.
        """
        self.path = path
        self.logs = logs
        """Folder for the tracebacks of failures."""
        self._lines = _read(path)

    def line(self, slide_id: str, stage: str) -> Line:
        """A copy of the line of a slide in a stage; a new one if there is none."""
        known = self._lines.get((slide_id, stage))
        return replace(known) if known else Line(slide_id=slide_id, stage=stage)

    def lines(self) -> list[Line]:
        """Copies of all lines, in the order in which they were first written."""
        return [replace(line) for line in self._lines.values()]

    def write(self, line: Line) -> None:
        """Keeps a line; that a slide is busy never hides that it is done.

        Raises:
            StoreError: The disk is full, or another process holds the ledger for too long.
        """
        key = (line.slide_id, line.stage)
        with self._alone():
            lines = _read(self.path)
            found = lines.get(key)
            if not (line.status == "busy" and found and found.status == "done"):
                lines[key] = replace(line)
            self._lines = lines
            with atomic(self.path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
                names = [field.name for field in fields(Line)]
                writer = csv.DictWriter(file, names, lineterminator="\n")
                writer.writeheader()
                writer.writerows(asdict(each) for each in lines.values())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes from writing meanwhile."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            with claim(self.path) as mine:
                if mine:
                    yield
                    return
            if time.monotonic() > end:
                raise StoreError(f"{self.path} is being written by {claimant(self.path)}")
            time.sleep(0.02)


def _read(path: Path) -> dict[tuple[str, str], Line]:
    """Lines of earlier runs by slide and stage.

    A table that somebody broke is no reason to stop, for it is only a record: it is put aside.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [_line(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return {}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        aside = path.with_name(f"{path.name}.damaged")
        logger.warning("%s cannot be read (%r); it is kept as %s", path, error, aside.name)
        path.replace(aside)
        return {}
    return {(line.slide_id, line.stage): line for line in lines}


def _line(row: dict[str, str]) -> Line:
    return Line(
        slide_id=row["slide_id"],
        stage=row["stage"],
        status=row["status"],
        reason=row["reason"],
        attempts=int(row["attempts"]),
        seconds=float(row["seconds"]),
    )
