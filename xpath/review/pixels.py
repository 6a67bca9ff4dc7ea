"""Tiles of slides as the viewer gets them: JPEG, read when asked for, the last ones remembered.

A slide that was moved away is another refusal than a tile that does not exist, so that everything
else of the run can still be looked at.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from xpath.errors import SlideError
from xpath.geometry import Box, Size
from xpath.review.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from xpath.batch.slides import SlideEntry
    from xpath.review.pyramid import Tile
    from xpath.study.study import Study
    from xpath.wsi.slide import Slide

__all__ = ["Recent", "SlidePixels", "encoded", "look_of"]

Value = TypeVar("Value")

OPEN_SLIDES = 4
"""Slides held open at once; each takes a file and OpenSlide's own cache."""
QUALITY = 85


class Recent(Generic[Value]):
    """The last few answers, shared by all threads of the server.

    An answer is made once, however many ask for it at a time; others do not wait for it.
    """

    def __init__(self, most: int) -> None:
        """Remembers ``most`` answers."""
        self._most = most
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._gates: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The answer to a key, made if it is not remembered."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            gate = self._gates.setdefault(key, threading.Lock())
        with gate:
            if key in self._kept:  # while this thread waited
                return self.get(key, make)
            try:
                return self._keep(key, make())
            finally:
                with self._lock:
                    self._gates.pop(key, None)

    def _keep(self, key: Hashable, value: Value) -> Value:
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value


class SlidePixels:
    """Reads tiles of the slides of a study."""

    def __init__(self, study: Study) -> None:
        """Opens nothing yet."""
        self._study = study
        # A slide that is forgotten is not closed: another thread may be reading from it.
        self._slides: Recent[Slide] = Recent(OPEN_SLIDES)
        self._tiles: Recent[bytes] = Recent(1024)

    def missing(self, entry: SlideEntry) -> str:
        """The reason why a slide cannot be shown, empty where it can."""
        try:
            self._open(entry)
        except Refused as refused:
            return refused.reason
        return ""

    def origin(self, entry: SlideEntry) -> Box:
        """The scanned part of a slide, from whose corner QuPath measures.

        Raises:
            Refused: The slide was moved away, or cannot be read.
        """
        return self._open(entry).bounds

    def slide(self, entry: SlideEntry) -> Slide:
        """A slide, open for reading.

        Raises:
            Refused: The slide was moved away, or cannot be read.
        """
        return self._open(entry)

    def region(self, entry: SlideEntry, box: Box, size: Size) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` under a box in level-0 pixels.

        Raises:
            Refused: The slide was moved away, or is damaged here.
        """
        try:
            return self._open(entry).read(box, size)
        except SlideError as error:
            raise Refused(422, f"the slide is damaged here: {type(error).__name__}") from error

    def jpeg(self, entry: SlideEntry, tile: Tile) -> bytes:
        """A tile.

        Raises:
            Refused: The slide was moved away, or is damaged here.
        """
        slide = self._open(entry)  # also asks whether it is still there
        key = (entry.slide_id, look_of(entry.path), tile)
        return self._tiles.get(key, lambda: self._read(slide, tile))

    def _read(self, slide: Slide, tile: Tile) -> bytes:
        try:
            return encoded(slide.read(tile.box, tile.size), "JPEG")
        except SlideError as error:
            raise Refused(422, f"the slide is damaged here: {type(error).__name__}") from error

    def _open(self, entry: SlideEntry) -> Slide:
        look = look_of(entry.path)
        if look is None:
            raise Refused(
                410,
                f"The slide file {entry.path.name} is not where it was when the run was made."
                " Objects, maps and findings can still be used; move it back to see the tissue.",
            )
        try:
            return self._slides.get((entry.slide_id, look), lambda: self._study.open_slide(entry))
        except SlideError as error:
            raise Refused(
                422, f"The slide file {entry.path.name} cannot be read; is it complete?"
            ) from error


def look_of(path: Path) -> tuple[int, int] | None:
    """Changes with a file, and with a folder that is replaced. None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def encoded(image: NDArray[np.uint8], file_type: str) -> bytes:
    """``(H, W, 3)`` or ``(H, W, 4)`` as ``JPEG`` or ``PNG``."""
    from PIL import Image

    buffer = io.BytesIO()
    options = {"quality": QUALITY} if file_type == "JPEG" else {"compress_level": 1}
    Image.fromarray(image).save(buffer, file_type, **options)
    return buffer.getvalue()
