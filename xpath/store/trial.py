"""First look at an HDF5 file of others in a child process, which a damaged file may end or stall.

The HDF5 library is native code: some damaged headers send it round in circles or make it abort.
One child serves many files, and is replaced when a file has ended it.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from xpath.errors import StoreError

__all__ = ["main", "try_h5"]

SECONDS = 15.0
"""Time for the names, attributes and first rows of one file; a good one takes milliseconds."""
MEMORY = 4 << 30
"""Address space of the child in bytes, where the system can limit it."""

_lock = threading.Lock()
_children: dict[int, subprocess.Popen[bytes]] = {}
"""The child of this process, by process: after a fork, the parent's pipes are not ours."""


def try_h5(path: Path) -> None:
    """Has a child read names, attributes and first rows of a file, whatever they are.

    Raises:
        StoreError: The child ended, or was not done in time.
    """
    with _lock:
        child = _child()
        stop = threading.Timer(SECONDS, child.kill)
        stop.start()
        answer = b""
        try:
            answer = _ask(child, path)
        finally:
            stop.cancel()
            if not answer:  # after Ctrl-C too: the next file must not get this one's answer
                child.kill()
    if not answer:
        child.wait()
        raise StoreError(
            f"{path} ended the process that looked at it, or held it up for {SECONDS:g} s; the file"
            " is damaged: make it again, or leave it out"
        )


def main() -> None:
    """Answers a line for every line, a path as JSON, until stdin ends."""
    with suppress(ImportError):  # Windows has no limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        with suppress(Exception):  # what can be said about it, the reader itself will say
            _look(Path(json.loads(line)))
        sys.stdout.write("looked\n")
        sys.stdout.flush()


def _look(path: Path) -> None:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        for holder in (file, *(file[name] for name in file)):
            with suppress(Exception):  # the others are looked at all the same
                _ = dict(holder.attrs), holder[:1] if hasattr(holder, "shape") else None


def _ask(child: subprocess.Popen[bytes], path: Path) -> bytes:
    """The child's answer, empty if it ended instead."""
    if child.stdin is None or child.stdout is None:
        return b""
    try:
        child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
        child.stdin.flush()
        return child.stdout.readline()
    except OSError:  # it ended before it read the question
        return b""


def _child() -> subprocess.Popen[bytes]:
    child = _children.get(os.getpid())
    if child is None or child.poll() is not None:
        home = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        child = subprocess.Popen(
            [sys.executable, "-m", "xpath.store.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": home, "OPENBLAS_NUM_THREADS": "1"},
        )
        _close()
        _children[os.getpid()] = child
    return child


@atexit.register
def _close() -> None:
    """Ends the child of this process and closes its pipes."""
    child = _children.pop(os.getpid(), None)
    if child is not None:
        child.kill()
        child.communicate()


if __name__ == "__main__":
    main()
