"""One stage over many slides: failures are written down, the others go on."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING

from tqdm import tqdm

from xpath.batch.claim import Busy
from xpath.batch.ledger import Ledger, LedgerEntry, StageReport
from xpath.errors import DataError
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xpath.batch.slides import SlideEntry

__all__ = ["run_stage"]

logger = logging.getLogger(__name__)


def run_stage(
    stage: str,
    slides: Sequence[SlideEntry],
    work: Callable[[SlideEntry], bool | None],
    ledger: Ledger,
    *,
    progress: bool = True,
) -> StageReport:
    """Does a stage's work on every slide, one after the other.

    Args:
        stage: Its name, for the ledger and the progress bar.
        slides: In the order they are worked on.
        work: Makes the stage's output of a slide; False if it was there already, which counts as
            done but not as an attempt. Whatever it raises is this slide's failure and no other's;
            ``Busy`` if another process is at it. Only Ctrl-C and the like end the stage.
        ledger: Where the outcome is kept; a slide that failed before is tried again.
        progress: Show a bar on stderr.

    Raises:
        DataError: Two slides of one name.
        StoreError: The ledger cannot be written, for the disk is full.
    """
    names = [slide.slide_id for slide in slides]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"slides are named twice: {twice[:5]}; results go by name, rename them")
    outcome: dict[str, list[str]] = {"done": [], "failed": [], "busy": []}
    for slide in tqdm(slides, desc=f"{stage:>10}", unit="slide", disable=not (progress and slides)):
        entry = _attempt(stage, slide, work, ledger)
        outcome[entry.status].append(slide.slide_id)
    return StageReport(stage=stage, **{key: tuple(ids) for key, ids in outcome.items()})


def _attempt(
    stage: str, slide: SlideEntry, work: Callable[[SlideEntry], bool | None], ledger: Ledger
) -> LedgerEntry:
    """Works on one slide and writes down how it went."""
    entry = ledger.entry(slide.slide_id, stage)
    log = ledger.logs / f"{slide.slide_id}.{stage}.log"
    started = time.monotonic()
    try:
        worked = work(slide) is not False
        entry.status, entry.reason = "done", ""
        log.unlink(missing_ok=True)
    except Busy as busy:
        worked, entry.status, entry.reason = False, "busy", str(busy)
    except Exception as error:  # noqa: BLE001 - one slide must never stop the others
        worked, entry.status = True, "failed"
        entry.reason = " ".join(f"{type(error).__name__}: {error}".split())
        _keep_traceback(log)
        logger.warning("%s failed in %s: %s", slide.slide_id, stage, entry.reason)
    if worked:
        entry.attempts += 1
        entry.seconds = round(time.monotonic() - started, 2)
    ledger.write(entry)
    return entry


def _keep_traceback(path: Path) -> None:
    with atomic(path) as draft:
        draft.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
