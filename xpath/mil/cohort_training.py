"""Classifiers of a cohort: trained by name, once per fold, and asked about the slides held out.

Axes: B slides, F folds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.batch.done import key_of, make_once
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

__all__ = ["TrainedClassifier", "model_name", "train_cohort"]

ENOUGH = 12
"""Validation slides from which a temperature is fitted unasked. Of fewer, were all of them right,
it would be too low."""


class TrainedClassifier(NamedTuple):
    """A classifier of a cohort, trained once per fold, and its predictions."""

    name: str
    predictions: Mapping[str, OutOfFold]
    """By split: ``test``, and of a single fold ``train`` and ``validation`` too. A split without
    slides is left out."""
    temperatures: tuple[float | None, ...]
    """``(F,)``; None where there were too few validation slides to fit one."""
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
    trained = []
    trainer = _Trainer(
        cohort=cohort, splits=splits, config=config, folder=folder, on_model=on_model
    )
    for name in cohort.models:
        bags, temperatures = cohort.bags_for(name), []
        seeds = [trainer.models(name, bags, seed) for seed in range(config.classifier.seeds)]
        for model, split in zip(seeds[0], splits, strict=True):
            held = [bags[i] for i in split.validation]
            temperatures.append(_temperature(model, held, config.classifier.calibrate))
        used = [(t if config.classifier.calibrate else None) or 1.0 for t in temperatures]
        predictions = {
            split_name: predict_held_out(seeds[0], bags, [split[n] for split in splits], used)
            for n, split_name in enumerate(SPLITS)
            if (len(splits) == 1 or split_name == "test") and len(splits[0][n])
        }
        repeats: tuple[OutOfFold, ...] = ()
        if "test" in predictions:
            held_out, plain = [split.test for split in splits], [1.0] * len(splits)
            others = [predict_held_out(models, bags, held_out, plain) for models in seeds[1:]]
            repeats = (predictions["test"], *others)
        trained.append(TrainedClassifier(name, predictions, tuple(temperatures), repeats))
    return trained


def model_name(name: str, fold: int, folds: int, seed: int = 0) -> str:
    """Folder of a classifier's checkpoint: its name, with fold and seed where there are several."""
    of_fold = name if folds == 1 else f"{name}_{fold}"
    return f"{of_fold}_seed{seed}" if seed else of_fold


@dataclass(frozen=True, kw_only=True)
class _Trainer:
    """Trains models of a cohort into a folder."""

    cohort: Cohort
    splits: Sequence[Split]
    config: CohortConfig
    folder: Path
    on_model: Callable[[str, int], None] | None

    def models(self, name: str, bags: Sequence[Bag], seed: int) -> list[Pretrained]:
        """The model of every fold from one seed, trained now or before."""
        models = []
        for fold, split in enumerate(self.splits):
            output = self.folder / model_name(name, fold, len(self.splits), seed)
            self._train_one(name, bags, fold + seed * len(self.splits), split, output)
            model = CLASSIFIERS[name].model.from_pretrained(output)
            models.append(model.to(self.config.device))
            if self.on_model:
                self.on_model(name, fold)
        return models

    def _train_one(
        self, name: str, bags: Sequence[Bag], number: int, split: Split, output: Path
    ) -> None:
        """Trains one model, its seed the run's and ``number`` more."""
        cohort, config = self.cohort, self.config
        row, settings = CLASSIFIERS[name], config.classifier.settings_of(name)
        training = replace(config.classifier.train, seed=config.classifier.train.seed + number)
        slides = {
            split_name: [cohort.slides[i].slide_id for i in indices]
            for split_name, indices in zip(SPLITS, split, strict=True)
        }
        key = key_of(
            name, config.version, config.min_coverage, cohort.sizes.classes, slides,
            cohort.sizes.objects,
            _changed(settings, ClassifierConfig().settings_of(name)),
            _changed(asdict(training), asdict(TrainConfig())),
            [(slide.slide_id, slide.label, slide.key) for slide in cohort.slides],
        )  # fmt: skip

        def produce() -> None:
            # On the CPU first: so the first weights are the same on every device.
            model: Pretrained = seeded_build(
                lambda: row.build(cohort.sizes, settings), training.seed
            )
            model.to(config.device)
            row.fit(
                model,
                [bags[i] for i in split.train],
                [bags[i] for i in split.validation],
                training,
            )
            model.metadata |= {**cohort.about, "slides": slides}
            model.save_pretrained(output)

        make_once(output, key, produce)


def _changed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ: one that is added with a default leaves what is done as it is."""
    return {name: value for name, value in settings.items() if value != defaults.get(name)}


def _temperature(model: Pretrained, bags: Sequence[Bag], asked: bool) -> float | None:  # noqa: FBT001 - private
    """Temperature from validation slides, None if they are few, unless it was asked for."""
    classes = {bag.label for bag in bags}
    if asked or (len(bags) >= ENOUGH and len(classes) == len(model.classes)):
        return model_temperature(model, bags)
    return None
