"""Pictures of a slide's page: a layer per object class, signed maps, and telling patches.

Axes: N patches, L object classes, h w pixels of the overview, H W of a patch.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from xpath.export.colour import hex_colour, object_colour, signed_rgba
from xpath.export.overlay import png_bytes, short_name, signed_limit
from xpath.export.report.records import Layer, PatchPicture, PatchStrip
from xpath.geometry import Size

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from numpy.typing import NDArray

    from xpath.explain.explanation import Explanation
    from xpath.export.overlay import Panels
    from xpath.store.masks import SlideMasks
    from xpath.wsi.slide import Slide

__all__ = ["jpeg_bytes", "object_layer", "patch_strips", "report_layers"]

FAINT = 0.02
"""Shares of an overview pixel below this are not shown."""
STEPS = 8
"""Opacities a mask is rounded to. Few make small files."""
LEAST = 0.0005
"""Contributions that would be printed as 0.000 are not shown as evidence."""
SIDE = 168
"""Pixels of a patch's picture."""


def report_layers(
    panels: Panels, source: str, *, shown: Container[str] | None = None
) -> tuple[Layer, ...]:
    """Maps, then a layer per object class that is there.

    Args:
        panels: The slide at the size of its overview.
        source: The folder of the slide in the run.
        shown: Short names of the objects to show at first; all without them.
    """
    explanation = f"{source}/explanation.h5"
    maps = (
        ("patch map (standard model)", panels.patch_map, "patch/scores"),
        ("object-aware map", panels.object_map, "object/activation, painted on masks.zarr"),
    )
    layers = []
    for name, values, array in maps:
        limit = signed_limit(values)
        png = png_bytes(signed_rgba(values, limit))
        layers.append(Layer(name=name, png=png, limit=limit, source=f"{explanation}: {array}"))
    adds = dict(zip(panels.contribution_names, panels.contribution.tolist(), strict=True))
    order = np.argsort(-panels.shares.sum(axis=(1, 2)), kind="stable")  # small ones on top
    for label in order:
        if panels.shares[label].max(initial=0) <= FAINT:
            continue
        colour = object_colour(panels.objects[label])
        layers.append(
            Layer(
                name=short_name(panels.objects[label]),
                png=object_layer(panels.shares[label], colour),
                shown=shown is None or short_name(panels.objects[label]) in shown,
                colour=hex_colour(colour),
                source=f"{source}/masks.zarr",
                value=adds.get(panels.objects[label]),
            )
        )
    return tuple(layers)


def object_layer(share: NDArray[np.float32], colour: tuple[int, int, int]) -> bytes:
    """PNG of one object class: the more of a pixel it covers, the less transparent.

    The opacity is the root of the share, so that nuclei do not vanish on the overview of a slide.
    """
    from PIL import Image

    opacity = np.where(share > FAINT, np.sqrt(np.clip(share, 0, 1)), 0)
    level = np.ceil(opacity * (STEPS - 1)).astype(np.uint8)
    image = Image.fromarray(level, "P")
    image.putpalette([*colour] * STEPS)
    steps = bytes(round(255 * step / (STEPS - 1)) for step in range(STEPS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=steps, compress_level=6, bits=4)
    return buffer.getvalue()


def jpeg_bytes(image: NDArray[np.uint8], quality: int = 88) -> bytes:
    """JPEG of ``(h, w, 3)``, equal bytes for equal pixels."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def patch_strips(
    slide: Slide, masks: SlideMasks, explanation: Explanation, *, objects: int = 6, each: int = 3
) -> tuple[PatchStrip, ...]:
    """Patches in which an object speaks most for the class and most against it.

    Args:
        slide: Open for reading.
        masks: Object masks of the slide.
        explanation: Of the slide.
        objects: How many object classes, those that add most to the logit, whatever the sign.
        each: Patches on each side.

    Raises:
        SlideError: A patch cannot be read.
    """
    strips = []
    size = np.abs(explanation.object.bars[: len(masks.labels)])
    chosen = [j for j in np.argsort(-size, kind="stable")[:objects] if masks.area[:, j].any()]
    for j in chosen:
        values = explanation.object.patch_contribution[:, j]
        order = np.argsort(-values, kind="stable")
        top = [int(p) for p in order[:each] if values[p] >= LEAST]
        bottom = [int(p) for p in order[::-1][:each] if values[p] <= -LEAST]
        pictures = [
            tuple(_picture(slide, masks, patch, int(j), float(values[patch])) for patch in side)
            for side in (top, bottom)
        ]
        strips.append(
            PatchStrip(
                name=short_name(masks.labels[j]),
                colour=hex_colour(object_colour(masks.labels[j])),
                top=pictures[0],
                bottom=pictures[1],
            )
        )
    return tuple(strips)


def _picture(slide: Slide, masks: SlideMasks, patch: int, j: int, value: float) -> PatchPicture:
    box = masks.grid.box(patch)
    image = slide.read(box, Size(SIDE, SIDE))
    outlined = _outlined(image, masks.read(patch)[j], object_colour(masks.labels[j]))
    position = f"patch {patch} at {box.x}, {box.y}"
    return PatchPicture(jpeg=jpeg_bytes(outlined, 85), value=value, position=position)


def _outlined(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Sequence[int]
) -> NDArray[np.uint8]:
    """The picture with a mask's border in its colour, between two white lines."""
    import cv2

    side = image.shape[0]
    large = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    picture = np.ascontiguousarray(image)
    cv2.drawContours(picture, contours, -1, (255, 255, 255), 3)
    cv2.drawContours(picture, contours, -1, tuple(int(c) for c in colour), 1)
    return picture
