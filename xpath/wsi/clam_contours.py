"""The tissue contours CLAM finds on a slide, and its tests whether a patch lies in one.

Written from CLAM's documented behaviour; the order of contours is that of OpenCV's contours.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import ConfigError, SlideError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xpath.wsi.slide import Slide

    ContourTest = Callable[["Contour", int, int, int], bool]

__all__ = [
    "CONTOUR_TESTS",
    "ClamPreset",
    "Contour",
    "TissueContour",
    "find_tissue_contours",
    "in_hole",
    "size_ratio",
]

Contour = Any  # an int32 array (points, 1, 2), as OpenCV has it

REFERENCE_PATCH = 512
"""Areas are counted in patches of this side, level-0 pixels."""
SEGMENTATION_DOWNSAMPLE = 64
MOST_PIXELS = 100_000_000
"""CLAM gives up on a slide whose segmentation level is larger."""
CENTER_SHIFT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ClamPreset:
    """CLAM's parameters under CLAM's names."""

    sthresh: int = 8
    """Saturation above which a pixel is tissue."""
    mthresh: int = 7
    """Side of the median filter, odd."""
    close: int = 4
    """Side of the closing kernel, 0 for none."""
    use_otsu: bool = False
    """Otsu's threshold instead of ``sthresh``."""
    a_t: int = 100
    """Smallest tissue, in patches of 512 by 512 level-0 pixels."""
    a_h: int = 16
    """Smallest hole, likewise."""
    max_n_holes: int = 8
    """Holes kept per tissue contour, largest first."""
    use_padding: bool = True
    """Patches may reach beyond the slide."""
    contour_fn: str = "four_pt"
    """Which points of a patch must be tissue: ``four_pt`` any of four around the centre,
    ``four_pt_hard`` all of them, ``center`` the centre, ``basic`` the top left corner."""

    def __post_init__(self) -> None:
        """Refuses impossible settings."""
        if self.mthresh < 1 or self.mthresh % 2 == 0:
            raise ConfigError(f"mthresh is the side of a median filter, odd, got {self.mthresh}")
        if self.contour_fn not in CONTOUR_TESTS:
            raise ConfigError(f"no contour_fn {self.contour_fn!r}; known: {list(CONTOUR_TESTS)}")


class TissueContour(NamedTuple):
    """A contour of tissue and the holes in it, in level-0 pixels."""

    contour: Contour
    holes: list[Contour]


def find_tissue_contours(slide: Slide, preset: ClamPreset) -> list[TissueContour]:
    """The tissue contours CLAM finds, in its order.

    Raises:
        SlideError: The level to segment is too large.
    """
    import cv2

    level = _segmentation_level(slide)
    scale = size_ratio(slide, level)
    contours, hierarchy = cv2.findContours(
        _tissue(slide.read_level(level), preset), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return []
    parents = np.asarray(hierarchy)[0][:, 3].tolist()
    holes_in: dict[int, list[Contour]] = defaultdict(list)
    for contour, parent in zip(contours, parents, strict=True):
        holes_in[parent].append(contour)  # in the order of OpenCV; -1 has the outer ones
    unit = int(REFERENCE_PATCH**2 / (scale[0] * scale[1]))
    tissues = []
    for outer, contour in enumerate(contours):
        if parents[outer] != -1:
            continue  # a hole
        holes = holes_in.get(outer, [])
        area = cv2.contourArea(contour) - sum(map(cv2.contourArea, holes))
        if area != 0 and area > preset.a_t * unit:
            kept = _largest(holes, preset.max_n_holes, preset.a_h * unit)
            outline = _scaled(contour, scale)
            tissues.append(TissueContour(outline, [_scaled(hole, scale) for hole in kept]))
    return tissues


def size_ratio(slide: Slide, level: int) -> tuple[float, float]:
    """Level-0 pixels per pixel of a level, across and down, as CLAM has it: by their sizes."""
    size = slide.levels[level].size
    return slide.size.width / size.width, slide.size.height / size.height


def in_hole(tissue: TissueContour, x: float, y: float) -> bool:
    """Whether a point lies within a hole, its border excluded."""
    return any(_distance_sign(hole, x, y) > 0 for hole in tissue.holes)


def _distance_sign(contour: Contour, x: float, y: float) -> float:
    """Positive inside a contour, zero on it, negative outside."""
    import cv2

    return float(cv2.pointPolygonTest(contour, (float(x), float(y)), measureDist=False))


def _four(contour: Contour, x: int, y: int, side: int) -> list[bool]:
    """Which of four points around the centre are in the contour or on it."""
    shift = int(side // 2 * CENTER_SHIFT)
    x, y = x + side // 2, y + side // 2
    signs = (-1, 1)
    return [
        _distance_sign(contour, x + i * shift, y + j * shift) >= 0 for i in signs for j in signs
    ]


CONTOUR_TESTS: dict[str, ContourTest] = {
    "four_pt": lambda contour, x, y, side: any(_four(contour, x, y, side)),
    "four_pt_hard": lambda contour, x, y, side: all(_four(contour, x, y, side)),
    "center": lambda contour, x, y, side: (
        _distance_sign(contour, x + side // 2, y + side // 2) >= 0
    ),
    "basic": lambda contour, x, y, _: _distance_sign(contour, x, y) >= 0,
}
"""Is the patch with this corner and side tissue? By CLAM's names."""


def _segmentation_level(slide: Slide) -> int:
    """OpenSlide's best level for 64: the last that is not coarser, without tolerance."""
    fits = [level.downsample <= SEGMENTATION_DOWNSAMPLE for level in slide.levels]
    level = len(fits) - 1 if all(fits) else max(0, fits.index(False) - 1)
    size = slide.levels[level].size
    if size.width * size.height > MOST_PIXELS:
        raise SlideError(
            f"{slide.path.name}: CLAM segments level {level}, here {size.width} x {size.height} px,"
            f" and gives up above {MOST_PIXELS:,}; use a grid without preset"
        )
    return level


def _tissue(image: NDArray[np.uint8], preset: ClamPreset) -> NDArray[np.uint8]:
    import cv2

    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]
    smooth = cv2.medianBlur(np.ascontiguousarray(saturation), preset.mthresh)
    method = cv2.THRESH_OTSU + cv2.THRESH_BINARY if preset.use_otsu else cv2.THRESH_BINARY
    _, mask = cv2.threshold(smooth, 0 if preset.use_otsu else preset.sthresh, 255, method)
    if preset.close > 0:
        kernel = np.ones((preset.close, preset.close), np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
    return np.asarray(mask, np.uint8)


def _largest(holes: list[Contour], count: int, smallest: float) -> list[Contour]:
    import cv2

    ranked = sorted(holes, key=cv2.contourArea, reverse=True)[:count]
    return [hole for hole in ranked if cv2.contourArea(hole) > smallest]


def _scaled(contour: Contour, scale: tuple[float, float]) -> Contour:
    return np.array(contour * np.array(scale), dtype=np.int32)
