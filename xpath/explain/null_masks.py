"""Random masks that an object is compared with: the null of its importance.

A mask that covers part of the object measures the object itself, and one on glass measures nothing.
So by default the random mask lies off the object, with as much of it on tissue; ``shifted``, which
looks at neither, stays under its name. Axes: H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pixels = tuple[NDArray[np.int64], NDArray[np.int64]]
    """Rows and columns."""

__all__ = ["NullMask", "off_object", "shifted", "tissue_pixels"]

NullMask = Literal["off_object", "shifted"]
"""``off_object``: on the rest of the patch, the same share on tissue. ``shifted``: anywhere in the
patch, the object and glass included, so it covers the object by the object's own share."""

GLASS = 220
"""Glass and lumen have at least this much red, green and blue, 0..255."""
SMOOTH_UM = 2.0
"""Width of the smoothing before pixels are told from glass: noise is no tissue."""
TRIES = 10
"""Random positions of a component, before what does not fit is moved to the nearest free pixels."""
MISFIT = 0.05
"""Share of a component that may be moved without another try."""
MOST_COMPONENTS = 200
"""Components moved one by one; of more, several move together."""


def tissue_pixels(image: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` of a patch that are neither glass nor lumen."""
    import cv2

    check_shape("image", image, "H W 3")
    smooth = cv2.GaussianBlur(image, (0, 0), SMOOTH_UM / mpp)
    return np.asarray(smooth.min(axis=2) < GLASS, bool)


def shifted(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The mask somewhere else in its patch: rolled around the edges, turned, mirrored.

    Area and components stay, but for cuts at the edge; the tissue under them changes. It covers
    the object on average by the object's own share of the patch.
    """
    moved = np.zeros_like(mask)
    rows, columns = mask.nonzero()
    moved[_moved((rows, columns), mask.shape, rng)] = True
    return moved


def off_object(
    mask: NDArray[np.bool_], tissue: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A random mask on the rest of the patch, alike in shape and in area on tissue and on glass.

    Each connected component is shifted by itself; what then lies on the object, on another
    component or off its tissue is moved to the nearest free pixels. Where the object leaves less
    tissue or glass than it covers, the mask is all there is of it, and so smaller than the object.

    Args:
        mask: ``(H, W)`` pixels of the object.
        tissue: ``(H, W)``, see ``tissue_pixels``.
        rng: Random numbers.

    Raises:
        ShapeError: Masks of different sizes.
    """
    sizes = check_shape("mask", mask, "H W")
    check_shape("tissue", tissue, "H W", **sizes)
    free = ~mask
    placed = np.zeros_like(mask)
    for component in _components(mask):
        placed[_placed(component, tissue, free & ~placed, rng)] = True
    result = np.zeros_like(mask)
    for side in (tissue, ~tissue):
        result |= _resized(placed & free & side, placed, free & side, int((mask & side).sum()), rng)
    return result


def _components(mask: NDArray[np.bool_]) -> Iterator[Pixels]:
    """Connected components."""
    import cv2

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    inside = np.flatnonzero(labels)
    numbers = (labels.ravel()[inside] - 1) % MOST_COMPONENTS
    inside = inside[np.argsort(numbers, kind="stable")]
    for pixels in np.split(inside, np.cumsum(np.bincount(numbers))[:-1]) if count > 1 else ():
        rows, columns = np.unravel_index(pixels, mask.shape)
        yield rows, columns


def _placed(
    component: Pixels,
    tissue: NDArray[np.bool_],
    free: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Pixels:
    """A component shifted to where it nearly fits, or to the best of some random positions.

    The first that fits: the best one would seek the middle of large free areas.
    """
    size, on_tissue = len(component[0]), int(tissue[component].sum())
    best, least = component, size + 1
    for _ in range(TRIES):
        moved = _moved(component, tissue.shape, rng)
        landed = free[moved]
        tissue_found = int((landed & tissue[moved]).sum())
        glass_found = int(landed.sum()) - tissue_found
        misfit = max(0, on_tissue - tissue_found) + max(0, size - on_tissue - glass_found)
        if misfit < least:
            best, least = moved, misfit
        if misfit <= MISFIT * size:
            break
    return best


def _moved(pixels: Pixels, shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """Pixels of a patch turned, mirrored and rolled around its edges, at random."""
    (height, width), (rows, columns) = shape, pixels
    turns = int(rng.integers(4)) if height == width else 2 * int(rng.integers(2))
    for _ in range(turns % 2):
        rows, columns = width - 1 - columns, rows
    if turns > 1:
        rows, columns = height - 1 - rows, width - 1 - columns
    if rng.integers(2):
        columns = width - 1 - columns
    down, right = int(rng.integers(height)), int(rng.integers(width))
    return (rows + down) % height, (columns + right) % width


def _resized(
    start: NDArray[np.bool_],
    placed: NDArray[np.bool_],
    free: NDArray[np.bool_],
    wanted: int,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """A mask grown into the nearest free pixels, or cut from one side, until it has its area.

    Args:
        start: ``(H, W)`` its pixels that are free.
        placed: ``(H, W)`` where it was put; nearness is counted from there.
        free: ``(H, W)`` pixels it may have.
        wanted: Its area; all free pixels where they are fewer.
        rng: Decides from which side it is cut.
    """
    import cv2

    missing = wanted - int(start.sum())
    if not missing:
        return start
    changed = np.flatnonzero(free & ~start if missing > 0 else start)
    if missing > 0:
        away = cv2.distanceTransform((~placed).astype(np.uint8), cv2.DIST_L2, 5)
        distance = away.ravel()[changed]
    else:
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.unravel_index(changed, start.shape)
        distance = np.cos(angle) * rows + np.sin(angle) * columns
    nearest = changed[np.argsort(distance, kind="stable")[: abs(missing)]]
    result = start.ravel().copy()
    result[nearest] = missing > 0
    return result.reshape(start.shape)
