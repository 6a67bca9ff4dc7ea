"""Maps of a slide for other viewers: OME-TIFF pyramids of scores and of colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.batch.done import make_once
from xpath.errors import ResolutionError
from xpath.explain.explanation import read_explanation
from xpath.explain.maps import patch_map, patch_object_map
from xpath.export.colour import signed_rgba
from xpath.export.ome_tiff import array_tiles, write_ome_tiff
from xpath.export.overlay import signed_limit, stacked
from xpath.geometry import Size
from xpath.store.masks import open_masks
from xpath.store.schema import atomic
from xpath.study.keys import stage_key
from xpath.study.slides import explain_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.batch.slides import SlideEntry
    from xpath.explain.explanation import Explanation
    from xpath.store.masks import SlideMasks
    from xpath.study.study import Study

__all__ = ["write_pyramids"]

SIDE = 4096
"""Longer side of the maps, pixels. Their finest detail is a patch, or an object of some microns."""


def write_pyramids(study: Study, entry: SlideEntry) -> bool:
    """Writes ``pyramids/`` of an explained slide, True if it had to be made.

    For the patch map and the object-aware map: ``NAME.ome.tif`` (float32 scores, signed, NaN where
    there is nothing) and ``NAME_colour.ome.tif`` (over the slide).

    Raises:
        ResolutionError: The slide stores no resolution.
        StoreError: The slide has no explanation, or the disk is full.
    """
    path = study.folder.explanation(entry.slide_id)
    study.require(path, explain_key(study, entry), "explain")
    output = study.folder.slide(entry.slide_id) / "pyramids"

    def produce() -> None:
        explanation = read_explanation(path)
        masks = open_masks(study.folder.masks(entry.slide_id))
        with study.open_slide(entry) as slide:
            picture = slide.thumbnail(SIDE)
        with atomic(output) as draft:
            draft.mkdir()
            _write(draft, explanation, masks, picture)

    key = stage_key("pyramids", study.config, explain_key(study, entry))
    return make_once(output, key, produce)


def _write(
    folder: Path, explanation: Explanation, masks: SlideMasks, picture: NDArray[np.uint8]
) -> None:
    grid = masks.grid
    if grid.slide_mpp is None:
        raise ResolutionError(f"{explanation.slide_id} has no resolution; start the run with --mpp")
    size = Size(picture.shape[1], picture.shape[0])
    um = grid.slide_mpp * grid.slide_size.width / size.width
    by_patch = np.tile(explanation.object.activation[: len(masks.labels)], (len(grid), 1))
    maps = {
        "patch_map": patch_map(explanation.patch.scores, grid, size),
        "object_map": patch_object_map(by_patch, masks, size),
    }
    for name, scores in maps.items():
        for suffix, tile, dtype in (
            ("", array_tiles(scores.astype(np.float32)), "float32"),
            ("_colour", _colour_tiles(picture, scores), "uint8"),
        ):
            write_ome_tiff(
                folder / f"{name}{suffix}.ome.tif",
                tile,
                size=size,
                dtype=dtype,
                um_per_pixel=um,
                name=f"{explanation.slide_id} {name}",
            )


def _colour_tiles(
    picture: NDArray[np.uint8], scores: NDArray[np.float64]
) -> Callable[[int, int, int, int], NDArray[np.uint8]]:
    """Tiles ``(h, w, 3)`` of a signed map in colour over the slide."""
    limit = signed_limit(scores)

    def tile(left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        window = (slice(top, top + height), slice(left, left + width))
        return stacked(picture[window], signed_rgba(scores[window], limit))

    return tile
