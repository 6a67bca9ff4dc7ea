"""Ways to hide an object from a classifier: in the image, or in its features.

Axes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from xpath.errors import ConfigError, ShapeError
from xpath.explain.null_masks import NullMask
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "HIDDEN_BY",
    "Blur",
    "Fill",
    "HideBy",
    "InsideBlur",
    "MaskedPerturbation",
    "Perturbation",
    "PerturbationConfig",
    "Removal",
    "SurroundFill",
    "feather",
    "perturbation_of",
    "perturbed",
]

REACHED = 1e-4
"""Share of a Gaussian's weight inside the object below which the blur of a pixel is undefined."""


HideBy = Literal["blur", "inside_blur", "fill", "surround_fill", "removal"]
"""``blur``: see ``Blur`` (paper, Eq. 12). ``inside_blur``, ``fill``, ``surround_fill``,
``removal``: see the classes of these names."""


class Perturbation(Protocol):
    """Anything that hides the pixels under a mask without looking at the mask."""

    def replacement(self, image: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:
        """The picture ``(H, W, 3)`` shown instead of an image at a resolution.

        It does not depend on the mask, so that one serves all objects of a patch.
        """
        ...


@runtime_checkable
class MaskedPerturbation(Protocol):
    """Anything that hides the pixels under a mask and looks at the mask to do so."""

    def replacement_under(
        self, image: NDArray[np.uint8], mask: NDArray[np.bool_], mpp: float
    ) -> NDArray[np.float32]:
        """The picture ``(H, W, 3)`` shown instead of one object."""
        ...


class Removal:
    """Takes the object's positions out of the feature map, instead of painting over its pixels.

    Nothing foreign is shown to the encoder, but its view of the object from the positions around it
    stays. A patch of which no position is left is taken out of the bag. Null masks are taken out in
    the same way.
    """


class Blur:
    """A Gaussian blur (paper, Eq. 12) whose width is a length on the tissue.

    The paper gives no width. One below the size of a nucleus leaves nuclei as they are; a wide one
    lets the colour of the surroundings into the object.
    """

    def __init__(self, sigma_um: float) -> None:
        """Takes the standard deviation in microns.

        Raises:
            ConfigError: Not positive.
        """
        if not sigma_um > 0:
            raise ConfigError(f"sigma_um must be positive, got {sigma_um}")
        self.sigma_um = sigma_um

    def replacement(self, image: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:
        """The blurred image, mirrored beyond its edges."""
        import cv2

        sigma = self.sigma_um / mpp
        return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma), np.float32)


class Fill:
    """The image's mean stain: no texture, and only the patch's own mean colour."""

    def replacement(self, image: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:  # noqa: ARG002 - one signature for all
        """An even field of the mean optical density, in which stains add up."""
        density = np.log1p(image.astype(np.float64)).mean(axis=(0, 1))
        return np.broadcast_to(np.expm1(density).astype(np.float32), image.shape)


class InsideBlur:
    """A Gaussian blur of the object alone: colour of its surroundings does not leak in.

    Weights of a pixel's neighbours outside the object are 0 and the others add up to 1 (normalised
    convolution). Outside, the replacement under the soft edge is that of the nearest inside.
    """

    def __init__(self, sigma_um: float) -> None:
        """Takes the standard deviation in microns.

        Raises:
            ConfigError: Not positive.
        """
        self.sigma_um = Blur(sigma_um).sigma_um

    def replacement_under(
        self, image: NDArray[np.uint8], mask: NDArray[np.bool_], mpp: float
    ) -> NDArray[np.float32]:
        """The image blurred within the mask, unchanged where the blur does not reach."""
        import cv2

        sigma, inside = self.sigma_um / mpp, mask.astype(np.float32)
        weight = cv2.GaussianBlur(inside, (0, 0), sigma)
        total = cv2.GaussianBlur(image.astype(np.float32) * inside[..., None], (0, 0), sigma)
        reached = (weight > REACHED)[..., None]
        mean = total / np.maximum(weight, REACHED)[..., None]
        return np.asarray(np.where(reached, mean, image), np.float32)


class SurroundFill:
    """The mean stain of the patch around the object, without the object's own."""

    def replacement_under(
        self,
        image: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        mpp: float,  # noqa: ARG002 - one signature for all
    ) -> NDArray[np.float32]:
        """An even field (of the patch's mean stain for an object that fills its patch)."""
        around = image[~mask] if not mask.all() else image.reshape(-1, 3)
        density = np.log1p(around.astype(np.float64)).mean(axis=0)
        return np.broadcast_to(np.expm1(density).astype(np.float32), image.shape)


HIDDEN_BY = {
    "blur": "blurred",
    "inside_blur": "blurred within its outline",
    "fill": "filled with the mean stain of its patch",
    "surround_fill": "filled with the mean stain around it",
    "removal": "taken out of the features",
}
"""The ways of hiding, as participles for sentences."""


def perturbation_of(name: HideBy, sigma_um: float) -> Perturbation | MaskedPerturbation | Removal:
    """The way of hiding that a name in the settings stands for.

    Args:
        name: One of ``HideBy``.
        sigma_um: Width of the two blurs, microns; the others do not read it.

    Raises:
        ConfigError: No such way, or a width that is not positive.
    """
    if name not in HIDDEN_BY:
        raise ConfigError(f"objects are hidden by one of {', '.join(HIDDEN_BY)}, got {name!r}")
    if name in ("blur", "inside_blur"):
        return Blur(sigma_um) if name == "blur" else InsideBlur(sigma_um)
    if name == "removal":
        return Removal()
    return Fill() if name == "fill" else SurroundFill()


def feather(mask: NDArray[np.bool_], feather_um: float, mpp: float) -> NDArray[np.float32]:
    """Weights ``(H, W)``: 1 on the mask, falling to 0 over ``feather_um`` outside it.

    A hard edge would be a new object. From the feather's width on nothing is touched.
    """
    import cv2

    check_shape("mask", mask, "H W")
    if not mask.any() or feather_um <= 0:
        return mask.astype(np.float32)
    # exact distances: OpenCV's quick ones are short by 2 %, so they would reach too far
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.clip(1 - outside * (mpp / feather_um), 0, 1), np.float32)


def perturbed(
    image: NDArray[np.uint8], replacement: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The image ``(H, W, 3)`` with its replacement laid over it.

    Where weights are 0 it stays the same bit by bit.

    Raises:
        ShapeError: Weights or replacement of another size.
    """
    sizes = check_shape("image", image, "H W 3")
    if weight.shape != (sizes["H"], sizes["W"]) or replacement.shape != image.shape:
        raise ShapeError(
            f"weights and replacement must be as large as the image {image.shape[:2]}, got"
            f" {weight.shape} and {replacement.shape}"
        )
    mixed = image + weight[..., None] * (replacement - image)
    return np.asarray(np.rint(mixed).clip(0, 255), np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class PerturbationConfig:
    """Soft edges, random masks and batches of ``object_importance``."""

    feather_um: float = 2.0
    """Width of the soft edge around the mask."""
    null: NullMask = "off_object"
    """Where the random masks lie."""
    null_draws: int = 2
    """Random masks per object and patch, at least one."""
    batch: int = 16
    """Hidden patches encoded at once."""
    seed: int = 0
    """Of the random masks."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers, and a null without draws.

        Raises:
            ConfigError: Feather below 0; draws or batch below 1; no such null.
        """
        if self.feather_um < 0 or min(self.null_draws, self.batch) < 1:
            raise ConfigError(f"feather_um must be >= 0, null_draws and batch >= 1: {self}")
        if self.null not in get_args(NullMask):
            raise ConfigError(f"null must be one of {get_args(NullMask)}, got {self.null!r}")
