"""CoNIC 2022: six types of nuclei in 4,981 patches of colon (the Lizard data)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.reading import (
    absent_labels,
    file_safe,
    folder_with,
    masks_of_classes,
    read_array,
    read_table,
    too_few,
)
from xpath.pathseg.record import Annotated, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE"]

CLASSES = {
    1: "colon-nuclei-neutrophil",
    2: "colon-nuclei-epithelial",
    3: "colon-nuclei-lymphocyte",
    4: "colon-nuclei-plasma cells",
    5: "colon-nuclei-eosinophil",
    6: "colon-nuclei-connective",
}
"""Value in the second channel of ``labels.npy`` to label id; every nucleus is outlined."""
FILES = ("images.npy", "labels.npy", "patch_info.csv")
ORIGINALS = 4981

INFO = published("CoNIC2022", CLASSES.values())


class Conic:
    """Patches grouped by the image they were cut from. The test split was never released.

    Some come from CoNSeP, CRAG, GlaS and PanNuke (``patch_info.csv`` tells), which PathSeg holds
    as well: keep that in mind before calling a test on those independent.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All patches, in the order of the arrays.

        Raises:
            DataError: A file is missing or damaged, or their lengths differ.
        """
        top = folder_with(root, *FILES) or root
        paths = tuple(top / name for name in FILES)
        rows = read_table(paths[2], "patch_info")
        lengths = {name: len(read_array(top / name, lazy=True)) for name in FILES[:2]}
        lengths[FILES[2]] = len(rows)
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"{top} has files of different lengths ({counts}); download it again")
        for index, row in enumerate(rows):
            yield INFO.image(
                paths[0],
                partial(_read, paths[0], paths[1], index),
                name=f"{index:04d}_{file_safe(row['patch_info'])}",
                group=row["patch_info"].rpartition("-")[0] or row["patch_info"],
            )

    def missing(self, root: Path) -> list[str]:
        """Files that are not there, and how many patches."""
        top = folder_with(root, *FILES)
        if top is None:
            nearest = folder_with(root, FILES[0]) or root
            return [name for name in FILES if not (nearest / name).exists()]
        try:
            return too_few(len(list(self.images(root))), ORIGINALS, "patches")
        except DataError as error:
            return [str(error)]


SOURCE = Conic()


def _read(image_path: Path, label_path: Path, index: int) -> Annotated:
    """A patch with its nuclei."""
    images, labels = read_array(image_path, lazy=True), read_array(label_path, lazy=True)
    size = images.shape[1:3]
    if images.shape[1:] != (*size, 3) or labels.shape != (len(images), *size, 2):
        raise DataError(
            f"{image_path} is {images.shape} and {label_path} {labels.shape}; wanted (N, H, W, 3) "
            "and (N, H, W, 2): download them again"
        )
    classes = np.asarray(labels[index, ..., 1])
    masks = masks_of_classes(classes, CLASSES, path=label_path)
    image = np.array(images[index], dtype=np.uint8)
    return Annotated(image, masks, None, absent_labels(INFO.labels, masks))
