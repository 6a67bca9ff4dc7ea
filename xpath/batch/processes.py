"""How processes of this machine start, and how many cores there are for them."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["clean_processes", "usable_cores"]


def clean_processes(*modules: str) -> BaseContext:
    """How processes start: never as a fork of this one, whose threads would be cut in half.

    Where there is one, a server imports the modules once and forks each process from there.

    Args:
        modules: What the work needs; only those of the first call are imported beforehand.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
