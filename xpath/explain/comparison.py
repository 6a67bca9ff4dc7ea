"""Several attribution methods on one slide, judged by the same checks.

Axes: N patches, L object classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.explain.attention_pool import attention_pools, class_pools
from xpath.explain.captum_bridge import attribute_objects, coalition_logits
from xpath.explain.deletion import removal_areas
from xpath.explain.faithfulness import evidence, rank_stability, weight_sanity
from xpath.explain.head import class_share, forward
from xpath.explain.methods import attribute
from xpath.explain.shapley import shapley_objects
from xpath.mil.object_aware import ObjectAwareMIL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.explain.attribution import Attribution, Method
    from xpath.explain.head import AttentionClassifier
    from xpath.mil.bag import Bag

__all__ = ["MethodScores", "ObjectShare", "compare_methods", "shares_of_objects"]

SHUFFLES = 3
"""Times the weights are shuffled; a shuffle costs an attribution per layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodScores:
    """How faithful one method's ranking of the patches is, in log-odds of the class."""

    method: Method
    target: int
    """The class explained."""
    deletion: float
    """Mean log-odds while the highest ranked patches are deleted first: low if right."""
    insertion: float
    """Mean log-odds while they are inserted first into the empty slide: high if right."""
    least_first: float
    """Mean log-odds while the lowest ranked are deleted first: high if right."""
    random: float
    """Mean log-odds under deletion in random order."""
    gain: float
    """``least_first`` minus ``deletion``: 0 for a ranking without information."""
    sufficiency_gap: float
    """Log-odds lost if only the highest ranked tenth stays."""
    necessity: float
    """Log-odds lost without the highest ranked tenth."""
    to_keep: int | None
    """Fewest highest ranked patches that alone keep the class."""
    to_flip: int | None
    """Fewest highest ranked patches without which the class is lost."""
    sanity: float
    """Rank correlation with the explanation of shuffled weights: near 1, it explains no model."""
    agreement: float
    """Mean rank correlation (Kendall) of all methods asked, of this slide and model."""
    delta: float
    """Sum of the values less what they should sum to, NaN where no sum is promised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectShare:
    """Worth of one object class to the logit, as a player among the object classes."""

    object: str
    shapley: float
    """Fair share, exact (Shapley 1953)."""
    removal: float
    """Logit minus the logit without the object (captum's ``FeatureAblation``)."""


def compare_methods(
    model: AttentionClassifier,
    bag: Bag,
    methods: Sequence[Method],
    target: int | None = None,
    *,
    seed: int = 0,
) -> list[tuple[Attribution, MethodScores]]:
    """Attributes the logit of a class by every method, held against the runner-up, and judges each.

    Args:
        model: The standard or the object-aware classifier.
        bag: The slide, of 2 patches or more.
        methods: Which, each once.
        target: Class index; by default the predicted class.
        seed: Of random orders and shuffles, the same for every method.

    Raises:
        ConfigError: No such method.
        DataError: A single patch, or a model that has no logit to attribute.
    """
    made = [
        attribute(model, bag, method, target, contrast="runner_up", rng=np.random.default_rng(seed))
        for method in methods
    ]
    agreement = np.nan
    if len(made) > 1:
        agreement = rank_stability(np.stack([one.patches for one in made])).kendall
    return [(one, _scores(model, bag, one, agreement, seed)) for one in made]


def shares_of_objects(
    model: ObjectAwareMIL, bag: Bag, target: int | None = None
) -> list[ObjectShare]:
    """Share and removal of every object class of a slide, held against the runner-up.

    Raises:
        DataError: A bag of patches, without objects, or no such class.
    """
    pools = attention_pools(model, bag, target, contrast="runner_up")
    _, share = class_share(forward(model, bag).logits[0], pools.target, "runner_up")
    logits = coalition_logits(model, bag)

    def margin(shown: Tensor) -> Tensor:
        return (logits(shown) @ share)[:, None]

    removed = attribute_objects(margin, len(model.objects), 0, method="ablation")
    fair = shapley_objects(pools)
    return [
        ObjectShare(object=name, shapley=float(fair[j]), removal=float(removed[j]))
        for j, name in enumerate(model.objects)
    ]


def _scores(
    model: AttentionClassifier, bag: Bag, one: Attribution, agreement: float, seed: int
) -> MethodScores:
    pools, scores = class_pools(model, bag), one.patches
    areas = removal_areas(pools, scores, one.target, np.random.default_rng(seed))
    tenth = evidence(pools, scores, one.target)
    shuffled = weight_sanity(
        model, bag, one.method, one.target, generator=torch.Generator().manual_seed(seed),
        contrast="runner_up", repeats=SHUFFLES,
    )  # fmt: skip
    return MethodScores(
        method=one.method,
        target=one.target,
        deletion=areas.deletion,
        insertion=areas.insertion,
        least_first=areas.least_first,
        random=areas.random,
        gain=areas.gain,
        sufficiency_gap=tenth.sufficiency_gap,
        necessity=tenth.necessity,
        to_keep=tenth.to_keep,
        to_flip=tenth.to_flip,
        sanity=float(shuffled.correlation[-1]),
        agreement=float(agreement),
        delta=one.delta,
    )
