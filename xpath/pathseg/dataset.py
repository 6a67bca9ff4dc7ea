"""Crops to learn from: which image, position, resolution and questions.

Crop number k is a function of k and the seed alone, whatever was drawn before, on whichever
machine: so training can be stopped and resumed, or split over machines, without changing a crop.
Axes: P prompts, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.pathseg.augmentation import AugmentConfig, augment
from xpath.pathseg.packed import View, cut
from xpath.pathseg.prompts import PromptConfig, say
from xpath.pathseg.sampler import draw, exponent_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.pathseg.packed import Packed, Stored

__all__ = ["Crop", "CropConfig", "PromptedCrops", "whole_view"]


class Crop(NamedTuple):
    """A crop with what is asked about it."""

    image: NDArray[np.uint8]
    """``(H, W, 3)`` RGB."""
    target: NDArray[np.uint8]
    """``(P, H, W)``: 1 the object, 0 not, 255 unknown."""
    prompts: tuple[str, ...]
    """P sentences."""
    labels: tuple[str, ...]
    """P label ids, which the sentences ask for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropConfig:
    """Size, scale and prompts of crops."""

    prompts: int = 4
    """Questions per crop."""
    absent: float = 0.3
    """Share of questions for what is known not to be there, if anything is; 0 for none at all."""
    fine: tuple[float, float] = (0.2, 0.5)
    """Microns per pixel at which nuclei and cells are shown, drawn log-uniformly."""
    coarse: tuple[float, float] = (0.35, 1.0)
    """The same for tissue."""
    blank: float = 0.02
    """Share of crops of bare glass, where every answer is "nothing"."""
    emphasis: Mapping[str, float] = field(default_factory=dict)
    """A source counts as if it were so many times as large; 1 for those not named."""
    whole: tuple[float, float] | None = None
    """Instead of a place at a resolution, the whole image with its longer side as long as the crop,
    times a factor in this range, upright, cut or padded to the crop: detectron2's ResizeScale and
    FixedSizeCrop."""
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)
    """Changes of colour and sharpness; None for none."""
    words: PromptConfig = field(default_factory=PromptConfig)


class PromptedCrops:
    """Crops drawn from sources in a balanced way.

    A source is drawn with probability proportional to its size to a power (BiomedParse, section on
    sampling; see ``sampler``), then a label of it likewise, then an image that holds the label.

    Args:
        sources: Images of each source, in memory or on disk.
        config: Size, scale and prompts of crops.
        total: Crops of the whole training; the balance changes on the way.
        seed: Decides everything.

    Raises:
        DataError: No image holds any label.
        ConfigError: An emphasis on a source that is not there.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Packed | Stored]],
        config: CropConfig,
        *,
        total: int,
        seed: int,
    ) -> None:
        if strange := config.emphasis.keys() - sources.keys():
            raise ConfigError(f"no source is called {sorted(strange)}; there are {list(sources)}")
        self._config, self._total, self._seed = config, total, seed
        self._sources: list[str] = []
        self._holders: list[dict[str, list[Packed | Stored]]] = []
        sizes = []
        for source, images in sources.items():
            holders: dict[str, list[Packed | Stored]] = {}
            for image in images:
                for label in image.labels:
                    holders.setdefault(label, []).append(image)
            if holders:
                self._sources.append(source)
                self._holders.append(holders)
                size = sum(_patches(image) for image in images)
                sizes.append(size * config.emphasis.get(source, 1.0))
        if not sizes:
            raise DataError("no image holds any label; check the data folder and the split")
        self._sizes = np.array(sizes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Ids of all labels that some image holds."""
        return tuple(sorted({label for holders in self._holders for label in holders}))

    def labels_only_of(self, source: str) -> tuple[str, ...]:
        """Those that images of no other source hold."""
        pairs = list(zip(self._sources, self._holders, strict=True))
        others = {label for name, holders in pairs if name != source for label in holders}
        return tuple(label for label in self.labels if label not in others)

    def __len__(self) -> int:
        """Crops of the whole training."""
        return self._total

    def __getitem__(self, key: tuple[int, int]) -> Crop:
        """Crop ``number``, of ``size`` pixels."""
        number, size = key
        rng = np.random.default_rng((self._seed, number))
        exponent = exponent_at(number / self._total)
        holders = self._holders[draw(self._sizes, exponent, rng)]
        names = list(holders)
        label = names[draw(np.array([len(holders[name]) for name in names]), 0.5, rng)]
        images = holders[label]
        image = images[int(rng.integers(len(images)))].load()
        asked = _questions(image, label, self._config, rng)
        if self._config.whole:
            view = whole_view(image.size, size, self._config.whole, rng)
        else:
            view = self._view(image, label, size, rng)
        pixels, target = cut(image, view, size, asked)
        if rng.random() < self._config.blank:
            pixels, target = _glass(size, rng), np.zeros_like(target)
        prompts = tuple(say(name, self._config.words, rng) for name in asked)
        if self._config.augment:
            pixels = augment(pixels, self._config.augment, rng)
        return Crop(pixels, target, prompts, asked)

    def _view(self, image: Packed, label: str, size: int, rng: np.random.Generator) -> View:
        """A position where the label is, more often than not, at a random turn and resolution."""
        low, high = self._config.coarse if "-tissue-" in label else self._config.fine
        scale = float(np.exp(rng.uniform(np.log(low), np.log(high)))) / image.mpp
        height, width = image.size
        scale = min(scale, 1.5 * min(height, width) / size)  # little of its mirror image is seen
        reach = size * scale / 2
        x, y = (_between(reach, side, rng) for side in (width, height))
        if rng.random() < 0.7:
            x, y = _place_of(image, label, rng)
            jitter = rng.uniform(-reach / 2, reach / 2, 2)
            x = float(np.clip(x + jitter[0], min(reach, width / 2), max(width - reach, width / 2)))
            y = float(
                np.clip(y + jitter[1], min(reach, height / 2), max(height - reach, height / 2))
            )
        turn = rng.integers(4) * np.pi / 2
        if rng.random() < 0.5:
            turn += rng.uniform(-np.pi / 4, np.pi / 4)
        return View((x, y), scale, float(turn), bool(rng.random() < 0.5))


def whole_view(
    image: tuple[int, int], size: int, factors: tuple[float, float], rng: np.random.Generator
) -> View:
    """A whole image enlarged to about the size of a crop, at a random offset where it is larger.

    Where it is smaller the crop is padded at the right and below.

    Args:
        image: Its height and width.
        size: Side of the crop, pixels.
        factors: Smallest and largest side of the image, in sides of the crop.
        rng: Decides.
    """
    scale = max(image) / (size * rng.uniform(*factors))
    spare = [max(0.0, side / scale - size) for side in reversed(image)]
    x, y = ((rng.uniform(0, room) + size / 2) * scale - 0.5 for room in spare)
    return View((float(x), float(y)), float(scale), 0.0, mirror=False, padded=True)


def _patches(image: Packed | Stored) -> float:
    """Size of an image in patches of 256 pixels."""
    height, width = image.size
    return float(height * width / 256**2)


def _between(reach: float, side: int, rng: np.random.Generator) -> float:
    low, high = min(reach, side / 2), max(side - reach, side / 2)
    return float(rng.uniform(low, high))


def _place_of(image: Packed, label: str, rng: np.random.Generator) -> tuple[float, float]:
    """Some pixel of a label, x, y."""
    bit = image.labels.index(label) + 1
    height, width = image.planes.shape[:2]
    for _ in range(64):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        if image.planes[y, x, bit // 8] >> (bit % 8) & 1:
            return float(x), float(y)
    inside = np.flatnonzero(image.planes[..., bit // 8] >> (bit % 8) & 1)
    y, x = divmod(int(inside[rng.integers(len(inside))]), width) if len(inside) else (0, 0)
    return float(x), float(y)


def _questions(
    image: Packed, label: str, config: CropConfig, rng: np.random.Generator
) -> tuple[str, ...]:
    """The label, others of the image, and some that are absent, as many as asked for."""
    others = [name for name in image.labels if name != label]
    rng.shuffle(others)
    absent = list(image.absent)
    rng.shuffle(absent)
    wanted = min(len(absent), int(rng.binomial(config.prompts - 1, config.absent)))
    there = [label, *others][: config.prompts - wanted]
    asked = there + absent[: config.prompts - len(there) if config.absent else 0]
    while len(asked) < config.prompts:
        asked.append(asked[int(rng.integers(len(asked)))])
    return tuple(asked)


def _glass(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bare glass: one pale colour, dust and sensor noise."""
    colour = rng.uniform(215, 252) + rng.uniform(-8, 4, 3)
    pixels = colour + rng.normal(0, rng.uniform(0.5, 4), (size, size, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)
