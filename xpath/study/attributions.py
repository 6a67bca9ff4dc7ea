"""The stage that compares attribution methods on explained slides (``xpath explain --method``)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.batch.done import is_done, make_once
from xpath.explain.comparison import ObjectShare, compare_methods, shares_of_objects
from xpath.explain.explanation import read_explanation
from xpath.explain.maps import patch_map
from xpath.export.method_figures import methods_figure
from xpath.geometry import Size
from xpath.metrics.bootstrap import mean_interval
from xpath.mil.splits import patient_of
from xpath.store.features import read_features
from xpath.store.schema import atomic
from xpath.store.tables import read_table, write_table
from xpath.study.keys import stage_key
from xpath.study.slides import EXPLAINED, bags_of, explain_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from xpath.batch.slides import SlideEntry
    from xpath.explain.attribution import Attribution
    from xpath.explain.head import AttentionClassifier
    from xpath.store.features import SlideFeatures
    from xpath.study.slides import ExplainedModels
    from xpath.study.study import Study

__all__ = ["attribute_slide", "attributions_key", "tabulate_faithfulness"]

AVERAGED = (
    "deletion", "insertion", "least_first", "random", "gain", "sufficiency_gap", "necessity",
    "sanity", "agreement",
)  # fmt: skip
"""Columns of ``tables/faithfulness.csv`` that are means over slides."""
SIDE = 700
"""Longer side of a map in the picture, pixels."""


def attributions_key(study: Study, entry: SlideEntry) -> str:
    """Key of the attributions of a slide."""
    return stage_key("attributions", study.config, explain_key(study, entry))


def attribute_slide(study: Study, entry: SlideEntry, models: ExplainedModels) -> bool:
    """Makes ``attributions/`` of an explained slide, True if it had to be made.

    It holds ``patches.csv`` (every patch, a column per model and method), ``objects.csv`` (every
    object class, a column per method, with exact Shapley share and removal), ``faithfulness.csv``
    (a row per model and method) and ``maps.png``.

    Raises:
        StoreError: The slide has no explanation.
    """
    path = study.folder.explanation(entry.slide_id)
    study.require(path, explain_key(study, entry), "explain")
    output = study.folder.attributions(entry.slide_id)

    def produce() -> None:
        with atomic(output) as draft:
            draft.mkdir()
            _attribute_to(draft, study, entry, models)

    return make_once(output, attributions_key(study, entry), produce)


def tabulate_faithfulness(study: Study) -> list[dict[str, Any]]:
    """Means over the attributed slides, ``tables/faithfulness.csv``. Returns its rows.

    A row is of a model and a method; means have 95 % intervals over patients.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in study.slides:
        folder = study.folder.attributions(entry.slide_id)
        if not (folder.exists() and is_done(folder, attributions_key(study, entry))):
            continue
        patient = patient_of(entry.slide_id, entry.patient)
        for row in read_table(folder / "faithfulness.csv", **dict.fromkeys(AVERAGED, float)):
            key = (row["model"], row["method"])
            groups.setdefault(key, []).append(row | {"patient": patient})
    table = [
        {"model": model, "method": method, "slides": len(rows)} | _means(rows)
        for (model, method), rows in groups.items()
    ]
    write_table(study.folder.table("faithfulness"), table, columns=("model", "method", "slides"))
    return table


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean and interval of every score, NaN where no slide has it."""
    means: dict[str, float] = {}
    for column in AVERAGED:
        known = [row for row in rows if np.isfinite(row[column])]
        values, owners = [row[column] for row in known], [row["patient"] for row in known]
        interval = mean_interval(values, owners)
        means[column] = interval.mean
        means[f"{column}_low"], means[f"{column}_high"] = interval.low, interval.high
    return means


def _attribute_to(folder: Path, study: Study, entry: SlideEntry, models: ExplainedModels) -> None:
    features = read_features(study.folder.features(entry.slide_id))
    target = read_explanation(study.folder.explanation(entry.slide_id)).target
    bags = bags_of(features, None, study.config.objects.min_coverage, models.object_aware.objects)
    made: dict[str, list[Attribution]] = {}
    scores: list[dict[str, Any]] = []
    settings = study.config.explain
    explained: tuple[AttentionClassifier, ...] = (models.attention, models.object_aware)
    for name, model, bag in zip(EXPLAINED, explained, bags, strict=True):
        compared = compare_methods(model, bag, settings.methods, target, seed=settings.seed)
        made[name] = [attribution for attribution, _ in compared]
        scores += [{"model": name} | asdict(judged) for _, judged in compared]
    write_table(folder / "faithfulness.csv", scores)
    write_table(folder / "patches.csv", _patch_rows(features, made))
    shares = shares_of_objects(models.object_aware, bags[1], target)
    rows = [asdict(share) | _by_method(made["object_aware"], j) for j, share in enumerate(shares)]
    write_table(folder / "objects.csv", rows, ObjectShare)
    _draw(folder / "maps.png", study, entry, features, made)


def _patch_rows(
    features: SlideFeatures, made: dict[str, list[Attribution]]
) -> list[dict[str, Any]]:
    columns = {
        f"{model} {one.method}": one.patches for model, several in made.items() for one in several
    }
    return [
        {"x": int(x), "y": int(y)} | {name: float(values[i]) for name, values in columns.items()}
        for i, (x, y) in enumerate(features.grid.coords)
    ]


def _by_method(made: list[Attribution], j: int) -> dict[str, float]:
    """Sums over the patches of one object class, of those methods that know objects."""
    return {one.method: float(one.objects[j]) for one in made if one.objects is not None}


def _draw(
    path: Path,
    study: Study,
    entry: SlideEntry,
    features: SlideFeatures,
    made: dict[str, list[Attribution]],
) -> None:
    with study.open_slide(entry) as slide:
        overview = slide.thumbnail(SIDE)
    size = Size(overview.shape[1], overview.shape[0])
    maps = {
        model: {str(one.method): patch_map(one.patches, features.grid, size) for one in several}
        for model, several in made.items()
    }
    methods_figure(path, overview, maps)
