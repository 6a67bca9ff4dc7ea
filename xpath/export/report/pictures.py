"""Pictures of a slide's page: a layer per kind of object, signed maps, and telling patches.

Axes: N patches, L object kinds, h w pixels of the overview, H W of a patch.
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
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.export.overlay import Panels
    from xpath.store.explanations import SlideExplanation
    from xpath.store.masks import SlideMasks
    from xpath.wsi.slide import Slide

__all__ = ["jpeg_bytes", "kind_layer", "patch_strips", "report_layers"]

FAINT = 0.02
"""Shares of an overview pixel below this are not shown."""
STEPS = 8
"""Opacities a mask is rounded to; few make small files."""
LEAST = 0.0005
"""Contributions that would be printed as 0.000 are not shown as evidence."""
SIDE = 168
"""Pixels of a patch's picture."""


def report_layers(panels: Panels, source: str) -> tuple[Layer, ...]:
    """Maps, then a layer per kind that is there; objects are shown first.

    Args:
        panels: What is known of the slide at the size of its overview.
        source: The folder of the slide in the run.
    """
    explanation = f"{source}/explanation.h5"
    maps = (
        ("patch map (standard model)", panels.patch_map, "patch_scores"),
        ("object-aware map", panels.object_map, "activation, painted on masks.zarr"),
    )
    layers = []
    for name, values, what in maps:
        limit = signed_limit(values)
        png = png_bytes(signed_rgba(values, limit))
        layers.append(Layer(name=name, png=png, limit=limit, source=f"{explanation}: {what}"))
    adds = dict(zip(panels.contribution_names, panels.contribution.tolist(), strict=True))
    order = np.argsort(-panels.shares.sum(axis=(1, 2)), kind="stable")  # small ones on top
    for label in order:
        if panels.shares[label].max(initial=0) <= FAINT:
            continue
        colour = object_colour(panels.objects[label])
        layers.append(
            Layer(
                name=short_name(panels.objects[label]),
                png=kind_layer(panels.shares[label], colour),
                shown=True,
                colour=hex_colour(colour),
                source=f"{source}/masks.zarr",
                value=adds.get(panels.objects[label]),
            )
        )
    return tuple(layers)


def kind_layer(share: NDArray[np.float32], colour: tuple[int, int, int]) -> bytes:
    """PNG of one kind: the more of a pixel it covers, the less transparent.

    The opacity is the root of the share, so that nuclei do not vanish on the overview of a slide.
    """
    from PIL import Image

    seen = np.where(share > FAINT, np.sqrt(np.clip(share, 0, 1)), 0)
    level = np.ceil(seen * (STEPS - 1)).astype(np.uint8)
    image = Image.fromarray(level, "P")
    image.putpalette([*colour] * STEPS)
    opacity = bytes(round(255 * step / (STEPS - 1)) for step in range(STEPS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=opacity, optimize=True, bits=4)
    return buffer.getvalue()


def jpeg_bytes(image: NDArray[np.uint8], quality: int = 88) -> bytes:
    """JPEG of ``(h, w, 3)``; equal pixels give equal bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def patch_strips(
    slide: Slide, masks: SlideMasks, found: SlideExplanation, *, kinds: int = 6, each: int = 3
) -> tuple[PatchStrip, ...]:
    """Patches in which a kind speaks most for the class and most against it, kind by kind.

    Args:
        slide: Open for reading.
        masks: Object masks of the slide.
        found: Its explanation.
        kinds: The kinds that add most to the logit, whatever the sign.
        each: Patches on each side.

    Raises:
        SlideError: A patch cannot be read.
    """
    strips = []
    size = np.abs(found.contribution[: len(masks.labels)])
    chosen = [k for k in np.argsort(-size, kind="stable")[:kinds] if masks.area[:, k].any()]
    for kind in chosen:
        values = found.patch_contribution[:, kind]
        order = np.argsort(-values, kind="stable")
        top = [int(p) for p in order[:each] if values[p] >= LEAST]
        bottom = [int(p) for p in order[::-1][:each] if values[p] <= -LEAST]
        colour = object_colour(masks.labels[kind])
        pictures = [
            tuple(_picture(slide, masks, patch, int(kind), float(values[patch])) for patch in side)
            for side in (top, bottom)
        ]
        strips.append(
            PatchStrip(
                name=short_name(masks.labels[kind]),
                colour=hex_colour(colour),
                top=pictures[0],
                bottom=pictures[1],
            )
        )
    return tuple(strips)


def _picture(slide: Slide, masks: SlideMasks, patch: int, kind: int, value: float) -> PatchPicture:
    box = masks.grid.box(patch)
    image = slide.read(box, Size(SIDE, SIDE))
    outlined = _outlined(image, masks.read(patch)[kind], object_colour(masks.labels[kind]))
    place = f"patch {patch} at {box.x}, {box.y}"
    return PatchPicture(jpeg=jpeg_bytes(outlined, 85), value=value, place=place)


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
