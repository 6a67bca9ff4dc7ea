"""Crops to learn from: which image, position, resolution and questions.

Crop number k is a function of k and the seed alone, whatever was drawn before, on whichever
machine: so training can be stopped and resumed, or split over machines, without changing a crop.
Axes: P prompts, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.pathseg.augmentation import AugmentConfig, augment
from xpath.pathseg.balance import Asked, balanced
from xpath.pathseg.composition import blend, blob, cut_known, names_of_both, outline
from xpath.pathseg.packed import View, cut
from xpath.pathseg.parents import is_union
from xpath.pathseg.pool import ImagePool
from xpath.pathseg.prompts import PromptConfig, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.pathseg.packed import Packed, Stored

__all__ = ["Crop", "CropConfig", "PromptedCrops", "whole_view"]


TRIES = 8
"""Images that are drawn to find one that a label can be set into."""
RARE = ("-nuclei-dead", "-nuclei-epithelial")
"""Nuclei so rare that they are set into other images too."""


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
    fine: tuple[float, float] = (0.2, 0.6)
    """Microns per pixel at which nuclei and cells are shown, drawn log-uniformly."""
    coarse: tuple[float, float] = (0.35, 1.0)
    """The same for tissue."""
    balance: bool = False
    """Ask for no label more often where it is absent than where it is present."""
    unions: float = 1.0
    """Chance that a label which is the union of others, such as ``cell-epithelial``, may be asked
    for, each time that it could be: it teaches little that they do not."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Source to its share of the crops, whatever its size."""
    compose: float = 0.0
    """Share of the crops of tissue, and of rare nuclei, that are set into a crop of another image,
    so that borders are seen."""
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
        self._config, self._total, self._seed = config, total, seed
        self._pool = ImagePool(sources, config.emphasis, config.shares, unions=config.unions)
        self._kept: dict[str, float] = {}
        if config.balance:
            self._kept = balanced(self._questions_of, self._total)

    @property
    def labels(self) -> tuple[str, ...]:
        """Ids of all labels that some image holds."""
        return tuple(sorted(self._pool.images_with()))

    def __len__(self) -> int:
        """Crops of the whole training."""
        return self._total

    def __getitem__(self, key: tuple[int, int]) -> Crop:
        """Crop ``number``, of ``size`` pixels."""
        number, size = key
        rng = np.random.default_rng((self._seed, number))
        label, stored = self._pool.draw(number / self._total, rng)
        image = stored.load()
        asked = self._asked(image, label, rng)
        host = self._host(number, label, rng) if self._composed(label, rng) else None
        if host:
            pixels, target, asked = self._set_into(host, image, label, size, rng)
        else:
            pixels, target = cut(image, self._view(image, label, size, rng), size, asked)
        if rng.random() < self._config.blank:
            pixels, target = _glass(size, rng), np.zeros_like(target)
        prompts = tuple(say(name, self._config.words, rng) for name in asked)
        if self._config.augment:
            pixels = augment(pixels, self._config.augment, rng)
        return Crop(pixels, target, prompts, asked)

    def images_with(self, *, without: str) -> dict[str, int]:
        """Number of images of all sources but one that hold each label, 0 of what only it holds."""
        return dict.fromkeys(self.labels, 0) | self._pool.images_with(without=without)

    def _questions_of(self, number: int, kept: Mapping[str, float]) -> Asked:
        """Present and absent labels a crop asks for, as if it were not composed."""
        rng = np.random.default_rng((self._seed, number, len(kept)))
        label, image = self._pool.draw(number / self._total, rng)
        return _questions(image, label, self._config, kept, rng)

    def _asked(self, image: Packed, label: str, rng: np.random.Generator) -> tuple[str, ...]:
        asked = _questions(image, label, self._config, self._kept, rng)
        return (*asked.present, *asked.absent)

    def _composed(self, label: str, rng: np.random.Generator) -> bool:
        fits = "-tissue-" in label or label.endswith(RARE)
        return fits and rng.random() < self._config.compose

    def _host(self, number: int, label: str, rng: np.random.Generator) -> tuple[Packed, str] | None:
        """Another image to set a label into, and a label of it. Nuclei go among nuclei."""
        for _ in range(TRIES):
            name, host = self._pool.draw(number / self._total, rng)
            nuclei = "-tissue-" not in label
            if label not in host.labels and not (nuclei and "-tissue-" in name):
                return host.load(), name
        return None

    def _set_into(
        self,
        host: tuple[Packed, str],
        image: Packed,
        label: str,
        size: int,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[str, ...]]:
        """A crop of an image set into one of another, with the questions about both."""
        asked = names_of_both(image, label, *host, count=self._config.prompts, rng=rng)
        mpp = min(self._resolution(label, rng), *(_coarsest(one, size) for one in (image, host[0])))
        guest = cut_known(image, self._view(image, label, size, rng, mpp=mpp), size, asked)
        around = cut_known(host[0], self._view(*host, size, rng, mpp=mpp), size, asked)
        if "-tissue-" in label:
            weight = blob(size, rng)
        else:
            weight = outline(guest[1][asked.index(label)] == 1, rng)
        return (*blend(guest, around, weight), asked)

    def _resolution(self, label: str, rng: np.random.Generator) -> float:
        low, high = self._config.coarse if "-tissue-" in label else self._config.fine
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    def _view(
        self,
        image: Packed,
        label: str,
        size: int,
        rng: np.random.Generator,
        *,
        mpp: float | None = None,
    ) -> View:
        """A position where the label is, more often than not, at a random turn and resolution."""
        if self._config.whole:
            return whole_view(image.size, size, self._config.whole, rng)
        scale = min(mpp or self._resolution(label, rng), _coarsest(image, size)) / image.mpp
        height, width = image.size
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


def _coarsest(image: Packed, size: int) -> float:
    """Microns per pixel at which little of the mirror image around an image is seen."""
    return 1.5 * min(image.size) / size * image.mpp


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
    image: Packed | Stored,
    label: str,
    config: CropConfig,
    kept: Mapping[str, float],
    rng: np.random.Generator,
) -> Asked:
    """The label, others of the image and some that are absent, as many as asked for in all.

    Where labels are too few, those that are present are asked for again.

    Args:
        image: That is asked about.
        label: That it was drawn for.
        config: How many questions, and how many of them for what is absent.
        kept: Label to the chance that it may be asked for where it is absent; 1 for all others.
        rng: Decides.
    """

    def asked(name: str) -> bool:
        return not is_union(name) or rng.random() < config.unions

    others = [name for name in image.labels if name != label and asked(name)]
    rng.shuffle(others)
    absent = [name for name in image.absent if rng.random() < kept.get(name, 1.0) and asked(name)]
    rng.shuffle(absent)
    wanted = min(len(absent), int(rng.binomial(config.prompts - 1, config.absent)))
    present = [label, *others][: config.prompts - wanted]
    absent = absent[: config.prompts - len(present) if config.absent else 0]
    while len(present) + len(absent) < config.prompts:
        present.append(present[int(rng.integers(len(present)))])
    return Asked(tuple(present), tuple(absent))


def _glass(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bare glass: one pale colour, dust and sensor noise."""
    colour = rng.uniform(215, 252) + rng.uniform(-8, 4, 3)
    pixels = colour + rng.normal(0, rng.uniform(0.5, 4), (size, size, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)
