"""GlaS: glands, benign and malignant, in 165 images of colon from 16 patients."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from xpath.pathseg.reading import folder_with, list_files, read_table, too_few
from xpath.pathseg.record import SourceImage, published
from xpath.pathseg.sources.crag import LABEL, read_glands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE"]

SPLITS = {"train": "train", "testA": "test", "testB": "test"}
"""Begin of a file's name to its split."""
ORIGINALS = {"train": 85, "testA": 60, "testB": 20}

INFO = published("GlaS", (LABEL,))


class Glas:
    """Images in their official split, grouped by patient.

    Without ``Grade.csv`` patients are unknown and every image is a group of its own.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, by name.

        Raises:
            DataError: ``Grade.csv`` is damaged.
        """
        top = folder_with(root, "train_1.bmp") or folder_with(root, "Grade.csv") or root
        patients = _patients(top / "Grade.csv")
        for path, part in _pictures(top):
            yield INFO.image(
                path,
                partial(read_glands, path, path.with_name(f"{path.stem}_anno.bmp")),
                group=patients.get(path.stem, path.stem),
                split=SPLITS[part],
            )

    def missing(self, root: Path) -> list[str]:
        """Files that are not there."""
        top = folder_with(root, "train_1.bmp") or folder_with(root, "Grade.csv")
        if top is None:
            return ["Grade.csv and train_1.bmp"]
        gaps = [] if (top / "Grade.csv").is_file() else ["Grade.csv, which tells the patients"]
        pictures = _pictures(top)
        for part, wanted in ORIGINALS.items():
            count = sum(name == part for _, name in pictures)
            gaps += too_few(count, wanted, f"pictures {part}_*.bmp")
        masks = {path.stem for path in list_files(top, "_anno.bmp")}
        names = [f"{path.stem}_anno" for path, _ in pictures]
        return gaps + [f"{name}.bmp" for name in names if name not in masks]


SOURCE = Glas()


def _pictures(top: Path) -> list[tuple[Path, str]]:
    """Pictures with the part of the data set they belong to."""
    named = [(path, re.fullmatch(r"(\w+)_\d+", path.stem)) for path in list_files(top, ".bmp")]
    return [(path, match[1]) for path, match in named if match and match[1] in SPLITS]


def _patients(path: Path) -> dict[str, str]:
    """Name of an image to its patient."""
    if not path.is_file():
        return {}
    rows = read_table(path, "name", "patient ID")
    return {row["name"]: f"patient{row['patient ID']}" for row in rows if row["patient ID"]}
