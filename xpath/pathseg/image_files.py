"""Image files as files: what their heads say, and writing them so that none is half there."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError, StoreError
from xpath.pathseg.decoding import stored_size
from xpath.pathseg.reading import refuse_damage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["image_size", "write_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"IEND\xaeB`\x82"
"""The last chunk of every PNG, with its checksum."""
FULL = {errno.ENOSPC, errno.EDQUOT}


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from the head of an image, without decoding it.

    Raises:
        DataError: Missing, empty, truncated (PNG only), a Git LFS pointer, or no image.
    """
    with refuse_damage(path, "image"), path.open("rb") as file:
        head = file.read(40)
        if head.startswith(b"version https://git-lfs"):
            raise DataError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull`")
        if not head.startswith(SIGNATURE):
            return stored_size(path)
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64))
        tail = file.read()
    if END not in tail:
        raise DataError(f"{path} is a truncated PNG; copy or make it again")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def write_png(path: Path, pixels: NDArray[np.generic]) -> None:
    """Writes RGB ``(H, W, 3)`` or a mask ``(H, W)``, True as 255, as PNG, over an older file.

    The file appears under its name when it is complete. It is not forced onto the disk: a folder
    of 100,000 would take hours; who resumes checks them.

    Raises:
        StoreError: The disk is full, or the quota used up.
    """
    import cv2

    values = np.asarray(pixels, np.uint8) * (255 if pixels.dtype == np.bool_ else 1)
    if values.ndim == 3:
        values = values[..., ::-1]
    # on tissue as small as the best compression, in a fifth of its time
    options = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    done, data = cv2.imencode(".png", np.ascontiguousarray(values), options)
    if not done:
        raise StoreError(f"{path} could not be encoded from {pixels.dtype} {pixels.shape}")
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_bytes(data.tobytes())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        if error.errno in FULL:
            raise StoreError(
                f"the disk is full; {path} was not written, free some space"
            ) from error
        raise
