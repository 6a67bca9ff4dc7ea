"""Tables over all explained slides: importance, contributions, and the evidence on each object.

Axes: S slides, K classes, L object classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.batch.done import is_done
from xpath.explain.cohort import class_benefit, cohort_importance
from xpath.explain.contributions import class_contrasts, cohort_contributions
from xpath.explain.explanation import read_explanation
from xpath.explain.grouping import redundant_groups
from xpath.explain.head import forward, linear_head
from xpath.explain.verdict import Evidence, area_alone, evidence, leave_object_out
from xpath.metrics.bootstrap import difference_interval
from xpath.mil.cohort import read_cohort, split_cohort
from xpath.mil.cohort_training import ModelTask, is_trained, train_model
from xpath.mil.fractions import object_fractions
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.splits import patient_of
from xpath.mil.training_job import train_elsewhere
from xpath.store.tables import write_table
from xpath.study.cohort import cohort_config, labelled_slides, training_job
from xpath.study.slides import explain_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.batch.runner import Executor
    from xpath.batch.slides import SlideEntry
    from xpath.explain.explanation import Explanation
    from xpath.mil.bag import Bag
    from xpath.mil.cohort import Cohort, CohortConfig
    from xpath.mil.splits import Split
    from xpath.study.study import Study

__all__ = ["tabulate_contributions", "tabulate_evidence", "tabulate_importance"]

TESTED = ("benefit", "p", "q", "least_q")
"""Columns of ``tables/importance.csv`` that are of an object over all classes."""


class _Explained(NamedTuple):
    """A labelled slide and its explanation."""

    entry: SlideEntry
    explanation: Explanation


def tabulate_importance(study: Study) -> list[dict[str, Any]]:
    """Importance over all explained slides, ``tables/importance.csv``. Returns its rows.

    A row is of an object and a class; whether the need goes with the true class (``q``) is of the
    object over all classes, and not known where the slides are of one.
    """
    slides = [one.explanation.importance for one in _explained(study)]
    patients, settings = _patients(study), study.config.explain
    rows = cohort_importance(slides, study.classes, patients=patients)
    labels = {slide.slide_id: slide.target for slide in slides}
    tests = {}
    if len(set(labels.values())) > 1:
        tests = {
            row.object: {name: getattr(row, name) for name in TESTED}
            for row in class_benefit(
                slides, labels, patients=patients, resamples=settings.resamples, seed=settings.seed
            )
        }
    unknown = dict.fromkeys(TESTED, math.nan)
    table = [asdict(row) | tests.get(row.object, unknown) for row in rows]
    write_table(study.folder.table("importance"), table, columns=("object", "class_name"))
    return table


def tabulate_contributions(study: Study) -> list[dict[str, Any]]:
    """Contributions over all explained slides, ``tables/contributions.csv``. Returns its rows.

    Objects whose masks or contributions go together have the same ``group``: read them as one. No
    rows where the slides are of one class.
    """
    slides = [one for one in _explained(study) if one.entry.label in study.classes]
    labels = np.array([study.classes.index(one.entry.label) for one in slides])
    table: list[dict[str, Any]] = []
    if len(np.unique(labels)) > 1:
        objects = slides[0].explanation.object.objects
        values = np.stack([one.explanation.object.class_contribution for one in slides])
        patients, settings = _patients(study), study.config.explain
        rows = cohort_contributions(
            values,
            labels,
            [patients[one.entry.slide_id] for one in slides],
            objects=objects,
            classes=study.classes,
            rng=np.random.default_rng(settings.seed),
            resamples=settings.resamples,
        )
        groups = _groups(slides, values, objects)
        table = [asdict(row) | {"group": groups[row.object]} for row in rows]
    write_table(study.folder.table("contributions"), table, columns=("object", "class_name"))
    return table


def tabulate_evidence(
    study: Study, importance: Sequence[Mapping[str, Any]], executor: Executor | None = None
) -> list[dict[str, Any]]:
    """Four checks and a verdict on each object, ``tables/evidence.csv``. Returns its rows.

    Classifiers are trained again on the training slides of the run, of several folds the first, and
    asked about its test slides. No rows without test slides of two classes. What is trained again
    stays in ``models``, for the next time.

    Args:
        study: Its classifiers are trained.
        importance: Rows of ``tables/importance.csv``.
        executor: Where models are trained again, by default in this process.
    """
    seeds, rows = study.config.explain.evidence_seeds, []
    config = cohort_config(study.config, str(study.device))
    if seeds and "object_aware" in config.classifier.models:
        models = ("object_aware", "object_fractions")
        config = replace(config, classifier=replace(config.classifier, models=models))
        slides = labelled_slides(study)
        cohort = read_cohort(slides, config)
        splits = split_cohort(cohort, config.split)
        labels = np.array([bag.label for bag in cohort.bags["objects"]])
        if len(np.unique(labels[splits[0].test])) > 1:
            tasks = _tasks(study, cohort, splits[0], config)
            if executor is not None:
                job = training_job(slides, config, study.folder, tasks, study.config.memory_gb)
                train_elsewhere(cohort, splits, job, executor)
            again = [_trained_again(cohort, task, splits[0], config) for task in tasks.values()]
            rows = _evidence(cohort, splits[0], labels, again, importance)
    write_table(study.folder.table("evidence"), rows, Evidence)
    return [asdict(row) for row in rows]


def _evidence(
    cohort: Cohort,
    split: Split,
    labels: NDArray[np.int64],
    models: Sequence[ObjectAwareMIL],
    importance: Sequence[Mapping[str, Any]],
) -> list[Evidence]:
    """Evidence on each object, in their order."""
    bags, train, test = cohort.bags["objects"], split.train, split.test
    patients = [cohort.patients[i] for i in test]
    rises, held = [], []
    for model in models:
        pooled = np.stack([_object_features(model, bag) for bag in bags])
        rises.append(leave_object_out(pooled[train], labels[train], pooled[test], labels[test]))
        weight = linear_head(model).weight.numpy()
        added = np.einsum("kd,sld->skl", weight, pooled[test])
        held.append(_distinguishes(added, labels[test], patients))
    fractions = np.stack([
        object_fractions(bag.features.float().numpy()) for bag in cohort.bags["coverage"]
    ])
    areas = area_alone(
        fractions[train], labels[train], fractions[test], labels[test],
        classes=cohort.sizes.classes, patients=patients,
    )  # fmt: skip
    q = {row["object"]: float(row["q"]) for row in importance}
    return [
        evidence(
            name,
            hiding_q=q.get(name, math.nan),
            rise=np.mean(rises, axis=0)[:, j],
            area=areas[j],
            held=[bool(one[j]) for one in held],
            patients=patients,
        )
        for j, name in enumerate(cohort.sizes.objects)
    ]


def _tasks(
    study: Study, cohort: Cohort, split: Split, config: CohortConfig
) -> dict[str, ModelTask]:
    """The object-aware classifier from other first weights, by the names of the folders.

    The first is the run's own, unless that was trained on other slides than there are now.
    """
    tasks = {}
    for seed in range(study.config.explain.evidence_seeds):
        own = ModelTask("object_aware", 0, seed, study.model_folder("object_aware"))
        again = own._replace(output=study.folder.model(f"object_aware_seed_{seed}"))
        task = again if seed or not is_trained(cohort, own, split, config) else own
        tasks[task.output.name] = task
    return tasks


def _trained_again(
    cohort: Cohort, task: ModelTask, split: Split, config: CohortConfig
) -> ObjectAwareMIL:
    train_model(cohort, task, split, config)
    return ObjectAwareMIL.from_pretrained(task.output).to(config.device)


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


def _groups(
    slides: Sequence[_Explained], values: NDArray[np.float64], objects: Sequence[str]
) -> dict[str, str]:
    """Names of all objects that go with each, itself among them."""
    shared = np.zeros((len(objects), len(objects)), np.int64)
    first = slides[0].explanation.shared
    masked = len(first)  # the rest of the patches, if it is an object, comes last and has no mask
    shared[:masked, :masked] = sum(one.explanation.shared for one in slides)
    groups = redundant_groups(shared, class_contrasts(values)[:, -1], objects)
    return {name: " + ".join(group) for group in groups for name in group}


def _explained(study: Study) -> list[_Explained]:
    """Labelled slides whose explanation is done with the settings of the run."""
    done = []
    for entry in study.slides_to_explain():
        path = study.folder.explanation(entry.slide_id)
        if entry.label and path.exists() and is_done(path, explain_key(study, entry)):
            done.append(_Explained(entry, read_explanation(path)))
    return done


def _patients(study: Study) -> dict[str, str]:
    return {e.slide_id: patient_of(e.slide_id, e.patient) for e in study.slides}
