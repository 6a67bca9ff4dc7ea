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
from xpath.mil.evaluate import Predictions, predict
from xpath.mil.train import TrainConfig, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from xpath.mil.bag import Bag
    from xpath.mil.classifier import SlideClassifier
    from xpath.mil.folds import Split

__all__ = ["OutOfFold", "out_of_fold", "seeded_build"]


class OutOfFold(NamedTuple):
    """Answers for the slides of all test parts, in the order of the bags."""

    predictions: Predictions
    """Probabilities are calibrated if that was asked for; logits are as the model gave them."""
    place: NDArray[np.int64]
    """``(B,)`` place of each slide among the bags; all of them if the folds cover them."""
    fold: NDArray[np.int64]
    """``(B,)`` fold in whose test part the slide was."""
    temperature: NDArray[np.float64]
    """``(F,)`` of each fold's model; 1 where it was not fitted."""


def out_of_fold(
    build: Callable[[], SlideClassifier],
    bags: Sequence[Bag],
    splits: Sequence[Split],
    config: TrainConfig | None = None,
    *,
    calibrate: bool = False,
    on_fold: Callable[[int, SlideClassifier], None] | None = None,
) -> OutOfFold:
    """Trains a model per fold and predicts the slides it did not see.

    Score the pooled answers once, with intervals over patients
    (``classification_intervals(predictions.probability, predictions.label, rng, groups=...)``).
    Scores per fold are not independent, as their training parts overlap: no interval comes from
    their spread.

    Args:
        build: Makes an untrained model; called once per fold, with the random state seeded.
        bags: With labels.
        splits: Places among the bags; test parts must not overlap.
        config: How each is trained; fold f with seed ``config.seed + f``.
        calibrate: Fit a temperature on each fold's validation part. Makes probabilities of
            different folds comparable, too.
        on_fold: Called with each fold's number and trained model, to save or explain it.

    Raises:
        DataError: No folds, overlapping test parts, a fold without validation slides to
            calibrate on, or as for ``train``.
    """
    config = config or TrainConfig()
    tested = np.concatenate([split.test for split in splits]) if splits else np.zeros(0, np.int64)
    if not len(tested) or len(np.unique(tested)) < len(tested):
        raise DataError("there must be folds, and no slide in the test parts of two of them")
    answers, chances, temperatures = [], [], []
    for number, split in enumerate(splits):
        model = seeded_build(build, config.seed + number)
        parts = [[bags[place] for place in part] for part in split]
        train(model, parts[0], parts[1], replace(config, seed=config.seed + number))
        found = predict(model, parts[2])
        temperature = _temperature(model, parts[1], number) if calibrate else 1.0
        answers.append(found)
        chances.append(scaled_probability(found.logits, temperature))
        temperatures.append(temperature)
        if on_fold:
            on_fold(number, model)
    order = np.argsort(tested)
    names = [name for found in answers for name in found.slide_ids]
    fold = np.repeat(np.arange(len(splits)), [len(split.test) for split in splits])
    return OutOfFold(
        Predictions(
            tuple(names[place] for place in order),
            np.concatenate([found.logits for found in answers])[order],
            np.concatenate(chances)[order],
            np.concatenate([found.label for found in answers])[order],
        ),
        tested[order],
        fold[order],
        np.array(temperatures),
    )


def seeded_build(build: Callable[[], SlideClassifier], seed: int) -> SlideClassifier:
    """A new model whose weights the seed decides; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def _temperature(model: SlideClassifier, bags: Sequence[Bag], fold: int) -> float:
    if not bags:
        raise DataError(f"fold {fold} has no validation slides to calibrate on; give it some")
    found = predict(model, bags)
    return fit_temperature(found.logits, found.label)
