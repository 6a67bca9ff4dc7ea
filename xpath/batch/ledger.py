"""How every slide fared in every stage: the table ``slides.csv`` of a run."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xpath.batch.claim import claim, claimant
from xpath.errors import StoreError
from xpath.store.tables import read_rows, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Ledger", "LedgerEntry", "StageReport"]

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""How long to wait for another process that writes the ledger."""


@dataclass(kw_only=True, slots=True)
class LedgerEntry:
    """How a slide fared in a stage.

    A new field needs a default: the ledgers of earlier versions lack its column.
    """

    slide_id: str
    stage: str
    status: str = "failed"
    """``done``, ``failed`` or ``busy``."""
    reason: str = ""
    """Why it failed, or which process is working on it."""
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
    """Another process works on them, so they may soon be done or fail."""

    @property
    def ok(self) -> bool:
        """True if no slide failed."""
        return not self.failed


class Ledger:
    """``slides.csv``: one row per slide and stage, rewritten whole when an entry changes.

    Several processes may keep the same ledger: each reads the table again before it writes an
    entry of its own.
    """

    def __init__(self, path: Path, logs: Path) -> None:
        """Reads the entries of earlier runs.

        Args:
            path: The table; it need not exist.
            logs: Folder for the tracebacks of failures.
        """
        self.path = path
        self.logs = logs
        """Folder for the tracebacks of failures."""
        self._entries = _read(path)

    def entry(self, slide_id: str, stage: str) -> LedgerEntry:
        """A copy of the entry of a slide in a stage, or a new entry if there is none."""
        known = self._entries.get((slide_id, stage))
        return replace(known) if known else LedgerEntry(slide_id=slide_id, stage=stage)

    def entries(self) -> list[LedgerEntry]:
        """Copies of all entries, in the order in which they were first written."""
        return [replace(entry) for entry in self._entries.values()]

    def write(self, entry: LedgerEntry) -> None:
        """Writes an entry, but a busy one never replaces a done one.

        Raises:
            StoreError: The disk is full, or another process holds the ledger for too long.
        """
        key = (entry.slide_id, entry.stage)
        with self._alone():
            self._entries = _read(self.path)
            known = self._entries.get(key)
            busy = entry.status == "busy" and known is not None and known.status == "done"
            if busy or entry == known:
                return
            self._entries[key] = replace(entry)
            write_table(self.path, self._entries.values())

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


def _read(path: Path) -> dict[tuple[str, str], LedgerEntry]:
    """Entries of earlier runs by slide and stage.

    A broken table is no reason to stop, for it is only a record: it is put aside.
    """
    try:
        entries = read_rows(path, LedgerEntry)
    except StoreError as error:
        aside = path.with_name(f"{path.name}.damaged")
        logger.warning("%s; it is kept as %s", error, aside.name)
        path.replace(aside)
        return {}
    return {(entry.slide_id, entry.stage): entry for entry in entries}
