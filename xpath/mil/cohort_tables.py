"""Tables of a cohort: who was in which split, what was predicted, and how good that is.

The same files and columns for slides and for feature files. Axes: B slides, K classes, F folds.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.metrics.calibration import calibration_metrics
from xpath.metrics.classification import classification_metrics
from xpath.metrics.intervals import classification_differences, classification_intervals
from xpath.metrics.roc import compare_auc
from xpath.mil.splits import SPLITS
from xpath.store.clam_tables import write_clam_split
from xpath.store.schema import atomic
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.mil.cohort import Cohort, CohortConfig
    from xpath.mil.cohort_training import TrainedClassifier
    from xpath.mil.cross_validation import OutOfFold
    from xpath.mil.splits import Split

__all__ = ["enough_patients", "write_cohort_tables", "write_splits"]

CALIBRATION = ("model", "fold", "temperature", "in_predictions")
INTERVALS = (
    "95 % over patients: of auc Newcombe's, of accuracy and recalls Wilson's score intervals, of f1"
    " and of differences from patients drawn again within their class"
)


def write_splits(folder: Path, cohort: Cohort, splits: Sequence[Split]) -> None:
    """Writes ``split.csv``, and ``splits_F.csv`` of each fold as CLAM reads it.

    With folds ``split.csv`` has every slide once, in the fold that tests it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for fold, split in enumerate(splits):
        named = {
            cohort.slides[i]: name
            for name, indices in zip(SPLITS, split, strict=True)
            for i in indices
        }
        write_clam_split(
            folder / f"splits_{fold}.csv", {slide.slide_id: name for slide, name in named.items()}
        )
        rows += [
            {**_who(cohort, i), "split": named[slide], "fold": fold}
            for i, slide in enumerate(cohort.slides)
            if slide in named and (len(splits) == 1 or named[slide] == "test")
        ]
    write_table(folder / "split.csv", rows)


def write_cohort_tables(
    folder: Path, cohort: Cohort, trained: Sequence[TrainedClassifier], config: CohortConfig
) -> None:
    """Writes tables of predictions, metrics, differences, calibration, Table 19, ``metrics.json``.

    Intervals hold 95 %: of scores those of ``classification_intervals``, of differences from
    patients drawn again within their class, both models on the same draws. ``differences`` are of
    the test slides, the first model minus the second; ``delong_p`` is of DeLong's test, with two
    classes and two patients of each. ``in_predictions`` of ``calibration`` tells whether
    predictions and scores are of the softened probabilities; pages show these in any case.

    Args:
        folder: For the tables; files of these names are replaced.
        cohort: The slides.
        trained: The classifiers, with their predictions.
        config: Draws and seed of the bootstrap; kept in ``metrics.json``.
    """
    metrics = list(_metrics(cohort, trained, config))
    differences = list(_differences(cohort, trained, config))
    calibration = [
        {
            "model": one.name,
            "fold": fold,
            "temperature": temperature,
            "in_predictions": config.classifier.calibrate,
        }
        for one in trained
        for fold, temperature in enumerate(one.temperatures)
        if temperature is not None
    ]
    write_table(folder / "predictions.csv", _predictions(cohort, trained))
    write_table(folder / "metrics.csv", metrics)
    write_table(folder / "differences.csv", differences, columns=("model", "minus"))
    write_table(folder / "table19.csv", _table19(cohort, trained, metrics), columns=("model",))
    write_table(folder / "calibration.csv", calibration, columns=CALIBRATION)
    content = {
        "classes": cohort.sizes.classes,
        "metrics": metrics,
        "differences": differences,
        "calibration": calibration,
        "intervals": INTERVALS,
        "features": cohort.about,
        "config": asdict(config),
        "left_out": cohort.left_out,
    }
    with atomic(folder / "metrics.json") as draft:
        text = json.dumps(_finite(content), indent=1, allow_nan=False)
        draft.write_text(text + "\n", encoding="utf-8")


def enough_patients(cohort: Cohort, pooled: OutOfFold) -> bool:
    """True where an ROC curve has an interval: two classes, two patients of each."""
    sides: list[set[str]] = [set(), set()]
    if len(cohort.sizes.classes) != len(sides):
        return False
    for i, label in zip(pooled.bag_index, pooled.predictions.label, strict=True):
        sides[label].add(cohort.patients[i])
    return min(map(len, sides)) >= 2


def _who(cohort: Cohort, index: int) -> dict[str, str]:
    slide = cohort.slides[index]
    return {"slide_id": slide.slide_id, "patient": slide.patient, "label": slide.label}


def _predictions(cohort: Cohort, trained: Sequence[TrainedClassifier]) -> Iterator[dict[str, Any]]:
    classes = cohort.sizes.classes
    for one in trained:
        for name, pooled in one.predictions.items():
            for i, fold, chances in zip(
                pooled.bag_index, pooled.fold, pooled.predictions.probability, strict=True
            ):
                yield {
                    "model": one.name,
                    **_who(cohort, i),
                    "split": name,
                    "fold": int(fold),
                    "predicted": classes[int(chances.argmax())],
                    **{f"p {c}": float(p) for c, p in zip(classes, chances, strict=True)},
                }


def _metrics(
    cohort: Cohort, trained: Sequence[TrainedClassifier], config: CohortConfig
) -> Iterator[dict[str, Any]]:
    for one in trained:
        for name, pooled in one.predictions.items():
            answers, groups = pooled.predictions, _patients(cohort, pooled.bag_index)
            scores = classification_intervals(
                answers.probability, answers.label, _rng(config), groups=groups, draws=config.draws
            )
            yield {
                "model": one.name,
                "split": name,
                "slides": len(answers.label),
                "patients": len(set(groups)),
                **_flat(scores._asdict()),
                **calibration_metrics(answers.probability, answers.label)._asdict(),
            }


def _differences(
    cohort: Cohort, trained: Sequence[TrainedClassifier], config: CohortConfig
) -> Iterator[dict[str, Any]]:
    for first, second in combinations(trained, 2):
        if "test" not in first.predictions:
            return
        pooled = first.predictions["test"]
        one, two = (m.predictions["test"].predictions.probability for m in (first, second))
        label, groups = pooled.predictions.label, _patients(cohort, pooled.bag_index)
        scores = classification_differences(
            one, two, label, _rng(config), groups=groups, draws=config.draws
        )
        row = {"model": first.name, "minus": second.name, **_flat(scores._asdict())}
        p = math.nan
        if enough_patients(cohort, pooled):
            p = compare_auc(one[:, 1], two[:, 1], label, groups=groups).p
        yield {**row, "delong_p": p}


def _table19(
    cohort: Cohort, trained: Sequence[TrainedClassifier], metrics: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Table 19 of the paper: scores by mean and deviation over folds and seeds.

    Beside them the AUC of all slides pooled, each predicted by a model that never saw it, with its
    interval, and DeLong's test against the standard classifier; both of the first seed.
    """
    pooled = {row["model"]: row for row in metrics if row["split"] == "test"}
    standard = next((one for one in trained if one.name == "attention" and one.repeats), None)
    for one in trained:
        if not one.repeats:
            continue
        scores = [
            classification_metrics(held.predictions.probability[rows], held.predictions.label[rows])
            for held in one.repeats
            for rows in (held.fold == fold for fold in np.unique(held.fold))
        ]
        row: dict[str, Any] = {
            "model": one.name,
            "folds": len(np.unique(one.repeats[0].fold)),
            "seeds": len(one.repeats),
        }
        for title, field in (("auc", "auc"), ("acc", "balanced_accuracy"), ("f1", "f1")):
            values = np.array([getattr(score, field) for score in scores])
            row[f"{title}_mean"], row[f"{title}_std"] = _mean_and_deviation(values)
        of_all = pooled[one.name]
        row |= {f"auc_pooled{end}": of_all[f"auc{end}"] for end in ("", "_low", "_high")}
        yield row | _against(cohort, one, standard)


def _mean_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of those that are numbers, and their deviation over n - 1, NaN of fewer than two."""
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if len(known) else math.nan
    return mean, float(known.std(ddof=1)) if len(known) > 1 else math.nan


def _against(
    cohort: Cohort, one: TrainedClassifier, standard: TrainedClassifier | None
) -> dict[str, float]:
    """Difference in AUC from the standard classifier, and DeLong's p over patients."""
    nothing = {"auc_difference": math.nan, "delong_p": math.nan}
    if standard is None or one is standard or not enough_patients(cohort, one.repeats[0]):
        return nothing
    first, second = one.repeats[0], standard.repeats[0]
    compared = compare_auc(
        first.predictions.probability[:, 1],
        second.predictions.probability[:, 1],
        first.predictions.label,
        groups=_patients(cohort, first.bag_index),
    )
    return {"auc_difference": compared.difference, "delong_p": compared.p}


def _rng(config: CohortConfig) -> np.random.Generator:
    """The same draws for every score."""
    return np.random.default_rng(config.seed)


def _patients(cohort: Cohort, indices: NDArray[np.int64]) -> list[str]:
    return [cohort.patients[i] for i in indices]


def _flat(scores: dict[str, Any]) -> dict[str, float]:
    """``auc``, ``auc_low`` and ``auc_high``, and so on."""
    return {
        name + end: getattr(score, field)
        for name, score in scores.items()
        for end, field in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _finite(value: Any) -> Any:
    """The value with null for what is not defined: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
