"""Types of pixels that pictures can have, but slides and images for a model cannot: deep, float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TIFF_STARTS", "convert_pixels", "deep_tiff"]

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, in both byte orders."""
UNSIGNED = (1, 4)
"""Sample formats of whole numbers without sign; the second is what many call undefined."""
MOST_BITS = 16
"""Readers take the upper 8 of 16 bits, and refuse more."""
FORMATS = {2: "signed integer", 3: "float", 5: "complex", 6: "complex"}


def deep_tiff(path: Path) -> str:
    """Type of the pixels of a TIFF where they cannot be read as 8 bits: ``32-bit float``.

    Empty where they can, and for files that are no TIFF or too damaged to tell.
    """
    import tifffile

    with path.open("rb") as file:
        if not file.read(4).startswith(TIFF_STARTS):
            return ""
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            sample, bits = int(page.sampleformat), int(page.bitspersample)
    except Exception:  # noqa: BLE001 - damage raises anything, and is told by who reads the pixels
        return ""
    if sample in UNSIGNED and bits <= MOST_BITS:
        return ""
    return f"{bits}-bit {FORMATS.get(sample, 'integer')}"


def convert_pixels(path: Path, type_: str, *, options: str = "") -> str:
    """A sentence that names the type of pixels, what is needed, and how to convert them.

    Args:
        path: The picture.
        type_: Their type in words.
        options: Of the TIFF that ``vips`` is to write.
    """
    return (
        f"{path} has {type_} pixels, and 8-bit RGB is needed; scale them to 0..255, for example"
        f" with `vips linear {path.name} '{path.stem}.8bit.tiff{options}' FACTOR 0 --uchar`, where"
        " FACTOR is 255 for values in 0..1, 1 for 0..255 and 0.00389 for 0..65535"
    )
