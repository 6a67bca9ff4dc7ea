"""WSSS4LUAD: tumour epithelium, stroma and normal tissue in lung adenocarcinoma."""

from __future__ import annotations

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
from xpath.pathseg.record import Annotated, SourceImage, SourceInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE", "Wsss4Luad"]

CLASSES = {
    0: "lung-tissue-tumor epithelial tissue",
    1: "lung-tissue-tumor associated stroma tissue",
    2: "lung-tissue-normal tissue",
}
"""Value in the mask, the index of its palette, to label id."""
BACKGROUND = 3
"""Glass and the air in alveoli: none of the classes."""
PARTS = {"2.validation": 40, "3.testing": 80}
"""Parts outlined by pixel, and their images; ``1.training`` has labels of whole patches only."""

INFO = SourceInfo(
    name="WSSS4LUAD",
    magnification=10,
    licence="released for research, on request; treat as non-commercial",
    citation=(
        "Han et al. WSSS4LUAD: grand challenge on weakly-supervised tissue semantic segmentation "
        "for lung adenocarcinoma. arXiv:2204.06455 (2022)"
    ),
    url="https://wsss4luad.grand-challenge.org/",
    layout=(
        "2.validation/ and 3.testing/, each with img/*.png and mask/*.png of the same names, "
        "indexed 0 tumour, 1 stroma, 2 normal, 3 background (1.training is not used)"
    ),
    regions=("lung",),
    labels=tuple(CLASSES.values()),
    images=2863,
    masks=5735,
    train_masks=4590,
    test_masks=1145,
)


class Wsss4Luad:
    """Images of the challenge's validation and test part; none were trained on, so no split."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, validation part first."""
        for part in PARTS:
            for path in list_files(_part(root, part) / "img", ".png"):
                name = f"{part.partition('.')[2]}_{path.stem}"
                yield SourceImage(
                    source=INFO.name,
                    name=name,
                    group=name,
                    split=None,
                    mpp=1.0,
                    region="lung",
                    path=path,
                    read=partial(_read, path, path.parents[1] / "mask" / path.name),
                )

    def missing(self, root: Path) -> list[str]:
        """Folders and masks that are not there, and how many images."""
        gaps = []
        for part, wanted in PARTS.items():
            folder = _part(root, part)
            images = {path.name for path in list_files(folder / "img", ".png")}
            masks = {path.name for path in list_files(folder / "mask", ".png")}
            gaps += too_few(len(images), wanted, f"pictures in {part}/img")
            gaps += [f"{part}/mask/{name}" for name in sorted(images - masks)]
        return gaps


SOURCE = Wsss4Luad()


def _part(root: Path, part: str) -> Path:
    """Folder with ``img`` and ``mask``; some programs unpack ``2.validation/2.validation``."""
    top = (folder_with(root, part) or root) / part
    return folder_with(top, "img", depth=1) or top


def _read(path: Path, mask_path: Path) -> Annotated:
    """An image of which every pixel is known.

    Raises:
        DataError: A file is missing or damaged, sizes differ, or a class is unknown.
    """
    image, values = read_image(path), read_label_map(mask_path)
    check_same_size(mask_path, values.shape, path, image.shape)
    masks = masks_of_classes(values, CLASSES, path=mask_path, unlabelled=(BACKGROUND,))
    return Annotated(image, masks, None, absent_labels(INFO.labels, masks))
