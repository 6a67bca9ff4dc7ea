"""Names and versions of our files, and the one way they come into being: whole.

A file is written beside its place and moved there when it is complete, so a killed process or a
full disk never leaves half a result under its final name.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from xpath.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FEATURES", "GRID", "MASKS", "atomic", "check_schema", "sha256_of"]

FEATURES = "xpath.features/1"
MASKS = "xpath.masks/1"
GRID = "xpath.grid/1"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A draft beside ``path``, moved there when the block ends well; a file or a folder.

    Nothing is left behind when the block raises. An existing file or folder is replaced.

    Raises:
        StoreError: The disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.part"
    try:
        yield draft
        _flush(draft)
        _replace(draft, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(f"the disk is full; {path} was not written, free some space") from error
        raise
    finally:
        _remove(draft)


def check_schema(path: Path, found: object, wanted: str) -> None:
    """Refuses files of strangers and of other versions.

    Raises:
        StoreError: ``found`` is not ``wanted``.
    """
    if found != wanted:
        what = f"has schema {found!r}" if found else "is not a file of ours"
        raise StoreError(f"{path} {what}, wanted {wanted!r}; remove it and make it again")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush(draft: Path) -> None:
    """Makes sure the bytes are on the disk before the name is."""
    for file in sorted(draft.rglob("*")) if draft.is_dir() else [draft]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _replace(draft: Path, path: Path) -> None:
    if draft.is_dir() and path.exists():  # a folder is only replaced when it is out of the way
        old = path.parent / f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.old"
        path.replace(old)
        draft.replace(path)
        _remove(old)
    else:
        draft.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
