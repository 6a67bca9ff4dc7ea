"""Colours that mean the same everywhere, also to the colour-blind.

Signed values run from blue (against the class) over nothing to orange-red (for it); the scale is
symmetric about zero, so a map without positive evidence shows no red. Axes: h w pixels.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from xpath.labels import OTHER

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AGAINST", "FOR", "hex_colour", "object_colour", "signed_rgba"]

FOR = (178, 24, 43)
AGAINST = (33, 102, 172)

# Okabe and Ito's eight plus Paul Tol's muted, for common object types.
_KNOWN = {
    "tumor": (204, 51, 17),
    "stroma": (238, 153, 170),
    "fat": (240, 228, 66),
    "necrosis or debris": (0, 0, 0),
    "lymphocytic infiltrate": (0, 68, 136),
    "normal acinus or duct": (0, 158, 115),
    "blood vessel": (230, 159, 0),
    "neoplastic": (153, 0, 80),
    "lymphocyte": (86, 180, 233),
    "fibroblast": (17, 119, 51),
    "ductal epithelium": (0, 221, 170),
    "epithelial": (68, 170, 153),
    "inflammatory": (51, 34, 136),
    "connective": (153, 153, 51),
}


def object_colour(label_id: str) -> tuple[int, int, int]:
    """The colour of an object class: by its object type, the same in every figure and file."""
    if label_id == OTHER:
        return 150, 150, 150
    object_type = label_id.split("-", 2)[-1]
    if object_type in _KNOWN:
        return _KNOWN[object_type]
    seed = sha256(object_type.encode()).digest()
    hue, light = seed[0] / 256, 0.35 + 0.25 * seed[1] / 256
    return _from_hue(hue, light)


def hex_colour(colour: tuple[int, int, int]) -> str:
    """A colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def signed_rgba(
    values: NDArray[np.floating], limit: float, *, opacity: float = 0.75
) -> NDArray[np.uint8]:
    """Colour ``(h, w, 4)`` of signed values, transparent where they are NaN or zero.

    Args:
        values: ``(h, w)``.
        limit: The absolute value shown in full colour.
        opacity: Of full colour, 0 to 1.
    """
    share = np.clip(np.nan_to_num(values) / (limit or 1.0), -1, 1)
    layer = np.empty((*share.shape, 4), np.uint8)
    layer[..., :3] = AGAINST
    layer[share > 0, :3] = FOR
    layer[..., 3] = np.rint(255 * opacity * np.abs(share) ** 0.7)
    return layer


def _from_hue(hue: float, light: float) -> tuple[int, int, int]:
    import colorsys

    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.65)
    return round(255 * red), round(255 * green), round(255 * blue)
