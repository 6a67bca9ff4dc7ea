"""NuCLS: nuclei of breast cancer of twelve types, outlined or boxed."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.rasterise import fill_boxes, fill_ellipses, parse_points
from xpath.pathseg.reading import (
    absent_labels,
    check_same_size,
    fill_polygons,
    folder_with,
    list_files,
    masks_of_classes,
    read_image,
    read_table,
    refuse_damage,
    too_few,
)
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SOURCE"]

CLASSES = {
    "tumor": (1, "breast-nuclei-tumor"),
    "fibroblast": (2, "breast-nuclei-fibroblast"),
    "lymphocyte": (3, "breast-nuclei-lymphocyte"),
    "plasma_cell": (4, "breast-nuclei-plasma cells"),
    "macrophage": (5, "breast-nuclei-macrophage"),
    "mitotic_figure": (6, "breast-nuclei-mitotic figure"),
    "vascular_endothelium": (7, "breast-nuclei-vascular endothelium"),
    "myoepithelium": (8, "breast-nuclei-myoepithelium"),
    "apoptotic_body": (9, "breast-nuclei-apoptotic body"),
    "neutrophil": (10, "breast-nuclei-neutrophil"),
    "ductal_epithelium": (11, "breast-nuclei-ductal epithelium"),
    "eosinophil": (12, "breast-nuclei-eosinophil"),
}
"""Raw class to its code in the mask and its label id."""
UNLABELLED, UNLABELLED_CODE = "unlabeled", 99
"""A nucleus nobody could name: no label, and no evidence against one."""
VIEW, VIEW_CODE = "fov", 253
"""The field of view, which was annotated to the last nucleus; in the mask, its empty part."""
OUTSIDE_CODE = 0
ORIGINALS = 1744
FOLDERS = {"rgb": ("rgb", "rgbs"), "csv": ("csv",), "mask": ("mask", "masks")}
"""Folder as the publishers call it to all names it has in their releases."""

INFO = published("NuCLS", [label for _, label in CLASSES.values()])


class Nucls:
    """Fields of view by patient, without split, for official folds are for cross-validation.

    Of a nucleus that was only boxed, the ellipse within the box counts; the corners are ignored.
    """

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All fields of view, sorted by name."""
        folders = _folders(root)
        for path in list_files(folders["rgb"], ".png"):
            patient = re.search(r"TCGA-\w{2}-\w{4}", path.stem)
            yield INFO.image(
                path,
                partial(
                    _read, path, folders["csv"] / f"{path.stem}.csv", folders["mask"] / path.name
                ),
                group=patient[0] if patient else path.stem,
            )

    def missing(self, root: Path) -> list[str]:
        """Fields of view without annotation, and how many there are."""
        folders = _folders(root)
        images = {path.stem for path in list_files(folders["rgb"], ".png")}
        annotated = {path.stem for path in list_files(folders["csv"], ".csv")}
        annotated |= {path.stem for path in list_files(folders["mask"], ".png")}
        gaps = too_few(len(images), ORIGINALS, "pictures in rgb")
        return gaps + [f"csv/{name}.csv or mask/{name}.png" for name in sorted(images - annotated)]


SOURCE = Nucls()


class Table(NamedTuple):
    """Masks of a table of annotations."""

    masks: tuple[LabelMask, ...]
    unknown: NDArray[np.bool_]
    """(H, W), True for unnamed nuclei and the corners of boxes."""
    view: NDArray[np.bool_] | None
    """(H, W), True in the field of view; None if the table does not tell."""


def _folders(root: Path) -> dict[str, Path]:
    """Where pictures, tables and masks are."""
    folders = {}
    for name, spellings in FOLDERS.items():
        candidates = [(folder_with(root, spelling), spelling) for spelling in spellings]
        folders[name] = next((top / spelling for top, spelling in candidates if top), root / name)
    return folders


def _read(path: Path, table_path: Path, mask_path: Path) -> Annotated:
    """A field of view with its nuclei, from the table if there is one, else from the mask."""
    image = read_image(path)
    codes = None
    if mask_path.exists():
        codes = read_image(mask_path)[..., 0].astype(np.int32)
        check_same_size(mask_path, codes.shape, path, image.shape)
    view = None if codes is None else codes != OUTSIDE_CODE
    if table_path.exists():
        masks, unknown, own_view = _read_nuclei(table_path, (image.shape[0], image.shape[1]))
        view = view if own_view is None else own_view
    elif codes is not None:
        table = dict(CLASSES.values())
        others = (OUTSIDE_CODE, UNLABELLED_CODE, VIEW_CODE)
        masks = masks_of_classes(codes, table, path=mask_path, unlabelled=others)
        unknown = codes == UNLABELLED_CODE
    else:
        raise DataError(
            f"{path} has neither {table_path} nor {mask_path}; unpack csv and mask beside rgb, or "
            "remove the picture"
        )
    ignore = unknown if view is None else unknown | ~view
    for mask in masks:  # a named nucleus is known, whatever box reaches into it
        ignore = ignore & ~mask.mask
    ignored = ignore if ignore.any() else None
    return Annotated(image, masks, ignored, absent_labels(INFO.labels, masks))


def _read_nuclei(path: Path, size: tuple[int, int]) -> Table:
    """Nuclei of a table of annotations.

    Args:
        path: A table of ``csv/``.
        size: Height and width of the image.
    """
    filled: dict[str, NDArray[np.bool_]] = {}
    unknown, view = np.zeros(size, bool), None
    for row in read_table(path, "type", "xmin", "ymin", "xmax", "ymax"):
        name = _raw_class(row, path)
        with refuse_damage(path, "table of nuclei"):
            box = (float(row["xmin"]), float(row["ymin"]), float(row["xmax"]), float(row["ymax"]))
        if name == VIEW:
            view = fill_boxes([box], size)
            continue
        outline = parse_points(row.get("coords_x", ""), row.get("coords_y", ""), path)
        boxed = row["type"] == "rectangle" or len(outline) < 3
        inside = fill_ellipses([box], size) if boxed else fill_polygons([outline], size)
        if name == UNLABELLED:
            unknown |= inside
            continue
        label = CLASSES[name][1]
        filled[label] = filled.get(label, np.zeros(size, bool)) | inside
        if boxed:
            unknown |= fill_boxes([box], size) & ~inside
    masks = (LabelMask(label, filled[label]) for label in INFO.labels if label in filled)
    return Table(tuple(mask for mask in masks if mask.mask.any()), unknown, view)


def _raw_class(row: dict[str, str], path: Path) -> str:
    """Raw class of a row, with the mark of reviewers' corrections taken off."""
    name = row.get("raw_classification") or row.get("group", "")
    name = name.lower().removeprefix("correction_")
    if name.startswith(VIEW):
        return VIEW
    if name not in CLASSES and name != UNLABELLED:
        raise DataError(
            f"{path} has the unknown class {name!r}, known are {', '.join(CLASSES)} and "
            f"{UNLABELLED}; take the table as distributed, or remove it"
        )
    return name
