"""SegPath: eight cell types, each in patches of its own, found by immunofluorescence."""

from __future__ import annotations

import csv
import gzip
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.errors import DataError
from xpath.pathseg.reading import (
    absent_labels,
    folder_with,
    list_files,
    masks_of_classes,
    read_pair,
    refuse_damage,
)
from xpath.pathseg.record import Annotated, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SOURCE"]

ARCHIVES = {
    "ERG_Endothelium": "unspecified-cell-endothelial",
    "CD45RB_Leukocyte": "unspecified-cell-leukocytes",
    "CD3CD20_Lymphocyte": "unspecified-cell-lymphocyte",
    "MNDA_MyeloidCell": "unspecified-cell-myeloid cells",
    "MIST1_PlasmaCell": "unspecified-cell-plasma cells",
    "CD235a_RBC": "unspecified-cell-red blood cells",
    "panCK_Epithelium": "unspecified-tissue-epithelial",
    "aSMA_SmoothMuscle": "unspecified-tissue-smooth muscle cells",
}
"""Archive, named antigen_celltype, to label id; what is stained region by region is tissue."""
INSIDE = (1, 255)
"""Values of a pixel of the stained type: 1 as distributed, 255 in copies made visible."""
SPLITS = {"train": "train", "val": "train", "test": "test"}
"""Value of ``train_val_test`` to our split; the paper knows no validation part."""

INFO = published("SegPath", ARCHIVES.values())


class SegPath:
    """Patches grouped by slide, each annotated for one cell type only."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All patches, archive by archive.

        Without its table an archive has no official split.

        Raises:
            DataError: A table is damaged or has another value for the split.
        """
        for archive, label in ARCHIVES.items():
            top = folder_with(root, archive, depth=1) or root
            splits = _splits(top, archive)
            for path in list_files(top / archive, "_HE.png"):
                name = path.name[: -len("_HE.png")]
                slide = name.removeprefix(f"{archive}_").rsplit("_", 2)[0]
                yield INFO.image(
                    path,
                    partial(_read, path, label),
                    name=name,
                    group=slide,
                    split=splits.get(path.name),
                )

    def missing(self, root: Path) -> list[str]:
        """Archives, tables and masks that are not there."""
        gaps = []
        for archive in ARCHIVES:
            top = folder_with(root, archive, depth=1)
            if top is None:
                gaps.append(f"{archive}/")
                continue
            if _table(top, archive) is None:
                gaps.append(f"{_table_name(archive)} (no official split without it)")
            names = {path.name for path in list_files(top / archive, ".png")}
            images = {name for name in names if name.endswith("_HE.png")}
            lacking = [name for name in sorted(images) if _mask_name(name) not in names]
            gaps += [f"{archive}/{_mask_name(name)}" for name in lacking]
            gaps += [] if images else [f"{archive}/*_HE.png"]
        return gaps


SOURCE = SegPath()


def _mask_name(image: str) -> str:
    return f"{image[: -len('_HE.png')]}_mask.png"


def _table_name(archive: str) -> str:
    return f"{archive.partition('_')[0]}_fileinfo.csv"


def _table(top: Path, archive: str) -> Path | None:
    """The table of an archive, beside its folder or in it."""
    name = _table_name(archive)
    return next((path for path in (top / name, top / archive / name) if path.exists()), None)


def _splits(top: Path, archive: str) -> dict[str, str]:
    """Split of every picture an archive's table lists."""
    path = _table(top, archive)
    if path is None:
        return {}
    with refuse_damage(path, "CSV table"):
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):  # as some browsers save it
            content = gzip.decompress(content)
        rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
    splits = {}
    for row in rows:
        name, part = row.get("filename"), row.get("train_val_test")
        if name is None or part not in SPLITS:
            raise DataError(
                f"{path} has the row {row}; wanted columns filename and train_val_test, the "
                f"latter one of {', '.join(SPLITS)}: take the file as distributed"
            )
        splits[Path(name).name] = SPLITS[part]
    return splits


def _read(path: Path, label: str) -> Annotated:
    """A patch with the mask of its cell type. Of other types nothing is known."""
    mask_path = path.with_name(_mask_name(path.name))
    image, values = read_pair(path, mask_path)
    masks = masks_of_classes(values, dict.fromkeys(INSIDE, label), path=mask_path)
    return Annotated(image, masks, None, absent_labels((label,), masks))
