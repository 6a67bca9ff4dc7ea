"""Training crops from painted tissue.

Axes: B crops, P prompts, H W pixels.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from xpath.geometry import Size
from xpath.labels import load_labels
from xpath.segment.train import TrainBatch
from xpath.testing.tissue import paint_tissue, random_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xpath.segment.tokenizer import PromptTokenizer

__all__ = ["CROP", "FIELD", "MPP", "Field", "crop_batches", "paint_fields"]

MPP, CROP, FIELD = 0.5, 256, 1024


class Field(NamedTuple):
    """A painted field: image ``(H, W, 3)`` and one mask ``(H, W)`` per label id."""

    image: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]

    def mask(self, label: str) -> NDArray[np.bool_]:
        """Where the label is; nowhere if it was not painted."""
        nothing = np.zeros(self.image.shape[:2], bool)
        return self.masks.get(label, nothing)


def paint_fields(seeds: Sequence[int]) -> list[Field]:
    """Fields of random tissue, painted on all cores."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        return list(tqdm(pool.imap(_paint_field, seeds), total=len(seeds), desc="painting"))


def _paint_field(seed: int) -> Field:
    """One field; the seed decides everything about it."""
    rng = np.random.default_rng(seed)
    tissue = paint_tissue(Size(FIELD, FIELD), random_recipe(rng), rng, mpp=MPP)
    return Field(tissue.image, dict(tissue.masks))


def crop_batches(
    fields: Sequence[Field],
    labels: tuple[str, ...],
    tokenizer: PromptTokenizer,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Iterator[TrainBatch]:
    """Endless crops, each with prompts for what is there and for what is not.

    Every label is as often the reason to take a crop as every other: rare objects would otherwise
    be met as absent nearly always, and learnt to be.

    Args:
        fields: Painted fields.
        labels: What may be asked for.
        tokenizer: Of the model that is trained.
        shape: Crops of a batch, prompts of a crop.
        rng: Decides everything.
    """
    tree = load_labels()
    tokens = tokenizer([tree[name].prompt for name in labels])
    holders = [[f for f in fields if f.mask(name).any()] for name in labels]
    drawn = [row for row, held in enumerate(holders) if held]
    images, prompts = shape
    while True:
        reasons = rng.choice(drawn, images)
        chosen = [holders[row][int(rng.integers(len(holders[row])))] for row in reasons]
        crops = [
            _crop(field, labels, _corner(field.mask(labels[row]), rng), rng)
            for field, row in zip(chosen, reasons, strict=True)
        ]
        asked = [
            _choose(masks, int(row), prompts, rng)
            for (_, masks), row in zip(crops, reasons, strict=True)
        ]
        target = [masks[rows] for (_, masks), rows in zip(crops, asked, strict=True)]
        yield TrainBatch(
            torch.from_numpy(np.stack([image for image, _ in crops])).permute(0, 3, 1, 2),
            tokens.ids[np.stack(asked)],
            tokens.mask[np.stack(asked)],
            torch.from_numpy(np.stack(target)),
        )


def _corner(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """Top left of a crop that holds some pixel of a mask, anywhere in the crop."""
    pixels = np.flatnonzero(mask)
    place = int(pixels[rng.integers(len(pixels))])
    y, x = np.array(divmod(place, mask.shape[1])) - rng.integers(16, CROP - 16, 2)
    return int(np.clip(y, 0, FIELD - CROP)), int(np.clip(x, 0, FIELD - CROP))


def _crop(
    field: Field, labels: tuple[str, ...], corner: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A crop ``(H, W, 3)`` and its masks ``(P, H, W)``, turned, flipped, re-stained."""
    y, x = corner
    window = np.s_[y : y + CROP, x : x + CROP]
    masks = np.stack([field.mask(name)[window] for name in labels])
    image = field.image[window].astype(np.float32)
    density = -np.log((image + 1) / 256) * rng.uniform(0.85, 1.15, 3)  # per colour channel
    image = np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8)
    turns, flip = int(rng.integers(4)), int(rng.integers(2))
    image, masks = np.rot90(image, turns), np.rot90(masks, turns, axes=(1, 2))
    if flip:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(masks)


def _choose(
    masks: NDArray[np.bool_], reason: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of the labels to ask for: the crop's reason, others there, a third that are not."""
    there = masks.any(axis=(1, 2))
    present = rng.permutation(np.flatnonzero(there & (np.arange(len(masks)) != reason)))
    absent = rng.permutation(np.flatnonzero(~there))
    rest = rng.permutation(len(masks))
    return np.concatenate([[reason], present[: count - 1 - count // 3], absent, rest])[:count]
