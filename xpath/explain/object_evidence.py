"""Evidence on the objects of a cohort: classifiers trained again, asked about slides held out.

Axes: B slides, F folds, T test slides of all folds, K classes, L object classes, D features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.explain.contributions import class_contrasts
from xpath.explain.head import forward, linear_head
from xpath.explain.verdict import area_alone, evidence, leave_object_out
from xpath.metrics.bootstrap import difference_interval
from xpath.mil.fractions import object_fractions

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.explain.verdict import Evidence
    from xpath.mil.bag import Bag
    from xpath.mil.cohort import Cohort
    from xpath.mil.object_aware import ObjectAwareMIL
    from xpath.mil.splits import Split

__all__ = ["held_out_classes", "object_evidence"]


class _Training(NamedTuple):
    """Figures of one classifier on the test slides of its fold."""

    rise: NDArray[np.float64]
    """``(T, L)`` of ``leave_object_out``."""
    added: NDArray[np.float64]
    """``(T, K, L)`` contributions beyond their means over the training slides."""


def object_evidence(
    cohort: Cohort,
    splits: Sequence[Split],
    hiding_q: Mapping[str, float],
    *,
    needed: Container[str],
    seeds: int,
    classifier: Callable[[int, int], ObjectAwareMIL],
) -> list[Evidence]:
    """Four checks and a verdict on each object, over the test slides of all folds.

    Args:
        cohort: With bags of objects and of coverage.
        splits: One per fold.
        hiding_q: By object, of ``class_benefit``; of those that were asked about.
        needed: Objects that a class needs (``ImportanceRow.supports``).
        seeds: Trainings of each fold, from first weights of their own.
        classifier: The object-aware classifier of a fold and a seed, trained.

    Returns:
        One for each object class that some slide has, in their order; none without test slides of
        two classes, nor where a fold tests a class that it was not taught, as a table of splits
        may.
    """
    labels = np.array([bag.label for bag in cohort.bags["objects"]])
    test = np.concatenate([split.test for split in splits])
    taught = all(np.isin(labels[split.test], labels[split.train]).all() for split in splits)
    if not taught or held_out_classes(cohort, splits) < 2:
        return []
    patients = [cohort.patients[i] for i in test]
    rises, held = [], []
    for seed in range(seeds):
        trained = [
            _shown(classifier(fold, seed), cohort, split, labels)
            for fold, split in enumerate(splits)
        ]
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


def held_out_classes(cohort: Cohort, splits: Sequence[Split]) -> int:
    """Number of classes the test slides of all folds have."""
    bags = cohort.bags["objects"]
    return len({bags[i].label for split in splits for i in split.test})


def _shown(
    model: ObjectAwareMIL, cohort: Cohort, split: Split, labels: NDArray[np.int64]
) -> _Training:
    """Evidence that a classifier gives on the test slides of its fold."""
    train, _, test = split
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
