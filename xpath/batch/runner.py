"""One stage over many slides: failures are written down, the others go on."""

from __future__ import annotations

import csv
import logging
import time
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xpath.batch.slides import SlideEntry

__all__ = ["Busy", "Ledger", "StageReport", "run_stage"]

logger = logging.getLogger(__name__)


class Busy(Exception):  # noqa: N818 - not an error: another process is at it
    """Raised by work on a slide that another process is working on."""


@dataclass(kw_only=True, slots=True)
class Line:
    """What happened to a slide in a stage."""

    slide_id: str
    stage: str
    status: str = "failed"
    """``done``, ``failed`` or ``busy``."""
    reason: str = ""
    attempts: int = 0
    seconds: float = 0.0


class Ledger:
    """``slides.csv``: one line per slide and stage, rewritten whole after every slide."""

    def __init__(self, path: Path, logs: Path) -> None:
        self.path = path
        self.logs = logs
        """Folder for the tracebacks of failures."""
        self._lines = {(line.slide_id, line.stage): line for line in _read(path)}

    def line(self, slide_id: str, stage: str) -> Line:
        """The line of a slide in a stage; a new one if there is none."""
        return self._lines.get((slide_id, stage)) or Line(slide_id=slide_id, stage=stage)

    def write(self, line: Line) -> None:
        """Keeps a line."""
        self._lines[line.slide_id, line.stage] = line
        with atomic(self.path) as draft, draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(Line.__dataclass_fields__), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(line) for line in self._lines.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """How a stage went, by slide id."""

    stage: str
    done: tuple[str, ...]
    failed: tuple[str, ...]
    busy: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if no slide failed."""
        return not self.failed


def run_stage(
    stage: str,
    slides: Sequence[SlideEntry],
    work: Callable[[SlideEntry], bool],
    ledger: Ledger,
) -> StageReport:
    """Does a stage's work on every slide, one after the other.

    Args:
        stage: Its name, for the ledger and the progress bar.
        slides: In the order they are worked on.
        work: Makes the stage's output of a slide; False if it was there already. Whatever it
            raises is this slide's failure and no other's.
        ledger: Where the outcome is kept; a slide that failed before is tried again.
    """
    outcome: dict[str, list[str]] = {"done": [], "failed": [], "busy": []}
    for slide in tqdm(slides, desc=f"{stage:>10}", unit="slide", disable=not slides):
        line = ledger.line(slide.slide_id, stage)
        started = time.monotonic()
        try:
            worked = work(slide)
            line.status, line.reason = "done", ""
        except Busy as busy:
            worked, line.status, line.reason = True, "busy", str(busy)
        except Exception as error:  # noqa: BLE001 - one slide must never stop the others
            worked, line.status = True, "failed"
            line.reason = f"{type(error).__name__}: {error}".splitlines()[0]
            _keep_traceback(ledger.logs / f"{slide.slide_id}.{stage}.log")
            logger.warning("%s failed in %s: %s", slide.slide_id, stage, line.reason)
        if worked:
            line.attempts += 1
            line.seconds = round(time.monotonic() - started, 2)
        ledger.write(line)
        outcome[line.status].append(slide.slide_id)
    return StageReport(stage=stage, **{key: tuple(ids) for key, ids in outcome.items()})


def _keep_traceback(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(traceback.format_exc())


def _read(path: Path) -> list[Line]:
    """Lines of an earlier run; a damaged ledger is no reason to stop, it is only a record."""
    try:
        with path.open(newline="") as file:
            return [
                Line(
                    slide_id=row["slide_id"],
                    stage=row["stage"],
                    status=row["status"],
                    reason=row["reason"],
                    attempts=int(row["attempts"]),
                    seconds=float(row["seconds"]),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError):
        return []
