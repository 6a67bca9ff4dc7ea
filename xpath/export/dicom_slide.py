"""Which file of a DICOM slide is its finest level.

A DICOM slide is a folder of files, one or more for a level; a person passes any of them, while
masks are measured on the finest one.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xpath.errors import DataError, MissingDependencyError
from xpath.export.dicom_seg import NEEDS_HIGHDICOM

if TYPE_CHECKING:
    from pathlib import Path

    from xpath.geometry import Size

__all__ = ["finest_level", "is_dicom", "require_highdicom"]

MAGIC_AT, MAGIC = 128, b"DICM"
TAGS = ["SOPClassUID", "SeriesInstanceUID", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"]


def require_highdicom() -> None:
    """Refuses at once, not slide by slide.

    Raises:
        MissingDependencyError: highdicom is not installed.
    """
    if find_spec("highdicom") is None:
        raise MissingDependencyError(NEEDS_HIGHDICOM)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes, False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(MAGIC_AT)
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def finest_level(path: Path, size: Size) -> Path:
    """The file, among those of the slide that lie beside it, whose pixels are level 0.

    Args:
        path: Any file of the slide.
        size: Of level 0, as the slide was read.

    Raises:
        MissingDependencyError: highdicom, which brings pydicom, is not installed.
        DataError: No DICOM slide, or none of its files has that size.
    """
    require_highdicom()
    if not is_dicom(path):
        raise DataError(
            f"{path.name} is no DICOM slide; only that has the frame of reference a DICOM"
            " segmentation needs. For other slides use export/objects.geojson"
        )
    series = _header(path).get("SeriesInstanceUID")
    # The file that was passed comes first: of several parts of a level it is as good as any.
    beside = [path, *(each for each in sorted(path.parent.iterdir()) if each != path)]
    for each in beside:
        if not each.is_file() or not is_dicom(each):
            continue
        header = _header(each)
        found = (header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows"))
        if header.get("SeriesInstanceUID") == series and found == (size.width, size.height):
            return each
    raise DataError(
        f"no file of the slide {path.name} in its folder has {size.width} x {size.height} pixels,"
        " on which the masks were made; keep all levels of a slide in one folder"
    )


def _header(path: Path) -> Any:
    pydicom = import_module("pydicom")
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise DataError(f"{path} cannot be read as DICOM ({error}); copy it again") from error
