"""BCSS: tissue of breast cancer, outlined region by region on 151 TCGA slides.

Every pixel of a region of interest has one of 22 codes.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from xpath.pathseg.reading import (
    absent_labels,
    folder_with,
    list_files,
    masks_of_classes,
    read_pair,
    too_few,
    unpaired,
    where_any,
)
from xpath.pathseg.record import Annotated, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE"]

CLASSES = {
    1: "breast-tissue-tumor",
    2: "breast-tissue-stroma",
    3: "breast-tissue-lymphocytic infiltrate",
    4: "breast-tissue-necrosis or debris",
    5: "breast-tissue-glandular secretions",
    6: "breast-tissue-blood",
    8: "breast-tissue-metaplasia nos",
    9: "breast-tissue-fat",
    10: "breast-tissue-plasma cells",
    11: "breast-tissue-other immune infiltrate",
    12: "breast-tissue-mucoid material",
    13: "breast-tissue-normal acinus or duct",
    14: "breast-tissue-lymphatics",
    16: "breast-tissue-nerve",
    17: "breast-tissue-skin adnexa",
    18: "breast-tissue-blood vessel",
    19: "breast-tissue-angioinvasion",
    20: "breast-tissue-dcis",
}
"""Code of ``meta/gtruth_codes.tsv`` to label id."""
IGNORED = {0: "outside_roi", 7: "exclude", 15: "undetermined"}
"""Codes of pixels nobody classified."""
UNLABELLED = {**IGNORED, 21: "other"}
"""Codes without a label; "other" is known to be none of the labels, so it is not ignored."""
EXHAUSTIVE = tuple(CLASSES[code] for code in (1, 2, 3, 4))
"""The predominant classes, which the authors reviewed; rare ones may hide in their neighbours."""
FOLDERS = ("rgbs", "rgbs_colorNormalized", "images")
"""Where releases keep the pictures; the first that is there counts."""
ORIGINALS = 151

INFO = published("BCSS", CLASSES.values())


class Bcss:
    """Images grouped by patient, without an official split.

    The authors held out six institutes, about a third of the slides; PathSeg tests on 20 % of the
    masks, so it split at random.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All pictures of the release."""
        top, pictures = _folders(root)
        for path in list_files(pictures, ".png") if pictures else ():
            resolution = re.search(r"_MPP-([0-9.]+)\.png$", path.name)
            yield INFO.image(
                path,
                partial(_read, path, top / "masks" / path.name),
                group=path.name[: len("TCGA-A1-A0SK")],
                mpp=float(resolution[1]) if resolution else None,
            )

    def missing(self, root: Path) -> list[str]:
        """Folders and files that are not there."""
        top, pictures = _folders(root)
        if pictures is None:
            return [f"masks/ beside one of {', '.join(FOLDERS)}"]
        images, masks = (
            {path.stem for path in list_files(folder, ".png")}
            for folder in (pictures, top / "masks")
        )
        return [
            *too_few(len(images), ORIGINALS, "pictures"),
            *(f"masks/{name}" for name in unpaired(images, top / "masks", ".png")),
            *(f"{pictures.name}/{name}" for name in unpaired(masks, pictures, ".png")),
        ]


SOURCE = Bcss()


def _read(image_path: Path, mask_path: Path) -> Annotated:
    """A picture with its regions."""
    image, codes = read_pair(image_path, mask_path)
    masks = masks_of_classes(codes, CLASSES, path=mask_path, unlabelled=UNLABELLED)
    ignore = where_any(codes, IGNORED)
    return Annotated(
        image, masks, ignore if ignore.any() else None, absent_labels(EXHAUSTIVE, masks)
    )


def _folders(root: Path) -> tuple[Path, Path | None]:
    """The folder with ``masks``, and the one with pictures if there is any."""
    for name in FOLDERS:
        top = folder_with(root, "masks", name)
        if top is not None:
            return top, top / name
    return root, None
