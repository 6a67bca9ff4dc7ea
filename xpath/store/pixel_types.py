"""Traits of pictures that images for a model do not have: deep pixels, pages, turns."""

from __future__ import annotations

import logging
import math
from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING, Any

from xpath.store.names import SLIDE_SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ORIENTATION",
    "TIFF_STARTS",
    "TURNED",
    "convert_pixels",
    "deep_tiff",
    "dim_values",
    "is_picture",
    "tiff_form",
    "tiff_orientation",
    "tiff_pages",
]

logger = logging.getLogger(__name__)

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, in both byte orders."""
PICTURE_STARTS = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"\x00\x00\x00\x0cjP",
    b"\xff\x4f\xff\x51",
    b"RIFF",
    b"BM",
    b"GIF8",
)
"""First bytes of PNG, JPEG, JPEG 2000, WebP, BMP and GIF."""
UNSIGNED = (1, 4)
"""Sample formats of whole numbers without sign; the second is what many call undefined."""
MOST_BITS = 16
"""Readers take the upper 8 of 16 bits, and refuse more."""
DIM = 2**14
"""Pixels of 16 bits with no value from here on are those of a camera of fewer bits, and would come
out as a quarter as bright as they are or darker. Glass and paper are white."""
MOST_SEGMENTS = 64
"""Tiles or strips that are decoded to learn the largest value."""
MOST_VALUES = 2**27
"""Of a tile or strip that is decoded for that."""
MOST_PAGES = 1000
"""That are counted."""
FORMATS = {2: "signed integer", 3: "float", 5: "complex", 6: "complex"}
HAMAMATSU = 65420
"""Tag of a NDPI."""
ORIENTATION = 274
"""Tag of TIFF and of EXIF: 1 as stored, 2 to 8 turned or mirrored."""
TURNED = (
    "%s asks viewers to turn or mirror it (orientation %d); its pixels are taken as they are"
    " stored, and so are its masks and outlines"
)

_warned: set[Path] = set()


def deep_tiff(path: Path) -> str:
    """Type of the pixels of a TIFF where they cannot be read as 8 bits: ``32-bit float``.

    Empty where they can, and for files that are no TIFF or too damaged to tell. Of 16 bits the
    upper 8 are seen, which a warning says once; where values leave those empty, they are named.
    """
    page = _first_page(path)
    if page is None:
        return ""
    sample, bits = int(page.sampleformat), int(page.bitspersample)
    if sample not in UNSIGNED or bits > MOST_BITS:
        return f"{bits}-bit {FORMATS.get(sample, 'integer')}"
    if bits <= 8:
        return ""
    largest = _largest(path, page) if bits == MOST_BITS else 0
    if largest and (dim := dim_values(largest)):
        return dim
    if path not in _warned:
        _warned.add(path)
        doubt = "" if largest else "; if it comes out dark, scale its values to 0..255 first"
        logger.warning(
            "%s has %d-bit pixels, of which the upper 8 bits are seen%s", path, bits, doubt
        )
    return ""


def dim_values(largest: int) -> str:
    """Words for pixels of 16 bits whose values leave the upper ones empty, empty if they do not.

    Args:
        largest: Of all values. 0 is a black picture, of any depth.
    """
    if not 0 < largest < DIM:
        return ""
    bits = max(8, largest.bit_length())
    return f"16-bit (but no value above {largest}, as of {bits} bits)"


def is_picture(path: Path) -> bool:
    """True for a file that is a picture and no slide, also without suffix: PNG, TIFF in strips.

    A ``.mrxs`` begins as a JPEG does and a ``.ndpi`` has strips, and both are slides.
    """
    if path.suffix.lower() in SLIDE_SUFFIXES - {".tif", ".tiff"}:
        return False
    with path.open("rb") as file:
        if file.read(12).startswith(PICTURE_STARTS):
            return True
    page = _first_page(path)
    return page is not None and not page.is_tiled and HAMAMATSU not in page.tags


def tiff_orientation(path: Path) -> int:
    """Its tag: 1 as stored, 2 to 8 turned or mirrored. 1 also where there is none, or no TIFF."""
    page = _first_page(path)
    tag = None if page is None else page.tags.get(ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def tiff_form(path: Path) -> str:
    """Words for compression and samples of a TIFF, empty for what is none or is damaged."""
    page = _first_page(path)
    if page is None:
        return ""
    name = getattr(page.compression, "name", page.compression)
    return f"compression {name}, {page.samplesperpixel} values a pixel"


def tiff_pages(path: Path) -> tuple[int, str]:
    """Pages of a TIFF that are no smaller pictures of the first, and their axes.

    Axes are letters as tifffile has them: ``C`` channels, ``Z`` depth, ``T`` time, ``I`` and ``Q``
    unknown, ``Y``, ``X``, ``S`` samples of a pixel. One page and no axes for what is no TIFF.
    """
    import tifffile

    if _first_page(path) is None:
        return 1, ""
    try:
        with tifffile.TiffFile(path) as file:
            pages = _listed(file)
            alike = sum(not _is_smaller(page, pages[0]) for page in pages)
            return max(1, alike), str(file.series[0].axes) if alike > 1 else ""
    except Exception:  # noqa: BLE001 - damage raises anything, and is told by who reads the pixels
        return 1, ""


def _listed(file: Any) -> list[Any]:
    """The first pages of a TIFF, none if its directory goes round in circles."""
    by_offset: dict[int, Any] = {}
    for page in islice(file.pages, MOST_PAGES):
        if page.offset in by_offset:
            return []
        by_offset[page.offset] = page
    return list(by_offset.values())


def _is_smaller(page: Any, first: Any) -> bool:
    """Whether a page is a level of the first one's pyramid, to within a few pixels of its shape."""
    if page is first:
        return False
    wide, high = page.imagewidth / first.imagewidth, page.imagelength / first.imagelength
    return bool(
        wide < 1 and abs(wide - high) <= 2 / min(first.imagewidth, first.imagelength) + 0.01
    )


def _first_page(path: Path) -> Any:
    """The first page of a TIFF as tifffile has it, None for what is none or is damaged."""
    import tifffile

    with path.open("rb") as file:
        if not file.read(4).startswith(TIFF_STARTS):
            return None
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            _ = page.sampleformat, page.bitspersample, page.tags
    except Exception:  # noqa: BLE001 - damage raises anything, and is told by who reads the pixels
        return None
    return page


def _largest(path: Path, page: Any) -> int:
    """Largest value of a page in some of its tiles or strips, 0 where it cannot be told."""
    try:
        step = max(1, len(page.dataoffsets) // MOST_SEGMENTS)
        if math.prod(page.chunks) > MOST_VALUES:
            return 0
        largest = 0
        with path.open("rb") as file:
            for index in range(0, len(page.dataoffsets), step):
                file.seek(page.dataoffsets[index])
                data = file.read(page.databytecounts[index])
                segment = page.decode(data, index, jpegtables=page.jpegtables)[0] if data else None
                largest = largest if segment is None else max(largest, int(segment.max()))
    except Exception:  # noqa: BLE001 - codecs raise anything
        return 0
    return largest


def convert_pixels(path: Path, type_: str, *, options: str = "") -> str:
    """A sentence that names the type of pixels, what is needed, and how to convert them.

    Args:
        path: The picture.
        type_: Their type in words.
        options: Of the TIFF that ``vips`` is to write.
    """
    target = quote(f"{path.stem}.8bit.tiff{options}")
    return (
        f"{path} has {type_} pixels, and 8-bit RGB is needed; scale them to 0..255, for example"
        f" with `vips linear {quote(path.name)} {target} FACTOR 0 --uchar`, where"
        " FACTOR is 255 over the largest value there can be: 255 for values in 0..1, 1 for 0..255,"
        " 0.0623 for 0..4095 and 0.00389 for 0..65535"
    )
