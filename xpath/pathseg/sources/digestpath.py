"""DigestPath 2019, task 2: malignant lesions in large images of colonoscopy tissue."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from xpath.pathseg.reading import (
    annotated_with,
    check_same_size,
    file_safe,
    folder_with,
    list_files,
    read_gray,
    read_image,
    too_few,
)
from xpath.pathseg.record import Annotated, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE"]

LABEL = "colon-tissue-malignant lesion"
POSITIVE, NEGATIVE = "tissue-train-pos-v1", "tissue-train-neg"
ORIGINALS = {POSITIVE: 250, NEGATIVE: 410}

INFO = published("DigestPath2019", (LABEL,))


class Digestpath:
    """Images grouped by slide. The test split was never released.

    Images without a lesion have no mask and do not count in the paper, but tell that the label is
    absent.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, those with a lesion first."""
        for folder in (POSITIVE, NEGATIVE):
            top = folder_with(root, folder)
            for path in _pictures(top / folder) if top else ():
                mask = path.with_name(f"{path.stem}_mask.jpg") if folder == POSITIVE else None
                yield INFO.image(
                    path,
                    partial(_read, path, mask),
                    name=file_safe(f"{'pos' if mask else 'neg'}_{path.stem}"),
                    group=_slide(path.stem),
                )

    def missing(self, root: Path) -> list[str]:
        """Folders and files that are not there."""
        gaps: list[str] = []
        for folder, wanted in ORIGINALS.items():
            top = folder_with(root, folder)
            if top is None:
                gaps.append(f"{folder}/")
                continue
            pictures = _pictures(top / folder)
            gaps += too_few(len(pictures), wanted, f"pictures in {folder}/")
            if folder == POSITIVE:
                masks = {path.name for path in list_files(top / folder, "_mask.jpg")}
                names = [f"{path.stem}_mask.jpg" for path in pictures]
                gaps += [f"{folder}/{name}" for name in names if name not in masks]
        return gaps


SOURCE = Digestpath()


def _read(image_path: Path, mask_path: Path | None) -> Annotated:
    """An image with its lesion, or without any where there is no mask."""
    image = read_image(image_path)
    if mask_path is None:
        return Annotated(image, (), None, (LABEL,))
    grey = read_gray(mask_path)
    check_same_size(mask_path, grey.shape, image_path, image.shape)
    mask = grey >= 128  # JPEG rings around edges; black and white are far apart
    return annotated_with(LABEL, image, mask)


def _pictures(folder: Path) -> list[Path]:
    return [path for path in list_files(folder, ".jpg") if not path.stem.endswith("_mask")]


def _slide(stem: str) -> str:
    """Name of the slide: what stands before the time of scanning, or before the position on it."""
    return re.split(r"_\d{4}-\d\d-\d\d|-lv\d", stem)[0]
