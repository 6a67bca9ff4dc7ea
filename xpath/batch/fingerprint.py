"""Telling a slide file from another of the same name and size, without reading gigabytes."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from stat import S_ISREG
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fingerprint"]

SAMPLES = 16
"""Blocks read of a file, spread from its first byte to its last."""
BLOCK = 1 << 16
"""Bytes of a block. Smaller files are read whole."""


def fingerprint(path: Path) -> str:
    """SHA-256 over size and samples of a slide file, and of all files that belong to it.

    Two slides differ in every compressed tile and so in every sample. A few bytes that were changed
    between samples, as in an edited annotation, go unnoticed. What is no regular file, such as a
    pipe that might never answer, is not read.

    Raises:
        OSError: A file cannot be read.
    """
    digest = sha256()
    for file in (path, *_companions(path)):
        about = file.stat()
        if S_ISREG(about.st_mode):
            digest.update(_of_file(file, about.st_size, about.st_ino, about.st_mtime_ns))
    return digest.hexdigest()


def _companions(path: Path) -> list[Path]:
    """The files of a MIRAX slide, whose ``.mrxs`` is but a small picture."""
    folder = path.with_suffix("")
    if path.suffix.lower() != ".mrxs" or not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file())


@cache
def _of_file(path: Path, size: int, *_: int) -> bytes:
    """Digest of a file, computed again when it was changed."""
    digest = sha256(str(size).encode())
    last = max(size - BLOCK, 0)
    with path.open("rb") as file:
        for offset in sorted({last * sample // (SAMPLES - 1) for sample in range(SAMPLES)}):
            file.seek(offset)
            digest.update(file.read(BLOCK))
    return digest.digest()
