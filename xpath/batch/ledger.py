"""How every slide fared in every stage: a small file each, merged into the table ``slides.csv``.

Whoever works on a slide writes its entry to ``slides/ID/.STAGE.json``. So any number of processes
keep one ledger and do not wait for each other, and the cost of an entry does not grow with the run.
The table is for people and made from these files at the end of each stage. While a slide is worked
on, ``slides/ID/.STAGE.patches`` tells how far it is, to any process on any machine.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from xpath.batch.claim import claim_in_turn
from xpath.errors import StoreError
from xpath.store.schema import atomic
from xpath.store.tables import read_rows, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Ledger", "LedgerEntry", "StageReport"]

logger = logging.getLogger(__name__)

PATCHES = ".patches"
"""Suffix of the files that tell how far a slide is."""
COUNT_SECONDS = 0.5
"""How often they are written at most."""


@dataclass(kw_only=True, slots=True)
class LedgerEntry:
    """How a slide fared in a stage.

    A new field needs a default: the ledgers of earlier versions lack its column.
    """

    slide_id: str
    stage: str
    status: str = "failed"
    """``done``, ``failed``, or ``busy``, which is never written: another process works on it."""
    reason: str = ""
    """Why it failed, or which process is working on it."""
    attempts: int = 0
    """How often work on it ran to an end, good or bad."""
    seconds: float = 0.0
    """Duration of the last attempt."""

    @property
    def failed(self) -> bool:
        """True if work on it ended badly, False also if it was never begun."""
        return self.status == "failed" and self.attempts > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """How a stage went, by slide id."""

    stage: str
    done: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if no slide failed."""
        return not self.failed


class Ledger:
    """The entries of a run, and its table ``slides.csv``."""

    def __init__(self, path: Path, logs: Path) -> None:
        """Reads nothing yet.

        Args:
            path: The table; it need not exist. Entries lie in a folder of its name without suffix.
            logs: Folder for the tracebacks of failures.
        """
        self.path = path
        self.logs = logs
        """Folder for the tracebacks of failures."""

    def __reduce__(self) -> tuple[type[Ledger], tuple[Path, Path]]:
        """Goes to another process as its paths."""
        return Ledger, (self.path, self.logs)

    @cached_property
    def _table(self) -> dict[tuple[str, str], LedgerEntry]:
        """The table at first sight, for runs of versions that wrote nothing else."""
        return _read(self.path)

    def folder(self, slide_id: str) -> Path:
        """Where the entries of a slide lie."""
        return self.path.with_suffix("") / slide_id

    def entry(self, slide_id: str, stage: str) -> LedgerEntry:
        """The entry of a slide in a stage, or a new one if there is none."""
        try:
            content = json.loads(self._entry_path(slide_id, stage).read_text(encoding="utf-8"))
            names = {field.name for field in fields(LedgerEntry)}  # a newer version may know more
            return LedgerEntry(**{name: content[name] for name in names & content.keys()})
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logger.warning("the entry of %s in %s is damaged: %r", slide_id, stage, error)
        before = self._table.get((slide_id, stage))
        return replace(before) if before else LedgerEntry(slide_id=slide_id, stage=stage)

    def note(
        self, slide_id: str, stage: str, *, failure: str = "", seconds: float | None = None
    ) -> LedgerEntry:
        """Writes down how a slide fared.

        Args:
            slide_id: The slide.
            stage: What was done with it.
            failure: Why it failed, empty if it is done.
            seconds: Duration of the attempt, None if the output was there already.

        Raises:
            StoreError: The disk is full.
        """
        path = self._entry_path(slide_id, stage)
        path.with_suffix(PATCHES).unlink(missing_ok=True)
        with claim_in_turn(path):
            entry = self.entry(slide_id, stage)
            before = replace(entry)
            entry.status, entry.reason = ("failed", failure) if failure else ("done", "")
            if seconds is not None:
                entry.attempts += 1
                entry.seconds = round(seconds, 2)
            if entry != before:
                with atomic(path) as draft:
                    draft.write_text(json.dumps(asdict(entry)), encoding="utf-8")
        return entry

    def counter(self, slide_id: str, stage: str, total: int) -> Callable[[int], None]:
        """A function to be called with the number of patches done since, while a stage works.

        Args:
            slide_id: The slide.
            stage: What is done with it.
            total: Patches of the slide.
        """
        path, done, written = self._entry_path(slide_id, stage).with_suffix(PATCHES), 0, 0.0
        path.parent.mkdir(parents=True, exist_ok=True)

        def count(patches: int) -> None:
            nonlocal done, written
            done += patches
            if time.monotonic() - written > COUNT_SECONDS:
                written = time.monotonic()
                with suppress(OSError):  # it is only shown
                    path.write_text(f"{stage} {done}/{total} patches")

        return count

    def under_way(self, slide_id: str) -> str:
        """How far the work on a slide is, in words. Empty where no stage counts patches now."""
        for path in self.folder(slide_id).glob(f".*{PATCHES}"):
            with suppress(OSError, UnicodeDecodeError):
                return path.read_text()
        return ""

    def finished_at(self, slide_id: str, stage: str) -> float | None:
        """When the entry of a slide in a stage was written, seconds since 1970, None without."""
        try:
            return self._entry_path(slide_id, stage).stat().st_mtime
        except OSError:
            return None

    def merge(self, stage: str, slide_ids: Iterable[str]) -> None:
        """Brings the entries of a stage into the table, unless it holds them already.

        Raises:
            StoreError: The disk is full.
        """
        written = {(entry.slide_id, stage): entry for entry in self._written(stage, slide_ids)}
        with claim_in_turn(self.path):
            before = _read(self.path)
            merged = before | written
            if merged != before:
                write_table(self.path, merged.values(), LedgerEntry)

    def _written(self, stage: str, slide_ids: Iterable[str]) -> Iterator[LedgerEntry]:
        for slide_id in slide_ids:
            entry = self.entry(slide_id, stage)
            if entry != LedgerEntry(slide_id=slide_id, stage=stage):
                yield entry

    def _entry_path(self, slide_id: str, stage: str) -> Path:
        return self.folder(slide_id) / f".{stage}.json"


def _read(path: Path) -> dict[tuple[str, str], LedgerEntry]:
    """Entries of earlier runs by slide and stage.

    A broken table is no reason to stop, for it is only a copy: it is put aside.
    """
    try:
        entries = read_rows(path, LedgerEntry)
    except StoreError as error:
        aside = path.with_name(f"{path.name}.damaged")
        logger.warning("%s; it is kept as %s", error, aside.name)
        with suppress(FileNotFoundError):  # another process has put it aside just now
            path.replace(aside)
        return {}
    return {(entry.slide_id, entry.stage): entry for entry in entries}
