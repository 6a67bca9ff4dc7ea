"""Resolution of images whose data set says nothing of it, as given on a command line."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xpath.pathseg.biomedparse_data import PromptedMask

__all__ = ["Resolutions"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resolutions:
    """Microns per pixel by source, and of all other sources."""

    by_source: Mapping[str, float] = field(default_factory=dict)
    others: float | None = None

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Resolutions:
        """From words such as ``PanNuke=0.25`` or, for all other sources, ``0.5``.

        Raises:
            ConfigError: No such words, or no resolution.
        """
        values: dict[str, float] = {}
        for text in texts:
            source, _, number = text.rpartition("=")
            try:
                values[source] = float(number)
            except ValueError as error:
                raise ConfigError(f"--mpp takes 0.25 or SOURCE=0.25, got {text!r}") from error
            if not (math.isfinite(values[source]) and values[source] > 0):
                raise ConfigError(f"--mpp must be microns per pixel above 0, got {text!r}")
        others = values.pop("", None)
        return cls(values, others)

    def fill(
        self, items: Iterable[PromptedMask], source: str, *, otherwise: str
    ) -> list[PromptedMask]:
        """Masks of a source with their resolution. What the data set itself says goes first.

        Args:
            items: As read.
            source: Name of their folder.
            otherwise: What is done without a resolution, for the warning: "are ...".
        """
        items = list(items)
        mpp = self.by_source.get(source, self.others)
        unknown = {item.image for item in items if item.mpp is None}
        if unknown and mpp is None:
            logger.warning(
                "%s: %d images say nothing of their resolution and %s; if that is wrong, give"
                " --mpp %s=MICRONS_PER_PIXEL, or build the folder again",
                *(source, len(unknown), otherwise, source),
            )
        return [item if item.mpp is not None else item._replace(mpp=mpp) for item in items]
