"""Balanced drawing over sources of very different size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["batch_keys", "draw", "exponent_at", "pick", "probabilities", "with_shares"]


def probabilities(sizes: NDArray[np.number], exponent: float) -> NDArray[np.float64]:
    """Probability of each source, proportional to its size to the power of ``exponent``.

    At 1 every image is equally likely, at 0 every source (BiomedParse: p ~ |D|^lambda).

    Raises:
        ConfigError: No sizes, or one that is not positive.
    """
    if not len(sizes) or (np.asarray(sizes) <= 0).any():
        raise ConfigError(f"sizes of sources must be positive, got {np.asarray(sizes).tolist()}")
    weights = np.asarray(sizes, np.float64) ** exponent
    balanced: NDArray[np.float64] = weights / weights.sum()
    return balanced


def exponent_at(progress: float) -> float:
    """Lambda over the training: 1/2 for the first quarter, 1 for the half, 1/2 for the last.

    BiomedParse trains 5, 10 and 5 epochs of 20 like this.
    """
    return 1.0 if 0.25 <= progress < 0.75 else 0.5


def with_shares(chances: NDArray[np.float64], shares: Mapping[int, float]) -> NDArray[np.float64]:
    """Probabilities in which some sources have a fixed share, and the others what is left.

    Args:
        chances: Of all sources; those without a share keep their proportions.
        shares: Number of a source to its probability.

    Raises:
        ConfigError: Shares that leave nothing for the others, or too little without others.
    """
    fixed = np.zeros(len(chances), bool)
    fixed[list(shares)] = True
    left = 1 - sum(shares.values())
    if left < 0 or (left > 0) == fixed.all():
        raise ConfigError(
            f"shares must leave something for the {int((~fixed).sum())} other sources, and add up"
            f" to 1 without others; got {sum(shares.values()):.3g}"
        )
    out = np.where(fixed, 0.0, chances)
    out *= left / max(float(out.sum()), 1e-300)
    out[list(shares)] = list(shares.values())
    return out


def draw(sizes: NDArray[np.number], exponent: float, rng: np.random.Generator) -> int:
    """One source, by number, see ``probabilities``."""
    return pick(probabilities(sizes, exponent), rng)


def pick(chances: NDArray[np.float64], rng: np.random.Generator) -> int:
    """A number, each with its probability."""
    edges = np.cumsum(chances)
    return min(int(np.searchsorted(edges, rng.random(), side="right")), len(edges) - 1)


def batch_keys(
    step: int, shapes: tuple[tuple[int, int], ...], *, seed: int, part: tuple[int, int] = (0, 1)
) -> list[tuple[int, int]]:
    """Number and size of each crop of a step, or of one machine's part of it.

    Args:
        step: Number of the step.
        shapes: Possible (crops, pixels) of a batch; one is drawn for each step.
        seed: Decides which.
        part: Rank and number of machines; they take turns.

    Raises:
        ConfigError: A batch cannot be split evenly.
    """
    crops, size = shapes[int(np.random.default_rng((seed, step, 1)).integers(len(shapes)))]
    rank, world = part
    if crops % world:
        raise ConfigError(f"a batch of {crops} crops cannot be split over {world} processes evenly")
    most = max(count for count, _ in shapes)
    return [(step * most + i, size) for i in range(rank, crops, world)]
