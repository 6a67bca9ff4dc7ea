"""Logits of any choice of patches and objects, without another pass through the model.

Attention pooling needs two numbers per patch: its weight ``e_i = exp(score_i)`` and its evidence
``c_i = W·h_i``. The logit of any set S of patches is then (Ilse et al. 2018, Eq. 7)::

    logit(S) = Σ_{i in S} e_i c_i / Σ_{i in S} e_i + b

and with one pool per object the mean of such quotients over objects. So what would take a pass
through the model per patch (leave-one-out, deletion curves, Shapley values) takes milliseconds.
An empty set gives the bias. Sums over a set never subtract what was left out, so a patch that
holds all but 1e-15 of the attention can be left out as well as any other.

Axes: N patches, L pools (object classes; 1 in the standard model), B sets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from xpath.errors import DataError
from xpath.explain.head import check_sum, class_weights, forward
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.explain.head import AttentionClassifier, ClassWeights, Contrast
    from xpath.mil.attention_mil import MILOutput
    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectMILOutput

__all__ = [
    "AttentionPools",
    "attention_pools",
    "centred_activation",
    "class_pools",
    "deletion_curve",
    "insertion_curve",
    "leave_out_objects",
    "leave_out_patch_objects",
    "leave_out_patches",
    "merged",
    "subset_logits",
]

FAINTEST = -690.0
"""Scores further below the best of their pool count as this far: e to it is still a number."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class AttentionPools:
    """The logit of one class as a function of which patches and objects are there."""

    target: int
    weight: NDArray[np.float64]
    """``(N, L)`` e before normalisation: the largest of a pool is 1, absent objects are 0."""
    evidence: NDArray[np.float64]
    """``(N, L)`` c: class weights times the features of each patch or object."""
    bias: float
    average: Literal["all", "present"]
    """Whether the sum over pools is divided by L, or by how many are not empty."""
    logit: float
    """The model's own, of all patches and objects, less what the class is held against."""

    @property
    def attention(self) -> NDArray[np.float64]:
        """``(N, L)``, which sums to one in every pool that is not empty."""
        return np.asarray(self.weight / np.maximum(self.weight.sum(axis=0), np.finfo(float).tiny))


def attention_pools(
    model: AttentionClassifier,
    bag: Bag,
    target: int | None = None,
    *,
    contrast: Contrast = "none",
) -> AttentionPools:
    """Weight and evidence of every patch, or of every object in every patch, for one class.

    Args:
        model: The standard or the object-aware classifier.
        bag: The slide.
        target: Class index; by default the predicted class.
        contrast: What the class is held against.

    Raises:
        DataError: The head is not one linear layer, no such class, or the sum over patches is not
            the model's logit.
    """
    output = forward(model, bag)
    chosen = class_weights(model, output.logits[0], target, contrast)
    return _pools(model, bag, output, chosen)


def class_pools(model: AttentionClassifier, bag: Bag) -> tuple[AttentionPools, ...]:
    """The pools of each of the K classes, from one pass through the model.

    Log-odds and probabilities of sets of patches need them all; see ``xpath.explain.deletion``.

    Args:
        model: The standard or the object-aware classifier.
        bag: The slide.

    Raises:
        DataError: As for ``attention_pools``.
    """
    output = forward(model, bag)
    chosen = (
        class_weights(model, output.logits[0], target, "none")
        for target in range(output.logits.shape[1])
    )
    return tuple(_pools(model, bag, output, weights) for weights in chosen)


def subset_logits(
    pools: AttentionPools,
    patches: NDArray[np.bool_] | None = None,
    objects: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Logits ``(B,)`` of sets of patches and of objects, a number for one set.

    Args:
        pools: From ``attention_pools``.
        patches: ``(B, N)`` or ``(N,)``, True is in; None for all.
        objects: ``(B, L)`` or ``(L,)``, True is in; None for all.
    """
    count, classes = pools.weight.shape
    taken = np.ones(count) if patches is None else np.asarray(patches, np.float64)
    shown = np.ones(classes) if objects is None else np.asarray(objects, np.float64)
    if taken.shape[-1:] != (count,) or shown.shape[-1:] != (classes,):
        raise DataError(
            f"sets must be (B, {count}) patches and (B, {classes}) objects, got"
            f" {taken.shape} and {shown.shape}"
        )
    weights = (taken @ pools.weight) * shown
    return _logits(pools, (taken @ _weighted(pools)) * shown, weights)


def leave_out_patches(pools: AttentionPools) -> NDArray[np.float64]:
    """``(N,)`` the logit minus the logit without each patch: positive where it speaks for it."""
    others = _logits(pools, _without_each(_weighted(pools)), _without_each(pools.weight))
    return np.asarray(pools.logit - others)


def leave_out_objects(pools: AttentionPools) -> NDArray[np.float64]:
    """``(L,)`` the logit minus the logit without each object, 0 where the slide has none."""
    return np.asarray(
        pools.logit - subset_logits(pools, None, ~np.eye(pools.weight.shape[1], dtype=bool))
    )


def leave_out_patch_objects(pools: AttentionPools) -> NDArray[np.float64]:
    """``(N, L)`` the logit minus the logit without each object of each patch, 0 if absent."""
    means = _means(_weighted(pools).sum(axis=0), pools.weight.sum(axis=0))
    weights = _without_each(pools.weight)
    here = pools.weight > 0
    others = means.sum() - means + _means(_without_each(_weighted(pools)), weights)
    divisor = np.full(weights.shape, float(weights.shape[1]))
    if pools.average == "present":
        left = (pools.weight.sum(axis=0) > 0).sum() - (here & ~(weights > 0))
        divisor = np.maximum(left, 1).astype(np.float64)
    return np.where(here, pools.logit - (others / divisor + pools.bias), 0.0)


def deletion_curve(pools: AttentionPools, order: NDArray[np.integer]) -> NDArray[np.float64]:
    """``(..., N + 1)`` logits while patches go one by one, from that of all to the bias.

    Args:
        pools: From ``attention_pools``.
        order: ``(..., N)`` which patch goes first, second, and so on.
    """
    return insertion_curve(pools, order[..., ::-1])[..., ::-1]


def insertion_curve(pools: AttentionPools, order: NDArray[np.integer]) -> NDArray[np.float64]:
    """``(..., N + 1)`` logits while patches come one by one, from the bias to that of all."""
    wanted = np.arange(len(pools.weight))
    if order.shape[-1:] != wanted.shape or not (np.sort(order, axis=-1) == wanted).all():
        raise DataError(f"order must name each of {len(wanted)} patches once")
    return _logits(pools, _running(_weighted(pools)[order]), _running(pools.weight[order]))


def centred_activation(pools: AttentionPools) -> NDArray[np.float64]:
    """``(N,)`` the first-order effect of leaving a patch out: ``Σ_j α_ij (c_ij - A_j) / divisor``.

    The class activation ``α c`` differs from it in sign wherever a patch speaks for the class, but
    less than the slide does: without it, attention moves to others that speak louder.
    """
    attention = pools.attention
    means = (attention * pools.evidence).sum(axis=0)
    present = (pools.weight.sum(axis=0) > 0).sum()
    divisor = pools.weight.shape[1] if pools.average == "all" else max(1, present)
    return np.asarray((attention * (pools.evidence - means)).sum(axis=1) / divisor)


def merged(pools: AttentionPools, groups: NDArray[np.integer]) -> AttentionPools:
    """The pools of the same slide by group of patches: regions, clusters, tissues.

    Args:
        pools: From ``attention_pools``.
        groups: ``(N,)`` group of each patch, 0 to G - 1.
    """
    check_shape("groups", groups, "N", N=len(pools.weight))
    if groups.min() < 0:
        raise DataError(f"groups must be 0, 1, ..., got {int(groups.min())}")
    shape = (int(groups.max()) + 1, pools.weight.shape[1])
    weight, weighted = np.zeros(shape), np.zeros(shape)
    np.add.at(weight, groups, pools.weight)
    np.add.at(weighted, groups, _weighted(pools))
    return replace(pools, weight=weight, evidence=_means(weighted, weight))


def _pools(
    model: AttentionClassifier,
    bag: Bag,
    output: MILOutput | ObjectMILOutput,
    chosen: ClassWeights,
) -> AttentionPools:
    """The pools of a class, checked against the model's own logit."""
    attention, evidence = output.attention.numpy(), (output.instances @ chosen.weight).numpy()
    columns = attention.reshape(len(attention), -1)
    present = np.ones(columns.shape, bool) if bag.present is None else bag.present.cpu().numpy()
    top = columns.max(axis=0, initial=np.finfo(float).tiny)
    with np.errstate(divide="ignore"):
        depth = np.maximum(np.log(columns) - np.log(top), FAINTEST)
    pools = AttentionPools(
        target=chosen.target,
        weight=np.where(present, np.exp(depth), 0.0),
        evidence=evidence.reshape(columns.shape),
        bias=chosen.bias,
        average=getattr(model.config, "average", "all"),
        logit=chosen.logit,
    )
    check_sum(float(subset_logits(pools)), chosen.logit)
    return pools


def _weighted(pools: AttentionPools) -> NDArray[np.float64]:
    return np.asarray(pools.weight * pools.evidence)


def _logits(
    pools: AttentionPools, weighted: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logits ``(...)`` of sums ``(..., L)`` of e c and of e over sets."""
    total = _means(weighted, weights).sum(axis=-1)
    if pools.average == "all":
        return np.asarray(total / weights.shape[-1] + pools.bias)
    return np.asarray(total / np.maximum((weights > 0).sum(axis=-1), 1) + pools.bias)


def _means(weighted: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotients, 0 for empty sets."""
    return np.divide(weighted, weights, out=np.zeros_like(weighted), where=weights > 0)


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums ``(..., N + 1, L)`` over the first 0, 1, ... N rows of ``(..., N, L)``."""
    sums = np.zeros((*values.shape[:-2], values.shape[-2] + 1, values.shape[-1]))
    np.cumsum(values, axis=-2, out=sums[..., 1:, :])
    return sums


def _without_each(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(N, L)`` sums over all rows but one: what comes before plus what comes after."""
    return _running(values)[:-1] + _running(values[::-1])[-2::-1]
