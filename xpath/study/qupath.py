"""A slide's results as QuPath opens them: objects, patches, tissue, and a script to show them."""

from __future__ import annotations

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
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from xpath.explain.explanation import Explanation
    from xpath.export.qupath.geojson import Feature
    from xpath.geometry import Box
    from xpath.store.masks import SlideMasks
    from xpath.wsi.tissue import Tissue

__all__ = ["GEOJSON", "SCRIPT", "write_for_qupath"]

GEOJSON, SCRIPT = "objects.geojson", "open_in_qupath.groovy"


def write_for_qupath(
    folder: Path,
    found: Explanation,
    masks: SlideMasks,
    tissue: Tissue,
    *,
    classes: Sequence[str],
    bounds: Box,
) -> int:
    """Writes ``objects.geojson`` and the script that imports it; returns how many features it has.

    Objects are detections and carry the numbers of their kind and their own share of the
    contribution to the logit; patches are tiles with attention and the activation of every class;
    the tissue that was looked at is a locked annotation.

    Args:
        folder: Where.
        found: The explanation.
        masks: Object masks.
        tissue: Tissue of the slide.
        classes: Names of the classes.
        bounds: The slide's scanned part.

    Raises:
        StoreError: The disk is full.
    """
    name = classes[found.target]
    count = write_geojson(
        folder / GEOJSON,
        _features(found, masks, tissue, classes),
        slide_id=found.slide_id,
        bounds=bounds,
    )
    write_qupath_script(folder / SCRIPT, geojson=GEOJSON, measurement=_contribution(name))
    return count


def _features(
    found: Explanation, masks: SlideMasks, tissue: Tissue, classes: Sequence[str]
) -> Iterator[Feature]:
    name = classes[found.target]
    yield from region_features(tissue.mask, tissue.downsample, "tissue", title="tissue")
    yield from tile_features(
        masks.grid,
        {
            "attention": found.patch.attention,
            **{
                f"activation: {each}": scores
                for each, scores in zip(classes, found.patch.class_scores, strict=True)
            },
            f"object activation: {name}": found.object.patch_contribution.sum(axis=1),
        },
    )
    yield from object_features(masks, _numbers(found, masks, classes))


def _numbers(found: Explanation, masks: SlideMasks, classes: Sequence[str]) -> list[ObjectNumbers]:
    """What is told of each kind of object."""
    name, measured = classes[found.target], classes[found.importance.target]
    hidden = {label: e for e, label in enumerate(found.importance.objects)}
    numbers = []
    for j, label in enumerate(masks.labels):
        kind = {f"kind's contribution: {name}": float(found.object.contribution[j])}
        if (e := hidden.get(label)) is not None:
            kind |= {
                f"kind hidden, fall of log-odds: {measured}": float(found.importance.effect[e]),
                f"kind hidden, random same area: {measured}": float(found.importance.null[e]),
                f"kind hidden, IMP (Eq. 12): {measured}": float(found.importance.imp[e]),
            }
        shared = {_contribution(name): found.object.patch_contribution[:, j]}
        numbers.append(ObjectNumbers(label=label, kind=kind, shared=shared))
    return numbers


def _contribution(name: str) -> str:
    return f"contribution: {name}"
