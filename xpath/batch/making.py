"""Make an output once: not if it is there, not if somebody else is making it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.batch.claim import claim, claimant
from xpath.batch.record import forget, is_done, mark_done
from xpath.batch.runner import Busy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["make_once"]


def make_once(output: Path, key: str, produce: Callable[[], None]) -> bool:
    """Calls ``produce`` unless the output is done with this key; True if it was called.

    Args:
        output: File or folder that ``produce`` writes whole or not at all.
        key: Key over all settings and inputs.
        produce: Writes the output.

    Raises:
        Busy: Another process is making it.
    """
    if is_done(output, key):
        return False
    with claim(output) as owned:
        if not owned:
            raise Busy(f"{output.name} is being made by {claimant(output)}")
        if is_done(output, key):  # it became done while we waited for our turn
            return False
        forget(output)
        produce()
        mark_done(output, key)
    return True
