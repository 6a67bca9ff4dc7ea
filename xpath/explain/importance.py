"""Importance of objects: the change of a prediction when they are hidden (paper, Eq. 12).

The paper's ratio of losses (section 4.3.2) explodes where the model is sure, and blurring anything
large changes something. So the ratio stands here under its own name, the change of log-odds beside
it, and both come with the effect of random masks on the rest of the same patches.

How to read them: ``imp`` is about exp(effect) on a slide the model is sure of, but only about 1 +
effect / margin on one it gets wrong, so the same effect looks larger in the class the model knows
better. An excess below 0 means that as much of the rest of its patches matters more, as it does for
every other object of a patch that holds the decisive one: that alone is no evidence against the
class. Beside tissue that speaks against the class an excess is above 0 whatever the object is: that
is no evidence for it either. So verdicts are about ``needs``, which hold an effect against the size
of the null. An object that covers more than half of its patches is compared with all the rest
there, scaled to its area; a patch it fills, with a patch of the slide that has none of it.

Axes: N patches, L objects asked about, R random masks, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.errors import DataError, ResolutionError
from xpath.explain.head import log_odds
from xpath.explain.hiding import hidden_rows
from xpath.explain.perturbation import PerturbationConfig
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.explain.hiding import HiddenPatch, SegmentedSlide
    from xpath.explain.perturbation import MaskedPerturbation, Perturbation, Removal
    from xpath.protocols import PatchEncoder
    from xpath.store.masks import SlideMasks

__all__ = [
    "HiddenObjects",
    "ObjectImportance",
    "hide_objects",
    "importance_of",
    "log_loss",
    "loss_ratio",
    "object_importance",
]


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
    effects: NDArray[np.float64]
    """``(K, L)`` fall of each class's log-odds, positive if the object speaks for the class."""
    random: NDArray[np.float64]
    """``(K, L, R)`` the same for each random mask, scaled to the object's area."""
    patches: NDArray[np.int64]
    """``(L,)`` patches that hold the object."""
    area: NDArray[np.float64]
    """``(L,)`` share of all patches' area under its masks."""
    slide_patches: int
    """Patches of the slide N."""

    @property
    def effect(self) -> NDArray[np.float64]:
        """``(L,)`` fall of the target's log-odds."""
        return np.asarray(self.effects[self.target])

    @property
    def null(self) -> NDArray[np.float64]:
        """``(L,)`` the same for random masks, mean over the draws."""
        return np.asarray(self.random[self.target].mean(axis=-1))

    @property
    def excess(self) -> NDArray[np.float64]:
        """``(L,)`` effect beyond that of random masks."""
        return np.asarray(self.excesses[self.target])

    @property
    def excesses(self) -> NDArray[np.float64]:
        """``(K, L)`` the same for every class."""
        # differences first: the mean of equal numbers need not be that number
        return np.asarray((self.effects[..., None] - self.random).mean(axis=-1))

    @property
    def needs(self) -> NDArray[np.float64]:
        """``(K, L)`` the excess, held against what random masks do in either direction.

        It has the effect's sign where hiding the object changes the log-odds by more than hiding as
        much of the rest does, whichever way, and is never larger than the effect. So an object that
        does little is not credited with what tissue beside it does. Of masks without a meaning,
        whose effect is that of the rest, it is the excess, so still 0 on average.
        """
        effect, null = self.effects, self.random.mean(axis=-1)
        held = np.where(effect * null < 0, effect + null, self.excesses)
        return np.asarray(held.clip(-np.abs(effect), np.abs(effect)))

    @property
    def p(self) -> NDArray[np.float64]:
        """``(L,)`` of this slide alone, by exchange of the object with its random masks.

        The share of placements, its own among them, whose effect is as large. So of R random masks
        the smallest is 1 / (R + 1). NaN where the effect is.
        """
        as_large = (self.random[self.target] >= self.effect[:, None]).sum(axis=-1)
        share = (1 + as_large) / (1 + self.random.shape[-1])
        return np.where(np.isnan(self.excess), np.nan, share)

    @property
    def cover(self) -> NDArray[np.float64]:
        """``(L,)`` mean share of its patches that the object covers, NaN where it is absent."""
        count = self.patches.astype(np.float64)
        share = np.full(len(count), np.nan)
        np.divide(self.area * self.slide_patches, count, out=share, where=count > 0)
        return share


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HiddenObjects:
    """A slide's features with each object hidden. They depend on the encoder, on no classifier."""

    slide_id: str
    objects: tuple[str, ...]
    """Names of the L objects, ``a + b`` for several hidden together."""
    features: NDArray[np.float32]
    """``(N, D)`` with nothing hidden."""
    rows: Mapping[int, Sequence[HiddenPatch]]
    """Patches that change, by index of the object; absent ones have none."""
    draws: int
    """Random masks R."""
    area: NDArray[np.int64]
    """``(N, L)`` pixels that each object covers."""
    pixels: int
    """Pixels of a patch."""


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
    ``xpath.explain.grouping.redundant_groups`` finds which.

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
    hidden = hide_objects(encoder, slide, objects=objects, perturbation=perturbation, config=config)
    return importance_of(predict, hidden, target)


def hide_objects(
    encoder: PatchEncoder,
    slide: SegmentedSlide,
    *,
    objects: Sequence[str | Sequence[str]],
    perturbation: Perturbation | MaskedPerturbation | Removal,
    config: PerturbationConfig | None = None,
) -> HiddenObjects:
    """Hides each object and random masks in its stead, and encodes what is then seen.

    It is nearly all the work of ``object_importance``, and serves every classifier. Arguments and
    errors are as there.
    """
    config = config or PerturbationConfig()
    asked = [(name,) if isinstance(name, str) else tuple(name) for name in objects]
    columns = _columns(slide.masks, asked, slide.features)
    return HiddenObjects(
        slide_id=slide.slide_id,
        objects=tuple(" + ".join(names) for names in asked),
        features=slide.features,
        rows=hidden_rows(encoder, slide, columns, perturbation, config),
        draws=config.null_draws,
        area=_areas(slide.masks, columns),
        pixels=slide.masks.size**2,
    )


def importance_of(
    predict: Callable[[Tensor], Tensor], slide: HiddenObjects, target: int
) -> ObjectImportance:
    """Asks a classifier about a slide with each object hidden.

    Args:
        predict: Logits ``(K,)`` of patch features ``(N, D)``; with ``Removal`` of fewer patches.
        slide: Of ``hide_objects``.
        target: Class index.

    Returns:
        As ``object_importance``.

    Raises:
        DataError: A class that is none, or logits that are no numbers.
    """
    features, rows, area = slide.features, slide.rows, slide.area
    before = _logits(predict, features, target)
    # (L, K) the object hidden, (L, R, 2, K) the pairs
    hidden = np.stack([
        _after(predict, features, rows.get(label, []), lambda one: one.own, target)
        for label in range(len(slide.objects))
    ])
    pairs = np.array([
        [
            [
                _after(predict, features, rows.get(label, []), _of_pair(draw, side), target)
                for side in range(2)
            ]
            for draw in range(slide.draws)
        ]
        for label in range(len(slide.objects))
    ])
    with np.errstate(invalid="ignore"):  # NaN, where nothing was left to ask about, stays NaN
        classes = range(len(before))
        effects = np.stack([log_odds(before, k) - log_odds(hidden, k) for k in classes])
        odds = np.stack([log_odds(pairs, k) for k in classes])  # (K, L, R, 2)
        return ObjectImportance(
            slide_id=slide.slide_id,
            target=target,
            objects=slide.objects,
            probability=float(np.exp(-log_loss(before, target))),
            hidden_probability=np.exp(-log_loss(hidden, target)),
            imp=loss_ratio(hidden, before, target),
            effects=effects,
            random=effects[..., None] - (odds[..., 1] - odds[..., 0]),
            patches=(area > 0).sum(axis=0),
            area=area.sum(axis=0) / (slide.pixels * len(features)),
            slide_patches=len(features),
        )


def _of_pair(draw: int, side: int) -> Callable[[HiddenPatch], NDArray[np.float32] | None]:
    """Takes the object (side 0) or the random mask (side 1) of a pair."""
    return lambda one: one.pairs[draw][side]


def _after(
    predict: Callable[[Tensor], Tensor],
    features: NDArray[np.float32],
    rows: Sequence[HiddenPatch],
    take: Callable[[HiddenPatch], NDArray[np.float32] | None],
    target: int,
) -> NDArray[np.float64]:
    """Logits ``(K,)`` with other features of some patches. NaN where no patch is left."""
    hidden, kept = features.copy(), np.ones(len(features), bool)
    for one in rows:
        row = take(one)
        kept[one.patch] = row is not None
        hidden[one.patch] = 0.0 if row is None else row
    if not kept.any():
        return np.full_like(_logits(predict, features, target), np.nan)
    return _logits(predict, hidden[kept], target)


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
