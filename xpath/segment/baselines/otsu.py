"""Nuclei by colour deconvolution and Otsu's threshold: what needs no training at all.

Axes: B images, P prompts, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.pathseg.sentences import guess_label
from xpath.protocols import Segmentation
from xpath.segment.evaluation.mapping import label_of
from xpath.segment.predict.images import as_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["OtsuNuclei", "dark_nuclei"]

SMALLEST = 30
"""Pixels at 0.25 microns per pixel, 2 square microns: what is no larger goes."""


class OtsuNuclei:
    """Answers every question for nuclei, of whatever class, with all dark blue spots."""

    def encode(self, images: NDArray[np.uint8], *, mpp: float | None = None) -> NDArray[np.bool_]:  # noqa: ARG002
        """Nuclei ``(B, H, W)`` of images ``(B, H, W, 3)``, taken as they are."""
        return np.stack([dark_nuclei(image) for image in as_batch(images).cpu().numpy()])

    def masks(self, embedding: NDArray[np.bool_], prompts: Sequence[str]) -> Segmentation:
        """The nuclei for each prompt that asks for some, else nothing."""
        labels = [label_of(guess_label(prompt)) for prompt in prompts]
        asked = np.array([label is not None and label.structure == "nuclei" for label in labels])
        masks = embedding[:, None] & asked[:, None, None]
        present = masks.any(axis=(2, 3))
        return Segmentation(masks, present.astype(np.float32), present.astype(np.float32), present)


def dark_nuclei(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask ``(H, W)`` of the nuclei of an RGB image ``(H, W, 3)``.

    Haematoxylin (Ruifrok and Johnston 2001), smoothed, thresholded by Otsu, opened, holes filled,
    specks removed.
    """
    from scipy.ndimage import binary_fill_holes, gaussian_filter, label
    from skimage.color import rgb2hed
    from skimage.filters import threshold_otsu
    from skimage.morphology import disk, opening

    stain = gaussian_filter(rgb2hed(image)[..., 0], 1)
    opened = opening(stain > threshold_otsu(stain), disk(2), mode="ignore")
    components, _ = label(binary_fill_holes(opened))
    large = np.bincount(components.ravel()) > SMALLEST
    large[0] = False  # background
    return np.asarray(large[components])
