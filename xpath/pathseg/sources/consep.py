"""CoNSeP: nuclei of seven types in 41 images of colon, for external evaluation only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.pathseg.paired import PairedFolders, Subset
from xpath.pathseg.reading import (
    absent_labels,
    check_same_size,
    masks_of_classes,
    read_image,
    read_mat,
)
from xpath.pathseg.record import Annotated, published

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOURCE"]

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
INFO = published("CoNSeP", CLASSES.values())


def _read(path: Path) -> Annotated:
    """An image with its nuclei, where those without a name are ignored."""
    image = read_image(path)
    label_path = path.parents[1] / "Labels" / f"{path.stem}.mat"
    instances, types = (np.asarray(array) for array in read_mat(label_path, "inst_map", "type_map"))
    for array in (instances, types):
        check_same_size(label_path, array.shape, path, image.shape)
    masks = masks_of_classes(types, CLASSES, path=label_path, unlabelled=(0, OTHER))
    unnamed = (types == OTHER) | ((instances > 0) & (types == 0))
    return Annotated(
        image, masks, unnamed if unnamed.any() else None, absent_labels(INFO.labels, masks)
    )


SOURCE = PairedFolders(
    info=INFO,
    subsets=(Subset("Train", 27, split="test"), Subset("Test", 14, split="test")),
    pictures="Images",
    masks=("Labels",),
    suffix=".mat",
    read=_read,
)
"""Images of both official parts, all of them to test on; patients are not named."""
