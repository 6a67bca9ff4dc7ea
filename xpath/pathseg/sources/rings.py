"""RINGS: glands and tumour in 1,500 images of prostate."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from xpath.pathseg.reading import (
    absent_labels,
    check_same_size,
    folder_with,
    list_files,
    masks_of_classes,
    read_image,
    read_label_map,
    too_few,
)
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, SourceInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE", "Rings"]

FOLDERS = {
    "MANUAL GLANDS": "prostate-tissue-prostate healthy glands",
    "MANUAL TUMOR": "prostate-tissue-prostate tumor",
}
"""Folder of binary masks to label id; glands and tumour may overlap."""
INSIDE = (1, 255)
"""Values of a pixel that belongs to the object; 0 does not."""
SPLITS = {"TRAIN": "train", "TEST": "test"}
ORIGINALS = {"TRAIN": 1000, "TEST": 500}

MPP = 0.934
"""What the scanner says. "100x" counts the eyepiece: it is a 10x objective, and only so can 1,500
images of 1,500 pixels give the paper's 38,227: 36 windows each at 40x, some without a mask."""

INFO = SourceInfo(
    name="RINGS",
    magnification=100,
    licence="see the terms at the address given here; no other statement known to us",
    citation=(
        "Salvi et al. A hybrid deep learning approach for gland segmentation in prostate "
        "histopathological images. Artificial Intelligence in Medicine 115, 102076 (2021)"
    ),
    url="https://data.mendeley.com/datasets/h8bdwrtnr5/1",
    layout=(
        "TRAIN/ and TEST/, each with IMAGES/*.png and, of the same names, 'MANUAL GLANDS/*.png' "
        "and 'MANUAL TUMOR/*.png', binary masks"
    ),
    regions=("prostate",),
    labels=tuple(FOLDERS.values()),
    images=38227,
    masks=43739,
    train_masks=29451,
    test_masks=14288,
)


class Rings:
    """Images in their official split, grouped by patient (``P15_...``)."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, training part first."""
        for part, split in SPLITS.items():
            top = folder_with(root, part) or root
            for path in list_files(top / part / "IMAGES", ".png"):
                patient = re.match(r"P\d+(?=_)", path.stem)
                yield SourceImage(
                    source=INFO.name,
                    name=f"{split}_{path.stem}",
                    group=patient[0] if patient else f"{split}_{path.stem}",
                    split=split,
                    mpp=MPP,
                    region="prostate",
                    path=path,
                    read=partial(_read, path),
                )

    def missing(self, root: Path) -> list[str]:
        """Folders and masks that are not there, and how many images."""
        gaps = []
        for part, wanted in ORIGINALS.items():
            top = folder_with(root, part)
            if top is None:
                gaps.append(f"{part}/")
                continue
            images = {path.name for path in list_files(top / part / "IMAGES", ".png")}
            gaps += too_few(len(images), wanted, f"pictures in {part}/IMAGES")
            for folder in FOLDERS:
                masks = {path.name for path in list_files(top / part / folder, ".png")}
                gaps += [f"{part}/{folder}/{name}" for name in sorted(images - masks)]
        return gaps


SOURCE = Rings()


def _read(path: Path) -> Annotated:
    """An image with all its glands and tumour.

    Raises:
        DataError: A file is missing or damaged, sizes differ, or a mask is not binary.
    """
    image = read_image(path)
    masks: list[LabelMask] = []
    for folder, label in FOLDERS.items():
        mask_path = path.parents[1] / folder / path.name
        values = read_label_map(mask_path)
        check_same_size(mask_path, values.shape, path, image.shape)
        masks += masks_of_classes(values, dict.fromkeys(INSIDE, label), path=mask_path)
    return Annotated(image, tuple(masks), None, absent_labels(INFO.labels, masks))
