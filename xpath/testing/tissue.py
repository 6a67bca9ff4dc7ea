"""Drawn H&E tissue with exact masks.

Axes: H W pixels. Lengths in microns unless a name says pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError
from xpath.testing.canvas import TISSUES, Canvas
from xpath.testing.compartments import (
    paint_fat,
    paint_infiltrate,
    paint_necrosis,
    paint_single_files,
    paint_stroma,
    paint_tumour,
)
from xpath.testing.rings import paint_duct, paint_vessel
from xpath.testing.stain import Stain, compose, random_stain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Size

__all__ = ["LABELS", "SyntheticTissue", "TissueRecipe", "paint_tissue", "random_recipe"]

LABELS = (
    "breast-tissue-tumor",
    "breast-tissue-stroma",
    "breast-tissue-fat",
    "breast-tissue-necrosis or debris",
    "breast-tissue-lymphocytic infiltrate",
    "breast-tissue-normal acinus or duct",
    "breast-tissue-blood vessel",
    "breast-nuclei-neoplastic",
    "breast-nuclei-lymphocyte",
    "breast-nuclei-fibroblast",
    "breast-nuclei-ductal epithelium",
)
"""Everything that can be drawn. The tissues exclude each other, nuclei lie inside them."""

GROWTHS = ("nests", "single_file")
SHARES = ("tumour", "fat", "necrosis", "infiltrate", "glass")
PER_AREA = ("ducts", "vessels", "lymphocytes")
STROMA = "breast-tissue-stroma"


@dataclass(frozen=True, kw_only=True, slots=True)
class TissueRecipe:
    """How much of everything is drawn. Shares are of the tissue, before they push each other."""

    tumour: float = 0.2
    growth: str = "nests"
    """``nests`` of cohesive cells (as in ductal carcinoma) or ``single_file`` (as in lobular)."""
    fat: float = 0.1
    necrosis: float = 0.05
    infiltrate: float = 0.05
    ducts: float = 1.5
    """Ducts per square millimetre."""
    vessels: float = 3.0
    """Vessels per square millimetre."""
    lymphocytes: float = 60.0
    """Scattered lymphocytes per square millimetre of stroma."""
    glass: float = 0.3
    """Share of the field without tissue."""
    bare: str | None = None
    """Label id of a tissue that is laid out like the others and then taken away: stroma shows where
    it would lie, and nothing else moves. A share of 0 would leave its place to the others."""
    stain: Stain = field(default_factory=Stain)

    def __post_init__(self) -> None:
        """Refuses what would be painted as something else, or not at all."""
        if self.growth not in GROWTHS:
            raise ConfigError(f"growth is one of {list(GROWTHS)}, got {self.growth!r}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share, 0 to 1, got {getattr(self, name)}")
        for name in PER_AREA:
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is a number per mm2, got {getattr(self, name)}")
        known = sorted(set(TISSUES) - {STROMA})
        if self.bare is not None and self.bare not in known:
            raise ConfigError(f"bare is one of {known}, got {self.bare!r}")


@dataclass(frozen=True, slots=True)
class SyntheticTissue:
    """A field of tissue and the truth about it."""

    image: NDArray[np.uint8]
    """``(H, W, 3)`` RGB."""
    masks: dict[str, NDArray[np.bool_]]
    """``(H, W)`` for every one of ``LABELS``."""
    mpp: float
    """Microns per pixel."""


def paint_tissue(
    size: Size, recipe: TissueRecipe, rng: np.random.Generator, *, mpp: float = 0.5
) -> SyntheticTissue:
    """Draws a field. The generator decides everything that the recipe leaves open."""
    canvas = Canvas(size, mpp, rng, glass=recipe.glass)
    paint_stroma(canvas, recipe.lymphocytes)
    ground = canvas.ground()
    for share, painter in (
        (recipe.fat, paint_fat),
        (recipe.tumour if recipe.growth == "nests" else 0.0, paint_tumour),
        (recipe.tumour if recipe.growth == "single_file" else 0.0, paint_single_files),
        (recipe.necrosis, paint_necrosis),
        (recipe.infiltrate, paint_infiltrate),
    ):
        painter(canvas, share)
    area = canvas.tissue.mean() * size.width * size.height * (mpp / 1000) ** 2  # mm^2
    for _ in range(rng.poisson(recipe.ducts * area)):
        paint_duct(canvas)
    for _ in range(rng.poisson(recipe.vessels * area)):
        paint_vessel(canvas)
    if recipe.bare is not None:
        canvas.bare(recipe.bare, ground)
    image = compose(canvas.haematoxylin, canvas.eosin, recipe.stain, rng)
    painted = canvas.masks()
    nothing = np.zeros(canvas.shape, bool)
    return SyntheticTissue(image, {name: painted.get(name, nothing) for name in LABELS}, mpp)


def random_recipe(rng: np.random.Generator) -> TissueRecipe:
    """Anything from a normal breast to a necrotic carcinoma, for training."""

    def maybe(chance: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < chance else 0.0

    return TissueRecipe(
        tumour=maybe(0.8, 0.05, 0.5),
        growth="nests" if rng.random() < 0.6 else "single_file",
        fat=maybe(0.6, 0.05, 0.4),
        necrosis=maybe(0.5, 0.03, 0.3),
        infiltrate=maybe(0.6, 0.03, 0.3),
        ducts=maybe(0.7, 1.0, 8.0),
        vessels=maybe(0.8, 1.0, 8.0),
        lymphocytes=float(rng.uniform(0, 200)),
        glass=maybe(0.6, 0.05, 0.5),
        stain=random_stain(rng),
    )
