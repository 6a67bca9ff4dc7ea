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
from xpath.explain.grouping import FEWEST_SLIDES, redundant_groups
from xpath.explain.object_evidence import held_out_classes, object_evidence
from xpath.explain.verdict import Evidence
from xpath.mil.cohort import read_cohort, split_cohort
from xpath.mil.cohort_training import ModelTask, is_trained, train_model
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.splits import patient_of
from xpath.mil.training_job import train_elsewhere
from xpath.store.tables import write_table
from xpath.study.cohort import cohort_config, labelled_slides, training_job
from xpath.study.folder import slide_splits
from xpath.study.slides import explain_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.batch.runner import Executor
    from xpath.batch.slides import SlideEntry
    from xpath.explain.explanation import Explanation
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
    object over all classes, on the test slides: on those it learnt from, a model's needs go with
    the class whatever they are. It is not known where these are of one class. Slides of which
    hiding leaves nothing are not in the test, and labels that are no class not in the table. Where
    ``taught`` is false
    the segmentor never learnt the object, and its masks are guesses; ``answers_for`` are the labels
    that were asked for and that it answers in their place.
    """
    explained = _explained(study)
    slides = [one.explanation.importance for one in explained]
    patients, settings = _patients(study), study.config.explain
    rows = cohort_importance(slides, study.classes, patients=patients)
    held_out = [one.explanation.importance for one in _held_out(study, explained)]
    tested = [slide for slide in held_out if np.isfinite(slide.needs).all()]
    labels = {slide.slide_id: slide.target for slide in tested}
    tests = {}
    if len(set(labels.values())) > 1:
        tests = {
            row.object: {name: getattr(row, name) for name in TESTED}
            for row in class_benefit(
                tested, labels, patients=patients, resamples=settings.resamples, seed=settings.seed
            )
        }
    unknown = dict.fromkeys(TESTED, math.nan)
    table = [
        asdict(row) | tests.get(row.object, unknown) | study.asked.columns(row.object)
        for row in rows
    ]
    write_table(study.folder.table("importance"), table, columns=("object", "class_name"))
    return table


def tabulate_contributions(study: Study) -> list[dict[str, Any]]:
    """Contributions over all explained slides, ``tables/contributions.csv``. Returns its rows.

    Objects whose masks or contributions go together have the same ``group``: read them as one. The
    rows are of the test slides. Where these are of one class they are of all explained ones, and
    without ``p`` and ``q``. No rows where these are of one class too.
    """
    explained = _explained(study)
    slides = _held_out(study, explained)
    proven = len({one.entry.label for one in slides}) > 1
    slides = slides if proven else explained
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
        unknown = {} if proven else dict.fromkeys(("p", "q", "least_q"), math.nan)
        table = [asdict(row) | unknown | {"group": groups[row.object]} for row in rows]
    write_table(study.folder.table("contributions"), table, columns=("object", "class_name"))
    return table


def tabulate_evidence(
    study: Study, importance: Sequence[Mapping[str, Any]], executor: Executor | None = None
) -> list[dict[str, Any]]:
    """Four checks and a verdict on each object, ``tables/evidence.csv``. Returns its rows.

    Classifiers are trained again on the training slides of the run, of each fold, and asked about
    its test slides. No rows without test slides of two classes. What is trained again stays in
    ``models``, for the next time.

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
        if held_out_classes(cohort, splits) > 1:
            tasks = _tasks(study, cohort, splits, config)
            if executor is not None:
                by_name = {task.output.name: task for task in tasks.values()}
                job = training_job(slides, config, study.folder, by_name, study.config.memory_gb)
                train_elsewhere(cohort, splits, job, executor)

            def classifier(fold: int, seed: int) -> ObjectAwareMIL:
                return _trained_again(cohort, tasks[fold, seed], splits[fold], config)

            q = {row["object"]: float(row["q"]) for row in importance}
            needed = {row["object"] for row in importance
                      if min(row["effect_low"], row["need_low"]) > 0}  # fmt: skip
            rows = object_evidence(
                cohort, splits, q, needed=needed, seeds=seeds, classifier=classifier
            )
    write_table(study.folder.table("evidence"), rows, Evidence)
    return [asdict(row) for row in rows]


def _tasks(
    study: Study, cohort: Cohort, splits: Sequence[Split], config: CohortConfig
) -> dict[tuple[int, int], ModelTask]:
    """The object-aware classifier of each fold from several first weights, by fold and seed.

    The first is the run's own, unless that was trained on other slides than there are now.
    """
    tasks = {}
    for fold, split in enumerate(splits):
        own = study.model_folder("object_aware", fold)
        for seed in range(study.config.explain.evidence_seeds):
            number = fold + len(splits) * seed  # the first as in training
            task = ModelTask("object_aware", fold, number, own)
            if seed or not is_trained(cohort, task, split, config):
                task = task._replace(output=own.with_name(f"{own.name}_seed_{seed}"))
            tasks[fold, seed] = task
    return tasks


def _trained_again(
    cohort: Cohort, task: ModelTask, split: Split, config: CohortConfig
) -> ObjectAwareMIL:
    train_model(cohort, task, split, config)
    return ObjectAwareMIL.from_pretrained(task.output).to(config.device)


def _groups(
    slides: Sequence[_Explained], values: NDArray[np.float64], objects: Sequence[str]
) -> dict[str, str]:
    """Names of all objects that go with each, itself among them."""
    shared = np.zeros((len(objects), len(objects)), np.int64)
    first = slides[0].explanation.shared
    masked = len(first)  # the rest of the patches, if it is an object, comes last and has no mask
    shared[:masked, :masked] = sum(one.explanation.shared for one in slides)
    groups = redundant_groups(shared, _towards(values), objects)
    return {name: " + ".join(group) for group in groups for name in group}


def _towards(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Contributions ``(S, L)`` to the log-odds, of more classes those to each below each other.

    So what goes together does so for every class. Of few slides none, as these say nothing.
    """
    towards = class_contrasts(values)
    if towards.shape[1] == 2:
        return np.asarray(towards[:, -1])
    rows = (towards - towards.mean(axis=0)).reshape(-1, towards.shape[2])
    return np.asarray(rows if len(towards) >= FEWEST_SLIDES else rows[:0])


def _explained(study: Study) -> list[_Explained]:
    """Slides of a class whose explanation is done with the settings of the run."""
    done = []
    for entry in study.slides_to_explain():
        if entry.label not in study.classes:
            continue
        path = study.folder.explanation(entry.slide_id)
        if path.exists() and is_done(path, explain_key(study, entry)):
            done.append(_Explained(entry, read_explanation(path)))
    return done


def _held_out(study: Study, slides: Sequence[_Explained]) -> list[_Explained]:
    """Those on which no classifier was trained or chosen."""
    splits = slide_splits(study.folder)
    return [one for one in slides if splits.get(one.entry.slide_id) == "test"]


def _patients(study: Study) -> dict[str, str]:
    return {e.slide_id: patient_of(e.slide_id, e.patient) for e in study.slides}
