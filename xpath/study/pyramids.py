"""Maps of a slide for other viewers: OME-TIFF for scores and colours, DeepZoom for the web."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.batch.done import key_of, make_once
from xpath.errors import ResolutionError
from xpath.explain.maps import patch_map, patch_object_map
from xpath.export.colour import signed_rgba
from xpath.export.deepzoom import DeepZoomConfig, write_deepzoom
from xpath.export.ome_tiff import array_tiles, write_ome_tiff
from xpath.export.overlay import signed_limit, stacked
from xpath.geometry import Size
from xpath.store.explanations import read_explanation
from xpath.store.masks import open_masks
from xpath.store.schema import atomic
from xpath.study.slides import explain_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.batch.slides import SlideEntry
    from xpath.store.explanations import SlideExplanation
    from xpath.store.masks import SlideMasks
    from xpath.study.study import Study

__all__ = ["write_pyramids"]

ROWS = 256
SIDE = 4096
"""Longer side of the maps, pixels: their finest detail is a patch, or an object of some microns."""


def write_pyramids(study: Study, entry: SlideEntry) -> bool:
    """Writes ``pyramids/`` of an explained slide; True if it had to be made.

    For the patch map and the object-aware map: ``NAME.ome.tif`` (float32 scores, signed, NaN where
    there is nothing), ``NAME_colour.ome.tif`` (over the slide) and ``NAME.zip`` (DeepZoom overlay).

    Raises:
        ResolutionError: The slide stores no resolution.
        StoreError: The slide has no explanation, or the disk is full.
    """
    explanation = study.folder.explanation(entry.slide_id)
    study.require(explanation, explain_key(study, entry), "explain")
    output = study.folder.slide(entry.slide_id) / "pyramids"

    def produce() -> None:
        found = read_explanation(explanation)
        masks = open_masks(study.folder.masks(entry.slide_id))
        with study.open_slide(entry) as slide:
            picture = slide.thumbnail(SIDE)
        with atomic(output) as draft:
            draft.mkdir()
            _write(draft, found, masks, picture)

    return make_once(output, key_of("pyramids", explain_key(study, entry), SIDE), produce)


def _write(
    folder: Path, found: SlideExplanation, masks: SlideMasks, picture: NDArray[np.uint8]
) -> None:
    grid = masks.grid
    if grid.slide_mpp is None:
        raise ResolutionError(f"{found.slide_id} has no resolution; start the run with --mpp")
    size = Size(picture.shape[1], picture.shape[0])
    um = grid.slide_mpp * grid.slide_size.width / size.width
    by_patch = np.tile(found.activation[: len(masks.labels)], (len(grid), 1))
    maps = {
        "patch_map": patch_map(found.patch_scores, grid, size),
        "object_map": patch_object_map(by_patch, masks, size),
    }
    for name, scores in maps.items():
        colours = _Colours(picture, scores)
        for suffix, tile, dtype in (
            ("", array_tiles(scores.astype(np.float32)), "float32"),
            ("_colour", colours.tile, "uint8"),
        ):
            write_ome_tiff(
                folder / f"{name}{suffix}.ome.tif",
                tile,
                size=size,
                dtype=dtype,
                um_per_pixel=um,
                name=f"{found.slide_id} {name}",
            )
        png = DeepZoomConfig(format="png")
        write_deepzoom(folder / f"{name}.zip", colours.strips(), size, name=name, config=png)


class _Colours:
    """A signed map in colour, a part at a time."""

    def __init__(self, picture: NDArray[np.uint8], scores: NDArray[np.float64]) -> None:
        self._picture, self._scores, self._limit = picture, scores, signed_limit(scores)

    def tile(self, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """Over the slide, ``(h, w, 3)``."""
        part = (slice(top, top + height), slice(left, left + width))
        return stacked(self._picture[part], signed_rgba(self._scores[part], self._limit))

    def strips(self) -> Iterator[NDArray[np.uint8]]:
        """On its own, rows ``(h, w, 4)`` from the top."""
        for top in range(0, len(self._scores), ROWS):
            yield signed_rgba(self._scores[top : top + ROWS], self._limit)
