"""Every slide predicted once by a model that never saw its patient, or its hospital.

Axes: B slides, K classes, F folds, G groups (patients or sites).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.errors import DataError
from xpath.metrics.calibration import fit_temperature, scaled_probability
from xpath.mil.prediction import Predictions, predict
from xpath.mil.training import TrainConfig, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from numpy.typing import NDArray

    from xpath.mil.bag import Bag
    from xpath.mil.splits import Split
    from xpath.protocols import SlideClassifier

    Model = TypeVar("Model", bound=SlideClassifier)

__all__ = ["OutOfFold", "model_temperature", "out_of_fold", "predict_held_out", "seeded_build"]


class OutOfFold(NamedTuple):
    """Predictions of all slides that were held out, in the order of the bags."""

    predictions: Predictions
    """Probabilities are softened by the temperatures; logits are as the model gave them."""
    bag_index: NDArray[np.int64]
    """``(B,)`` index of each slide among the bags; all of them if the folds cover them."""
    fold: NDArray[np.int64]
    """``(B,)`` fold whose model predicted the slide."""
    temperature: NDArray[np.float64]
    """``(F,)`` of each fold's model; 1 where it was not fitted."""


def out_of_fold(
    build: Callable[[], Model],
    bags: Sequence[Bag],
    splits: Sequence[Split],
    config: TrainConfig | None = None,
    *,
    calibrate: bool = False,
    on_fold: Callable[[int, Model], None] | None = None,
) -> OutOfFold:
    """Trains a model per fold and predicts the slides it did not see.

    Score the pooled predictions once, with intervals over patients
    (``classification_intervals(predictions.probability, predictions.label, rng, groups=...)``).
    Scores per fold are not independent, as their training slides overlap: no interval comes from
    their spread.

    Args:
        build: Makes an untrained model; called once per fold, with the random state seeded.
        bags: With labels.
        splits: Indices of the bags; no slide is tested twice.
        config: How each is trained; fold f with seed ``config.seed + f``.
        calibrate: Fit a temperature on each fold's validation slides. Makes probabilities of
            different folds comparable, too.
        on_fold: Called with each fold's number and trained model, to save or explain it.

    Raises:
        DataError: No folds, a slide tested twice, a fold without validation slides to calibrate
            on, or as for ``train``.
    """
    config = config or TrainConfig()
    held = _tested_once([split.test for split in splits])
    models, temperatures = [], []
    for fold, split in enumerate(splits):
        model = seeded_build(build, config.seed + fold)
        train_bags, validation_bags, _ = ([bags[i] for i in indices] for indices in split)
        train(model, train_bags, validation_bags, replace(config, seed=config.seed + fold))
        temperatures.append(model_temperature(model, validation_bags) if calibrate else 1.0)
        models.append(model)
        if on_fold:
            on_fold(fold, model)
    return predict_held_out(models, bags, held, temperatures)


def predict_held_out(
    models: Sequence[SlideClassifier],
    bags: Sequence[Bag],
    held: Sequence[NDArray[np.int64]],
    temperatures: Sequence[float],
) -> OutOfFold:
    """Predictions of each fold's model for the slides it is asked about, pooled.

    Args:
        models: One per fold.
        bags: All slides.
        held: Indices of the bags each model predicts.
        temperatures: Divisor of each model's logits; 1 to leave them.

    Raises:
        DataError: No folds, or a slide in two of them.
    """
    tested = np.concatenate(_tested_once(held))
    each = [
        predict(model, [bags[i] for i in indices])
        for model, indices in zip(models, held, strict=True)
    ]
    probability = [
        scaled_probability(one.logits, temperature)
        for one, temperature in zip(each, temperatures, strict=True)
    ]
    order = np.argsort(tested)
    fold = np.repeat(np.arange(len(held)), [len(indices) for indices in held])
    names = [name for one in each for name in one.slide_ids]
    return OutOfFold(
        Predictions(
            tuple(names[i] for i in order),
            np.concatenate([one.logits for one in each])[order],
            np.concatenate(probability)[order],
            np.concatenate([one.label for one in each])[order],
        ),
        tested[order],
        fold[order],
        np.array(temperatures),
    )


def seeded_build(build: Callable[[], Model], seed: int) -> Model:
    """A new model whose weights the seed decides. The global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def model_temperature(model: SlideClassifier, bags: Sequence[Bag]) -> float:
    """Temperature that suits a model on slides that did not train it.

    Raises:
        DataError: No slides, or one without a label.
    """
    if not bags:
        raise DataError("there are no validation slides to calibrate on; hold some out")
    predicted = predict(model, bags)
    return fit_temperature(predicted.logits, predicted.label)


def _tested_once(held: Sequence[NDArray[np.int64]]) -> Sequence[NDArray[np.int64]]:
    tested = np.concatenate(held) if held else np.zeros(0, np.int64)
    if not len(tested) or len(np.unique(tested)) < len(tested):
        raise DataError("there must be folds, and no slide in the test of two of them")
    return held
