"""All images of a training, by source and label, drawn in a balanced way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.pathseg.parents import is_union
from xpath.pathseg.sampler import exponent_at, pick, probabilities, with_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

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
        unions: How often a label that is the union of others is drawn, to the others.

    Raises:
        DataError: No image holds any label.
        ConfigError: Emphasis on, or a share of, a source that is not there; or impossible shares.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Packed | Stored]],
        emphasis: Mapping[str, float],
        shares: Mapping[str, float],
        *,
        unions: float = 1.0,
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
        self._chances = {
            source: _chances(holders, unions) for source, holders in self._holders.items()
        }
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
        source = self._names[pick(chances, rng)]
        label = list(self._holders[source])[pick(self._chances[source], rng)]
        images = self._holders[source][label]
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


def _chances(
    holders: Mapping[str, Sequence[Packed | Stored]], unions: float
) -> NDArray[np.float64]:
    """Probability of each label of a source."""
    chances = probabilities(np.array([len(images) for images in holders.values()]), 0.5)
    chances *= [unions if is_union(name) else 1.0 for name in holders]
    total = chances.sum()
    return chances / total if total else np.full(len(chances), 1 / len(chances))


def _patches(image: Packed | Stored) -> float:
    """Size of an image in patches of 256 pixels."""
    height, width = image.size
    return float(height * width / 256**2)
