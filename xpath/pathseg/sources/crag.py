"""CRAG: glands of colon adenocarcinoma in 213 images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from xpath.pathseg.reading import (
    check_same_size,
    folder_with,
    list_files,
    read_image,
    read_label_map,
    too_few,
)
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, SourceInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE", "Crag", "read_glands"]

LABEL = "colon-tissue-gland"
SPLITS = {"train": "train", "valid": "test"}
"""Folder to the split the paper calls it."""
ORIGINALS = {"train": 173, "valid": 40}

INFO = SourceInfo(
    name="CRAG",
    magnification=20,
    licence="research use only, non-commercial",
    citation=(
        "Graham et al. MILD-Net: minimal information loss dilated network for gland instance "
        "segmentation in colon histology images. Medical Image Analysis 52, 199-211 (2019)"
    ),
    url="https://warwick.ac.uk/fac/cross_fac/tia/data/mildnet/",
    layout=(
        "train/ and valid/, each with Images/*.png and Annotation/*.png of the same names, in "
        "which every gland has its own value and 0 is background"
    ),
    regions=("colon",),
    labels=(LABEL,),
    images=1750,
    masks=1750,
    train_masks=1429,
    test_masks=321,
)


class Crag:
    """Images in their official split; patients are not told."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, training part first."""
        top = folder_with(root, *SPLITS) or root
        for folder, split in SPLITS.items():
            for path in list_files(top / folder / "Images", ".png"):
                yield SourceImage(
                    source=INFO.name,
                    name=f"{folder}_{path.stem}",
                    group=f"{folder}_{path.stem}",
                    split=split,
                    mpp=0.55,
                    region="colon",
                    path=path,
                    read=partial(read_glands, path, top / folder / "Annotation" / path.name),
                )

    def missing(self, root: Path) -> list[str]:
        """Folders and files that are not there."""
        top = folder_with(root, *SPLITS)
        if top is None:
            return [f"{folder}/" for folder in SPLITS if folder_with(root, folder) is None]
        gaps = []
        for folder, wanted in ORIGINALS.items():
            images = {path.name for path in list_files(top / folder / "Images", ".png")}
            masks = {path.name for path in list_files(top / folder / "Annotation", ".png")}
            gaps += too_few(len(images), wanted, f"pictures in {folder}/Images")
            gaps += [f"{folder}/Annotation/{name}" for name in sorted(images - masks)]
        return gaps


SOURCE = Crag()


def read_glands(image_path: Path, mask_path: Path) -> Annotated:
    """An image with its glands; all of them are outlined.

    Raises:
        DataError: A file is missing or damaged, or sizes differ.
    """
    image = read_image(image_path)
    glands = read_label_map(mask_path)
    check_same_size(mask_path, glands.shape, image_path, image.shape)
    mask = glands > 0
    masks = (LabelMask(LABEL, mask),) if mask.any() else ()
    return Annotated(image, masks, None, () if masks else (LABEL,))
