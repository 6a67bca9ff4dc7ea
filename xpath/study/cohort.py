"""The stages that work on all slides together: train the classifiers, fill the tables."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from xpath.batch.claim import claim_in_turn
from xpath.errors import StoreError
from xpath.export.classification_figures import reliability_figure, roc_figure
from xpath.metrics.calibration import reliability
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.cohort import (
    Cohort,
    CohortConfig,
    CohortSlide,
    find_slides,
    not_in_cohort,
    read_cohort,
    split_cohort,
)
from xpath.mil.cohort_tables import enough_patients, write_cohort_tables, write_splits
from xpath.mil.cohort_training import ModelTask, TrainedClassifier, model_tasks, train_cohort
from xpath.mil.feature_cache import FeatureCache
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.splits import patient_of
from xpath.mil.training_job import TrainingJob, train_elsewhere
from xpath.study.keys import STAGE_VERSIONS
from xpath.study.slides import EXPLAINED, ExplainedModels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xpath.batch.runner import Executor
    from xpath.study.config import StudyConfig
    from xpath.study.folder import RunFolder
    from xpath.study.study import Study

__all__ = [
    "cohort_config",
    "labelled_slides",
    "load_explained",
    "train_classifiers",
    "train_on_features",
    "train_on_slides",
    "training_job",
]

logger = logging.getLogger(__name__)


def train_classifiers(study: Study, executor: Executor | None = None) -> Cohort:
    """Trains the classifiers of the settings on a run's slides, and writes tables and figures.

    Only slides with a label and features take part, so the classes are those that can be learnt.

    Args:
        study: The study.
        executor: Where models are trained, by default one after the other in this process.

    Raises:
        DataError: Slides of fewer than two classes, a class too small for the split while others
            are not, or a split that cannot be trained on.
    """
    slides = labelled_slides(study)
    return train_on_slides(
        slides, study.config, study.folder, device=str(study.device), executor=executor
    )


def labelled_slides(study: Study) -> list[CohortSlide]:
    """Slides of a run that classifiers can learn from."""
    return [
        CohortSlide(
            entry.slide_id,
            study.folder.features(entry.slide_id),
            entry.label,
            patient_of(entry.slide_id, entry.patient),
            study.features_key(entry),
            entry.site,
        )
        for entry in study.with_features(entry for entry in study.slides if entry.label)
    ]


def train_on_features(
    features: Path,
    labels: Path,
    config: StudyConfig,
    folder: RunFolder,
    *,
    table: str | None = None,
    keep_na: bool = False,
    executor: Executor | None = None,
) -> Cohort:
    """The same for feature files: those of a run, or of CLAM, TRIDENT, STAMP or LazySlide.

    Of several processes on one folder one trains at a time.

    Args:
        features: Their folder, or that of the run.
        labels: CSV with ``slide_id``, ``label`` and if wanted ``patient`` or ``case_id``.
        config: Settings of split, classifiers and intervals; those of slides play no part.
        folder: Where models, tables and figures go.
        table: Of LazySlide's stores: which table of features, where they have several.
        keep_na: NA, None or ``-`` in the column ``label`` is the name of a class.
        executor: Where models are trained, by default one after the other in this process.

    Raises:
        ConfigError: A device that this machine has not.
        DataError: No labelled slide has features, or as for ``train_classifiers``.
    """
    cohort_config(config, config.objects.device)  # before any file is read
    slides, lost = find_slides(features, labels, keep_na=keep_na)
    with claim_in_turn(folder.split):
        return train_on_slides(
            slides,
            config,
            folder,
            device=config.objects.device,
            left_out=lost,
            table=table,
            executor=executor,
        )


def train_on_slides(
    slides: Sequence[CohortSlide],
    config: StudyConfig,
    folder: RunFolder,
    *,
    device: str,
    left_out: Sequence[str] = (),
    table: str | None = None,
    executor: Executor | None = None,
) -> Cohort:
    """Trains, predicts and scores on labelled feature files. See ``train_classifiers``.

    Args:
        slides: With labels and features.
        config: Settings of split, classifiers and intervals.
        folder: Where models, tables and figures go.
        device: Where classifiers are trained.
        left_out: Slides known to lack features, with the reason.
        table: Of LazySlide's stores: which table of features, where they have several.
        executor: Where models are trained, by default one after the other in this process.
    """
    settings = replace(cohort_config(config, device), table=table)
    cache = FeatureCache(folder.root, memory_gb=config.memory_gb)
    with tqdm(total=len(slides), desc="   reading", unit="slide") as bar:
        cohort = read_cohort(slides, settings, cache=cache, on_slide=lambda _: bar.update())
    absent = not_in_cohort(cohort, settings.split)
    cohort = cohort._replace(left_out=(*left_out, *cohort.left_out, *absent))
    for problem in cohort.left_out:
        logger.warning("left out: %s", problem)
    splits = split_cohort(cohort, settings.split)
    tables = folder.split.parent
    write_splits(tables, cohort, splits)
    tasks = model_tasks(cohort, len(splits), folder.models, config.classifier.seeds)
    with tqdm(total=len(tasks), desc="  training", unit="model") as bar:
        if executor is not None:
            job = training_job(slides, settings, folder, tasks, config.memory_gb)
            train_elsewhere(cohort, splits, job, executor, on_model=bar.update)
            bar.reset()
        trained = train_cohort(
            cohort, splits, settings, folder.models, on_model=lambda *_: bar.update()
        )
    write_cohort_tables(tables, cohort, trained, settings)
    _draw_figures(folder.root / "figures", cohort, trained)
    return cohort


def training_job(
    slides: Sequence[CohortSlide],
    config: CohortConfig,
    folder: RunFolder,
    tasks: Mapping[str, ModelTask],
    memory_gb: float,
) -> TrainingJob:
    """Training of models of a run as work for other processes."""
    root, threads = folder.root.absolute(), torch.get_num_threads()
    there = {name: task._replace(output=task.output.absolute()) for name, task in tasks.items()}
    return TrainingJob(tuple(slides), config, there, root, memory_gb, threads)


def load_explained(study: Study) -> tuple[ExplainedModels, ...]:
    """The trained classifiers that are explained, of each fold.

    Raises:
        CheckpointError: One cannot be read.
        StoreError: They were not trained yet, or only one of them was, on other classes.
    """
    root = study.folder.root
    if not set(EXPLAINED) <= set(study.config.classifier.models):
        raise StoreError(
            f"slides are explained by the classifiers {' and '.join(EXPLAINED)}, and"
            f" classifier.models of {root} lacks one of them; start a run that trains both"
        )
    loaded = []
    for fold in range(study.config.split.folds):
        paths = [study.model_folder(name, fold) for name in EXPLAINED]
        if not all(path.exists() for path in paths):
            raise StoreError(
                f"{root} has no classifiers yet; run `xpath train LABELS.csv --out {root}` first"
            )
        models = ExplainedModels(
            AttentionMIL.from_pretrained(paths[0]), ObjectAwareMIL.from_pretrained(paths[1])
        )
        if models.attention.classes != models.object_aware.classes:
            raise StoreError(
                f"the classifiers in {root} know other classes, {models.attention.classes} and"
                f" {models.object_aware.classes}: the training was cut short; run `xpath train`"
                " again"
            )
        loaded.append(models)
    return tuple(loaded)


def cohort_config(config: StudyConfig, device: str) -> CohortConfig:
    """Settings of split and classifiers, out of those of a run."""
    return CohortConfig(
        split=config.split,
        classifier=config.classifier,
        min_coverage=config.objects.min_coverage,
        draws=config.explain.resamples,
        seed=config.explain.seed,
        device=device,
        version=STAGE_VERSIONS["models"],
    )


def _draw_figures(folder: Path, cohort: Cohort, trained: Sequence[TrainedClassifier]) -> None:
    """``roc.png`` and ``reliability.png`` of the test slides, where there are any."""
    tested = {one.name: one.predictions["test"] for one in trained if "test" in one.predictions}
    if not tested:
        return
    first = next(iter(tested.values()))
    label = first.predictions.label
    if enough_patients(cohort, first):
        roc_figure(
            folder / "roc.png",
            {name: pooled.predictions.probability[:, 1] for name, pooled in tested.items()},
            label,
            positive=cohort.sizes.classes[1],
            groups=[cohort.patients[i] for i in first.bag_index],
        )
    curves = {
        name: reliability(pooled.predictions.probability, label, bins=10, equal_mass=True)
        for name, pooled in tested.items()
    }
    reliability_figure(folder / "reliability.png", curves)
