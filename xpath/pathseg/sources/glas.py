"""GlaS: glands, benign and malignant, in 165 images of colon from 16 patients."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from xpath.pathseg.reading import folder_with, list_files, read_table, too_few
from xpath.pathseg.record import SourceImage, SourceInfo
from xpath.pathseg.sources.crag import LABEL, read_glands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SOURCE", "Glas"]

SPLITS = {"train": "train", "testA": "test", "testB": "test"}
"""Begin of a file's name to its split."""
ORIGINALS = {"train": 85, "testA": 60, "testB": 20}

INFO = SourceInfo(
    name="GlaS",
    magnification=20,
    licence="research use only, non-commercial",
    citation=(
        "Sirinukunwattana et al. Gland segmentation in colon histology images: the GlaS challenge "
        "contest. Medical Image Analysis 35, 489-502 (2017)"
    ),
    url="https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/",
    layout=(
        "{train,testA,testB}_N.bmp, masks {train,testA,testB}_N_anno.bmp in which every gland has "
        "its own value and 0 is background, and Grade.csv"
    ),
    regions=("colon",),
    labels=(LABEL,),
    images=165,
    masks=165,
    train_masks=85,
    test_masks=80,
)


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
            yield SourceImage(
                source=INFO.name,
                name=path.stem,
                group=patients.get(path.stem, path.stem),
                split=SPLITS[part],
                mpp=0.62,
                region="colon",
                path=path,
                read=partial(read_glands, path, path.with_name(f"{path.stem}_anno.bmp")),
            )

    def missing(self, root: Path) -> list[str]:
        """Files that are not there."""
        top = folder_with(root, "train_1.bmp") or folder_with(root, "Grade.csv")
        if top is None:
            return ["Grade.csv and train_1.bmp"]
        gaps = [] if (top / "Grade.csv").is_file() else ["Grade.csv, which tells the patients"]
        pictures = _pictures(top)
        for part, wanted in ORIGINALS.items():
            found = sum(name == part for _, name in pictures)
            gaps += too_few(found, wanted, f"pictures {part}_*.bmp")
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
