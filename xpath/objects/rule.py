"""The one rule by which objects are counted, wherever a number of them is shown."""

from __future__ import annotations

from dataclasses import dataclass

from xpath.errors import ConfigError

__all__ = ["ObjectConfig"]

SEPARATED = ("nuclei", "cell")
"""Structures whose touching objects are separated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectConfig:
    """The rule for one object of a mask.

    Mask pixels belong together where they share an edge. A shared corner is not enough: no polygon
    may pass a point twice, so QuPath and every other viewer would show two objects.
    """

    min_area_um2: float = 4.0
    """Smaller ones are no objects, square microns. A lymphocyte's nucleus has about 30."""
    separate: bool = True
    """Whether nuclei and cells that touch are separated at their waist."""
    waist_um: float = 0.1
    """Depth by which an object must exceed the waist: half of what it is thinner there, microns."""
    smoothing_um: float = 0.5
    """Standard deviation of the blur of depths, microns, as the edge of a mask is rough."""
    max_hole_um2: float = 1.0
    """Holes up to this are no waists, square microns; larger ones lie between touching nuclei."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a length or area below 0."""
        lengths = (self.min_area_um2, self.waist_um, self.smoothing_um, self.max_hole_um2)
        if not all(length >= 0 for length in lengths):
            raise ConfigError(f"areas and lengths of objects must be 0 or more, got {self}")

    def separates(self, label: str) -> bool:
        """Whether touching objects of a label id (region-structure-object) are separated."""
        return self.separate and label.split("-")[1:2] in ([name] for name in SEPARATED)

    def sentence(self, um_per_pixel: float | None) -> str:
        """The rule in words, for pages and tables.

        Args:
            um_per_pixel: None where no resolution is known.
        """
        if um_per_pixel is None:
            return "mask pixels that share an edge, of any area, as the slide has no resolution"
        apart = "touching nuclei and cells separated" if self.separate else "none separated"
        return f"mask pixels that share an edge, {apart}, {self.min_area_um2:g} um2 or more"
