"""Janowczyk's nuclei (use case 1 of his tutorial): breast cancer, 143 images of 2000 pixels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from xpath.pathseg.reading import (
    check_same_size,
    folder_with,
    list_files,
    read_label_map,
    read_tiff,
    too_few,
)
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE"]

LABEL = "breast-nuclei-nuclei"
PICTURE, MASK = "_original.tif", "_mask.png"
ORIGINALS = 143

INFO = published("Janowczyk", (LABEL,))


class Janowczyk:
    """Images grouped by patient, the number their name begins with.

    Only some of the nuclei in an image are outlined, and nothing tells where the annotator looked.
    As in the paper, the rest counts as background; nothing is reported as absent.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, by name."""
        for path in _pictures(root):
            name = path.name[: -len(PICTURE)]
            yield INFO.image(
                path,
                partial(_read, path, path.with_name(name + MASK)),
                name=name,
                group=name.partition("_")[0],
            )

    def missing(self, root: Path) -> list[str]:
        """Files that are not there."""
        pictures = _pictures(root)
        masks = [path.with_name(path.name[: -len(PICTURE)] + MASK) for path in pictures]
        return [
            *too_few(len(pictures), ORIGINALS, f"pictures *{PICTURE}"),
            *(mask.name for mask in masks if not mask.is_file()),
        ]


SOURCE = Janowczyk()


def _read(image_path: Path, mask_path: Path) -> Annotated:
    """An image with the nuclei that were outlined."""
    image = read_tiff(image_path)
    nuclei = read_label_map(mask_path)
    check_same_size(mask_path, nuclei.shape, image_path, image.shape)
    mask = nuclei > 0
    return Annotated(image, (LabelMask(LABEL, mask),) if mask.any() else (), None)


def _pictures(root: Path) -> list[Path]:
    top = folder_with(root, "nuclei")
    return list_files(root, PICTURE) or (list_files(top / "nuclei", PICTURE) if top else [])
