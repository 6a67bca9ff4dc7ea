"""Pictures of any size asked in words: an image, a view of a slide, or all of its tissue.

Axes: L labels, H W pixels of the image, h w pixels of the overview.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.ask.answer import Answer, Asked
from xpath.errors import DataError
from xpath.explain.maps import object_shares
from xpath.export.qupath.geojson import Feature, ObjectNumbers, object_features
from xpath.geometry import Box, Size
from xpath.objects.area import overlaps
from xpath.objects.find import find_in_image, find_objects
from xpath.segment.predict.whole_slide import SegmentConfig, segment_slide
from xpath.store.masks import open_masks
from xpath.store.objects import write_objects
from xpath.wsi.grid import GridConfig, cut_grid
from xpath.wsi.tissue import find_tissue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.labels import Label
    from xpath.segment.predict.predictor import SegmentPredictor
    from xpath.wsi.slide import Slide

__all__ = [
    "OVERVIEW",
    "LabelObjects",
    "ask_image",
    "ask_slide",
    "find_labels",
    "mask_shares",
    "overview_size",
]

OVERVIEW = 1100
"""Longer side of the picture on the page, pixels."""
LARGEST = 4096 * 4096
"""Most pixels, as the segmentor sees them, of an image that is segmented in one go."""


class LabelObjects(NamedTuple):
    """Masks and objects of an image."""

    masks: NDArray[np.bool_]
    """``(L, H, W)``."""
    features: tuple[Feature, ...]
    """Objects, label by label and from top to bottom."""
    doubted: frozenset[str]
    """Ids of labels with a mask that the segmentor's presence test says are not there."""


def find_labels(
    image: NDArray[np.uint8],
    labels: Sequence[Label],
    predictor: SegmentPredictor,
    *,
    mpp: float | None,
    box: Box | None = None,
    level0_mpp: float | None = None,
) -> LabelObjects:
    """The objects of some labels in an image, in one go.

    Args:
        image: RGB ``(H, W, 3)`` uint8.
        labels: What to look for.
        predictor: The segmentor.
        mpp: Resolution the image is resampled from; None takes its pixels as the segmentor's.
        box: Where the image lies on a slide, level-0 pixels; by default it is its own level 0.
        level0_mpp: Microns per level-0 pixel, for areas; by default ``mpp``.

    Raises:
        DataError: More than 4096 x 4096 pixels once resampled.
    """
    height, width = image.shape[:2]
    enlarged = (mpp / predictor.info.mpp) ** 2 if mpp else 1.0
    if height * width * enlarged > LARGEST:
        raise DataError(
            f"{width} x {height} pixels at {mpp or predictor.info.mpp:g} mpp are too many to be"
            " segmented in one go; cut the image, or save it as a tiled TIFF and ask it as a slide"
        )
    box = box or Box(0, 0, width, height)
    answer = predictor.masks(predictor.encode(image, mpp=mpp), [label.prompt for label in labels])
    scale = np.array([box.width / width, box.height / height])
    level0_mpp = level0_mpp or mpp
    pixel_um2 = scale.prod() * level0_mpp**2 if level0_mpp else None
    features = []
    for label, mask, sure in zip(labels, answer.masks[0], answer.presence[0], strict=True):
        image_mpp = level0_mpp * float(scale[0]) if level0_mpp else None
        for component in find_in_image(mask, label.id, mpp=image_mpp):
            rings = tuple(ring * scale + (box.x, box.y) for ring in component.rings)
            x, y = rings[0][0]
            area = {"area px": float(component.pixels * scale.prod())}
            if pixel_um2:
                area = {"area um2": float(component.pixels * pixel_um2)}
            features.append(
                Feature(
                    name=f"{label.id}/{x:.12g},{y:.12g}",
                    type="detection",
                    rings=rings,
                    label=label.id,
                    measurements=area | {"confidence": float(sure)},
                )
            )
    doubted = frozenset(
        label.id
        for label, mask, present in zip(labels, answer.masks[0], answer.present[0], strict=True)
        if mask.any() and not present
    )
    return LabelObjects(answer.masks[0], tuple(features), doubted)


def ask_image(
    image: NDArray[np.uint8],
    asked: Asked,
    predictor: SegmentPredictor,
    *,
    name: str,
    mpp: float | None = None,
) -> tuple[Answer, NDArray[np.bool_]]:
    """Segments an image with what a text asks for. The answer, and its masks ``(L, H, W)``.

    Args:
        image: RGB ``(H, W, 3)`` uint8.
        asked: The text, read.
        predictor: The segmentor.
        name: Of the image.
        mpp: Microns per pixel; None takes the pixels as those of the segmentor.

    Raises:
        DataError: Nothing is asked for, or the image is too large.
    """
    labels = _wanted(asked)
    found = find_labels(image, labels, predictor, mpp=mpp)
    height, width = image.shape[:2]
    size = overview_size(Size(width, height))
    answer = Answer(
        name=name,
        asked=asked,
        bounds=Box(0, 0, width, height),
        size=Size(width, height),
        mpp=mpp,
        overview=_shrunk(image, size),
        shares=mask_shares(found.masks, size),
        features=found.features,
        doubted=found.doubted,
        segmentor=predictor.info,
    )
    return answer, found.masks


def ask_slide(
    slide: Slide,
    asked: Asked,
    predictor: SegmentPredictor,
    folder: Path,
    *,
    grid: GridConfig | None = None,
    on_patches: Callable[[int], None] | None = None,
) -> Answer:
    """Segments the tissue of a slide with what a text asks for.

    ``masks.zarr`` and ``objects.h5`` are written as a run has them.

    Args:
        slide: Open slide.
        asked: The text, read.
        predictor: The segmentor.
        folder: Where masks and objects are written.
        grid: How patches are cut.
        on_patches: Called with the number of patches of each batch.

    Raises:
        DataError: Nothing is asked for.
        SlideError: No tissue, no resolution, or a part of the slide is damaged.
        StoreError: The disk is full.
    """
    labels = _wanted(asked)
    patches = cut_grid(slide, find_tissue(slide), grid)
    path = folder / "masks.zarr"
    segment_slide(
        slide, patches, predictor, labels, path, config=SegmentConfig(), on_patches=on_patches
    )
    masks = open_masks(path)
    table = find_objects(masks)
    write_objects(folder / "objects.h5", table)
    overview = slide.thumbnail(OVERVIEW)
    numbers = [ObjectNumbers(label=label.id) for label in labels]
    return Answer(
        name=slide.path.stem,
        asked=asked,
        bounds=slide.bounds,
        size=slide.size,
        mpp=slide.mpp_or_none,
        overview=overview,
        shares=object_shares(masks, Size(overview.shape[1], overview.shape[0])),
        features=tuple(object_features(table, numbers)),
        segmentor=predictor.info,
    )


def _wanted(asked: Asked) -> tuple[Label, ...]:
    labels = asked.reading.labels
    if not labels:
        raise DataError(
            f"{asked.text.strip()[:80]!r} asks for nothing that can be segmented; name objects of"
            " `xpath labels`, or the region"
        )
    return labels


def overview_size(size: Size) -> Size:
    """Size of the picture of an image on the page."""
    shrink = max(1.0, max(size.width, size.height) / OVERVIEW)
    return Size(max(1, round(size.width / shrink)), max(1, round(size.height / shrink)))


def _shrunk(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    import cv2

    shape = (size.width, size.height)
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), np.uint8)


def mask_shares(masks: NDArray[np.bool_], size: Size) -> NDArray[np.float32]:
    """``(L, h, w)`` share of each overview pixel under each mask, counted exactly."""
    height, width = masks.shape[1:]
    down = overlaps(np.linspace(0, height, size.height + 1), height) * (size.height / height)
    across = overlaps(np.linspace(0, width, size.width + 1), width) * (size.width / width)
    return np.stack([down @ mask @ across.T for mask in masks]).astype(np.float32)
