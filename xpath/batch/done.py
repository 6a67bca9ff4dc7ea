"""When is an output done? When its seal, its key and its bytes agree.

Beside ``masks.zarr`` lies ``masks.zarr.done.json``: a key over the settings and inputs it was made
from, and size and SHA-256 of every file. Nothing else counts as done: no file by its name alone, no
file of other settings, no file that was cut short. The bytes are read once: what the files looked
like then lies in ``.masks.zarr.checked``, and they are read again only when they look otherwise.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from xpath.batch.claim import Busy, claim, claimant
from xpath.errors import StoreError
from xpath.store.schema import atomic, check_fence, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "content_of",
    "forget",
    "is_done",
    "is_intact",
    "key_of",
    "make_once",
    "mark_done",
    "read_key",
]

SCHEMA = "xpath.done/1"
FRESH = 2_000_000_000
"""Nanoseconds within which a file may change again without a later time of change."""

_verified: dict[Path, str] = {}
"""What outputs looked like when this process compared their bytes with their seal."""


class Seal(NamedTuple):
    """The content of a seal, written when an output was complete."""

    key: str
    files: dict[str, tuple[int, str]]
    """Bytes and SHA-256 by relative name, of a single file by its own name."""


def make_once(output: Path, key: str, produce: Callable[[], None]) -> bool:
    """Calls ``produce`` unless the output is done with this key. Returns True if it was called.

    Args:
        output: File or folder that ``produce`` writes whole or not at all.
        key: Key over all settings and inputs.
        produce: Writes the output.

    Raises:
        Busy: Another process is making it, or took it over because this one stood still.
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
        check_fence(output)
        mark_done(output, key)
    return True


def key_of(*inputs: object) -> str:
    """One key for settings and inputs: SHA-256 of their JSON.

    Args:
        inputs: Anything JSON knows; for a file that xpath made, its ``content_of``.

    Raises:
        TypeError: An input that JSON does not know.
    """
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def mark_done(output: Path, key: str) -> None:
    """Seals a complete output, a file or a folder.

    Raises:
        StoreError: There is no such output, or it is an empty folder.
    """
    paths = _files(output)
    if not paths:
        raise StoreError(f"{output} is not there or empty, so it cannot be done; make it first")
    files = {name: (path.stat().st_size, sha256_of(path)) for name, path in paths.items()}
    content = {"schema": SCHEMA, "key": key, "files": files}
    with atomic(_seal_path(output)) as draft:
        draft.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def is_done(output: Path, key: str) -> bool:
    """True if an output was sealed with this key and is still, byte for byte, what was sealed.

    The bytes are read once, and again only if a file has another size, position on disk or time of
    change.
    """
    seal = _read(output)
    return seal is not None and seal.key == key and _is_intact(output, seal)


def is_intact(output: Path) -> bool:
    """True if an output is byte for byte what was sealed, all of it read now."""
    seal = _read(output)
    _verified.pop(output, None)
    _checked_path(output).unlink(missing_ok=True)
    return seal is not None and _is_intact(output, seal)


def _is_intact(output: Path, seal: Seal) -> bool:
    try:
        paths = _files(output)
        about = {name: path.stat() for name, path in paths.items()}
        sizes = {name: stat.st_size for name, stat in about.items()}
        if sizes != {name: size for name, (size, _) in seal.files.items()}:
            return False  # cheap, and catches all that was cut short
        looks = key_of(seal, {name: (it.st_ino, it.st_ctime_ns) for name, it in about.items()})
        if looks in (_verified.get(output), _checked(output)):
            return True
        same = all(sha256_of(path) == seal.files[name][1] for name, path in paths.items())
    except OSError:  # unreadable, or removed while we look
        return False
    if same and time.time_ns() - max(stat.st_ctime_ns for stat in about.values()) > FRESH:
        _keep_checked(output, looks)
    return same


def read_key(output: Path) -> str:
    """The key an output was sealed with, or an empty string if it was not."""
    seal = _read(output)
    return seal.key if seal else ""


def content_of(output: Path) -> str:
    """SHA-256 over an output as it was sealed, for the keys of what is made from it.

    An input that is made again with the same bytes does not make its users start over.

    Raises:
        StoreError: It was not sealed.
    """
    seal = _read(output)
    if seal is None:
        raise StoreError(f"{output} was never completed; run the stage that makes it first")
    return key_of(sorted((name, digest) for name, (_, digest) in seal.files.items()))


def forget(output: Path) -> None:
    """Breaks the seal, so that the output will be made again."""
    _seal_path(output).unlink(missing_ok=True)


def _keep_checked(output: Path, looks: str) -> None:
    """Writes down what an output looked like when its bytes were compared."""
    _verified[output] = looks
    with suppress(OSError):  # of others, who do not let us write; then the next process reads again
        _checked_path(output).write_text(looks)


def _checked(output: Path) -> str:
    """Look of an output when its bytes were compared, empty if they never were."""
    try:
        return _checked_path(output).read_text()
    except (OSError, ValueError):
        return ""


def _checked_path(output: Path) -> Path:
    return output.with_name(f".{output.name}.checked")


def _seal_path(output: Path) -> Path:
    return output.with_name(output.name + ".done.json")


def _read(output: Path) -> Seal | None:
    """The seal, or None if there is none that we understand."""
    try:
        content = json.loads(_seal_path(output).read_text())
        files = {
            name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()
        }
        if content["schema"] != SCHEMA or not files:
            return None
        return Seal(str(content["key"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _files(output: Path) -> dict[str, Path]:
    """Every file of an output by its relative name, in order."""
    if output.is_dir():
        paths = sorted(path for path in output.rglob("*") if path.is_file())
        return {path.relative_to(output).as_posix(): path for path in paths}
    return {output.name: output} if output.is_file() else {}
