"""MIDOG 2022: mitotic figures and look-alikes, of which PathSeg takes neuroendocrine tumours.

The source gives boxes of 50 pixels around each cell, PathSeg wants masks, and the paper does not
say how it got them. ``box`` fills the boxes, as the paper's results suggest: models that outline
what is in the box around all cells, mostly one, reach a Dice of 0.34 and 0.43 there (Table 6), and
a nucleus of 30 pixels against its box of 50 would give 0.44. ``disc`` fills the disc in the box.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.reading import (
    absent_labels,
    check_same_size,
    folder_with,
    read_image,
    read_json,
    read_tiff,
    refuse_damage,
    too_few,
)
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, SourceInfo, published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["SOURCE", "Midog", "Shape"]

Shape = Literal["box", "disc"]

CLASSES = {
    1: "unspecified-nuclei-neuroendocrine tumor mitotic figure",
    2: "unspecified-nuclei-neuroendocrine tumor non mitotic figure",
}
"""``category_id`` to label id."""
EXHAUSTIVE = (CLASSES[1],)
"""Look-alikes were only kept where somebody or some model hesitated."""
TUMOR = "neuroendocrine"
CASES = range(300, 355)
"""Numbers of the neuroendocrine tumours in the 2022 release, which does not tell tumours."""
TABLES = (
    "MIDOG2022_training.json",
    "MIDOG2022_training_png.json",
    "MIDOG++.json",
    "MIDOG.json",
)
"""Names the table goes by; the last one is also that of 2021, which has other tumours."""
FOLDERS = ("", "images", "MIDOG2022_training", "MIDOG2022_training_png")
ORIGINALS = 55
LARGEST_BOX = 200
"""No box is wider, and some corner in any table is further off, in pixels."""

INFO = published("MIDOG", CLASSES.values())


class Cell(NamedTuple):
    """An annotated cell."""

    label: str
    """Label id."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class Midog:
    """Images of the human neuroendocrine tumours, one per patient."""

    shape: Shape = "box"
    """Shape that is filled around a cell."""

    @property
    def info(self) -> SourceInfo:
        """Its published facts."""
        return INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All images of the tumour, in the order of the table.

        Raises:
            DataError: The table is missing or damaged.
        """
        table = _table(root) or root / TABLES[0]
        content = read_json(table)
        with refuse_damage(table, "table of MIDOG"):
            entries = [
                (entry["id"], entry["file_name"], (int(entry["height"]), int(entry["width"])))
                for entry in content["images"]
                if _is_wanted(entry)
            ]
            cells = _cells(table, content["annotations"])
        for number, name, size in entries:
            path = _picture(table.parent, name)
            own = tuple(cells.get(number, ()))
            yield INFO.image(
                path,
                partial(_read, path, table, size, own, self.shape),
            )

    def missing(self, root: Path) -> list[str]:
        """The table, or images it names."""
        table = _table(root)
        if table is None:
            return [f"one of {', '.join(TABLES)}"]
        try:
            images = list(self.images(root))
        except DataError as error:
            return [str(error)]
        gone = [image.path.name for image in images if not image.path.is_file()]
        return [*too_few(len(images), ORIGINALS, "neuroendocrine tumours in the table"), *gone]


SOURCE = Midog()


def _read(
    path: Path, table: Path, size: tuple[int, int], cells: tuple[Cell, ...], shape: Shape
) -> Annotated:
    """An image with its mitotic figures and their look-alikes.

    Args:
        path: The picture.
        table: Where the boxes come from, for the message.
        size: Height and width it must have according to the table.
        cells: What is annotated.
        shape: Shape that is filled around a cell.
    """
    image = read_image(path) if path.suffix.lower() == ".png" else read_tiff(path)
    check_same_size(table, size, path, image.shape)
    labels = [label for label in CLASSES.values() if any(cell.label == label for cell in cells)]
    masks = tuple(
        LabelMask(label, _fill([cell.box for cell in cells if cell.label == label], size, shape))
        for label in labels
    )
    return Annotated(image, masks, None, absent_labels(EXHAUSTIVE, masks))


def _fill(
    boxes: Iterable[tuple[float, float, float, float]], size: tuple[int, int], shape: Shape
) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` whose centre is within a box, or within the ellipse that touches it."""
    mask = np.zeros(size, bool)
    for left, top, right, bottom in boxes:
        x0, y0 = max(0, round(left)), max(0, round(top))
        x1, y1 = max(x0, round(right)), max(y0, round(bottom))
        window = mask[y0:y1, x0:x1]
        if shape == "box":
            window[...] = True
            continue
        rows = (np.arange(window.shape[0]) + y0 + 0.5 - (top + bottom) / 2) / ((bottom - top) / 2)
        columns = (np.arange(window.shape[1]) + x0 + 0.5 - (left + right) / 2) / (
            (right - left) / 2
        )
        window |= rows[:, None] ** 2 + columns**2 <= 1
    return mask


def _cells(table: Path, annotations: list[dict[str, Any]]) -> dict[Any, list[Cell]]:
    """Cells of every image.

    The first releases write corners, later tables sizes, as COCO does; a cell's box is 50 pixels
    wide, so that a file in which no third or fourth number is larger gives sizes.
    """
    sizes = all(max(entry["bbox"][2:4]) <= LARGEST_BOX for entry in annotations)
    cells: dict[Any, list[Cell]] = {}
    for entry in annotations:
        label = CLASSES.get(entry["category_id"])
        if label is None:
            raise DataError(
                f"{table} has unknown category {entry['category_id']!r}, known are 1 (mitotic "
                "figure) and 2 (not mitotic figure); take the table as distributed"
            )
        x, y, third, fourth = map(float, entry["bbox"][:4])
        box = (x, y, x + third, y + fourth) if sizes else (x, y, third, fourth)
        cells.setdefault(entry["image_id"], []).append(Cell(label, box))
    return cells


def _is_wanted(entry: dict[str, Any]) -> bool:
    """True for an image of the tumour: MIDOG++ says so, the 2022 release goes by number."""
    if entry.get("tumor_type"):
        return TUMOR in str(entry["tumor_type"]).lower()
    number = re.match(r"\d+", Path(str(entry["file_name"])).stem)
    return number is not None and int(number[0]) in CASES


def _table(root: Path) -> Path | None:
    for name in TABLES:
        folder = folder_with(root, name)
        if folder is not None:
            return folder / name
    return None


def _picture(top: Path, name: str) -> Path:
    """Path of the picture, beside the table if it is nowhere."""
    candidates = [top / folder / name for folder in FOLDERS]
    return next((path for path in candidates if path.is_file()), candidates[0])
