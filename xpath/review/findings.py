"""Findings of reviewers about objects, in one SQLite file that several may write at once."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xpath.errors import StoreError
from xpath.review.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["VERDICTS", "Finding", "Findings"]

VERDICTS = ("agree", "disagree", "unsure")
LONGEST = {"reviewer": 80, "comment": 4000, "instead": 200}
"""Characters of what a reviewer types."""
TO_WRITE, TO_READ = 10.0, 1.0
"""Seconds to wait while another program holds the file."""
AGAIN = 0.02
"""Seconds until the next try, where SQLite does not wait by itself."""
SCHEMA = 2

LOCKED = "another program holds the file of the findings; nothing is lost, try again in a moment"
_ADDED = "ALTER TABLE findings ADD COLUMN instead TEXT NOT NULL DEFAULT ''"
"""Makes version 2 of version 1."""
_TABLE = """
CREATE TABLE IF NOT EXISTS findings (
  id TEXT PRIMARY KEY, slide_id TEXT NOT NULL, object TEXT NOT NULL, label TEXT NOT NULL,
  reviewer TEXT NOT NULL, verdict TEXT NOT NULL, comment TEXT NOT NULL,
  instead TEXT NOT NULL DEFAULT '',
  x REAL NOT NULL, y REAL NOT NULL, origin_x INTEGER NOT NULL, origin_y INTEGER NOT NULL,
  rings TEXT NOT NULL, numbers TEXT NOT NULL, changed TEXT NOT NULL,
  UNIQUE (slide_id, object, reviewer))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The verdict of one reviewer on one object."""

    slide_id: str
    object: str
    """Name of the object, see ``ShownObject.name``."""
    label: str
    """Label id of the object."""
    reviewer: str
    verdict: str
    comment: str
    instead: str = ""
    """What the object is in the eyes of the reviewer, in their words; empty if not said."""
    x: float
    """Point that was clicked, level-0 pixels."""
    y: float
    origin_x: int
    """Corner of the scanned part of the slide, from which QuPath measures."""
    origin_y: int
    rings: tuple[tuple[tuple[float, float], ...], ...]
    """Closed rings in level-0 pixels: the outline, then holes."""
    numbers: Mapping[str, float]
    """Numbers the page showed of the object when the finding was made."""
    changed: str = ""
    """UTC, ISO 8601."""

    @property
    def id(self) -> str:
        """The same for all findings of one reviewer on one object, so that the last one stands."""
        name = json.dumps([self.slide_id, self.object, self.reviewer])
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"xpath:finding:{name}"))


class Findings:
    """The findings of a run. Every call opens the file for itself, so threads need no care."""

    def __init__(self, path: Path) -> None:
        """Makes the file if it is not there.

        Raises:
            StoreError: It cannot be written, or is of another version.
        """
        self.path = path
        with self._file_named():
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked_named(), self._open() as base:
            version = base.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, 1, SCHEMA):
                raise StoreError(
                    f"{path} has version {version}, wanted {SCHEMA}: use the version of xpath that"
                    " wrote it, or move it away to start anew"
                )
            _write_ahead(base)
            base.execute("BEGIN IMMEDIATE")  # of servers that start at once, one after the other
            columns = {row["name"] for row in base.execute("PRAGMA table_info(findings)")}
            base.execute(_TABLE if "instead" in columns or not columns else _ADDED)
            base.execute(f"PRAGMA user_version={SCHEMA}")

    def save(self, finding: Finding) -> Finding:
        """Keeps a finding, in place of the same reviewer's earlier one on this object.

        Raises:
            Refused: An unknown verdict, no reviewer, texts that are too long, or another program
                holds the file.
            StoreError: The file cannot be written.
        """
        _check(finding)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        values = asdict(finding) | {"id": finding.id, "changed": now}
        values |= {"rings": json.dumps(finding.rings), "numbers": json.dumps(dict(finding.numbers))}
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        with self._open() as base:
            base.execute(f"INSERT OR REPLACE INTO findings ({names}) VALUES ({marks})", values)
        return self.read(finding.slide_id, finding.id)[0]

    def read(self, slide_id: str | None = None, finding_id: str | None = None) -> list[Finding]:
        """Findings, by slide, object and reviewer.

        Raises:
            Refused: Another program holds the file.
            StoreError: The file cannot be read.
        """
        query = (
            "SELECT * FROM findings WHERE (?1 IS NULL OR slide_id = ?1)"
            " AND (?2 IS NULL OR id = ?2) ORDER BY slide_id, object, reviewer"
        )
        with self._open(TO_READ) as base:
            return [_finding(row) for row in base.execute(query, (slide_id, finding_id))]

    def remove(self, finding_id: str, reviewer: str) -> bool:
        """Removes a reviewer's own finding, and returns False if there is none of theirs."""
        with self._open() as base:
            removed = base.execute(
                "DELETE FROM findings WHERE id = ? AND reviewer = ?", (finding_id, reviewer)
            )
            return removed.rowcount > 0

    def count(self) -> dict[str, int]:
        """Number of findings by slide, without slides that have none."""
        with self._open(TO_READ) as base:
            rows = base.execute("SELECT slide_id, COUNT(*) FROM findings GROUP BY slide_id")
            return {row[0]: row[1] for row in rows}

    @contextmanager
    def _open(self, wait: float = TO_WRITE) -> Iterator[sqlite3.Connection]:
        with self._file_named(), closing(sqlite3.connect(self.path, timeout=wait)) as base:
            base.row_factory = sqlite3.Row
            with base:  # one transaction
                yield base

    @contextmanager
    def _locked_named(self) -> Iterator[None]:
        """Makes the refusal of a request an error of the run."""
        try:
            yield
        except Refused as refused:
            raise StoreError(f"{self.path}: {refused.reason}") from refused

    @contextmanager
    def _file_named(self) -> Iterator[None]:
        """Names the file when it cannot be used."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise Refused(503, LOCKED) from error
            raise StoreError(
                f"{self.path} cannot be used ({error}); is the disk full, or the folder read-only?"
            ) from error


def _write_ahead(base: sqlite3.Connection) -> None:
    """Lets readers not wait for a writer. Waits for others that begin to use the file too.

    Raises:
        sqlite3.OperationalError: Another program holds the file.
    """
    until = time.monotonic() + TO_WRITE
    while True:
        try:
            base.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:  # for this SQLite itself does not wait
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(AGAIN)
        else:
            return


def _check(finding: Finding) -> None:
    if finding.verdict not in VERDICTS:
        raise Refused(400, f"verdict must be one of {', '.join(VERDICTS)}")
    if not finding.reviewer.strip():
        raise Refused(
            400, "type your name or initials first, so that findings can be distinguished"
        )
    for name, most in LONGEST.items():
        if len(getattr(finding, name)) > most:
            raise Refused(400, f"{name} must have at most {most} characters")


def _finding(row: Any) -> Finding:
    values = {field.name: row[field.name] for field in fields(Finding)}
    rings = tuple(
        tuple((float(x), float(y)) for x, y in ring) for ring in json.loads(values["rings"])
    )
    return Finding(**(values | {"rings": rings, "numbers": json.loads(values["numbers"])}))
