"""Evidence on the objects of a cohort: classifiers trained again, asked about slides held out.

Axes: B slides, F folds, T test slides of all folds, K classes, L object classes, D features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from xpath.explain.contributions import class_contrasts
from xpath.explain.head import forward, linear_head
from xpath.explain.verdict import area_alone, evidence, leave_object_out
from xpath.metrics.bootstrap import difference_interval
from xpath.mil.cohort_training import fresh_classifier
from xpath.mil.fractions import object_fractions

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.explain.verdict import Evidence
    from xpath.mil.bag import Bag
    from xpath.mil.cohort import Cohort, CohortConfig
    from xpath.mil.object_aware import ObjectAwareMIL
    from xpath.mil.splits import Split

__all__ = ["object_evidence"]


class _Training(NamedTuple):
    """Figures of one classifier on the test slides of its fold."""

    rise: NDArray[np.float64]
    """``(T, L)`` of ``leave_object_out``."""
    added: NDArray[np.float64]
    """``(T, K, L)`` contributions beyond their means over the training slides."""


def object_evidence(
    cohort: Cohort,
    splits: Sequence[Split],
    config: CohortConfig,
    hiding_q: Mapping[str, float],
    *,
    needed: Container[str],
    seeds: int,
) -> list[Evidence]:
    """Four checks and a verdict on each object, over the test slides of all folds.

    Args:
        cohort: With bags of objects and of coverage.
        splits: One per fold.
        config: How the object-aware classifier is built and trained.
        hiding_q: By object, of ``class_benefit``; of those that were asked about.
        needed: Objects that a class needs (``ImportanceRow.supports``).
        seeds: Trainings of each fold, from first weights of their own.

    Returns:
        One for each object class that some slide has, in their order; none without test slides of
        two classes.
    """
    labels = np.array([bag.label for bag in cohort.bags["objects"]])
    test = np.concatenate([split.test for split in splits])
    if len(np.unique(labels[test])) < 2:
        return []
    patients = [cohort.patients[i] for i in test]
    rises, held = [], []
    for seed in range(seeds):
        trained = [_trained_again(cohort, split, config, labels, seed) for split in splits]
        rises.append(np.concatenate([one.rise for one in trained]))
        added = np.concatenate([one.added for one in trained])
        held.append(_distinguishes(added, labels[test], patients))
    fractions = np.stack([
        object_fractions(bag.features.float().numpy()) for bag in cohort.bags["coverage"]
    ])
    areas = area_alone(
        fractions, labels, splits, classes=cohort.sizes.classes, patients=cohort.patients
    )
    return [
        evidence(
            name,
            hiding_q=hiding_q.get(name, math.nan),
            needed=name in needed,
            rise=np.mean(rises, axis=0)[:, j],
            area=areas[j],
            held=[bool(one[j]) for one in held],
            patients=patients,
        )
        for j, name in enumerate(cohort.sizes.objects)
        if fractions[:, j].any()
    ]


def _trained_again(
    cohort: Cohort, split: Split, config: CohortConfig, labels: NDArray[np.int64], seed: int
) -> _Training:
    """The object-aware classifier of a fold, from other first weights, on its test slides."""
    again = fresh_classifier(cohort, "object_aware", split, config, seed=seed)
    model, (train, _, test) = cast("ObjectAwareMIL", again), split
    pooled = np.stack([_object_features(model, bag) for bag in cohort.bags["objects"]])
    weight = linear_head(model).weight.numpy()
    added = np.einsum("kd,bld->bkl", weight, pooled)
    return _Training(
        leave_object_out(pooled[train], labels[train], pooled[test], labels[test]),
        added[test] - added[train].mean(axis=0),  # each model has offsets of its own
    )


def _object_features(model: ObjectAwareMIL, bag: Bag) -> NDArray[np.float64]:
    """Slide features of each object ``(L, D)``, whose sum the last layer reads."""
    output = forward(model, bag)
    return np.asarray((output.embedding[0] / output.divisor[0]).numpy())


def _distinguishes(
    added: NDArray[np.float64], labels: NDArray[np.int64], patients: Sequence[str]
) -> NDArray[np.bool_]:
    """For each object, whether it adds more to a class on its slides, ``added`` is (T, K, L)."""
    towards, owner = class_contrasts(added), np.asarray(patients)
    lows = np.full(added.shape[1:], -np.inf)
    for k in np.unique(labels):
        own, rest = labels == k, labels != k
        groups = owner[own].tolist(), owner[rest].tolist()
        for j in range(added.shape[2]):
            lows[k, j] = difference_interval(towards[own, k, j], towards[rest, k, j], groups).low
    return np.asarray((lows > 0).any(axis=0))
