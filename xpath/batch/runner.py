"""One stage over many slides: failures are written down, the others go on."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, Self

from tqdm import tqdm

from xpath.batch.attempts import ended_from_outside
from xpath.batch.claim import Busy
from xpath.batch.ledger import Ledger, LedgerEntry, StageReport
from xpath.errors import DataError
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from xpath.batch.slides import SlideEntry

__all__ = ["Executor", "InProcess", "Job", "SlideJob", "run_stage"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often to look at slides that another process is working on, unless the executor says so."""
WATCH_SECONDS = 0.5
"""How often to look how far a slide is."""


class Job(Protocol):
    """Work on one slide, or on what stands in for one. Pickles."""

    def __call__(self, slide: SlideEntry) -> LedgerEntry:
        """Works on one and tells how it went. Only Ctrl-C and the like get out of it."""

    def lost(self, slide: SlideEntry, reason: str) -> LedgerEntry:
        """The entry of one whose worker ended in the middle of it, for good."""

    def known(self, slide: SlideEntry) -> LedgerEntry:
        """The last entry."""

    def ended(self, slide: SlideEntry) -> AbstractContextManager[None]:
        """Surrounds the end of a worker that is in the middle of one, by no fault of that one."""


@dataclass(frozen=True, slots=True)
class SlideJob:
    """The work of a stage on one slide, and how it went written down. Pickles if its work does."""

    stage: str
    work: Callable[[SlideEntry], bool | None]
    """Makes the stage's output of a slide; False if it was there already, which counts as done but
    not as an attempt. Whatever it raises is this slide's failure and no other's, but for ``Busy``:
    another process is at it."""
    ledger: Ledger

    def __call__(self, slide: SlideEntry) -> LedgerEntry:
        """Works on one slide. Only Ctrl-C and the like get out of it."""
        name, stage, started = slide.slide_id, self.stage, time.monotonic()
        before = self.known(slide)
        log = self.ledger.logs / f"{name}.{stage}.log"
        try:
            made = self.work(slide) is not False
        except Busy as busy:
            return replace(before, status="busy", reason=str(busy))
        except Exception as error:  # noqa: BLE001 - one slide must never stop the others
            _keep_traceback(log)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return self._failed(name, reason, time.monotonic() - started)
        log.unlink(missing_ok=True)
        return self.ledger.note(name, stage, seconds=time.monotonic() - started if made else None)

    def lost(self, slide: SlideEntry, reason: str) -> LedgerEntry:
        """Writes down that whoever worked on a slide ended in the middle of it, for good."""
        return self._failed(slide.slide_id, reason, 0.0)

    def known(self, slide: SlideEntry) -> LedgerEntry:
        """The last entry of a slide."""
        return self.ledger.entry(slide.slide_id, self.stage)

    def ended(self, slide: SlideEntry) -> AbstractContextManager[None]:
        """Surrounds the end of a worker, which is not held against the slide it is at."""
        return ended_from_outside(self.ledger.folder(slide.slide_id))

    def _failed(self, name: str, reason: str, seconds: float) -> LedgerEntry:
        logger.warning("%s failed in %s: %s", name, self.stage, reason)
        return self.ledger.note(name, self.stage, failure=reason, seconds=seconds)


class Executor(Protocol):
    """Where slides are worked on.

    One that is costly to ask has an attribute ``busy_seconds``: how often to look at slides that
    another process is working on.
    """

    def run(
        self, job: Job, slides: Sequence[SlideEntry], on_start: Callable[[str], None]
    ) -> Iterator[LedgerEntry]:
        """Entries of the slides in whatever order they come.

        Args:
            job: What to do with each slide.
            slides: In the order in which they are to be begun.
            on_start: Gets the name of a slide when work on it begins.
        """


class InProcess:
    """Slides one after the other in this process."""

    def run(
        self, job: Job, slides: Sequence[SlideEntry], on_start: Callable[[str], None]
    ) -> Iterator[LedgerEntry]:
        """Entries in the order of the slides."""
        for slide in slides:
            on_start(slide.slide_id)
            yield job(slide)


def run_stage(
    stage: str,
    slides: Sequence[SlideEntry],
    work: Callable[[SlideEntry], bool | None],
    ledger: Ledger,
    *,
    executor: Executor | None = None,
    before: Mapping[str, LedgerEntry] = MappingProxyType({}),
    progress: bool = True,
) -> StageReport:
    """Does a stage's work on every slide, and waits for slides that other processes work on.

    So what comes after it has all slides before it, whoever made them. A slide whose process is
    lost meanwhile is taken over.

    Args:
        stage: Its name, for the ledger and the progress bar.
        slides: In the order they are worked on.
        work: As of ``SlideJob``.
        ledger: Where the outcome is kept; a slide that failed before is tried again.
        executor: Where the work is done, by default in this process.
        before: Earlier entries of slides by name: one that failed since is not tried again.
        progress: Show a bar on stderr.

    Raises:
        DataError: Two slides of one name.
        StoreError: The ledger cannot be written, for the disk is full.
    """
    names = [slide.slide_id for slide in slides]
    if len(set(names)) < len(names):
        twice = sorted(name for name, number in Counter(names).items() if number > 1)
        raise DataError(f"slides are named twice: {twice[:5]}; results go by name, rename them")
    job, executor = SlideJob(stage, work, ledger), executor or InProcess()
    try:
        with (
            tqdm(
                total=len(slides),
                desc=f"{stage:>10}",
                unit="slide",
                disable=not (progress and slides),
            ) as bar,
            _Watched(bar, ledger) as shown,
        ):
            ended = dict(_all_ended(job, slides, executor, shown, before))
    finally:
        ledger.merge(stage, names)
    return StageReport(
        stage=stage,
        done=tuple(name for name in names if ended[name] == "done"),
        failed=tuple(name for name in names if ended[name] == "failed"),
    )


class _Watched:
    """A bar of slides that names the one begun last and how many of its patches are done."""

    def __init__(self, bar: tqdm[None], ledger: Ledger) -> None:
        self._bar, self._ledger, self._name = bar, ledger, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="xpath bar", daemon=True)

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def begin(self, name: str) -> None:
        """Work on a slide begins."""
        self._name = name
        self._bar.set_postfix_str(name)

    def wait_for(self, reason: str) -> None:
        """Nothing can be done until another process is through."""
        self._name = ""
        self._bar.set_postfix_str(f"waiting: {reason}")

    def ended(self) -> None:
        """One more slide is through."""
        self._bar.update()

    def _watch(self) -> None:
        while not self._over.wait(WATCH_SECONDS):
            name = self._name
            if name and (far := self._ledger.under_way(name)):
                self._bar.set_postfix_str(f"{name} {far}")


def _all_ended(
    job: SlideJob,
    slides: Sequence[SlideEntry],
    executor: Executor,
    shown: _Watched,
    before: Mapping[str, LedgerEntry],
) -> Iterator[tuple[str, str]]:
    """Name and status of each slide when work on it has come to an end, here or elsewhere."""
    waiting = slides
    while True:
        open_slides, busy = [], {}
        for slide in waiting:
            if _failed_since(job, slide, before):
                shown.ended()
                yield slide.slide_id, "failed"
            else:
                open_slides.append(slide)
        for entry in executor.run(job, open_slides, shown.begin):
            if entry.status == "busy":
                busy[entry.slide_id] = entry
                continue
            shown.ended()
            yield entry.slide_id, entry.status
        if not busy:
            return
        waiting, before = [slide for slide in slides if slide.slide_id in busy], busy
        shown.wait_for(next(iter(busy.values())).reason)
        time.sleep(getattr(executor, "busy_seconds", POLL_SECONDS))


def _failed_since(job: SlideJob, slide: SlideEntry, before: Mapping[str, LedgerEntry]) -> bool:
    """True if a slide failed since its entry was looked at, so is not tried again."""
    if slide.slide_id not in before:
        return False
    now = job.known(slide)
    return now.status == "failed" and now.attempts > before[slide.slide_id].attempts


def _keep_traceback(path: Path) -> None:
    with atomic(path) as draft:
        draft.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
