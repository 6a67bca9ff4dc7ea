"""Names and versions of our files, and the one way they come into being: whole.

A file is written beside its final path and moved there when it is complete, so a killed process or
a full disk never leaves half a result under its final name.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from xpath.errors import StoreError, XPathError
from xpath.store.process import is_dead, this_machine, this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "FEATURES",
    "GRID",
    "MASKS",
    "atomic",
    "check_fence",
    "check_schema",
    "damage_refused",
    "fenced",
    "first_line",
    "name_unknown",
    "sha256_of",
]

logger = logging.getLogger(__name__)

FEATURES = "xpath.features/1"
MASKS = "xpath.masks/1"
GRID = "xpath.grid/1"

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""As programs send them to a terminal."""
FULL = {errno.ENOSPC, errno.EDQUOT}
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}

_fences: dict[Path, Callable[[], None]] = {}
"""Checks of the paths that this process may lose the right to write."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A draft file or folder beside ``path``, moved there when the block ends well.

    The block creates the draft under the name it is given. Nothing is left behind when the block
    raises; what a killed process left behind is swept when the same path is written again. An
    existing file is replaced, and so is a folder, but only by a folder. A fence around the path may
    raise at the last moment, and the path then stays as it is.

    Raises:
        StoreError: The disk is full, or the quota used up; its folder cannot be made; a file would
            take the place of a folder and of all that is in it.
    """
    _make_home(path)
    _sweep(path)
    draft = _beside(path, "part")
    try:
        yield draft
        _flush(draft)
        check_fence(path)
        _replace(draft, path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(
                f"the disk is full; {path} was not written, free some space and try again"
            ) from error
        raise
    finally:
        _remove(draft)


def check_schema(path: Path, found: object, wanted: str, *, remedy: str = "make it again") -> None:
    """Refuses files that are not ours, and those of other versions.

    Args:
        path: The file, for the message.
        found: What it says its schema is; None if it says nothing.
        wanted: Name and version, such as ``xpath.features/1``.
        remedy: What to do about a file of another version.

    Raises:
        StoreError: ``found`` is not ``wanted``.
    """
    if found == wanted:
        return
    if not found:
        raise StoreError(f"{path} was not written by xpath; wanted a file of schema {wanted!r}")
    name = wanted.rpartition("/")[0]
    if str(found).rpartition("/")[0] == name:
        advice = f"{remedy}, or use the version of xpath that wrote it"
    else:
        advice = "it is another type of file; check the path"
    raise StoreError(f"{path} has schema {found!r}, wanted {wanted!r}: {advice}")


@contextmanager
def fenced(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """Lets a check refuse, at the last moment, that ``atomic`` writes a path in this process.

    Args:
        path: The file or folder.
        check: Raises if it is not ours to write any more.
    """
    _fences[path] = check
    try:
        yield
    finally:
        _fences.pop(path, None)


def check_fence(path: Path) -> None:
    """Raises what the fence around a path raises, if there is one."""
    if path in _fences:
        _fences[path]()


def name_unknown(path: Path, names: Iterable[str], known: Iterable[str]) -> None:
    """Warns of fields, arrays or columns that a newer version wrote and this one passes over.

    Args:
        path: The file, for the message.
        names: Everything that is in it.
        known: Everything that this version reads.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        logger.warning("%s has %s of a newer version, passed over", path, ", ".join(unknown))


@contextmanager
def damage_refused(
    path: Path,
    remedy: str = "remove it and make it again",
    *,
    passed_on: type[XPathError] = StoreError,
) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into one error that names it.

    So what one file raises, by whatever library, is that file's failure and the others go on.

    Args:
        path: The file.
        remedy: What to do about it.
        passed_on: Errors that say already what is wrong with the file.

    Raises:
        StoreError: The block met a missing part, nonsense, or a truncated file.
    """
    try:
        yield
    except passed_on:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")
        raise StoreError(f"{path} is damaged ({reason}); {remedy}") from error


def first_line(error: Exception) -> str:
    """The first line of a message without colours, or the error's name where it has none."""
    return COLOURS.sub("", str(error).partition("\n")[0]).strip() or type(error).__name__


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _make_home(path: Path) -> None:
    """The folder a file or folder is to lie in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written, there is no folder {path.parent} and none can be made"
            f" ({error}); choose another place"
        ) from error


def _host() -> str:
    """A short stand-in for the machine and the namespace of its pids."""
    return sha256(this_machine().encode()).hexdigest()[:8]


def _beside(path: Path, suffix: str) -> Path:
    """A hidden name in the same folder that holds its machine and process."""
    return path.parent / f".{path.name}.{_host()}.{os.getpid()}.{uuid4().hex[:8]}.{suffix}"


def _sweep(path: Path) -> None:
    """Removes what dead processes of this machine left behind when they wrote ``path``."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{_host()}\.(\d+)\.[0-9a-f]{{8}}\.(part|old)")
    for entry in list(path.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if not match or not is_dead(this_process()._replace(pid=int(match[1]), started="")):
            continue
        if match[2] == "old" and not path.exists():  # killed between the two moves of _replace
            with suppress(OSError):
                entry.replace(path)
        else:
            _remove(entry)


def _flush(draft: Path) -> None:
    """Makes sure the bytes are on the disk before the name is."""
    if not draft.is_dir():
        _flush_file(draft)
        return
    for entry in sorted(draft.rglob("*")):
        if entry.is_file():
            _flush_file(entry)
        elif entry.is_dir():
            _flush_folder(entry)
    _flush_folder(draft)


def _flush_file(path: Path) -> None:
    if not path.stat().st_mode & 0o077:  # some libraries write what only its owner may read
        path.chmod(path.stat().st_mode | path.parent.stat().st_mode & 0o666)
    with path.open("rb+") as handle:  # Windows flushes only what is open for writing
        os.fsync(handle.fileno())


def _flush_folder(path: Path) -> None:
    """Makes new names in a folder last, where the system can and needs to."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def _replace(draft: Path, path: Path) -> None:
    """Moves the draft to its place."""
    if not (path.exists() and (draft.is_dir() or path.is_dir())):
        draft.replace(path)
        return
    if path.is_dir() and not draft.is_dir():  # a slip of the user must not cost them a folder
        raise StoreError(f"{path} is a folder, but a file is to be written; name the file")
    old = _beside(path, "old")  # a folder is only replaced when it is out of the way
    path.replace(old)
    try:
        draft.replace(path)
    except OSError:
        old.replace(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    """Removes a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
