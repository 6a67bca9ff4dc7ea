"""The stages that work on all slides together: train the classifiers, fill the tables."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from xpath.batch.done import is_done, make_once
from xpath.errors import DataError, StoreError
from xpath.explain.cohort import ImportanceRow, cohort_importance
from xpath.explain.explanation import read_explanation
from xpath.metrics.calibration import fit_temperature
from xpath.metrics.classification_intervals import classification_intervals
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.evaluate import predict
from xpath.mil.folds import stratified_split
from xpath.mil.group_folds import patient_of
from xpath.mil.memory_map import Spool
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.train import train
from xpath.store.features import read_features
from xpath.store.tables import write_table
from xpath.study.keys import stage_key
from xpath.study.slides import bags_of, explain_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from xpath.batch.slides import SlideEntry
    from xpath.mil.bag import Bag
    from xpath.mil.classifier import SlideClassifier
    from xpath.store.features import SlideFeatures
    from xpath.study.slides import Classifiers
    from xpath.study.study import Study

__all__ = ["divide", "load_classifiers", "tabulate_importance", "train_classifiers"]

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
NAMES = ("attention", "object_aware")
ENOUGH = 12
"""Validation slides from which a temperature is fitted; with fewer, all right, it would be cold."""


def divide(study: Study) -> dict[str, str]:
    """Part of every labelled slide that has features; written to ``tables/split.csv``.

    Where so few patients have so few classes that nothing can be held out all slides train, and a
    warning says that all scores and explanations are of training slides.

    Raises:
        DataError: Fewer than two classes; or two that are large enough and one that is not, as by
            a slip in a label.
    """
    slides = study.with_features(entry for entry in study.slides if entry.label)
    found = sorted({entry.label for entry in slides})
    if len(found) < 2:
        raise DataError(
            f"training needs slides with features of two classes, got {found}; were the slides"
            " segmented, and does the label table name them?"
        )
    try:
        parts = _split(study, slides)
    except DataError as error:
        if _large_classes(slides) > 1:
            raise DataError(f"{error}; or is a label misspelt?") from error
        logger.warning("nothing can be held out, so all scores are of training slides: %s", error)
        parts = {entry.slide_id: "train" for entry in slides}
    rows = [{"slide_id": e.slide_id, "label": e.label, "part": parts[e.slide_id]} for e in slides]
    write_table(study.folder.split, rows)
    return parts


def _large_classes(slides: Sequence[SlideEntry]) -> int:
    """How many classes have a patient for every part."""
    patients: dict[str, set[str]] = {}
    for entry in slides:
        patients.setdefault(entry.label, set()).add(patient_of(entry.slide_id, entry.patient))
    return sum(len(those) >= len(PARTS) for those in patients.values())


def _split(study: Study, slides: Sequence[SlideEntry]) -> dict[str, str]:
    settings = study.config.split
    split = stratified_split(
        [entry.label for entry in slides],
        fractions=(settings.train, settings.validation, 1 - settings.train - settings.validation),
        groups=[patient_of(entry.slide_id, entry.patient) for entry in slides],
        seed=settings.seed,
    )
    return {
        slides[place].slide_id: part
        for part, places in zip(PARTS, split, strict=True)
        for place in places
    }


def train_classifiers(study: Study) -> dict[str, str]:
    """Trains both classifiers, writes predictions and metrics; returns the part of every slide."""
    parts = divide(study)
    slides = [entry for entry in study.slides if entry.slide_id in parts]
    # Not of all labels: a class whose slides failed cannot be learnt.
    classes = tuple(sorted({entry.label for entry in slides}))
    inputs = [[e.slide_id, e.label, parts[e.slide_id], study.features_key(e)] for e in slides]
    bags = _read_bags(study, slides, classes)
    for which, name in enumerate(NAMES):
        chosen = {
            part: [b[which] for b in bags if parts[b[which].slide_id] == part] for part in PARTS
        }
        output = study.folder.model(name)
        untrained = _builder(study, name, chosen["train"][0], classes)
        key = stage_key("models", study.config, name, inputs, classes)
        make_once(output, key, lambda: _train_one(study, untrained, chosen, output))  # noqa: B023 - called at once
    _write_predictions(study, parts, bags)
    _write_calibration(study, parts, bags)
    return parts


def load_classifiers(study: Study) -> Classifiers:
    """The trained standard and object-aware classifier.

    Raises:
        CheckpointError: One cannot be read.
        StoreError: They were not trained yet, or only one of them was, on other classes.
    """
    missing = [name for name in NAMES if not study.folder.model(name).exists()]
    if missing:
        raise StoreError(
            f"{study.folder.root} has no classifiers yet; run `xpath train LABELS.csv --out"
            f" {study.folder.root}` first"
        )
    standard = AttentionMIL.from_pretrained(study.folder.model("attention"))
    aware = ObjectAwareMIL.from_pretrained(study.folder.model("object_aware"))
    if standard.classes != aware.classes:
        raise StoreError(
            f"the classifiers in {study.folder.root} know other classes, {standard.classes} and"
            f" {aware.classes}: the training was cut short; run `xpath train` again"
        )
    return standard, aware


def tabulate_importance(study: Study, entries: Iterable[SlideEntry]) -> list[dict[str, Any]]:
    """Importance over explained slides, ``tables/importance.csv``. Returns its rows.

    Args:
        study: The study.
        entries: Slides that are to be explained now. Others may have explanations of before.
    """
    slides = []
    for entry in entries:
        path = study.folder.explanation(entry.slide_id)
        if not entry.label or not path.exists() or not is_done(path, explain_key(study, entry)):
            continue
        slides.append(read_explanation(path).importance)
    settings = study.config.explain
    rows = cohort_importance(
        slides,
        study.classes,
        patients={e.slide_id: patient_of(e.slide_id, e.patient) for e in study.slides},
        resamples=settings.resamples,
        seed=settings.seed,
    )
    write_table(study.folder.table("importance"), rows, ImportanceRow)
    return [asdict(row) for row in rows]


def _read_bags(
    study: Study, slides: Sequence[SlideEntry], classes: Sequence[str]
) -> list[tuple[Bag, Bag]]:
    bags = []
    spool = Spool(study.folder.root, memory_gb=study.config.memory_gb)
    for entry in slides:
        features: SlideFeatures = read_features(study.folder.features(entry.slide_id))
        label = classes.index(entry.label)
        patches, objects = bags_of(features, label, study.config.objects.min_coverage)
        bags.append((
            replace(patches, features=spool.keep(patches.features)),
            replace(objects, features=spool.keep(objects.features)),
        ))
    return bags


def _builder(
    study: Study, name: str, like: Bag, classes: Sequence[str]
) -> Callable[[], AttentionMIL | ObjectAwareMIL]:
    """Makes an untrained model for bags like this one."""
    settings, dim = study.config.classifier, like.features.shape[-1]
    if name == "attention":
        return lambda: AttentionMIL(dim, classes, hidden=settings.hidden)
    objects = [*(label.id for label in study.labels), "other"]
    return lambda: ObjectAwareMIL(
        dim, objects, classes, hidden=settings.hidden, average=settings.average
    )


def _train_one(
    study: Study,
    build: Callable[[], AttentionMIL | ObjectAwareMIL],
    bags: Mapping[str, list[Bag]],
    output: Path,
) -> None:
    settings = study.config.classifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        model = build()
    model.to(study.device)  # born on the CPU: its first weights are the same everywhere
    name = output.name
    with tqdm(total=settings.train.epochs, desc=f"{name:>10}"[:12], unit="epoch") as bar:
        result = train(
            model,
            bags["train"],
            bags["validation"],
            settings.train,
            on_epoch=lambda _: bar.update(),
        )
    model.metadata |= {
        "encoder": study.encoder_info.name,
        "encoder_sha256": study.encoder_info.digest,
        "segmentor": study.segmentor.name,
        "segmentor_sha256": study.segmentor.digest,
        "patch_um": study.config.grid.patch_um,
        "mpp": study.config.grid.mpp,
        "min_coverage": study.config.objects.min_coverage,
        "slides": {part: [bag.slide_id for bag in chosen] for part, chosen in bags.items()},
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
    }
    model.save_pretrained(output)


def _write_predictions(
    study: Study, parts: Mapping[str, str], bags: Sequence[tuple[Bag, Bag]]
) -> None:
    """``predictions.csv``, and ``metrics.csv`` with 95 % intervals of the AUC over patients."""
    rows: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    patients = {entry.slide_id: patient_of(entry.slide_id, entry.patient) for entry in study.slides}
    models: tuple[SlideClassifier, ...] = load_classifiers(study)
    for which, (name, model) in enumerate(zip(NAMES, models, strict=True)):
        found = predict(model, [pair[which] for pair in bags])
        classes = model.classes
        for slide_id, values, label in zip(
            found.slide_ids, found.probability, found.label, strict=True
        ):
            row = {"model": name, "slide_id": slide_id, "part": parts[slide_id]}
            row |= {"label": classes[label], "predicted": classes[values.argmax()]}
            rows.append(row | {f"p {c}": float(v) for c, v in zip(classes, values, strict=True)})
        for part in PARTS:
            here = np.array([parts[slide_id] == part for slide_id in found.slide_ids])
            if not here.any():
                continue
            scores = classification_intervals(
                found.probability[here],
                found.label[here],
                np.random.default_rng(study.config.explain.seed),
                groups=[patients[slide_id] for slide_id in np.array(found.slide_ids)[here]],
                draws=study.config.explain.resamples,
            )
            metrics.append({
                "model": name,
                "part": part,
                "slides": int(here.sum()),
                **{key: score.value for key, score in scores._asdict().items()},
                "auc_low": scores.auc.low,
                "auc_high": scores.auc.high,
            })
    write_table(study.folder.table("predictions"), rows)
    write_table(study.folder.table("metrics"), metrics)


def _write_calibration(
    study: Study, parts: Mapping[str, str], bags: Sequence[tuple[Bag, Bag]]
) -> None:
    """Temperature of each classifier, from the validation slides, if those are enough to tell."""
    held = [pair for pair in bags if parts[pair[0].slide_id] == "validation"]
    classes, every = {pair[0].label for pair in held}, {pair[0].label for pair in bags}
    rows = []
    if len(held) >= ENOUGH and classes == every:
        models: tuple[SlideClassifier, ...] = load_classifiers(study)
        for which, (name, model) in enumerate(zip(NAMES, models, strict=True)):
            found = predict(model, [pair[which] for pair in held])
            warmth = fit_temperature(found.logits, found.label)
            rows.append({"model": name, "temperature": warmth, "slides": len(held)})
    write_table(study.folder.table("calibration"), rows, ("model", "temperature", "slides"))
