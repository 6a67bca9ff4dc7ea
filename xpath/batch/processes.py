"""How processes of this machine start, and how many cores there are for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import BaseContext

__all__ = ["at_work", "clean_processes", "end_with_parent", "usable_cores"]

_work = threading.Lock()
"""Held while this process is in the middle of a piece of work."""


def clean_processes(*modules: str) -> BaseContext:
    """How processes start: never as a fork of this one, whose threads would be cut in half.

    Where there is one, a server imports the modules once and forks each process from there.

    Args:
        modules: What the work needs; only those of the first call are imported beforehand.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    with _deaf_to_interrupts():  # Ctrl-C would end its imports with a traceback
        forkserver.ensure_running()
    first = context.Process(target=int)  # a pool that is interrupted while the server
    first.start()  # begins would leave a process that looks for it in vain
    first.join()
    return context


def end_with_parent() -> None:
    """Ends this process when the one that began it is gone, but not in the middle of its work.

    A process that is killed cannot end the ones it began, which would wait for work for ever, with
    all the memory that their networks take.
    """
    threading.Thread(target=_wait_for_parent, name="xpath parent", daemon=True).start()


@contextmanager
def at_work() -> Iterator[None]:
    """Surrounds a piece of work, in a process that may have to end with its parent."""
    with _work:
        yield


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        with _work:
            os._exit(1)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that begin in the block hear no Ctrl-C, if the main thread begins them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
