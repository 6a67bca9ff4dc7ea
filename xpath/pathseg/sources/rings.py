"""RINGS: glands and tumour in 1,500 images of prostate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xpath.pathseg.paired import PairedFolders, Subset
from xpath.pathseg.reading import (
    absent_labels,
    check_same_size,
    masks_of_classes,
    read_image,
    read_label_map,
)
from xpath.pathseg.record import Annotated, LabelMask, published

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOURCE"]

FOLDERS = {
    "MANUAL GLANDS": "prostate-tissue-prostate healthy glands",
    "MANUAL TUMOR": "prostate-tissue-prostate tumor",
}
"""Folder of binary masks to label id; glands and tumour may overlap."""
INSIDE = (1, 255)
"""Values of a pixel that belongs to the object; 0 does not."""
INFO = published("RINGS", FOLDERS.values())
"""The scanner says 0.934 mpp. "100x" counts the eyepiece: it is a 10x objective, and only so can
1,500 images of 1,500 pixels give the paper's 38,227: 36 windows each at 40x, some of them empty."""


def _read(path: Path) -> Annotated:
    """An image with all its glands and tumour."""
    image = read_image(path)
    masks: list[LabelMask] = []
    for folder, label in FOLDERS.items():
        mask_path = path.parents[1] / folder / path.name
        values = read_label_map(mask_path)
        check_same_size(mask_path, values.shape, path, image.shape)
        masks += masks_of_classes(values, dict.fromkeys(INSIDE, label), path=mask_path)
    return Annotated(image, tuple(masks), None, absent_labels(INFO.labels, masks))


def _patient(name: str) -> str:
    """``P15`` of ``P15_A2_1_1_1``."""
    patient = re.match(r"P\d+(?=_)", name)
    return patient[0] if patient else ""


SOURCE = PairedFolders(
    info=INFO,
    subsets=(
        Subset("TRAIN", 1000, split="train", prefix="train_"),
        Subset("TEST", 500, split="test", prefix="test_"),
    ),
    pictures="IMAGES",
    masks=tuple(FOLDERS),
    read=_read,
    patient=_patient,
)
"""Images in their official split, grouped by patient."""
