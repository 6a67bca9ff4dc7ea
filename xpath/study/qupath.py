"""A slide's results as QuPath opens them: objects, patches, tissue, and a script to show them."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from xpath.export.qupath.geojson import (
    ObjectNumbers,
    object_features,
    region_features,
    tile_features,
    write_geojson,
)
from xpath.export.qupath.script import write_qupath_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from xpath.explain.explanation import Explanation
    from xpath.export.qupath.geojson import Feature
    from xpath.geometry import Box
    from xpath.store.objects import ObjectTable
    from xpath.wsi.tissue import Tissue

__all__ = ["GEOJSON", "SCRIPT", "write_for_qupath"]

GEOJSON, SCRIPT = "objects.geojson", "open_in_qupath.groovy"


def write_for_qupath(
    folder: Path,
    explanation: Explanation,
    objects: ObjectTable,
    tissue: Tissue,
    *,
    classes: Sequence[str],
    bounds: Box,
    marks: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Writes ``objects.geojson`` and the script that imports it, and returns its features' number.

    Objects are detections and carry the numbers of their label and their own share of the
    contribution to the logit; beyond the average training slide, as pages have it, only the label
    as a whole has one. Patches are tiles with attention and the activation of every class;
    the tissue that was looked at is a locked annotation.

    Args:
        folder: Where.
        explanation: The explanation.
        objects: The objects of the slide.
        tissue: Tissue of the slide.
        classes: Names of the classes.
        bounds: The slide's scanned part.
        marks: What is said of some labels beside the numbers of each of their objects.

    Raises:
        StoreError: The disk is full.
    """
    name = classes[explanation.target]
    count = write_geojson(
        folder / GEOJSON,
        _features(explanation, objects, tissue, classes, marks),
        slide_id=explanation.slide_id,
        bounds=bounds,
    )
    write_qupath_script(folder / SCRIPT, geojson=GEOJSON, measurement=_contribution(name))
    return count


def _features(
    explanation: Explanation,
    objects: ObjectTable,
    tissue: Tissue,
    classes: Sequence[str],
    marks: Mapping[str, str],
) -> Iterator[Feature]:
    name = classes[explanation.target]
    yield from region_features(tissue.mask, tissue.downsample, "tissue", title="tissue")
    yield from tile_features(
        objects.grid,
        {
            "attention": explanation.patch.attention,
            **{
                f"activation: {each}": scores
                for each, scores in zip(classes, explanation.patch.class_scores, strict=True)
            },
            f"object activation: {name}": explanation.object.patch_contribution.sum(axis=1),
        },
    )
    yield from object_features(objects, _numbers(explanation, objects, classes, marks))


def _numbers(
    explanation: Explanation,
    objects: ObjectTable,
    classes: Sequence[str],
    marks: Mapping[str, str],
) -> list[ObjectNumbers]:
    """Measurements of the objects of each label. A mark is one too: other text is not shown."""
    name, measured = classes[explanation.target], classes[explanation.importance.target]
    importance, parts = explanation.importance, explanation.object
    hidden = {label: e for e, label in enumerate(importance.objects)}
    numbers = []
    for j, label in enumerate(objects.labels):
        whole = {f"label's contribution: {name}": float(parts.contribution[j])}
        if not math.isnan(parts.baseline_logit):
            whole[f"label's contribution beyond the average slide: {name}"] = float(
                parts.centred[j]
            )
        if label in marks:
            whole[marks[label]] = 1.0
        if (e := hidden.get(label)) is not None:
            whole |= {
                f"label hidden, fall of log-odds: {measured}": float(
                    explanation.importance.effect[e]
                ),
                f"label hidden, random same area: {measured}": float(
                    explanation.importance.null[e]
                ),
                f"label hidden, IMP (Eq. 12): {measured}": float(importance.imp[e]),
            }
        shared = {_contribution(name): parts.patch_contribution[:, j]}
        numbers.append(ObjectNumbers(label=label, label_numbers=whole, shared=shared))
    return numbers


def _contribution(name: str) -> str:
    return f"contribution: {name}"
