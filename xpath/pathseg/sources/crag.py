"""CRAG: glands of colon adenocarcinoma in 213 images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.pathseg.paired import PairedFolders, Subset
from xpath.pathseg.reading import annotated_with, read_pair
from xpath.pathseg.record import published

if TYPE_CHECKING:
    from pathlib import Path

    from xpath.pathseg.record import Annotated

__all__ = ["SOURCE", "read_glands"]

LABEL = "colon-tissue-gland"


def read_glands(image_path: Path, mask_path: Path | None = None) -> Annotated:
    """An image with its glands, all of them outlined.

    Args:
        image_path: The picture.
        mask_path: Its mask; None for CRAG's folder beside that of the picture.

    Raises:
        DataError: A file is missing or damaged, or sizes differ.
    """
    beside = image_path.parents[1] / "Annotation" / image_path.name
    image, glands = read_pair(image_path, mask_path or beside)
    return annotated_with(LABEL, image, glands > 0)


SOURCE = PairedFolders(
    info=published("CRAG", (LABEL,)),
    subsets=(
        Subset("train", 173, split="train", prefix="train_"),
        Subset("valid", 40, split="test", prefix="valid_"),
    ),
    pictures="Images",
    masks=("Annotation",),
    read=read_glands,
)
"""Images in their official split, where ``valid`` is the test; patients are not named."""
