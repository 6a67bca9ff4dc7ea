"""The same work on every image of a source, in one process or several, with failures isolated.

A worker process lists the source for itself and is then given names, so that nothing an image
carries has to travel between processes, and only a few images are decoded at any time.
"""

from __future__ import annotations

import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.batch.processes import at_work, clean_processes, wait_for_work
from xpath.errors import StoreError, XPathError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from xpath.pathseg.record import Source, SourceImage

__all__ = ["Outcome", "each_image"]

CHUNK = 8
"""Images a worker is given at a time."""


class Outcome(NamedTuple):
    """Result of the work on one image, or why it failed."""

    image: str
    """Its name."""
    result: dict[str, Any] | None
    """Return value of the work, or None if it failed."""
    error: str = ""
    """Why it failed, in one line; empty if it did not."""
    details: str = ""
    """Traceback of an error that nobody expected."""


def each_image(
    source: Source,
    root: Path,
    names: Sequence[str],
    work: Callable[[SourceImage], dict[str, Any]],
    *,
    workers: int = 1,
) -> Iterator[Outcome]:
    """Outcomes as they come, with several workers in any order.

    Args:
        source: Can be pickled if there are several workers.
        root: Folder of the source.
        names: Images to work on.
        work: Called once per image; can be pickled if there are several workers. What it raises is
            this image's failure, except a StoreError, which would meet every image: it ends all.
        workers: Processes; 1 works in this one.

    Raises:
        StoreError: Raised by the work, e.g. for a full disk; or a worker process died.
    """
    if workers <= 1 or len(names) <= 1:
        wanted = set(names)
        for image in source.images(root):
            if image.name in wanted:
                yield _attempt(image, work)
        return
    yield from _in_processes(source, root, names, work, workers)


def _attempt(image: SourceImage, work: Callable[[SourceImage], dict[str, Any]]) -> Outcome:
    try:
        return Outcome(image.name, work(image))
    except StoreError:
        raise
    except XPathError as error:
        return Outcome(image.name, None, str(error))
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything; the others go on
        said = f"{image.path}: {type(error).__name__}: {error}"
        return Outcome(image.name, None, said, traceback.format_exc())


@dataclass(slots=True)
class _WorkerState:
    """State of a worker process between two chunks."""

    images: dict[str, SourceImage]
    work: Callable[[SourceImage], dict[str, Any]]


_states: list[_WorkerState] = []
"""The one state of a worker process; stays empty in the main process."""


def _open_state(
    source: Source, root: Path, names: frozenset[str], work: Callable[[SourceImage], dict[str, Any]]
) -> None:
    wait_for_work()
    images = {image.name: image for image in source.images(root) if image.name in names}
    _states[:] = [_WorkerState(images, work)]


def _work_on(names: Sequence[str]) -> list[Outcome]:
    state = _states[0]
    with at_work():
        return [
            _attempt(state.images[name], state.work)
            if name in state.images
            else Outcome(name, None, f"{name} has gone since the run began; run it again")
            for name in names
        ]


def _in_processes(
    source: Source,
    root: Path,
    names: Sequence[str],
    work: Callable[[SourceImage], dict[str, Any]],
    workers: int,
) -> Iterator[Outcome]:
    chunks = (list(names[at : at + CHUNK]) for at in range(0, len(names), CHUNK))
    pool = ProcessPoolExecutor(
        max_workers=workers,
        mp_context=clean_processes(__name__, "xpath.pathseg.standardisation"),
        initializer=_open_state,
        initargs=(source, root, frozenset(names), work),
    )
    try:
        running: set[Future[list[Outcome]]] = set()
        while True:
            free = 2 * workers - len(running)  # enough waits for each; a full disk stops the rest
            running |= {pool.submit(_work_on, chunk) for chunk in islice(chunks, free)}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process died, most likely for lack of memory, or the source cannot be listed "
            "there; run again with fewer workers, it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
