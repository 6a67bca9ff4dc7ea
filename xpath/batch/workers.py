"""Slides in several workers at once: processes of this machine, or actors of a Ray cluster.

A worker gets one slide at a time, so none waits behind a large one and no queue of pixels grows. It
keeps its networks for all slides it gets, of one stage after the other. One that is lost in the
middle of a slide is replaced, and the slide begun again; what was done is not lost, because it lies
in the run folder.
"""

from __future__ import annotations

import os
import signal
import weakref
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from xpath.batch.processes import at_work, clean_processes, usable_cores, wait_for_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from xpath.batch.ledger import LedgerEntry
    from xpath.batch.runner import Job
    from xpath.batch.slides import SlideEntry

__all__ = ["MOST_LOSSES", "LocalProcesses", "Worker", "Workers", "share_out"]

MOST_LOSSES = 2
"""So many workers may be lost in the middle of one slide before it is given up."""
ASK_AGAIN = 0.5
"""Seconds after which a process that is to leave its slide is asked once more."""


class Worker(Protocol):
    """Something that works on one slide after the other."""

    def submit(self, slide: SlideEntry) -> Future[LedgerEntry]:
        """Begins work on a slide."""

    def stop(self) -> None:
        """Ends it, even if it has ended by itself."""


class Workers(Protocol):
    """A number of workers of one sort."""

    @property
    def count(self) -> int:
        """How many work at once."""

    @property
    def lost(self) -> type[Exception]:
        """Errors a future raises when its worker is lost."""

    def start(self, number: int, job: Job) -> Worker:
        """A new worker, number 0 to ``count - 1``."""


def share_out(
    job: Job,
    slides: Sequence[SlideEntry],
    workers: Workers,
    on_start: Callable[[str], None],
) -> Iterator[LedgerEntry]:
    """Entries of slides as workers finish them.

    Args:
        job: What to do with each slide.
        slides: In the order in which they are begun.
        workers: Who does it.
        on_start: Gets the name of a slide when work on it begins.
    """
    todo = deque(slides)
    with closing(_Staff(job, workers, min(len(todo), workers.count))) as staff:
        while todo or staff.running:
            while todo and staff.idle:
                on_start(todo[0].slide_id)
                staff.begin(todo.popleft())
            yield from staff.ended(again=todo)


class _Staff:
    """Workers, and which slide each is at."""

    def __init__(self, job: Job, workers: Workers, count: int) -> None:
        self._job, self._workers = job, workers
        self._staff: dict[int, Worker] = {}
        self.idle = list(range(count))
        """Numbers of those at no slide."""
        self.running: dict[Future[LedgerEntry], tuple[SlideEntry, int]] = {}
        self._losses = Counter[str]()

    def begin(self, slide: SlideEntry) -> None:
        """Gives a slide to an idle worker."""
        number = self.idle.pop()
        if number not in self._staff:
            self._staff[number] = self._workers.start(number, self._job)
        self.running[self._staff[number].submit(slide)] = slide, number

    def ended(self, again: deque[SlideEntry]) -> Iterator[LedgerEntry]:
        """Entries of slides that came to an end.

        Args:
            again: Gets slides whose worker was lost, to be begun once more.
        """
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            slide, number = self.running.pop(future)
            entry: LedgerEntry | None
            try:
                entry = future.result()
            except self._workers.lost:
                entry = self._replace(number, slide)
            self.idle.append(number)
            if entry is None:
                again.append(slide)
            else:
                yield entry

    def _replace(self, number: int, slide: SlideEntry) -> LedgerEntry | None:
        """Puts a new worker in the place of a lost one. Gives up a slide that lost too many."""
        self._staff[number].stop()
        self._staff[number] = self._workers.start(number, self._job)
        self._losses[slide.slide_id] += 1
        if self._losses[slide.slide_id] < MOST_LOSSES:
            return None
        return self._job.lost(slide, f"{MOST_LOSSES} workers ended in the middle of it")

    def close(self) -> None:
        """Ends all workers, those too that are in the middle of a slide."""
        with ExitStack() as ending:
            for slide, _ in self.running.values():
                ending.enter_context(self._job.ended(slide))
            for worker in self._staff.values():
                worker.stop()


class _Process(NamedTuple):
    """A process of this machine that does one thing after the other."""

    pool: ProcessPoolExecutor
    pid: Future[int]

    def interrupt(self) -> None:
        """Ends its work on a slide, if it is at one."""
        if os.name == "posix" and self.pid.done() and self.pid.exception() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid.result(), signal.SIGINT)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LocalProcesses:
    """Processes of this machine, the GPUs dealt out among them.

    They wait for more work as long as this object lives, and have ended when it is gone: a pool
    that is still ending when Python does may print an error of its own.
    """

    count: int
    gpus: tuple[str, ...] = ()
    """Numbers of the GPUs. Empty: all processes see what this one sees."""
    _waiting: dict[int, _Process] = field(default_factory=dict, compare=False, repr=False)
    """Those not at work, by number."""

    lost = BrokenProcessPool

    def __post_init__(self) -> None:
        weakref.finalize(self, _end, self._waiting)

    def run(
        self, job: Job, slides: Sequence[SlideEntry], on_start: Callable[[str], None]
    ) -> Iterator[LedgerEntry]:
        """Entries as they come."""
        return share_out(job, slides, self, on_start)

    def start(self, number: int, job: Job) -> Worker:
        """A process that waits for work, or else a new one that has yet to load its networks."""
        return _LocalWorker(job, number, self)

    def take(self, number: int, job: Job) -> _Process:
        """The process of a number, which nobody else has until it is put back."""
        return self._waiting.pop(number, None) or self.new(number, job)

    def new(self, number: int, job: Job) -> _Process:
        """A new process, with its share of the cores and its GPU."""
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]} if self.gpus else {}
        pool = ProcessPoolExecutor(
            1,
            clean_processes(type(getattr(job, "work", job)).__module__),
            initializer=_begin,
            initargs=(dict(os.environ) | gpu, max(1, usable_cores() // self.count)),
        )
        return _Process(pool, pool.submit(os.getpid))

    def put_back(self, number: int, process: _Process) -> None:
        """Keeps a process that waits for work."""
        self._waiting[number] = process


class _LocalWorker:
    """A process of its own, so that its end is that of one slide."""

    def __init__(self, job: Job, number: int, processes: LocalProcesses) -> None:
        self._job, self._number, self._processes = job, number, processes
        self._process = processes.take(number, job)
        self._last: Future[LedgerEntry] | None = None

    def submit(self, slide: SlideEntry) -> Future[LedgerEntry]:
        try:
            self._last = self._process.pool.submit(_done, self._job, slide)
        except BrokenProcessPool:  # it ended while it waited
            self._process.pool.shutdown()
            self._process = self._processes.new(self._number, self._job)
            self._last = self._process.pool.submit(_done, self._job, slide)
        return self._last

    def stop(self) -> None:
        last = self._last
        if last is None or (last.done() and not isinstance(last.exception(), BrokenProcessPool)):
            self._processes.put_back(self._number, self._process)
            return
        last.cancel()
        while not last.done():  # Ctrl-C may have reached this process alone
            self._process.interrupt()
            wait([last], ASK_AGAIN)
        self._process.pool.shutdown(cancel_futures=True)


def _end(processes: Mapping[int, _Process]) -> None:
    """Ends processes that wait for work, and waits until they have."""
    for process in processes.values():
        process.pool.shutdown()


def _begin(environment: Mapping[str, str], threads: int) -> None:
    """Gives a process its environment, a GPU perhaps, and its threads.

    The server that forked it has the environment of when it began. More threads than cores would
    wait for each other most of the time.
    """
    wait_for_work()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)


def _done(job: Job, slide: SlideEntry) -> LedgerEntry:
    with at_work():
        return job(slide)
