"""A slide as OpenSlide reads it, where damage in one tile does not end the rest.

Axes: H W pixels.
"""

from __future__ import annotations

import math
import threading
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import SlideError
from xpath.store.pixel_types import TIFF_STARTS, convert_pixels, deep_tiff
from xpath.wsi.resample import on_white

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import Box

__all__ = ["OpenSlideReader"]

TIFF = (
    "TIFF is read if it is in tiles, not strips, of 8 bits a colour, with JPEG, LZW, Deflate, ZSTD"
    " or no compression"
)
PICTURES = {
    **dict.fromkeys(TIFF_STARTS, TIFF),
    b"MM\0*": f"{TIFF}, in the byte order of PCs (this one has the other)",
    b"\x89PNG": "PNG is a picture, not a slide",
    b"\xff\xd8": "JPEG is a picture, not a slide",
    b"\x00\x00\x00\x0cjP": "JPEG 2000 is a picture, not a slide",
    b"\xff\x4f\xff\x51": "JPEG 2000 is a picture, not a slide",
    b"RIFF": "WebP is a picture, not a slide",
    b"BM": "BMP is a picture, not a slide",
    b"GIF8": "GIF is a picture, not a slide",
}
"""Forms of files by their first bytes."""
LARGE = 2**28
"""Pixels that are read in seconds, whether they are there or not."""
MOST_PIXELS_A_BYTE = 1000
"""Blank glass as JPEG has about 100."""
FOREIGN = frozenset((".czi", ".isyntax", ".lif", ".nd2", ".oir", ".qptiff", ".vsi", ".zvi"))
"""Slides that Bio-Formats reads, and OpenSlide not, or not all of them."""
COMPANIONS = {
    ".mrxs": "the folder of its name beside it, which holds the pixels",
    ".vms": "the pictures beside it that it names",
    ".vmu": "the pictures beside it that it names",
    ".dcm": "the other files of its folder, one or more for each level",
}
"""What a slide of several files needs, by the suffix of the file that is passed."""


class OpenSlideReader:
    """An open file of any format OpenSlide knows, which threads may share.

    Raises:
        SlideError: The file is missing, or OpenSlide cannot read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = _open(path)
        self._handle: Any = handle  # None after a damaged tile: opened again by the next read
        self._closed = False
        self._lock = threading.Lock()
        self.properties = _properties(handle, path)
        """Properties the file stores, by OpenSlide's names."""
        self.level_dimensions: tuple[tuple[int, int], ...] = handle.level_dimensions
        """Width and height of each level."""
        self.level_downsamples: tuple[float, ...] = handle.level_downsamples
        """Level-0 pixels per pixel of each level: OpenSlide's mean of both axes."""

    def close(self) -> None:
        """Ends reading, but keeps what is known about the slide.

        The handle is let go, not closed: OpenSlide ends the process if a handle is closed while
        another thread reads from it. So the file is closed when the last of them is done.
        """
        with self._lock:
            self._closed = True
            self._handle = None

    def region(self, index: int, box: Box) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` of a level, transparent ones white.

        Once a tile is damaged OpenSlide refuses every tile until the file is opened again. The
        second try on a fresh handle tells damage here from damage another thread has met. The old
        handle is let go, not closed: other threads may be reading from it.

        Args:
            index: The level.
            box: In pixels of the level, inside it.

        Raises:
            SlideError: This part of the file is damaged, or the slide is closed.
        """
        import openslide

        handle = self._open_handle()
        try:
            return self._pixels(handle, index, box)
        except openslide.OpenSlideError:
            with self._lock:
                self._handle = None if self._handle is handle else self._handle
        fresh = _open(self.path)
        try:
            pixels = self._pixels(fresh, index, box)
        except openslide.OpenSlideError as error:
            fresh.close()
            raise SlideError(
                f"{self.path.name} is damaged at {box} (pixels of level {index}): {error}"
            ) from error
        with self._lock:
            if self._handle is None and not self._closed:
                self._handle = fresh
        return pixels

    def shift(self, index: int, corner: int) -> float:
        """How far past a corner a region really begins, along one axis, in pixels of the level.

        OpenSlide takes corners in whole pixels of level 0, divides them by a downsample that is a
        little off, and blends neighbours where that gives no whole pixel. So a region begins a
        little before its corner: were it past it, its end would be blended with what is no slide.
        """
        scale = self.level_downsamples[index]
        return _full(corner, scale) / scale - corner

    def _open_handle(self) -> Any:
        with self._lock:
            if self._closed:
                raise SlideError(f"{self.path.name} is closed; read within its with block")
            if self._handle is None:
                self._handle = _open(self.path)
            return self._handle

    def _pixels(self, handle: Any, index: int, box: Box) -> NDArray[np.uint8]:
        """The region that begins where it should, or a little before."""
        scale = self.level_downsamples[index]
        corner = (_full(box.x, scale), _full(box.y, scale))
        region = handle.read_region(corner, index, (box.width, box.height))
        return on_white(np.asarray(region, np.uint8))


def _full(corner: int, scale: float) -> int:
    """The last pixel of level 0 that is not past a corner."""
    return math.floor(corner * scale + 1e-6)


def _open(path: Path) -> Any:
    """An OpenSlide handle."""
    import openslide

    if not path.exists():
        link = f", it is a link to {path.readlink()}, which is gone" if path.is_symlink() else ""
        raise SlideError(f"{path} does not exist{link}")
    if path.is_dir():
        raise SlideError(f"{path} is a folder, not a slide; pass one of the files in it")
    if type_ := deep_tiff(path):
        raise SlideError(convert_pixels(path, type_, options="[tile,pyramid]"))
    try:
        handle = openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise SlideError(
            f"{path} is no slide OpenSlide can read ({error}); is the file complete?{_advice(path)}"
        ) from error
    _refuse_boast(path, *handle.dimensions)
    return handle


def _refuse_boast(path: Path, width: int, height: int) -> None:
    """Refuses a TIFF that claims to be so large that reading what is not there takes minutes.

    Raises:
        SlideError: No compression of pixels could make the file so small.
    """
    with path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_STARTS  # others have their pixels in further files
    held = path.stat().st_size
    if is_tiff and width * height > max(LARGE, MOST_PIXELS_A_BYTE * held):
        raise SlideError(
            f"{path.name} claims to have {width} x {height} pixels, in {held} bytes; the file is"
            " damaged or cut: copy or convert it again"
        )


def _advice(path: Path) -> str:
    """Advice on a file that is complete, but of a form OpenSlide does not read."""
    with path.open("rb") as file:
        head = file.read(8)
    if (needs := COMPANIONS.get(path.suffix.lower())) and not (path.parent / path.stem).is_dir():
        return f" {path.suffix} is read together with {needs}; copy that to {path.parent}, too"
    form = next((form for start, form in PICTURES.items() if head.startswith(start)), "")
    name, stem = quote(path.name), quote(path.stem)
    if path.suffix.lower() in FOREIGN:
        return (
            " If so: it is of a scanner that OpenSlide does not read; convert it to OME-TIFF, for"
            f" example in QuPath, or with `bfconvert {name} {stem}.ome.tiff`"
        )
    if not form:
        return ""
    return (
        f" If so: {form}; convert it, for example with"
        f" `vips tiffsave {name} {stem}.converted.tiff --tile --pyramid`"
    )


def _properties(handle: Any, path: Path) -> dict[str, str]:
    try:
        return dict(handle.properties)
    except (KeyError, ValueError) as error:
        raise SlideError(
            f"{path} has properties that cannot be read ({error!r}), names that are not UTF-8 for"
            " example; the file is damaged or foreign: copy or convert it again"
        ) from error
