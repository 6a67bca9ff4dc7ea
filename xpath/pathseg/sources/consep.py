"""CoNSeP: nuclei of seven kinds in 41 images of colon; for external evaluation only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpath.pathseg.reading import (
    absent_labels,
    check_same_size,
    folder_with,
    list_files,
    masks_of_classes,
    read_image,
    read_mat,
    too_few,
)
from xpath.pathseg.record import Annotated, SourceImage, SourceInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE", "Consep"]

OTHER = 1
"""Dying, dividing and nuclei nobody could name: no label, and no evidence against one."""
CLASSES = {
    2: "colon-cell-inflammatory",
    3: "colon-cell-healthy epithelial",
    4: "colon-cell-malignant epithelial",
    5: "colon-cell-fibroblast",
    6: "colon-cell-muscle",
    7: "colon-cell-endothelial",
}
"""Value in ``type_map`` to label id, kept apart as published (HoVer-Net merges 3-4 and 5-7)."""
PARTS = {"Train": 27, "Test": 14}

INFO = SourceInfo(
    name="CoNSeP",
    magnification=40,
    licence="research use only, non-commercial",
    citation=(
        "Graham et al. HoVer-Net: simultaneous segmentation and classification of nuclei in "
        "multi-tissue histology images. Medical Image Analysis 58, 101563 (2019)"
    ),
    url="https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet/",
    layout=(
        "Train/ and Test/, each with Images/*.png and Labels/*.mat of the same names, which hold "
        "inst_map and type_map"
    ),
    regions=("colon",),
    labels=tuple(CLASSES.values()),
    images=40,
    masks=121,
    train_masks=0,
    test_masks=121,
    external=True,
)


class Consep:
    """Images of both official parts, all of them to test on; patients are not told."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, ``Train`` first."""
        top = folder_with(root, *PARTS) or root
        for part in PARTS:
            for path in list_files(top / part / "Images", ".png"):
                yield SourceImage(
                    source=INFO.name,
                    name=path.stem,
                    group=path.stem,
                    split="test",
                    mpp=0.25,
                    region="colon",
                    path=path,
                    read=partial(_read, path, top / part / "Labels" / f"{path.stem}.mat"),
                )

    def missing(self, root: Path) -> list[str]:
        """Folders and files that are not there, and how many images."""
        top, gaps = folder_with(root, *PARTS) or root, []
        for part, wanted in PARTS.items():
            images = {path.stem for path in list_files(top / part / "Images", ".png")}
            labels = {path.stem for path in list_files(top / part / "Labels", ".mat")}
            gaps += too_few(len(images), wanted, f"pictures in {part}/Images")
            gaps += [f"{part}/Labels/{name}.mat" for name in sorted(images - labels)]
        return gaps


SOURCE = Consep()


def _read(path: Path, label_path: Path) -> Annotated:
    """An image with its nuclei; those without a name are ignored.

    Raises:
        DataError: A file is missing or damaged, sizes differ, or a class is unknown.
    """
    image = read_image(path)
    instances, kinds = (np.asarray(array) for array in read_mat(label_path, "inst_map", "type_map"))
    for array in (instances, kinds):
        check_same_size(label_path, array.shape, path, image.shape)
    masks = masks_of_classes(kinds, CLASSES, path=label_path, unlabelled=(0, OTHER))
    unnamed = (kinds == OTHER) | ((instances > 0) & (kinds == 0))
    return Annotated(
        image, masks, unnamed if unnamed.any() else None, absent_labels(INFO.labels, masks)
    )
