"""Checks of whether an explanation is faithful to the model, and the model to the tissue.

Five questions, none of which replaces another: are the patches an explanation names sufficient, and
are they necessary (``evidence``); does removal follow the ranking (``xpath.explain.deletion``);
does the explanation change with the weights; does it find a planted truth; is it the same when
training is repeated.

Axes: N patches, K classes, R runs.
"""

from __future__ import annotations

import copy
import math
import warnings
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.errors import DataError
from xpath.explain.deletion import class_curve, class_subsets, ranking
from xpath.explain.methods import attribute
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.explain.attention_pool import AttentionPools
    from xpath.explain.attribution import Method
    from xpath.explain.head import AttentionClassifier, Contrast
    from xpath.mil.bag import Bag

__all__ = [
    "Evidence",
    "PlantedTruth",
    "RankStability",
    "WeightSanity",
    "evidence",
    "planted_truth",
    "rank_correlation",
    "rank_stability",
    "weight_sanity",
]

LAYERS = ("classifier", "attention", "projection")
"""From the logit down to the features."""


class Evidence(NamedTuple):
    """Sufficiency and necessity of the highest ranked patches, in log-odds of the class."""

    whole: float
    """Of the slide as it is."""
    alone: float
    """Of the highest ranked patches alone: sufficient if not below ``whole``."""
    without: float
    """Of all others: the highest ranked are necessary if far below ``whole``."""
    to_keep: int | None
    """Fewest highest ranked patches that alone make the class more likely than not, None if even
    all do not."""
    to_flip: int | None
    """Fewest highest ranked patches without which it is not. 0 if it never was, None if it stays so
    to the last."""

    @property
    def sufficiency_gap(self) -> float:
        """Log-odds lost if only the highest ranked stay, negative if the others spoke against."""
        return self.whole - self.alone

    @property
    def necessity(self) -> float:
        """Log-odds lost without the highest ranked."""
        return self.whole - self.without


class WeightSanity(NamedTuple):
    """How alike explanations are once weights are shuffled, from the top down."""

    layers: tuple[str, ...]
    """Down to which layer the weights are shuffled."""
    correlation: NDArray[np.float64]
    """``(len(layers),)`` Spearman's, mean over the repeats. Near 1, the explanation does not depend
    on these weights."""
    spread: NDArray[np.float64]
    """``(len(layers),)`` standard deviation over the repeats."""


class PlantedTruth(NamedTuple):
    """Ranking of patches against the truth."""

    auroc: float
    """Chance that a true patch ranks above another, 0.5 for a random ranking."""
    average_precision: float
    prevalence: float
    """Share of true patches: the average precision of a random ranking."""


class RankStability(NamedTuple):
    """Agreement of explanations over all pairs of runs (NaN where all values are equal)."""

    kendall: float
    """Mean of Kendall's tau-b."""
    spearman: float
    """Mean of Spearman's rank correlation."""
    lowest: float
    """Smallest Kendall's tau-b of any pair."""
    overlap: float
    """Mean share of the highest ranked that two runs have in common."""


def evidence(
    pools: Sequence[AttentionPools],
    scores: NDArray[np.floating],
    target: int,
    *,
    share: float = 0.1,
) -> Evidence:
    """Whether the highest ranked patches are enough for the class, and whether they are needed.

    Args:
        pools: Of all classes, from ``class_pools``.
        scores: ``(N,)`` positive where a patch speaks for the class.
        target: Class index.
        share: Of the patches, how many count as highest ranked; at least one patch.

    Raises:
        DataError: A share not in (0, 1], no such class, scores of other patches or with NaN.
    """
    if not 0 < share <= 1:
        raise DataError(f"share must be in (0, 1], got {share}")
    order = ranking(scores)
    kept = class_curve(pools, order, target, direction="insertion")
    left = class_curve(pools, order, target)
    top = np.zeros(len(order), bool)
    top[order[: max(1, math.ceil(share * len(order)))]] = True
    alone, without = class_subsets(pools, target, np.stack([top, ~top]))
    return Evidence(
        whole=float(class_subsets(pools, target)),
        alone=float(alone),
        without=float(without),
        to_keep=_first(kept[1:] > 0, offset=1),
        to_flip=_first(left <= 0),
    )


def weight_sanity(
    model: AttentionClassifier,
    bag: Bag,
    method: Method,
    target: int | None = None,
    *,
    generator: torch.Generator,
    contrast: Contrast = "none",
    repeats: int = 5,
) -> WeightSanity:
    """Whether an explanation depends on what the model learned (Adebayo et al. 2018).

    Classifier, attention and projection are shuffled one after the other, each parameter's numbers
    among themselves, so that their distribution stays. An explanation that stays alike explains
    the slide, not the model.

    Args:
        model: The standard or the object-aware classifier.
        bag: The slide.
        method: Which explanation; ``random`` is drawn anew each time.
        target: Class index; by default the one predicted before shuffling.
        generator: Which shuffles, on the CPU.
        contrast: What the class is held against.
        repeats: How often.

    Raises:
        DataError: No repeats, or fewer than 2 patches.
    """
    if repeats < 1 or len(bag.features) < 2:
        raise DataError(
            f"wanted 2 or more patches and 1 or more repeats, got {len(bag.features)} and {repeats}"
        )
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    before = attribute(model, bag, method, target, contrast=contrast, rng=rng)
    layers = tuple(name for name in LAYERS if list(getattr(model, name).parameters()))
    correlation = np.empty((repeats, len(layers)))
    for row in correlation:
        shuffled = copy.deepcopy(model).cpu()
        shuffled.metadata.pop("baseline", None)  # of the weights that were learnt
        for column, name in enumerate(layers):
            _shuffle(getattr(shuffled, name), generator)
            after = attribute(shuffled, bag, method, before.target, contrast=contrast, rng=rng)
            row[column] = rank_correlation(before.patches, after.patches)
    return WeightSanity(layers, correlation.mean(axis=0), correlation.std(axis=0))


def planted_truth(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> PlantedTruth:
    """How well scores rank the patches that are known to decide.

    Args:
        scores: ``(N,)`` of patches; those of many slides may stand end to end.
        truth: ``(N,)`` True where a patch decides.

    Raises:
        DataError: NaN in the scores, truth that is not boolean, all or nothing true.
        ShapeError: Another number of scores than truths.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, truth = np.asarray(scores, np.float64), np.asarray(truth)
    check_shape("truth", truth, "N", N=len(scores))
    if np.isnan(scores).any() or truth.dtype != bool or truth.all() or not truth.any():
        raise DataError(
            f"scores must be numbers and truth boolean, some True and some not; got {truth.dtype}"
            f" with {int(np.count_nonzero(truth))} of {len(truth)} true"
        )
    return PlantedTruth(
        auroc=float(roc_auc_score(truth, scores)),
        average_precision=float(average_precision_score(truth, scores)),
        prevalence=float(truth.mean()),
    )


def rank_stability(runs: NDArray[np.floating], *, top: int | None = None) -> RankStability:
    """Agreement of explanations over seeds, folds, blur widths, or anything else repeated.

    Args:
        runs: ``(R, N)`` scores of the same patches or objects, 2 runs or more.
        top: How many count as highest ranked; by default a tenth, at least one.

    Raises:
        DataError: Fewer than 2 runs or patches, NaN, ``top`` not in 1 to N.
        ShapeError: Not one row per run.
    """
    from scipy.stats import kendalltau

    runs = np.asarray(runs, np.float64)
    sizes = check_shape("runs", runs, "R N")
    top = max(1, sizes["N"] // 10) if top is None else top
    if min(sizes.values()) < 2 or np.isnan(runs).any() or not 1 <= top <= sizes["N"]:
        raise DataError(
            f"runs must be 2 or more of 2 or more numbers, top in 1 to N; got {runs.shape}, {top}"
        )
    highest = [set(ranking(run)[:top].tolist()) for run in runs]
    pairs = list(combinations(range(len(runs)), 2))
    kendall = np.array([kendalltau(runs[a], runs[b]).statistic for a, b in pairs])
    return RankStability(
        kendall=float(kendall.mean()),
        spearman=float(np.mean([rank_correlation(runs[a], runs[b]) for a, b in pairs])),
        lowest=float(kendall.min()),
        overlap=float(np.mean([len(highest[a] & highest[b]) / top for a, b in pairs])),
    )


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's rank correlation, NaN without a warning where all values of one are equal."""
    from scipy.stats import spearmanr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="An input array is constant")
        return float(spearmanr(first, second).statistic)


def _first(hits: NDArray[np.bool_], offset: int = 0) -> int | None:
    """Index of the first True."""
    return int(hits.argmax()) + offset if hits.any() else None


@torch.no_grad()
def _shuffle(layer: torch.nn.Module, generator: torch.Generator) -> None:
    """Shuffles each parameter's numbers among themselves."""
    for parameter in layer.parameters():
        order = torch.randperm(parameter.numel(), generator=generator)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
