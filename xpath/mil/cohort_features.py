"""A classifier from ready-made feature files: read, divide, train, score, write down.

Axes: B slides, K classes, F folds.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from xpath.batch.slides import read_labels
from xpath.device import device_of
from xpath.errors import ConfigError, DataError, StoreError
from xpath.metrics.calibration import calibration_metrics
from xpath.metrics.classification_intervals import (
    classification_differences,
    classification_intervals,
)
from xpath.metrics.roc import compare_auc
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.cross_validation import OutOfFold, out_of_fold
from xpath.mil.folds import Split, stratified_split
from xpath.mil.group_folds import group_folds, patient_of, tcga_site
from xpath.mil.pooling_mil import PoolingMIL
from xpath.mil.train import TrainConfig
from xpath.store.clam_tables import read_clam_split, write_clam_split
from xpath.store.foreign_features import find_feature_files, read_patch_features
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from xpath.mil.classifier import SlideClassifier
    from xpath.mil.memory_map import Spool

__all__ = ["Cohort", "CohortConfig", "divide", "read_cohort", "run_cohort"]

NAMES = ("attention", "mean")
"""The standard model, and the baseline it must beat: the mean of the patches' logits."""
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortConfig:
    """How a cohort is divided and its classifiers are built, trained and scored."""

    folds: int = 1
    """1: one split, 7 to 1 to 2 by label as in the paper; 2 or more: cross-validation."""
    by: Literal["patient", "site"] = "patient"
    """What a fold keeps together; sites (of TCGA barcodes) show what is left without the
    hospital's stain and scanner."""
    hidden: int = 128
    """Width of the attention network."""
    proj: int | None = None
    """Width of a projection before pooling; None as in the paper's equations."""
    dropout: float = 0.0
    """Rate while training."""
    calibrate: bool = False
    """Fit a temperature on the validation slides."""
    draws: int = 2000
    """Of the bootstrap over patients."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How the classifiers are trained."""
    device: str = "cpu"
    """Where they are trained: ``cpu``, ``cuda``, ``cuda:1`` ..."""

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: Fewer than one fold, one fold of sites, other groups, or a device that this
                machine has not.
        """
        if self.by not in ("patient", "site") or self.folds < 1 or self.draws < 1:
            raise ConfigError(f"by must be patient or site, folds and draws 1 or more: {self}")
        if self.by == "site" and self.folds == 1:
            raise ConfigError("sites are kept together by folds; ask for 2 or more, such as 3")
        device_of(self.device)


class Cohort(NamedTuple):
    """Labelled slides with features."""

    bags: tuple[Bag, ...]
    classes: tuple[str, ...]
    """Class names, sorted: the order of labels and logits."""
    patients: tuple[str, ...]
    """``(B,)`` patient of each slide."""
    about: dict[str, Any]
    """What wrote the features: layouts, encoders, widths; kept with the models."""
    left_out: tuple[str, ...]
    """Labelled slides that could not be used, with the reason."""


def read_cohort(
    folder: Path,
    labels: Path,
    *,
    table: str | None = None,
    spool: Spool | None = None,
    on_slide: Callable[[str], None] | None = None,
) -> Cohort:
    """Slides that have both features and a label.

    Patients come from the table's ``patient`` or ``case_id``; else from TCGA barcodes; else every
    slide is a patient of its own.

    Args:
        folder: Feature files of CLAM, TRIDENT, STAMP, LazySlide or xpath; ``find_feature_files``.
        labels: CSV with ``slide_id``, ``label`` and if wanted ``patient`` or ``case_id``.
        table: For LazySlide's files, where there are several tables.
        spool: Where features beyond the memory go; None to keep all in memory.
        on_slide: Called with the name of each slide that was read.

    Raises:
        DataError: No slide with both, features of several widths or encoders.
        StoreError: No room on disk for features beyond the memory.
    """
    files, rows = find_feature_files(folder), read_labels(labels)
    named = {slide_id: row for slide_id, row in rows.items() if row.label}
    read, left_out, kinds = [], [], Counter[tuple[str, str, int]]()
    for slide_id, row in named.items():
        if slide_id not in files:
            left_out.append(f"{slide_id}: no feature file in {folder}")
            continue
        try:
            found = read_patch_features(files[slide_id], table=table)
        except (StoreError, DataError) as error:
            left_out.append(f"{slide_id}: {error}")
            continue
        features = torch.from_numpy(found.features)
        read.append((slide_id, row, spool.keep(features) if spool else features))
        kinds[found.layout, found.encoder, found.features.shape[1]] += 1
        if on_slide:
            on_slide(slide_id)
    if not read:
        raise DataError(
            f"no labelled slide has features: {labels} names {list(named)[:3]}, {folder} has"
            f" {list(files)[:3]}; {left_out[:1]}"
        )
    if len({kind[1:] for kind in kinds}) > 1:
        raise DataError(f"the features are of several encoders or widths: {dict(kinds)}")
    classes = tuple(sorted({row.label for _, row, _ in read}))
    return Cohort(
        tuple(Bag(rows, None, classes.index(row.label), name) for name, row, rows in read),
        classes,
        tuple(patient_of(name, row.patient) for name, row, _ in read),
        {"layout": next(iter(kinds))[0], "encoder": next(iter(kinds))[1]},
        tuple(left_out),
    )


def divide(cohort: Cohort, config: CohortConfig, split: Path | None = None) -> list[Split]:
    """The split of the paper, folds, or what a file says.

    Args:
        cohort: The slides.
        config: Folds, groups and seed.
        split: CLAM's ``splits_k.csv``, instead; slides it does not name take no part.

    Raises:
        DataError: Too few patients or sites for it, or a file that names no slide of a part.
    """
    labels = [bag.label or 0 for bag in cohort.bags]
    names = [bag.slide_id for bag in cohort.bags]
    seed = config.train.seed
    if split is not None:
        parts = read_clam_split(split)
        places = [[i for i, name in enumerate(names) if parts.get(name) == p] for p in PARTS]
        if not places[0] or not places[2]:
            raise DataError(f"{split} names no slide with features for training, or none for test")
        return [Split(*(np.array(part, np.int64) for part in places))]
    if config.folds == 1:
        return [stratified_split(labels, groups=cohort.patients, seed=seed)]
    groups = cohort.patients
    if config.by == "site":
        groups = tuple(tcga_site(patient) for patient in cohort.patients)
    return group_folds(labels, groups, folds=config.folds, seed=seed)


def run_cohort(
    cohort: Cohort,
    splits: Sequence[Split],
    config: CohortConfig,
    out: Path,
    on_fold: Callable[[str, int], None] | None = None,
) -> dict[str, OutOfFold]:
    """Trains the standard model and the baseline, and writes what they say of their test slides.

    ``predictions.csv``, ``metrics.json``, ``splits_F.csv`` (CLAM's layout) and the checkpoints
    ``models/<name>_F``.

    Args:
        cohort: The slides.
        splits: One per fold.
        config: How they are built, trained and scored.
        out: Folder; files of these names are replaced.
        on_fold: Called with the model's name and the fold when one is trained.

    Returns:
        Answers by name of the model.

    Raises:
        DataError: A split that cannot be trained on.
    """
    answers = {}
    for name in NAMES:

        def keep(number: int, model: SlideClassifier, name: str = name) -> None:
            model.metadata |= cohort.about
            model.save_pretrained(out / "models" / f"{name}_{number}")
            if on_fold:
                on_fold(name, number)

        answers[name] = out_of_fold(
            _builder(name, cohort, config),
            cohort.bags,
            splits,
            config.train,
            calibrate=config.calibrate,
            on_fold=keep,
        )
    for number, split in enumerate(splits):
        placed = {
            cohort.bags[i].slide_id: part
            for part, places in zip(PARTS, split, strict=True)
            for i in places
        }
        write_clam_split(out / f"splits_{number}.csv", placed)
    _write_csv(out / "predictions.csv", list(_rows(cohort, answers)))
    with atomic(out / "metrics.json") as draft:
        content = _finite(_metrics(cohort, answers, config))
        draft.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return answers


def _builder(name: str, cohort: Cohort, config: CohortConfig) -> Callable[[], SlideClassifier]:
    """Makes untrained models on the device, from weights that were drawn on the CPU."""
    dim, classes = int(cohort.bags[0].features.shape[1]), cohort.classes
    if name == "mean":
        return lambda: PoolingMIL(dim, classes).to(config.device)
    return lambda: AttentionMIL(
        dim, classes, hidden=config.hidden, proj=config.proj, dropout=config.dropout
    ).to(config.device)


def _metrics(cohort: Cohort, answers: dict[str, OutOfFold], config: CohortConfig) -> dict[str, Any]:
    """Scores with intervals over patients; ``difference`` is attention minus mean."""
    one, two = answers["attention"], answers["mean"]
    label, groups = one.predictions.label, [cohort.patients[place] for place in one.place]

    def rng() -> np.random.Generator:
        return np.random.default_rng(config.train.seed)  # every score on the same draws

    first, second = one.predictions.probability, two.predictions.probability
    scores: dict[str, Any] = {
        name: {
            **_intervals(found.predictions.probability, label, groups, config.draws, rng()),
            **calibration_metrics(found.predictions.probability, label)._asdict(),
            "temperature": found.temperature.tolist(),
        }
        for name, found in answers.items()
    }
    differences = classification_differences(
        first, second, label, rng(), groups=groups, draws=config.draws
    )
    scores["difference"] = {key: part._asdict() for key, part in differences._asdict().items()}
    if len(cohort.classes) == 2 and _patients_a_side(label, groups) >= 2:
        test = compare_auc(first[:, 1], second[:, 1], label, groups=groups)
        scores["difference"]["delong"] = test._asdict()
    return {
        "classes": cohort.classes,
        "test_slides": {c: int((label == k).sum()) for k, c in enumerate(cohort.classes)},
        "test_patients": len(set(groups)),
        "intervals": "95 %, patients drawn again within their class",
        **scores,
        "features": cohort.about,
        "config": asdict(config),
        "left_out": cohort.left_out,
    }


def _intervals(
    probability: Any, label: Any, groups: list[str], draws: int, rng: np.random.Generator
) -> dict[str, Any]:
    found = classification_intervals(probability, label, rng, groups=groups, draws=draws)
    return {key: part._asdict() for key, part in found._asdict().items()}


def _patients_a_side(label: Any, groups: list[str]) -> int:
    """Patients of the class that has fewer."""
    sides = [{g for g, kind in zip(groups, label, strict=True) if kind == k} for k in (0, 1)]
    return min(len(side) for side in sides)


def _rows(cohort: Cohort, answers: dict[str, OutOfFold]) -> Iterable[dict[str, Any]]:
    for name, found in answers.items():
        answer = found.predictions
        for number, (place, fold) in enumerate(zip(found.place, found.fold, strict=True)):
            chances = answer.probability[number]
            yield {
                "model": name,
                "slide_id": answer.slide_ids[number],
                "patient": cohort.patients[place],
                "fold": int(fold),
                "label": cohort.classes[answer.label[number]],
                "predicted": cohort.classes[int(chances.argmax())],
                **{f"p {c}": float(p) for c, p in zip(cohort.classes, chances, strict=True)},
            }


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _finite(value: Any) -> Any:
    """JSON knows no NaN: what is not defined becomes null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
