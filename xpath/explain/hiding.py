"""Features of patches in which an object, or a random mask in its stead, is hidden.

Axes: N patches, L objects asked about, D features, H W pixels.
"""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.explain.null_masks import off_object, shifted, tissue_pixels
from xpath.explain.perturbation import MaskedPerturbation, Removal, feather, perturbed
from xpath.objects.pool import cover
from xpath.wsi.patches import iter_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.explain.perturbation import Perturbation, PerturbationConfig
    from xpath.protocols import PatchEncoder
    from xpath.store.masks import SlideMasks
    from xpath.wsi.slide import Slide

__all__ = ["HiddenPatch", "SegmentedSlide", "hidden_rows"]

NOTHING = 1e-4
"""Positions of a feature map: a patch with less than that left of it is taken out of the bag."""
LARGEST_SCALE = 20.0
"""An object is compared with a random mask of this part of its size at least. Where its patch has
less beside it, it is compared with another patch."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SegmentedSlide:
    """A slide with its object masks and patch features."""

    slide_id: str
    slide: Slide
    """Open for reading."""
    masks: SlideMasks
    features: NDArray[np.float32]
    """``(N, D)`` mean features of the patches, on the grid of the masks."""


class HiddenPatch(NamedTuple):
    """Features ``(D,)`` of a patch with an object hidden, None where the patch is then gone."""

    patch: int
    own: NDArray[np.float32] | None
    """With the object hidden."""
    pairs: tuple[tuple[NDArray[np.float32] | None, NDArray[np.float32] | None], ...]
    """For each of R random masks: with the object hidden as the random mask is, and with that."""


class _Hiding(NamedTuple):
    """Pixels of a patch that are hidden, for the importance of an object."""

    label: int
    draw: int
    """``OWN``, ``REFERENCE``, ``REST``, or a random mask 0, 1, ..."""
    mask: NDArray[np.bool_]
    weight: NDArray[np.float32]
    """``(H, W)`` how much each is."""
    size: float
    """Pixels that are hidden, on tissue and by weight; of the object itself all its pixels."""


class _Hidden(NamedTuple):
    """Features of a patch with pixels hidden."""

    size: float
    features: NDArray[np.float32] | None


OWN, REFERENCE, REST = -1, -2, -3
"""The object; the object with the edge of the random masks; or, where it is the larger part of its
patch, all the rest."""


class _TouchedPatch(NamedTuple):
    """A patch that holds an object asked about."""

    patch: int
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    """``(L, H, W)``."""


def hidden_rows(
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    columns: list[list[int]],
    perturbation: Perturbation | MaskedPerturbation | Removal,
    config: PerturbationConfig,
) -> dict[int, list[HiddenPatch]]:
    """Mean features of every patch an object was hidden in, by object.

    A random mask is to differ from the object in nothing but its pixels. So it is paired with the
    object hidden in the same way, with an edge that is soft to the inside, and both changes of the
    features are scaled to the object's size: features are means over the patch, so about linear in
    what is hidden. Of an object that is the larger part of its patch, all the rest is paired with
    random parts of the object. Were the object a random part of its patch, the two of a pair could
    be exchanged; so whatever the classifier, their difference is then 0 on average. A patch that an
    object fills is paired with one drawn from those of the slide that hold nothing of it, hidden
    whole; where there is none, with itself.

    Args:
        encoder: Of the slide's features.
        slide: The slide.
        columns: Columns of the masks that are hidden as one, for each of the L objects.
        perturbation: How they are hidden.
        config: Soft edges, random masks, batch size.

    Returns:
        By index of the object; absent ones are left out.
    """
    rows: dict[int, list[HiddenPatch]] = defaultdict(list)
    filled: dict[int, dict[int, float]] = defaultdict(dict)
    encoded = (
        _without(encoder, slide, columns, config)
        if isinstance(perturbation, Removal)
        else _painted_over(encoder, slide, columns, perturbation, config)
    )
    for (patch, label), group in itertools.groupby(encoded, lambda one: (one[0], one[1].label)):
        hidden = {hiding.draw: _Hidden(hiding.size, features) for _, hiding, features in group}
        before = slide.features[patch]
        pairs = tuple(_pair(before, hidden, draw) for draw in range(config.null_draws))
        rows[label].append(HiddenPatch(patch, hidden[OWN].features, pairs))
        if 0 not in hidden:  # no random mask has room beside it
            filled[label][patch] = hidden[OWN].size
    exchanges = {label: _exchanges(slide.masks, columns[label], filled[label], config)
                 for label in filled}  # fmt: skip
    whole = _whole_patches(encoder, slide, exchanges.values(), perturbation, config)
    for label, draws in exchanges.items():
        rows[label] = _elsewhere(slide.features, rows[label], draws, filled[label], whole)
    return rows


def _exchanges(
    masks: SlideMasks, members: Sequence[int], filled: dict[int, float], config: PerturbationConfig
) -> list[dict[int, int]]:
    """For each draw, a patch without the object for every patch it fills, as far as there are."""
    name = zlib.crc32(" + ".join(masks.labels[i] for i in members).encode())
    rng = np.random.default_rng([config.seed, len(masks.grid), name])
    free = np.flatnonzero(masks.area[:, list(members)].sum(axis=1) == 0)
    return [
        dict(zip(rng.permutation(list(filled)).tolist(), rng.permutation(free).tolist()))  # noqa: B905 - the shorter ends it
        for _ in range(config.null_draws)
    ]


def _whole_patches(
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    exchanges: Iterable[Sequence[dict[int, int]]],
    perturbation: Perturbation | MaskedPerturbation | Removal,
    config: PerturbationConfig,
) -> dict[int, _Hidden]:
    """Patches that stand for another, all of each hidden."""
    wanted = sorted({patch for draws in exchanges for draw in draws for patch in draw.values()})
    mpp = float(slide.masks.grid.mpp or 0)
    hidden: dict[int, _Hidden] = {}
    for index, images in iter_patches(
        slide.slide, slide.masks.grid, batch=config.batch, only=wanted
    ):
        sizes = [float(tissue_pixels(image, mpp).sum()) or float(image[..., 0].size)
                 for image in images]  # fmt: skip
        features: Sequence[NDArray[np.float32] | None] = [None] * len(images)
        if not isinstance(perturbation, Removal):
            every = np.ones(images.shape[1:3], np.bool_)
            shown = [
                perturbed(
                    image, _replacer(perturbation, image, mpp)(every), every.astype(np.float32)
                )
                for image in images
            ]
            features = list(encoder.maps(_tensor(np.stack(shown))).mean(dim=(2, 3)).numpy())
        hidden |= zip(index.tolist(), map(_Hidden, sizes, features), strict=True)
    return hidden


def _elsewhere(
    features: NDArray[np.float32],
    rows: Sequence[HiddenPatch],
    draws: Sequence[dict[int, int]],
    filled: dict[int, float],
    whole: dict[int, _Hidden],
) -> list[HiddenPatch]:
    """Rows in which a patch without the object is hidden instead of one that the object fills.

    Args:
        features: ``(N, D)`` of the slide.
        rows: Patches that hold the object.
        draws: For each draw, the patch that stands for a filled one.
        filled: Size of the object in the patches it fills.
        whole: The patches that stand for others, hidden.
    """
    changed = [
        one._replace(pairs=tuple(
            (pair[0], features[one.patch]) if one.patch in draw else pair
            for pair, draw in zip(one.pairs, draws, strict=True)
        ))
        for one in rows
    ]  # fmt: skip
    for patch in sorted({other for draw in draws for other in draw.values()}):
        before = features[patch]
        sizes = [
            next((filled[one] for one, other in draw.items() if other == patch), 0.0)
            for draw in draws
        ]
        pairs = tuple(
            (before, _as_large(before, whole[patch], size) if size else before) for size in sizes
        )
        changed.append(HiddenPatch(patch, before, pairs))
    return changed


def _pair(
    before: NDArray[np.float32],
    hidden: dict[int, _Hidden],
    draw: int,
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Features of a patch without the object, and without a random mask.

    Args:
        before: ``(D,)`` of the patch as it is.
        hidden: Size and features of the object, the reference, if there is one, and random masks.
        draw: Which random mask.
    """
    own = hidden[OWN]
    random = hidden.get(draw, own)  # where there is nothing beside the object, the object itself
    first, second = hidden.get(REFERENCE, own), random
    if REST in hidden:
        first, second = random, hidden[REST]
    return _as_large(before, first, own.size), _as_large(before, second, own.size)


def _as_large(
    before: NDArray[np.float32], hidden: _Hidden, size: float
) -> NDArray[np.float32] | None:
    """Features if as much as ``size`` were hidden of what is under a mask."""
    if hidden.features is None or size == hidden.size:
        return hidden.features
    change = hidden.features - before
    return np.asarray(before + size / hidden.size * change, np.float32)


def _painted_over(
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    columns: list[list[int]],
    perturbation: Perturbation | MaskedPerturbation,
    config: PerturbationConfig,
) -> Iterator[tuple[int, _Hiding, NDArray[np.float32]]]:
    """Patches with their hidings, and mean features of the picture that is then seen."""
    hidden = _hidden_images(slide, columns, perturbation, config)
    while batch := list(itertools.islice(hidden, config.batch)):
        maps = encoder.maps(_tensor(np.stack([image for _, _, image in batch])))
        for (patch, hiding, _), mean in zip(batch, maps.mean(dim=(2, 3)).numpy(), strict=True):
            yield patch, hiding, mean


def _without(
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    columns: list[list[int]],
    config: PerturbationConfig,
) -> Iterator[tuple[int, _Hiding, NDArray[np.float32] | None]]:
    """Patches with their hidings, and mean features of what is left, None where nothing is."""
    touched = _touched(slide, columns)
    while batch := list(itertools.islice(touched, config.batch)):
        maps = encoder.maps(_tensor(np.stack([one.image for one in batch])))
        for one, features in zip(batch, maps, strict=True):
            for hiding in _hidings(slide.masks, columns, one, config, feather_um=0.0):
                size = (features.shape[-2], features.shape[-1])
                left = 1 - cover(torch.from_numpy(hiding.mask[None, None]), size)[0, 0]
                total = float(left.sum())
                kept = (features * left).sum(dim=(1, 2)).numpy()
                yield one.patch, hiding, kept / total if total > NOTHING else None


def _hidden_images(
    slide: SegmentedSlide,
    columns: list[list[int]],
    perturbation: Perturbation | MaskedPerturbation,
    config: PerturbationConfig,
) -> Iterator[tuple[int, _Hiding, NDArray[np.uint8]]]:
    """Every patch with each of its objects hidden, then each of their random masks."""
    mpp = float(slide.masks.grid.mpp or 0)
    for one in _touched(slide, columns):
        replacement = _replacer(perturbation, one.image, mpp)
        for hiding in _hidings(slide.masks, columns, one, config, feather_um=config.feather_um):
            image = perturbed(one.image, replacement(hiding.mask), hiding.weight)
            yield one.patch, hiding, image


def _replacer(
    perturbation: Perturbation | MaskedPerturbation, image: NDArray[np.uint8], mpp: float
) -> Callable[[NDArray[np.bool_]], NDArray[np.float32]]:
    """The picture shown instead of the object under a mask, as a function of the mask."""
    if isinstance(perturbation, MaskedPerturbation):
        return lambda mask: perturbation.replacement_under(image, mask, mpp)
    once = perturbation.replacement(image, mpp)  # serves all objects of the patch
    return lambda mask: once  # noqa: ARG005


def _touched(slide: SegmentedSlide, columns: list[list[int]]) -> Iterator[_TouchedPatch]:
    """Every patch that holds an object asked about."""
    masks = slide.masks
    every = sorted({column for members in columns for column in members})
    touched = np.flatnonzero((masks.area[:, every] > 0).any(axis=1))
    batches = iter_patches(slide.slide, masks.grid, batch=8, only=touched.tolist())
    for patch, image in itertools.chain.from_iterable(zip(*b, strict=True) for b in batches):
        read = _at_size(masks.read(int(patch)), masks.grid.pixels)
        whole = np.stack([read[members].any(axis=0) for members in columns])
        yield _TouchedPatch(int(patch), image, whole)


def _hidings(
    stored: SlideMasks,
    columns: Sequence[Sequence[int]],
    one: _TouchedPatch,
    config: PerturbationConfig,
    *,
    feather_um: float,
) -> Iterator[_Hiding]:
    """Each object of a patch, then its random masks, the same on every call."""
    mpp = float(stored.grid.mpp or 0)
    tissue = tissue_pixels(one.image, mpp)
    for label in np.flatnonzero(one.masks.any(axis=(1, 2))).tolist():
        name = zlib.crc32(" + ".join(stored.labels[i] for i in columns[label]).encode())
        rng = np.random.default_rng([config.seed, one.patch, name])
        mask = one.masks[label]
        soft = feather(mask, feather_um, mpp)
        if config.null == "shifted":
            yield _Hiding(label, OWN, mask, soft, 1.0)
            for draw in range(config.null_draws):
                moved = shifted(mask, rng)
                yield _Hiding(label, draw, moved, feather(moved, feather_um, mpp), 1.0)
            continue
        counted = tissue if (mask & tissue).any() else np.ones_like(tissue)
        rest = counted & ~mask
        size, left = float((mask & counted).sum()), float(rest.sum())
        yield _Hiding(label, OWN, mask, soft, size)
        if size > LARGEST_SCALE * left:
            continue
        draw, smaller = (REFERENCE, mask) if size <= left else (REST, rest)
        if draw == REST or feather_um > 0:  # else it is the object as it was hidden
            soft = _inside(smaller, feather_um, mpp)
            yield _Hiding(label, draw, smaller, soft, float(soft[counted].sum()))
        for draw in range(config.null_draws):
            moved = off_object(smaller, tissue, rng)
            soft = _inside(moved, feather_um, mpp)
            yield _Hiding(label, draw, moved, soft, float(soft[counted].sum()))


def _inside(mask: NDArray[np.bool_], feather_um: float, mpp: float) -> NDArray[np.float32]:
    """Weights ``(H, W)`` with a soft edge that lies within the mask: 0 on all the rest."""
    return np.asarray(1 - feather(~mask, feather_um, mpp), np.float32)


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _at_size(masks: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Masks ``(L, side, side)``, each pixel taken from the nearest of masks of any size."""
    nearest = ((np.arange(side) + 0.5) * masks.shape[-1] / side).astype(np.int64)
    return masks if masks.shape[-1] == side else masks[:, nearest[:, None], nearest]
