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

__all__ = ["at_work", "clean_processes", "usable_cores", "wait_for_work"]

WISHES = (signal.SIGINT, signal.SIGTERM)
"""Signals of those who want work to end."""
ENDED = 128
"""Added to the number of a signal in the exit status of whom it ended."""

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


def wait_for_work() -> None:
    """Begins a process that others give work to, one piece after the other.

    Ctrl-C reaches it too, but ends no more than its work. It ends by itself when the process that
    began it is gone, though not in the middle of its work: who is killed cannot end others, which
    would wait for ever, with all the memory that their networks take.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, name="xpath parent", daemon=True).start()


@contextmanager
def at_work() -> Iterator[None]:
    """Surrounds a piece of work in a process that ``wait_for_work`` began. Ctrl-C ends it in order.

    It does not end the process, which the first one does. A wish that it ends is granted when the
    work is left.
    """
    with _work:
        before = {number: signal.signal(number, _leave) for number in WISHES}
        try:
            yield
        except SystemExit as wish:
            if wish.code == ENDED + signal.SIGTERM:
                os._exit(ENDED + signal.SIGTERM)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _leave(number: int, _: object) -> None:
    """Ends a piece of work, so that its drafts and locks are removed, whoever asks again."""
    for wish in WISHES:
        signal.signal(wish, signal.SIG_IGN)
    raise SystemExit(ENDED + number)


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        with _work:
            os._exit(1)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that begin in the block hear no Ctrl-C, if the main thread begins them."""
    first = threading.current_thread() is threading.main_thread()
    if not first or signal.getsignal(signal.SIGINT) is None:  # None: it is not Python's
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
