"""One crop set into another with a soft border: tissue beside other tissue, rare nuclei elsewhere.

Most images of fat or necrosis show nothing else, so from them alone no border can be learnt.
Axes: P prompts, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.pathseg.packed import IGNORE, cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.pathseg.packed import Packed, View

__all__ = ["blend", "blob", "cut_known", "names_of_both", "outline"]

CLEAR = 0.75
"""Share of one crop from which on a pixel counts as its; less of both is unknown."""
KNOTS = 5
"""A blob is this coarse: random heights on so many by so many points."""


def names_of_both(
    image: Packed, label: str, host: Packed, other: str, *, count: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """``count`` labels of two images to ask for: one of each first, then others of either."""
    rest = list(dict.fromkeys((*image.labels, *host.labels)))
    rng.shuffle(rest)
    names = list(dict.fromkeys((label, other, *rest)))[:count]
    return tuple(names + [label] * (count - len(names)))


def cut_known(
    image: Packed, view: View, size: int, labels: tuple[str, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """As ``cut``, for any labels: ``IGNORE`` where neither present nor known to be absent."""
    pixels, target = cut(image, view, size, labels)
    for row, label in enumerate(labels):
        if label not in image.labels and label not in image.absent:
            target[row] = IGNORE
    return pixels, target


def blob(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Weight ``(size, size)`` in 0..1 of a random region of a third to two thirds of a crop."""
    import cv2

    knots = rng.standard_normal((KNOTS, KNOTS)).astype(np.float32)
    heights = cv2.resize(knots, (size, size), interpolation=cv2.INTER_CUBIC)
    inside = heights > np.quantile(heights, rng.uniform(1 / 3, 2 / 3))
    return _softened(inside, float(rng.uniform(0.5, size / 32)))


def outline(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """Weight ``(H, W)`` in 0..1 of objects with a seam of 3 to 6 pixels around them."""
    import cv2

    width = 2 * int(rng.integers(3, 7)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return _softened(cv2.dilate(mask.astype(np.uint8), disc) > 0, 1.0)


def blend(
    guest: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    host: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    weight: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels and targets of one crop where ``weight`` is 1, of another where it is 0.

    In between pixels are mixed, and what is there is unknown.
    """
    share = weight[..., None]
    mixed = guest[0] * share + host[0] * (1 - share)
    target = np.where(weight >= CLEAR, guest[1], host[1])
    target[:, (weight < CLEAR) & (weight > 1 - CLEAR)] = IGNORE
    return np.rint(mixed).astype(np.uint8), target


def _softened(inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    import cv2

    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma)
    return np.clip(np.asarray(soft, np.float32), 0, 1)
