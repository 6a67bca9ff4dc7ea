"""Classifiers of a cohort: trained by name, once per fold, and asked about the slides held out.

Axes: B slides, F folds.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.batch.done import is_done, key_of, make_once
from xpath.metrics.calibration import COOLEST, HOTTEST
from xpath.mil.classifier import CLASSIFIERS, ClassifierConfig
from xpath.mil.cross_validation import (
    OutOfFold,
    model_temperature,
    predict_held_out,
    seeded_build,
)
from xpath.mil.splits import SPLITS, Split
from xpath.mil.training import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from xpath.mil.bag import Bag
    from xpath.mil.checkpoint import Pretrained
    from xpath.mil.cohort import Cohort, CohortConfig

__all__ = [
    "ModelTask",
    "TrainedClassifier",
    "fresh_classifier",
    "is_trained",
    "model_name",
    "model_tasks",
    "train_cohort",
    "train_model",
]

logger = logging.getLogger(__name__)

ENOUGH = 12
"""Validation slides from which a temperature is fitted unasked. Of fewer, were all of them right,
it would be too low."""


class ModelTask(NamedTuple):
    """A classifier to train."""

    name: str
    """Its type, from ``CLASSIFIERS``."""
    fold: int
    seed: int
    """Added to the seed of the settings."""
    output: Path
    """Folder of the checkpoint."""


class TrainedClassifier(NamedTuple):
    """A classifier of a cohort, trained once per fold, and its predictions."""

    name: str
    predictions: Mapping[str, OutOfFold]
    """By split: ``test``, and of a single fold ``train`` and ``validation`` too. A split without
    slides is left out."""
    temperatures: tuple[float | None, ...]
    """``(F,)``; None where the validation slides are too few to fit one, or tell none."""
    repeats: tuple[OutOfFold, ...] = ()
    """Of the test slides, by each seed; the first is that of ``predictions``. Empty without test
    slides."""


def train_cohort(
    cohort: Cohort,
    splits: Sequence[Split],
    config: CohortConfig,
    folder: Path,
    on_model: Callable[[str, int], None] | None = None,
) -> list[TrainedClassifier]:
    """Trains every classifier on every fold, and predicts the slides.

    A checkpoint that is done with the same slides, settings and features stays.

    Args:
        cohort: The slides.
        splits: One per fold.
        config: How classifiers are built and trained; of F folds fold f with seed
            ``train.seed + f``, and again ``classifier.seeds - 1`` times with F more each.
        folder: For the checkpoints, ``<name>``, or with folds ``<name>_<fold>``, and of further
            seeds ``<name>_<fold>_seed<number>``.
        on_model: Called with name and fold when a model is trained.

    Returns:
        The classifiers in the order of ``cohort.models``.

    Raises:
        DataError: A split that cannot be trained on, or nothing to calibrate on.
    """
    trained, seeds = [], config.classifier.seeds
    tasks = model_tasks(cohort, len(splits), folder, seeds)
    for name in cohort.models:
        bags = cohort.bags_for(name)
        models: list[list[Pretrained]] = []
        for seed in range(seeds):
            of_seed = [tasks[model_name(name, f, len(splits), seed)] for f in range(len(splits))]
            models.append([_model(cohort, task, splits, config, on_model) for task in of_seed])
        temperatures = [
            _temperature(model, [bags[i] for i in split.validation], config.classifier.calibrate)
            for model, split in zip(models[0], splits, strict=True)
        ]
        used = [(t if config.classifier.calibrate else None) or 1.0 for t in temperatures]
        predictions = {
            split_name: predict_held_out(models[0], bags, [split[n] for split in splits], used)
            for n, split_name in enumerate(SPLITS)
            if (len(splits) == 1 or split_name == "test") and len(splits[0][n])
        }
        repeats = _repeats(models, bags, splits, predictions.get("test"))
        trained.append(TrainedClassifier(name, predictions, tuple(temperatures), repeats))
    return trained


def _model(
    cohort: Cohort,
    task: ModelTask,
    splits: Sequence[Split],
    config: CohortConfig,
    on_model: Callable[[str, int], None] | None,
) -> Pretrained:
    """The model of a task, trained now or before."""
    train_model(cohort, task, splits[task.fold], config)
    if on_model:
        on_model(task.name, task.fold)
    return CLASSIFIERS[task.name].model.from_pretrained(task.output).to(config.device)


def _repeats(
    models: Sequence[Sequence[Pretrained]],
    bags: Sequence[Bag],
    splits: Sequence[Split],
    first: OutOfFold | None,
) -> tuple[OutOfFold, ...]:
    """Predictions of the test slides by the models of each seed."""
    if first is None:
        return ()
    held, plain = [split.test for split in splits], [1.0] * len(splits)
    return (first, *(predict_held_out(several, bags, held, plain) for several in models[1:]))


def fresh_classifier(
    cohort: Cohort, name: str, split: Split, config: CohortConfig, *, seed: int
) -> Pretrained:
    """A classifier trained on a split from first weights of its own, kept nowhere.

    Args:
        cohort: The slides.
        name: From ``CLASSIFIERS``.
        split: Which of them train, and which choose the epoch.
        config: How it is built and trained.
        seed: Of first weights, order and dropout, counted from ``train.seed``.

    Raises:
        DataError: A split that cannot be trained on.
    """
    row, settings = CLASSIFIERS[name], config.classifier.settings_of(name)
    training, bags = _seeded(config, seed), cohort.bags_for(name)
    # On the CPU first: so the first weights are the same on every device.
    model: Pretrained = seeded_build(lambda: row.build(cohort.sizes, settings), training.seed)
    model.to(config.device)
    row.fit(model, [bags[i] for i in split.train], [bags[i] for i in split.validation], training)
    return model


def model_tasks(cohort: Cohort, folds: int, folder: Path, seeds: int = 1) -> dict[str, ModelTask]:
    """Every classifier on every fold and from every seed, by the name of its folder."""
    return {
        (own := model_name(name, fold, folds, seed)): ModelTask(
            name, fold, fold + seed * folds, folder / own
        )
        for name in cohort.models
        for seed in range(seeds)
        for fold in range(folds)
    }


def model_name(name: str, fold: int, folds: int, seed: int = 0) -> str:
    """Folder of a classifier's checkpoint: its name, with fold and seed where there are several."""
    of_fold = name if folds == 1 else f"{name}_{fold}"
    return f"{of_fold}_seed{seed}" if seed else of_fold


def is_trained(cohort: Cohort, task: ModelTask, split: Split, config: CohortConfig) -> bool:
    """True if the checkpoint is done with these slides, settings and features."""
    return is_done(task.output, _key(cohort, task, split, config))


def train_model(cohort: Cohort, task: ModelTask, split: Split, config: CohortConfig) -> None:
    """Trains a classifier on one split, unless its checkpoint is done.

    Raises:
        Busy: Another process is training it.
        DataError: A split that cannot be trained on.
    """

    def produce() -> None:
        model = fresh_classifier(cohort, task.name, split, config, seed=task.seed)
        model.metadata |= {**cohort.about, "slides": _slides_of(cohort, split)}
        model.save_pretrained(task.output)

    make_once(task.output, _key(cohort, task, split, config), produce)


def _key(cohort: Cohort, task: ModelTask, split: Split, config: CohortConfig) -> str:
    settings = config.classifier.settings_of(task.name)
    return key_of(
        task.name, config.version, config.min_coverage, cohort.sizes.classes,
        _slides_of(cohort, split), cohort.sizes.objects,
        _changed(settings, ClassifierConfig().settings_of(task.name)),
        _changed(asdict(_seeded(config, task.seed)), asdict(TrainConfig())),
        [(slide.slide_id, slide.label, slide.key) for slide in cohort.slides],
        *([config.table] if config.table else []),
    )  # fmt: skip


def _slides_of(cohort: Cohort, split: Split) -> dict[str, list[str]]:
    """Names of the slides of each split."""
    return {
        split_name: [cohort.slides[i].slide_id for i in indices]
        for split_name, indices in zip(SPLITS, split, strict=True)
    }


def _seeded(config: CohortConfig, seed: int) -> TrainConfig:
    """The training of the settings with a seed beyond theirs."""
    return replace(config.classifier.train, seed=config.classifier.train.seed + seed)


def _changed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ: one that is added with a default leaves what is done as it is."""
    return {name: value for name, value in settings.items() if value != defaults.get(name)}


def _temperature(model: Pretrained, bags: Sequence[Bag], asked: bool) -> float | None:  # noqa: FBT001 - private
    """Temperature from validation slides, None if they are few, unless it was asked for.

    None as well where the search ends at a border: of slides that are all right no probability is
    sure enough, of slides that are no better than chance none unsure enough.
    """
    classes = {bag.label for bag in bags}
    if not asked and (len(bags) < ENOUGH or len(classes) < len(model.classes)):
        return None
    temperature = model_temperature(model, bags)
    if COOLEST * 1.001 < temperature < HOTTEST * 0.999:
        return temperature
    if asked:
        logger.warning(
            "%d validation slides tell no temperature of %s, as they are all right or no better"
            " than chance; its probabilities are not calibrated",
            len(bags),
            model.model_type,
        )
    return None
