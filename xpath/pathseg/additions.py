"""Areas that a person drew or corrected in QuPath, as training data beside the sources.

A class means a label of the picture's region by any spelling (``Tumor``, ``lymphocytes``). Classes
``Region*``, ``ROI`` bound what was looked at: all else is unknown. ``Ignore*`` is unknown too.
Axes: H W pixels.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import DataError, LabelError
from xpath.labels import LabelTree, load_labels
from xpath.pathseg.biomedparse_writer import PromptedImage, write_image, write_index
from xpath.pathseg.rasterise import read_geojson
from xpath.pathseg.record import Annotated, LabelMask
from xpath.pathseg.standardisation import StandardConfig, tiles_of
from xpath.store.schema import atomic, check_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.pathseg.rasterise import Outline

__all__ = ["Drawn", "add_picture", "annotate", "read_drawn", "refuse_beyond"]

logger = logging.getLogger(__name__)

SCHEMA = "xpath.pathseg-added/1"
LEDGER = "added.json"
BOUNDING = ("region", "roi", "region of interest")
UNKNOWN = ("ignore",)
PASSED_OVER = ("tissue", "patch")
"""What xpath itself exports beside the objects."""


class Drawn(NamedTuple):
    """The areas of a file, in its own pixels, x right, y down."""

    objects: Mapping[str, Sequence[Outline]]
    """By label id."""
    bounds: Sequence[Outline]
    """Within which everything was drawn; none for the whole picture."""
    unknown: Sequence[Outline]
    """Where nothing is known."""


def read_drawn(path: Path, region: str) -> Drawn:
    """The areas of a GeoJSON file that QuPath wrote, by label of a region.

    Args:
        path: The file.
        region: Anatomical region of the picture.

    Raises:
        DataError: No GeoJSON, or nothing is drawn in it.
        LabelError: No such region, or a class that is no label of it.
    """
    known = load_labels()
    tree = LabelTree(known.children(region), known.digest)
    objects: dict[str, list[Outline]] = {}
    bounds, unknown, nameless = [], [], 0
    for outline in read_geojson(path):
        bare = outline.name.partition(":")[0].strip().casefold().removesuffix("*").strip()
        if bare in BOUNDING:
            bounds.append(outline)
        elif bare in UNKNOWN:
            unknown.append(outline)
        elif not bare:
            nameless += 1
        elif bare not in PASSED_OVER:
            objects.setdefault(_label(outline.name, tree, path), []).append(outline)
    if not objects and not bounds:
        raise DataError(
            f"{path} has no object of a class and no region; give objects a class in QuPath, then"
            " File, Export objects as GeoJSON"
        )
    if nameless:
        logger.warning("%s: passed over: %d objects without a class", path, nameless)
    return Drawn(objects, bounds, unknown)


def annotate(
    image: NDArray[np.uint8],
    drawn: Drawn,
    *,
    corner: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    absent: Sequence[str] = (),
) -> Annotated:
    """A picture ``(H, W, 3)`` with what was drawn on it.

    Within the bounds an object class that was drawn anywhere is taken as drawn completely.

    Args:
        image: RGB.
        drawn: From ``read_drawn``.
        corner: Where the picture's first pixel lies, in pixels of the file.
        scale: Pixels of the picture per pixel of the file.
        absent: Label ids known to be nowhere in the picture.
    """
    size = (image.shape[0], image.shape[1])

    def filled(outlines: Sequence[Outline]) -> NDArray[np.bool_]:
        inside = np.zeros(size, bool)
        for outline in outlines:
            one, *holes = (_inside((ring - corner) * scale, size) for ring in _rings(outline))
            inside |= one & ~np.any(holes, axis=0) if holes else one
        return inside

    masks = [LabelMask(label, filled(outlines)) for label, outlines in drawn.objects.items()]
    ignore = filled(drawn.unknown)
    if drawn.bounds:
        ignore |= ~filled(drawn.bounds)
    there = tuple(mask for mask in masks if mask.mask.any())
    names = {mask.label for mask in there}
    gone = [mask.label for mask in masks if mask.label not in names]
    lost = tuple(dict.fromkeys((*(label for label in absent if label not in names), *gone)))
    return Annotated(image, there, ignore if ignore.any() else None, lost)


def refuse_beyond(drawn: Drawn, size: tuple[int, int]) -> None:
    """Refuses areas that lie wholly beyond a picture: they were drawn on another one.

    Args:
        drawn: In pixels of the picture.
        size: Height and width of the picture.

    Raises:
        DataError: There is one; else its class would be taken as absent.
    """
    every = [*drawn.bounds, *drawn.unknown, *(o for those in drawn.objects.values() for o in those)]
    beyond = [outline for outline in every if _is_beyond(outline, size)]
    if beyond:
        x, y = beyond[0].points[0]
        raise DataError(
            f"{len(beyond)} of {len(every)} areas lie beyond the picture of {size[1]} x {size[0]}"
            f" pixels, such as {beyond[0].name!r} at {x:g}, {y:g}; were they drawn on another one,"
            " or at another size?"
        )


def _is_beyond(outline: Outline, size: tuple[int, int]) -> bool:
    """Whether an area lies wholly beyond a picture of a height and width."""
    low, high = outline.points.min(axis=0), outline.points.max(axis=0)
    return bool((high <= 0).any() or (low >= size[::-1]).any())


def add_picture(
    folder: Path,
    name: str,
    annotated: Annotated,
    *,
    region: str,
    mpp: float,
    split: str = "train",
    config: StandardConfig | None = None,
) -> int:
    """Adds a picture to a folder in BiomedParseData's layout and returns its number of masks.

    Large pictures are cut as those of the sources are. A picture of the same name is replaced.

    Args:
        folder: Of all additions; made if it is not there.
        name: Of the picture, unique in the folder.
        annotated: Pixels and masks.
        region: Anatomical region.
        mpp: Microns per pixel.
        split: ``train`` or ``test``.
        config: How it is standardised.

    Raises:
        DataError: A name that is no file name, or nothing is known of the picture.
        StoreError: The folder holds additions of another version, or the disk is full.
    """
    config = config or StandardConfig()
    added = _read(folder / LEDGER)
    entries = [
        write_image(folder, split, PromptedImage(tile.name, region, tile.annotated, tile.mpp))
        for tile in tiles_of(name, annotated, mpp, config)
    ]
    if not entries:
        raise DataError(f"{name}: nothing is drawn that could be learnt from; draw an object")
    added[name] = {"split": split, "entries": entries}
    with atomic(folder / LEDGER) as draft:
        text = json.dumps({"schema": SCHEMA, "images": added}, indent=0, ensure_ascii=False)
        draft.write_text(text + "\n", encoding="utf-8")
    for part in ("train", "test"):
        every = [line["entries"] for line in added.values() if line["split"] == part]
        flat = [entry for several in every for entry in several]
        if flat or (folder / f"{part}.json").exists():
            write_index(folder, part, flat, info={"source": folder.name})
    return sum(len(entry["masks"]) for entry in entries)


def _rings(outline: Outline) -> tuple[NDArray[np.float64], ...]:
    """The outline, then those of its holes."""
    return (outline.points, *outline.holes)


def _inside(ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies within a ring ``(K, 2)`` of pixel corners, x then y."""
    from skimage.draw import polygon2mask

    return np.asarray(polygon2mask(size, ring[:, ::-1] - 0.5), np.bool_)


def _read(path: Path) -> dict[str, Any]:
    """Pictures that were added before, by name."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); add its pictures to a new folder") from error
    check_schema(path, content.get("schema"), SCHEMA)
    return dict(content["images"])


def _label(name: str, tree: LabelTree, path: Path) -> str:
    """Id of the label a class means, perhaps by the base of a derived class."""
    for words in (name, name.partition(":")[0]):
        try:
            return tree.parse(words.strip()).id
        except LabelError as error:
            reason = str(error)
    raise LabelError(f"{path}: {reason}; rename the class in QuPath")
