"""MoNuSAC 2020: four types of cells in 310 images of four organs, each nucleus outlined."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.reading import (
    absent_labels,
    fill_polygons,
    folder_with,
    list_files,
    read_tiff,
    read_xml,
    refuse_damage,
    too_few,
)
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

__all__ = ["SOURCE"]

CLASSES = {
    "Epithelial": "unspecified-cell-epithelial",
    "Lymphocyte": "unspecified-cell-lymphocyte",
    "Macrophage": "unspecified-cell-macrophage",
    "Neutrophil": "unspecified-cell-neutrophil",
}
"""Attribute of an annotation to label id; PathSeg takes no organ from the patient's number."""
AMBIGUOUS = "Ambiguous"
"""Where the experts could not tell; only in the test split."""
FOLDERS = {
    "train": ("MoNuSAC_images_and_annotations",),
    "test": ("MoNuSAC Testing Data and Annotations", "MoNuSAC_Testing_Data_and_Annotations"),
}
"""Split to the names its folder goes by."""
ORIGINALS = {"train": 209, "test": 101}

INFO = published("MoNuSAC", CLASSES.values())


class Monusac:
    """Images grouped by patient, split as in the challenge."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images, training part first."""
        for split in FOLDERS:
            for path in _pictures(root, split):
                yield INFO.image(
                    path,
                    partial(_read, path, path.with_name(f"{path.stem}.xml")),
                    group=path.name[: len("TCGA-5P-A9K0")],
                    split=split,
                )

    def missing(self, root: Path) -> list[str]:
        """Folders and files that are not there."""
        gaps: list[str] = []
        for split, wanted in ORIGINALS.items():
            pictures = _pictures(root, split)
            if not pictures:
                gaps.append(f"{FOLDERS[split][0]}/PATIENT/*.tif or *.svs")
                continue
            gaps += too_few(len(pictures), wanted, f"pictures to {split}")
            outlines = [path.with_name(f"{path.stem}.xml") for path in pictures]
            gaps += [f"{path.parent.name}/{path.name}" for path in outlines if not path.is_file()]
        return gaps


SOURCE = Monusac()


def _read(image_path: Path, xml_path: Path) -> Annotated:
    """An image with its cells."""
    image = read_tiff(image_path)
    size = (image.shape[0], image.shape[1])
    outlines = _outlines(xml_path)
    _check_inside(xml_path, outlines, image_path, size)
    masks_by_type = {
        cell_type: fill_polygons(shapes, size) for cell_type, shapes in outlines.items()
    }
    masks = tuple(
        LabelMask(label, masks_by_type[cell_type])
        for cell_type, label in CLASSES.items()
        if cell_type in masks_by_type and masks_by_type[cell_type].any()
    )
    ignore = masks_by_type.get(AMBIGUOUS)
    if ignore is not None:
        for cells in masks:  # a cell that was told beats an outline around a doubtful region
            ignore = ignore & ~cells.mask
    known = ignore is None or not ignore.any()
    return Annotated(image, masks, None if known else ignore, absent_labels(INFO.labels, masks))


def _outlines(path: Path) -> dict[str, list[NDArray[np.float64]]]:
    """Polygons ``(K, 2)``, x then y in pixels, of every cell type."""
    outlines: dict[str, list[NDArray[np.float64]]] = {}
    for annotation in read_xml(path).iter("Annotation"):
        attribute = annotation.find("Attributes/Attribute")
        cell_type = "" if attribute is None else attribute.get("Name", "").strip()
        regions = annotation.findall("Regions/Region")
        if cell_type not in CLASSES and cell_type != AMBIGUOUS and regions:
            known = ", ".join((*CLASSES, AMBIGUOUS))
            raise DataError(
                f"{path} has an unknown cell type {cell_type!r}, known are {known}; take the file "
                "as distributed"
            )
        with refuse_damage(path, "Aperio annotation"):
            outlines.setdefault(cell_type, []).extend(_points(region) for region in regions)
    return outlines


def _points(region: Element) -> NDArray[np.float64]:
    """Corners ``(K, 2)`` of an outline, x then y in pixels."""
    corners = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
    return np.array(corners, dtype=np.float64).reshape(-1, 2)


def _check_inside(
    path: Path,
    outlines: dict[str, list[NDArray[np.float64]]],
    image_path: Path,
    size: tuple[int, int],
) -> None:
    """Refuses outlines of another image: none of their points is within this one."""
    shapes = [shape for polygons in outlines.values() for shape in polygons]
    limits = np.array([size[1], size[0]])
    if shapes and not any(((shape >= 0) & (shape <= limits)).all(axis=1).any() for shape in shapes):
        raise DataError(
            f"{path} has no outline within its image {image_path} of {size[1]} x {size[0]} "
            "pixels; take both from the same release, or remove them"
        )


def _pictures(root: Path, split: str) -> list[Path]:
    """Pictures of a split, the TIFF where there is one."""
    for name in FOLDERS[split]:
        top = folder_with(root, name)
        if top is not None:
            break
    else:
        return []
    patients = sorted(folder for folder in (top / name).iterdir() if folder.is_dir())
    pictures: list[Path] = []
    for patient in patients:
        tiffs = list_files(patient, ".tif")
        names = {path.stem for path in tiffs}
        slides = [path for path in list_files(patient, ".svs") if path.stem not in names]
        pictures += sorted([*tiffs, *slides], key=lambda path: path.stem)
    return pictures
