"""All images of a training, by source and label, drawn in a balanced way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.pathseg.sampler import draw, exponent_at, pick, probabilities, with_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xpath.pathseg.packed import Packed, Stored

__all__ = ["ImagePool"]


class ImagePool:
    """Images of several sources.

    A source is drawn with probability proportional to its size to a power (BiomedParse, section on
    sampling; see ``sampler``), then a label of it likewise, then an image that holds the label.

    Args:
        sources: Images of each source, in memory or on disk.
        emphasis: A source counts as if it were so many times as large; 1 for those not named.
        shares: Source to its share of what is drawn, whatever its size.

    Raises:
        DataError: No image holds any label.
        ConfigError: Emphasis on, or a share of, a source that is not there; or impossible shares.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Packed | Stored]],
        emphasis: Mapping[str, float],
        shares: Mapping[str, float],
    ) -> None:
        if unknown := (emphasis.keys() | shares.keys()) - sources.keys():
            raise ConfigError(f"no source is called {sorted(unknown)}; there are {list(sources)}")
        self._holders = {
            source: holders for source, images in sources.items() if (holders := _holders(images))
        }
        if not self._holders:
            raise DataError("no image holds any label; check the data folder and the split")
        self._names = list(self._holders)
        self._sizes = np.array([
            sum(map(_patches, sources[name])) * emphasis.get(name, 1.0) for name in self._names
        ])
        self._shares = {self._names.index(name): share for name, share in shares.items()}

    def draw(self, progress: float, rng: np.random.Generator) -> tuple[str, Packed | Stored]:
        """A label, and an image that holds it.

        Args:
            progress: Of the training, 0 to 1, on which the balance between sources depends.
            rng: Decides.
        """
        chances = probabilities(self._sizes, exponent_at(progress))
        if self._shares:
            chances = with_shares(chances, self._shares)
        holders = self._holders[self._names[pick(chances, rng)]]
        labels = list(holders)
        label = labels[draw(np.array([len(holders[name]) for name in labels]), 0.5, rng)]
        images = holders[label]
        return label, images[int(rng.integers(len(images)))]

    def images_with(self, *, without: str = "") -> dict[str, int]:
        """Number of images that hold each label.

        Args:
            without: A source that does not count.
        """
        counts: dict[str, int] = {}
        for source, holders in self._holders.items():
            for label, images in holders.items():
                if source != without:
                    counts[label] = counts.get(label, 0) + len(images)
        return counts


def _holders(images: Sequence[Packed | Stored]) -> dict[str, list[Packed | Stored]]:
    holders: dict[str, list[Packed | Stored]] = {}
    for image in images:
        for label in image.labels:
            holders.setdefault(label, []).append(image)
    return holders


def _patches(image: Packed | Stored) -> float:
    """Size of an image in patches of 256 pixels."""
    height, width = image.size
    return float(height * width / 256**2)
