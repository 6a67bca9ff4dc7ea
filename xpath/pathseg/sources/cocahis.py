"""CoCaHis: metastases of colon cancer in 82 frozen sections of liver, outlined by seven people."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.reading import (
    annotated_with,
    check_same_size,
    folder_with,
    refuse_damage,
    too_few,
)
from xpath.pathseg.record import Annotated, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE"]

LABEL = "liver-tissue-metastatic colon cancer in a liver"
FILE = "CoCaHis.hdf5"
PIXELS, MASKS = "HE/raw", "GT/GT_majority_vote"
"""The pictures as taken, not the two stain-normalised copies; and what most annotators drew."""
ORIGINALS = 82

INFO = published("CoCaHis", (LABEL,))


class Cocahis:
    """Images grouped by patient, split as the authors did."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, in the order of the file.

        Raises:
            DataError: The file is missing or damaged, or names another split.
        """
        path = (folder_with(root, FILE) or root) / FILE
        splits, patients, numbers = _attributes(path)
        for index, split in enumerate(splits):
            yield INFO.image(
                path,
                partial(_read, path, index),
                name=f"patient{patients[index]}_image{numbers[index]}_{index:02d}",
                group=f"patient{patients[index]}",
                split=split,
            )

    def missing(self, root: Path) -> list[str]:
        """The file, or how many images it lacks."""
        top = folder_with(root, FILE)
        if top is None:
            return [FILE]
        try:
            return too_few(len(_attributes(top / FILE)[0]), ORIGINALS, "images")
        except DataError as error:
            return [str(error)]


SOURCE = Cocahis()


def _read(path: Path, index: int) -> Annotated:
    """One image with its metastasis."""
    with refuse_damage(path, "HDF5 file of CoCaHis"), _open(path) as file:
        image = np.asarray(file[PIXELS][index], dtype=np.uint8)
        mask = np.asarray(file[MASKS][index]).squeeze() > 0
    check_same_size(path, mask.shape, path, image.shape)
    return annotated_with(LABEL, image, mask)


def _attributes(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Split, patient and number of every image."""
    with refuse_damage(path, "HDF5 file of CoCaHis"), _open(path) as file:
        count = len(file[PIXELS])
        names = ("train_test_split", "patient_num", "image_num")
        splits, patients, numbers = ([_text(cell) for cell in file["HE"].attrs[n]] for n in names)
    if not count == len(splits) == len(patients) == len(numbers):
        raise DataError(f"{path} has {count} images but {len(splits)} splits; download it again")
    for split in splits:
        if split not in ("train", "test"):
            raise DataError(
                f"{path} has an image of split {split!r}, wanted train or test; download it again"
            )
    return splits, patients, numbers


def _text(cell: Any) -> str:  # HDF5 gives bytes, strings or numbers, as its writer liked
    return cell.decode() if isinstance(cell, bytes) else str(cell)


def _open(path: Path) -> Any:  # an h5py.File, which has no types
    import h5py

    return h5py.File(path, "r", locking=False)
