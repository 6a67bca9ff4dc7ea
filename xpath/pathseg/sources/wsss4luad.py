"""WSSS4LUAD: tumour epithelium, stroma and normal tissue in lung adenocarcinoma."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.pathseg.paired import PairedFolders, Subset
from xpath.pathseg.reading import absent_labels, masks_of_classes, read_pair
from xpath.pathseg.record import Annotated, published

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOURCE"]

CLASSES = {
    0: "lung-tissue-tumor epithelial tissue",
    1: "lung-tissue-tumor associated stroma tissue",
    2: "lung-tissue-normal tissue",
}
"""Value in the mask, the index of its palette, to label id."""
BACKGROUND = 3
"""Glass and the air in alveoli: none of the classes."""
INFO = published("WSSS4LUAD", CLASSES.values())


def _read(path: Path) -> Annotated:
    """An image of which every pixel is known."""
    mask_path = path.parents[1] / "mask" / path.name
    image, values = read_pair(path, mask_path)
    masks = masks_of_classes(values, CLASSES, path=mask_path, unlabelled=(BACKGROUND,))
    return Annotated(image, masks, None, absent_labels(INFO.labels, masks))


SOURCE = PairedFolders(
    info=INFO,
    subsets=(
        Subset("2.validation", 40, prefix="validation_"),
        Subset("3.testing", 80, prefix="testing_"),
    ),
    pictures="img",
    masks=("mask",),
    read=_read,
)
"""Images of the challenge's validation and test part, outlined by pixel; ``1.training`` has labels
of whole patches only. None were trained on, so there is no split."""
