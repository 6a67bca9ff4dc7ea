"""Importance of objects: the change of a prediction when they are hidden (paper, Eq. 12).

The paper's ratio of losses (section 4.3.2) explodes where the model is sure, and blurring anything
large changes something. So the ratio stands here under its own name, the change of log-odds beside
it, and both come with the effect of masks of the same area put elsewhere in the same patches.

How to read them: ``imp`` is about exp(effect) on a slide the model is sure of, but only about
1 + effect / margin on one it gets wrong, so the same effect looks larger in the class the model
knows better. An excess below 0 means that a random area of the same size matters more, as it does
for every other object of a patch that holds the decisive one.

Axes: N patches, L objects asked about, D features, K classes, H W pixels.
"""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch

from xpath.errors import ConfigError, DataError, ResolutionError
from xpath.explain.head import log_odds
from xpath.explain.perturbation import MaskedPerturbation, Removal, feather, perturbed, shifted
from xpath.objects.pool import cover
from xpath.shapes import check_shape
from xpath.wsi.patches import iter_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.explain.perturbation import Perturbation
    from xpath.protocols import PatchEncoder
    from xpath.store.masks import SlideMasks
    from xpath.wsi.slide import Slide

__all__ = [
    "ObjectImportance",
    "PerturbationConfig",
    "SegmentedSlide",
    "log_loss",
    "loss_ratio",
    "object_importance",
]


NOTHING = 1e-4
"""Positions of a feature map: a patch with less than that left of it is taken out of the bag."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SegmentedSlide:
    """A slide with its object masks and patch features."""

    slide_id: str
    slide: Slide
    """Open for reading."""
    masks: SlideMasks
    features: NDArray[np.float32]
    """``(N, D)`` mean features of the patches, on the grid of the masks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PerturbationConfig:
    """Soft edges, random masks and batches of ``object_importance``."""

    feather_um: float = 2.0
    """Width of the soft edge around the mask."""
    null_draws: int = 2
    """Random masks of the same area per object and patch, at least one."""
    batch: int = 16
    """Hidden patches encoded at once."""
    seed: int = 0
    """Of the random masks."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers, and a null without draws.

        Raises:
            ConfigError: Feather below 0; draws or batch below 1.
        """
        if self.feather_um < 0 or min(self.null_draws, self.batch) < 1:
            raise ConfigError(f"feather_um must be >= 0, null_draws and batch >= 1: {self}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class ObjectImportance:
    """Change of one slide's prediction when each object is hidden."""

    slide_id: str
    target: int
    """The class of loss and log-odds: the true one where it is known."""
    objects: tuple[str, ...]
    """Names, ``a + b`` for several hidden together."""
    probability: float
    """Of the target class, nothing hidden."""
    hidden_probability: NDArray[np.float64]
    """``(L,)`` of the target class, each object hidden."""
    imp: NDArray[np.float64]
    """``(L,)`` loss hidden over loss as it is (Eq. 12), 1 if the object is absent."""
    effect: NDArray[np.float64]
    """``(L,)`` fall of the target's log-odds, positive if the object speaks for the class."""
    null: NDArray[np.float64]
    """``(L,)`` the same for random masks of the same area, averaged over the draws."""
    patches: NDArray[np.int64]
    """``(L,)`` patches that hold the object."""
    area: NDArray[np.float64]
    """``(L,)`` share of all patches' area under its masks."""

    @property
    def excess(self) -> NDArray[np.float64]:
        """``(L,)`` effect beyond that of random masks of the same area."""
        return self.effect - self.null


class _Key(NamedTuple):
    """A way to hide an object in a patch: by its own mask (-1) or a random one (0, 1, ...)."""

    label: int
    draw: int


_Rows: TypeAlias = defaultdict[_Key, list[tuple[int, "NDArray[np.float32] | None"]]]
"""Patches an object was hidden in, and their features (None for a patch that is gone)."""


def object_importance(
    predict: Callable[[Tensor], Tensor],
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    *,
    objects: Sequence[str | Sequence[str]],
    target: int,
    perturbation: Perturbation | MaskedPerturbation | Removal,
    config: PerturbationConfig | None = None,
) -> ObjectImportance:
    """Hides each object in turn and asks the classifier again.

    Only patches that hold an object are read and encoded again; all others keep their features. An
    absent object changes nothing: imp exactly 1, effect and null exactly 0. The numbers of an
    object do not depend on which others are asked about.

    Objects that lie within each other (nuclei in a tumour) stand in for each other: each alone may
    look unimportant. Give several names as one entry to hide them together;
    ``xpath.explain.grouping.overlap_groups`` finds which.

    Args:
        predict: Logits ``(K,)`` of patch features ``(N, D)``; with ``Removal`` of fewer patches.
        encoder: The encoder of the slide's features.
        slide: The slide, its object masks and its patch features.
        objects: Label ids to ask about, or several of them to be hidden as one; each must have
            been segmented.
        target: Class index.
        perturbation: How an object is hidden.
        config: Soft edges (not of ``Removal``), random masks, batch size.

    Returns:
        Finite numbers, with one exception: where ``Removal`` of an object leaves nothing of a
        slide, its numbers are NaN.

    Raises:
        DataError: An object that was not segmented, features of other patches, a class that is
            none, or logits that are no numbers.
        ResolutionError: The grid has no resolution, so widths in microns mean nothing.
    """
    config = config or PerturbationConfig()
    asked = [(name,) if isinstance(name, str) else tuple(name) for name in objects]
    columns = _columns(slide.masks, asked, slide.features)
    before = _logits(predict, slide.features, target)
    if isinstance(perturbation, Removal):
        rows = _removed_features(encoder, slide, columns, config)
    else:
        rows = _hidden_features(encoder, slide, columns, perturbation, config)

    def after(label: int, draw: int) -> NDArray[np.float64]:
        changed = rows.get(_Key(label, draw))
        if not changed:
            return before
        hidden, kept = slide.features.copy(), np.ones(len(slide.features), bool)
        for patch, row in changed:
            kept[patch] = row is not None
            hidden[patch] = 0.0 if row is None else row
        if not kept.any():
            return np.full_like(before, np.nan)
        return _logits(predict, hidden[kept], target)

    draws = range(-1, config.null_draws)
    logits = [after(label, draw) for label in range(len(objects)) for draw in draws]
    hidden = np.reshape(logits, (len(objects), len(draws), len(before)))
    real, random, start = hidden[:, 0], hidden[:, 1:], log_odds(before, target)
    area = _areas(slide.masks, columns)
    with np.errstate(invalid="ignore"):  # NaN, where nothing was left to ask about, stays NaN
        return ObjectImportance(
            slide_id=slide.slide_id,
            target=target,
            objects=tuple(" + ".join(names) for names in asked),
            probability=float(np.exp(-log_loss(before, target))),
            hidden_probability=np.exp(-log_loss(real, target)),
            imp=loss_ratio(real, before, target),
            effect=start - log_odds(real, target),
            # differences first: the mean of equal numbers need not be that number
            null=(start - log_odds(random, target)).mean(axis=1),
            patches=(area > 0).sum(axis=0),
            area=area.sum(axis=0) / (slide.masks.size**2 * len(slide.masks.grid)),
        )


def log_loss(logits: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """Cross-entropy of logits ``(..., K)``, exact and positive even where the model is sure.

    Written as ``log(1 + exp(-log_odds))``: the usual form is 0 in single precision from a margin of
    17 on, and the ratio of Eq. 12 then undefined.
    """
    return np.asarray(np.logaddexp(0.0, -log_odds(logits, target)))


def loss_ratio(
    after: NDArray[np.float64], before: NDArray[np.float64], target: int
) -> NDArray[np.float64]:
    """The paper's IMP (Eq. 12): loss after over loss before, positive and finite at any margin."""
    change = _log_of_loss(after, target) - _log_of_loss(before, target)
    return np.asarray(np.exp(change.clip(-700, 700)))  # e^709 is the largest number there is


def _log_of_loss(logits: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """Logarithm of ``log_loss``: minus the margin where the loss itself is below all doubles."""
    margin = log_odds(logits, target)
    return np.where(margin > 40, -margin, np.log(np.logaddexp(0.0, -np.minimum(margin, 40))))


def _logits(
    predict: Callable[[Tensor], Tensor], features: NDArray[np.float32], target: int
) -> NDArray[np.float64]:
    """A classifier's logits ``(K,)`` in double precision."""
    logits = predict(torch.tensor(features)).detach().cpu().double().numpy()
    classes = check_shape("logits", logits, "K")["K"]
    if classes < 2 or not 0 <= target < classes:
        raise DataError(f"target must be one of at least two classes, got {target} of {classes}")
    if not np.isfinite(logits).all():
        raise DataError(f"the classifier answers {logits.tolist()}; look at the encoder's features")
    return np.asarray(logits)


def _columns(
    masks: SlideMasks, objects: Sequence[tuple[str, ...]], features: NDArray[np.float32]
) -> list[list[int]]:
    """Columns of the masks that each entry hides."""
    if masks.grid.mpp is None:
        raise ResolutionError("the masks have no resolution; segment the slide again with --mpp")
    if len(features) != len(masks.grid):
        raise DataError(f"{len(features)} features for {len(masks.grid)} patches with masks")
    missing = [name for names in objects for name in names if name not in masks.labels]
    if missing or not all(objects):
        raise DataError(f"not segmented: {missing}; masks hold {list(masks.labels)}")
    return [[masks.labels.index(name) for name in names] for names in objects]


def _areas(masks: SlideMasks, columns: list[list[int]]) -> NDArray[np.int64]:
    """Pixels that each entry hides in each patch ``(N, L)``, counted once where objects overlap."""
    area = np.stack([masks.area[:, members].sum(axis=1) for members in columns], axis=1)
    for label, members in enumerate(columns):
        if len(members) > 1:
            for patch in np.flatnonzero(area[:, label]):
                area[patch, label] = masks.read(int(patch))[members].any(axis=0).sum()
    return area


def _hidden_features(
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    columns: list[list[int]],
    perturbation: Perturbation | MaskedPerturbation,
    config: PerturbationConfig,
) -> _Rows:
    """Mean features of every patch an object was hidden in, per object and draw."""
    rows: _Rows = defaultdict(list)
    hidden = _hidden_patches(slide, columns, perturbation, config)
    while batch := list(itertools.islice(hidden, config.batch)):
        maps = encoder.maps(_tensor(np.stack([image for _, _, image in batch])))
        for (key, patch, _), mean in zip(batch, maps.mean(dim=(2, 3)).numpy(), strict=True):
            rows[key].append((patch, mean))
    return rows


def _removed_features(
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    columns: list[list[int]],
    config: PerturbationConfig,
) -> _Rows:
    """Mean features of what is left of every patch, None where nothing is."""
    rows: _Rows = defaultdict(list)
    touched = _touched(slide, columns)
    while batch := list(itertools.islice(touched, config.batch)):
        maps = encoder.maps(_tensor(np.stack([image for _, image, _ in batch])))
        for (patch, _, masks), features in zip(batch, maps, strict=True):
            for key, mask in _own_and_random(slide.masks, columns, patch, masks, config):
                size = (features.shape[-2], features.shape[-1])
                left = 1 - cover(torch.from_numpy(mask[None, None]), size)[0, 0]
                total = float(left.sum())
                kept = (features * left).sum(dim=(1, 2)).numpy()
                rows[key].append((patch, kept / total if total > NOTHING else None))
    return rows


def _hidden_patches(
    slide: SegmentedSlide,
    columns: list[list[int]],
    perturbation: Perturbation | MaskedPerturbation,
    config: PerturbationConfig,
) -> Iterator[tuple[_Key, int, NDArray[np.uint8]]]:
    """Every patch with each of its objects hidden, then with random masks of the same area."""
    mpp = float(slide.masks.grid.mpp or 0)
    for patch, image, masks in _touched(slide, columns):
        replacement = _replacer(perturbation, image, mpp)
        for key, mask in _own_and_random(slide.masks, columns, patch, masks, config):
            weight = feather(mask, config.feather_um, mpp)
            yield key, patch, perturbed(image, replacement(mask), weight)


def _replacer(
    perturbation: Perturbation | MaskedPerturbation, image: NDArray[np.uint8], mpp: float
) -> Callable[[NDArray[np.bool_]], NDArray[np.float32]]:
    """The picture shown instead of the object under a mask, as a function of the mask."""
    if isinstance(perturbation, MaskedPerturbation):
        return lambda mask: perturbation.replacement_under(image, mask, mpp)
    once = perturbation.replacement(image, mpp)  # serves all objects of the patch
    return lambda mask: once  # noqa: ARG005


def _touched(
    slide: SegmentedSlide, columns: list[list[int]]
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Every patch that holds an object asked about, with its masks ``(L, H, W)``."""
    masks = slide.masks
    every = sorted({column for members in columns for column in members})
    touched = np.flatnonzero((masks.area[:, every] > 0).any(axis=1))
    batches = iter_patches(slide.slide, masks.grid, batch=8, only=touched.tolist())
    for patch, image in itertools.chain.from_iterable(zip(*b, strict=True) for b in batches):
        read = _at_size(masks.read(int(patch)), masks.grid.pixels)
        yield int(patch), image, np.stack([read[members].any(axis=0) for members in columns])


def _own_and_random(
    stored: SlideMasks,
    columns: list[list[int]],
    patch: int,
    masks: NDArray[np.bool_],
    config: PerturbationConfig,
) -> Iterator[tuple[_Key, NDArray[np.bool_]]]:
    """The mask of each object in a patch, then as large ones elsewhere, the same on every call."""
    for label in np.flatnonzero(masks.any(axis=(1, 2))):
        name = zlib.crc32(" + ".join(stored.labels[i] for i in columns[label]).encode())
        rng = np.random.default_rng([config.seed, patch, name])
        for draw in range(-1, config.null_draws):
            yield _Key(int(label), draw), masks[label] if draw < 0 else shifted(masks[label], rng)


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _at_size(masks: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Masks ``(L, side, side)``, each pixel taken from the nearest of masks of any size."""
    nearest = ((np.arange(side) + 0.5) * masks.shape[-1] / side).astype(np.int64)
    return masks if masks.shape[-1] == side else masks[:, nearest[:, None], nearest]
