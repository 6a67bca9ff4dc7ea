"""From a mask to its objects: nuclei and cells that touch are told apart, tissue is not.

Nuclei are round, so where two touch the mask has a waist: the distance to the edge of the mask has
a peak in each of them and a saddle between. Every peak that rises enough above the saddle becomes
an object, and a watershed of the distance puts the border at the waist.

Axes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError, ResolutionError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["InstanceConfig", "Instances", "find_instances"]

SEPARATED = ("nuclei", "cell")
"""Structures whose touching objects are told apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceConfig:
    """What counts as an object; lengths in microns."""

    min_area: float = 4.0
    """Smaller objects are dropped, square microns. A lymphocyte's nucleus has about 30."""
    smoothing: float = 0.5
    """Standard deviation of the blur of distances: the edge of a mask is rough."""
    waist: float = 0.1
    """How much deeper than the waist an object must be: half of what it is thinner there."""
    max_hole: float = 1.0
    """Holes up to this are filled, square microns; larger ones lie between nuclei that touch."""

    def __post_init__(self) -> None:
        """Refuses negative lengths."""
        if min(self.min_area, self.smoothing, self.waist, self.max_hole) < 0:
            raise ConfigError(f"areas and lengths must not be negative, got {self}")


class Instances(NamedTuple):
    """The objects of a mask."""

    ids: NDArray[np.int32]
    """``(H, W)``: 0 outside, objects from 1 on, without gaps."""
    areas: NDArray[np.float64]
    """``(n,)`` square microns of the objects 1 to n."""


def find_instances(
    mask: NDArray[np.bool_],
    structure: str,
    *,
    mpp: float,
    config: InstanceConfig = InstanceConfig(),
) -> Instances:
    """The objects of a mask.

    Args:
        mask: ``(H, W)`` boolean.
        structure: ``nuclei`` or ``cell``: touching objects are told apart; ``tissue``: an object is
            what hangs together, corners included, and holes stay.
        mpp: Microns per pixel.
        config: What counts as an object.

    Raises:
        DataError: Not a boolean mask, or another structure.
        ResolutionError: No resolution.
    """
    import cv2

    check_shape("mask", mask, "H W")
    if mask.dtype != np.bool_:
        raise DataError(f"mask must be bool, got {mask.dtype}; threshold it")
    if structure not in (*SEPARATED, "tissue"):
        raise DataError(f"structure must be nuclei, cell or tissue, got {structure!r}")
    if not 0 < mpp < 100:
        raise ResolutionError(f"mpp must be microns per pixel, got {mpp}; 0.25 is usual at 40x")
    inside = np.ascontiguousarray(mask).view(np.uint8)
    if structure not in SEPARATED:
        parts = np.asarray(cv2.connectedComponents(inside)[1], np.int32)
        return _large_enough(parts, mpp, config.min_area)
    inside = _filled(inside, config.max_hole / mpp**2)
    return _large_enough(_separated(inside, mpp, config), mpp, config.min_area)


def _separated(inside: NDArray[np.uint8], mpp: float, config: InstanceConfig) -> NDArray[np.int32]:
    """Ids of objects, split at waists."""
    import cv2

    count, parts = cv2.connectedComponents(inside, connectivity=4)
    ids: NDArray[np.int32] = np.asarray(parts, np.int32)
    if count == 1:
        return ids
    # a frame of background: what the image cuts off ends there, as far as anybody knows
    depth = cv2.distanceTransform(cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT),
                                  cv2.DIST_L2, 5)[1:-1, 1:-1] * np.float32(mpp)  # fmt: skip
    if config.smoothing:
        depth = np.asarray(cv2.GaussianBlur(depth, (0, 0), config.smoothing / mpp), np.float32)
    depth *= inside
    peaks = _peaks(depth, config.waist, mpp)
    _, seeds = cv2.connectedComponents(peaks)
    # only what has two peaks or more need be split
    first = np.unique(np.stack((ids[peaks > 0], seeds[peaks > 0])), axis=1)[0]
    several = np.bincount(first, minlength=count) > 1
    several[0] = False
    split = several[ids]
    if split.any():
        ids[split] = count + _watershed(depth, np.asarray(seeds * split, np.int32), split)[split]
    return ids


def _peaks(depth: NDArray[np.float32], waist: float, mpp: float) -> NDArray[np.uint8]:
    """Where the depth peaks: maxima that rise above their saddle by the waist.

    By reconstruction: lowered by the waist and flooded up to itself, the depth stays lower by just
    that at such maxima and nowhere else.
    """
    from skimage.morphology import reconstruction

    step = max(waist, 0.01 * mpp)
    flooded = reconstruction(depth - step, depth, method="dilation")
    flat: NDArray[np.bool_] = (depth - flooded >= step * 0.999) & (depth > 0)
    return flat.view(np.uint8)


def _watershed(
    depth: NDArray[np.float32], seeds: NDArray[np.int32], mask: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Ids of the basins that grow from seeds down the depth, within a mask."""
    from skimage.segmentation import watershed

    basins: NDArray[np.int32] = watershed(-depth, seeds, mask=mask).astype(np.int32)
    return basins


def _filled(inside: NDArray[np.uint8], largest: float) -> NDArray[np.uint8]:
    """A mask without holes of up to so many pixels; what touches the edge of the image is none."""
    import cv2

    outside = cv2.copyMakeBorder(1 - inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, parts, table, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    hole = table[:, cv2.CC_STAT_AREA] <= largest
    hole[0] = hole[parts[0, 0]] = False  # the mask itself, and what lies around it
    return np.asarray(inside | hole[parts[1:-1, 1:-1]], np.uint8)


def _large_enough(ids: NDArray[np.int32], mpp: float, least: float) -> Instances:
    """Objects of at least this area, numbered anew."""
    areas = np.bincount(ids.ravel()) * mpp**2
    kept = areas >= least
    kept &= areas > 0
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return Instances(numbers[ids], np.asarray(areas[kept], np.float64))
