"""First look at a slide in a child process, so that a broken file can end only that child.

Libraries that read slides are native code: on some damaged files they abort, hang or ask for
terabytes, and take the whole process with them. The child has limits on time, memory and open
files; one child serves many slides, and is replaced when a slide has ended it.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from xpath import errors
from xpath.errors import ConfigError, SlideError
from xpath.geometry import Size
from xpath.wsi.pyramid import Level

if TYPE_CHECKING:
    from typing import BinaryIO

    from xpath.errors import XPathError

__all__ = ["ProbeLimits", "Prober", "SlideProbe", "probe"]

CHILD = "xpath.wsi.probe_child"
GRACE = 2.0
"""Seconds a killed child has to end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeLimits:
    """Limits on time, memory and open files of the first look at a slide."""

    seconds: float = 60.0
    """Time for one slide. Network drives are slow, a hang is for ever."""
    memory: int = 4 * 2**30
    """Address space of the child in bytes."""
    files: int = 512
    """Files the child may have open. A DICOM slide has one for each part of its pyramid."""

    def __post_init__(self) -> None:
        """Refuses limits within which nothing can be read."""
        if not (self.seconds > 0 and self.memory >= 2**28 and self.files >= 16):
            raise ConfigError(f"wanted seconds > 0, memory >= 256 MiB and files >= 16, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideProbe:
    """Facts about a slide from the first look at it."""

    size: Size
    """Level 0 in pixels."""
    levels: tuple[Level, ...]
    mpp: float | None
    """Microns per pixel at level 0, None where unknown or absurd."""
    vendor: str
    """Format by OpenSlide's name, such as ``aperio``, empty where unknown."""
    objective: float | None
    """Objective power the slide was scanned with, None where it is not stored."""
    problems: tuple[str, ...]
    """Sentences on what may go wrong later, although the slide can be opened."""


def probe(
    path: str | Path, *, mpp: float | None = None, limits: ProbeLimits | None = None
) -> SlideProbe:
    """Opens a slide in a child process and reads its properties and two tiles of each level.

    The child is kept for the next slide: the first call takes some tenths of a second, the
    following ones as long as the reading does.

    Args:
        path: Any file that ``Slide.open`` takes.
        mpp: Microns per pixel at level 0; overrides what the slide stores.
        limits: Time, memory and open files of the child.

    Raises:
        SlideError: The slide cannot be opened, or reading it ended the child or took too long.
        ResolutionError: ``mpp`` is absurd.
    """
    return _prober(limits or ProbeLimits(), os.getpid()).probe(path, mpp=mpp)


class Prober:
    """A child process that looks at slides, one after the other, for threads that take turns."""

    def __init__(self, limits: ProbeLimits | None = None) -> None:
        self.limits = limits or ProbeLimits()
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """The prober itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the child."""
        self.close()

    def probe(self, path: str | Path, *, mpp: float | None = None) -> SlideProbe:
        """The first look at one slide, as by the function ``probe``."""
        path = Path(path)
        with self._lock:
            child, self._child = self._child, None
            if child is None or child.process.poll() is not None:
                child = _start(self.limits)
            try:
                answer = self._ask(child, path, mpp)
                self._child = child
            finally:  # after Ctrl-C too: the next slide must not wait for this one's answer
                if self._child is None:
                    child.end()
        if "error" in answer:
            raise _error(answer)
        return _probe_of(answer)

    def close(self) -> None:
        """Ends the child."""
        with self._lock:
            if self._child is not None:
                self._child.end()
                self._child = None

    def _ask(self, child: _Child, path: Path, mpp: float | None) -> dict[str, Any]:
        """The child's answer."""
        answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        question = {"path": str(path), "mpp": mpp}
        asking = threading.Thread(target=lambda: answers.put(child.ask(question)), daemon=True)
        asking.start()
        try:
            answer = answers.get(timeout=self.limits.seconds)
        except queue.Empty:
            child.process.kill()
            asking.join(GRACE)  # a dead network drive keeps even the killed: not for ever
            raise SlideError(
                f"{path.name} was not opened and sampled within {self.limits.seconds:g} s; look"
                " whether the file is complete and its drive answers, or leave it out"
            ) from None
        if answer is None:
            raise SlideError(
                f"{path.name} ended the process that looked at it ({child.last_words()}); the file"
                " is damaged: copy or convert it again, or leave it out"
            )
        return answer


class _Child(NamedTuple):
    process: subprocess.Popen[bytes]
    stderr: BinaryIO
    """The stderr of the child and of the libraries in it."""

    def ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to one question, or None if the child ended instead."""
        questions, answers = self.process.stdin, self.process.stdout
        if questions is None or answers is None:
            return None
        try:
            questions.write(json.dumps(question).encode() + b"\n")
            questions.flush()
            line = answers.readline()
        except OSError:  # it ended before it read the question
            return None
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    def last_words(self) -> str:
        """How the child ended: its signal, and the last line it wrote."""
        code = self.process.wait()
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").split("\n")
        how = _signal_name(-code) if code < 0 else f"exit status {code}"
        return ": ".join([how, *[line.strip() for line in lines if line.strip()][-1:]])

    def end(self) -> None:
        """Ends the process and closes its pipes."""
        self.process.kill()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            if stream is not None:
                stream.close()


def _start(limits: ProbeLimits) -> _Child:
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-m", CHILD, str(limits.memory), str(limits.files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return _Child(process, stderr)


@cache
def _prober(limits: ProbeLimits, process: int) -> Prober:
    """The shared child of this process: after a fork, the parent's pipes are not ours."""
    prober = Prober(limits)
    atexit.register(lambda: prober.close() if os.getpid() == process else None)
    return prober


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _error(answer: dict[str, Any]) -> XPathError:
    """The error that ended the child's work on a slide, of its class if it is one of ours."""
    own: type[XPathError] | None = getattr(errors, answer["error"], None)
    if own is not None:
        return own(answer["message"])
    return SlideError(f"{answer['message']} ({answer['error']})")


def _probe_of(answer: dict[str, Any]) -> SlideProbe:
    levels = tuple(Level(scale, Size(*size)) for scale, *size in answer["levels"])
    return SlideProbe(
        size=levels[0].size,
        levels=levels,
        mpp=answer["mpp"],
        vendor=answer["vendor"],
        objective=answer["objective"],
        problems=tuple(answer["problems"]),
    )
