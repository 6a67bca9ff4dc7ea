"""The stage for people, slide by slide: pictures, QuPath files and pages."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from xpath.batch.done import is_done, make_once, read_key
from xpath.explain.explanation import read_explanation
from xpath.explain.maps import object_map, object_shares, patch_map
from xpath.explain.perturbation import HIDDEN_BY, perturbation_of
from xpath.export.answers import answered_names, answers_in_words
from xpath.export.colour import hex_colour, object_colour, signed_rgba
from xpath.export.hidden import hidden_pictures
from xpath.export.overlay import (
    Panels,
    explain_figure,
    objects_rgba,
    short_name,
    signed_limit,
    stacked,
    write_png,
)
from xpath.export.report.pages import write_report
from xpath.export.report.pictures import jpeg_bytes, patch_strips, report_layers
from xpath.export.report.reasons import reasons
from xpath.export.report.records import ComparedMethods, ObjectRow, SlideReport
from xpath.export.report.tables import (
    cohort_evidence,
    cohort_needs,
    file_table,
    morphometry_table,
    temperatures,
    training_sentences,
)
from xpath.export.report.words import baseline_of
from xpath.geometry import Size
from xpath.labels import OTHER
from xpath.metrics.calibration import scaled_probability
from xpath.objects.measure import covered_pixels, morphometry
from xpath.store.features import read_features
from xpath.store.masks import open_masks
from xpath.store.schema import atomic
from xpath.store.tables import read_table, write_table
from xpath.study.attributions import attributions_key
from xpath.study.findings import export_findings
from xpath.study.keys import stage_key
from xpath.study.qupath import write_for_qupath
from xpath.study.slides import explain_key, objects_of
from xpath.wsi.tissue import find_tissue

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.batch.slides import SlideEntry
    from xpath.explain.explanation import Explanation
    from xpath.explain.verdict import Evidence
    from xpath.export.report.records import CohortNeed, HiddenPicture
    from xpath.store.features import SlideFeatures
    from xpath.store.masks import SlideMasks
    from xpath.store.objects import ObjectTable
    from xpath.study.asked_objects import AskedObjects
    from xpath.study.study import Study
    from xpath.wsi.slide import Slide

__all__ = ["OVERVIEW", "export", "hidden_of", "panels_of", "slide_report"]

OVERVIEW = 1100
"""Longer side of pictures, pixels."""


def export(study: Study, entry: SlideEntry, split: str) -> bool:
    """Makes pictures, GeoJSON and page of an explained slide, True if they had to be made."""
    path = study.folder.explanation(entry.slide_id)
    study.require(path, explain_key(study, entry), "explain")
    output = study.folder.exports(entry.slide_id)
    measured = study.classes[read_explanation(path).importance.target]

    def produce() -> None:
        objects = objects_of(study, entry)
        if objects.grid.slide_mpp is not None:
            measures = morphometry(objects, slide_id=entry.slide_id)
            rows = [asdict(row) | study.asked.columns(row.label) for row in measures]
            write_table(study.folder.morphometry(entry.slide_id), rows)
        with atomic(output) as draft:
            draft.mkdir()
            _export_to(draft, study, entry, split, objects)

    key = stage_key(
        "export",
        study.config,
        explain_key(study, entry),
        study.objects_key(entry),
        study.classes,
        split,
        # Tables over all slides, parts of which the page shows, change with any slide.
        cohort_needs(study.folder.table("importance"), measured),
        read_table(study.folder.table("evidence")),
        temperatures(study.folder.table("calibration"), study.fold_of(entry)),
        *_attributed(study, entry),
    )
    return make_once(output, key, produce)


def _attributed(study: Study, entry: SlideEntry) -> tuple[str, ...]:
    """Key of the slide's attributions, where the run asks for some."""
    if not study.config.explain.methods:
        return ()
    return (read_key(study.folder.attributions(entry.slide_id)),)


def _export_to(
    folder: Path, study: Study, entry: SlideEntry, split: str, objects: ObjectTable
) -> None:
    explanation = read_explanation(study.folder.explanation(entry.slide_id))
    masks = open_masks(study.folder.masks(entry.slide_id))
    with study.open_slide(entry) as slide:
        overview = slide.thumbnail(OVERVIEW)
        bounds, tissue = slide.bounds, find_tissue(slide, study.config.tissue)
        strips = patch_strips(slide, masks, explanation)
        hidden = hidden_of(study, slide, masks, explanation)
    panels = panels_of(study, entry, explanation, masks, overview)
    explain_figure(folder / "explanation.png", panels)
    layers = {
        "objects": objects_rgba(panels.shares, panels.objects),
        "patch_map": signed_rgba(panels.patch_map, signed_limit(panels.patch_map)),
        "object_map": signed_rgba(panels.object_map, signed_limit(panels.object_map)),
    }
    for name, layer in layers.items():
        write_png(folder / f"{name}.png", stacked(overview, layer))
    write_for_qupath(
        folder,
        explanation,
        objects,
        tissue,
        classes=study.classes,
        bounds=bounds,
        marks=_marks(study.asked),
    )
    figure = (folder / "explanation.png").read_bytes()
    report = slide_report(study, entry, split, explanation, figure)
    named = {reason.name for reason in reasons(report)}
    report = replace(
        report,
        overview=jpeg_bytes(overview),
        layers=report_layers(panels, f"slides/{entry.slide_id}", shown=named),
        strips=strips,
        hidden=hidden,
        um_per_pixel=panels.um_per_pixel,
        width=overview.shape[1],
    )
    write_report(folder / "report.html", report)
    export_findings(folder, study, explanation, objects, report, panels)


def _marks(asked: AskedObjects) -> dict[str, str]:
    """Remarks that QuPath shows beside objects that are not simply those asked for."""
    marks = dict.fromkeys(asked.guesses, "guess: the segmentor never learnt this label")
    for label, others in asked.answers.items():
        marks[label] = f"answers for {answered_names(label, others)}"
    return marks


def hidden_of(
    study: Study, slide: Slide, masks: SlideMasks, explanation: Explanation
) -> tuple[HiddenPicture, ...]:
    """Patches of an open slide as they are and with each object hidden, as the run hides them."""
    settings = study.config.explain
    return hidden_pictures(
        slide,
        masks,
        explanation.importance,
        perturbation_of(settings.hide, settings.sigma_um),
        feather_um=settings.feather_um,
    )


def panels_of(
    study: Study,
    entry: SlideEntry,
    explanation: Explanation,
    masks: SlideMasks,
    overview: NDArray[np.uint8],
) -> Panels:
    """Everything a figure of one explained slide shows, at the size of its overview."""
    size = Size(overview.shape[1], overview.shape[0])
    shares = object_shares(masks, size)
    name = study.classes[explanation.target]
    scale, mpp = masks.grid.slide_size.width / size.width, masks.grid.slide_mpp
    labelled = f", labelled {entry.label}" if entry.label else ""
    return Panels(
        title=f"{entry.slide_id}{labelled}, predicted {name}",
        overview=overview,
        um_per_pixel=None if mpp is None else scale * mpp,
        objects=masks.labels,
        shares=shares,
        patch_map=patch_map(explanation.patch.scores, masks.grid, size),
        object_map=object_map(explanation.object.activation[: len(masks.labels)], shares),
        contribution=explanation.object.bars,
        contribution_names=explanation.object.objects,
        class_name=name,
    )


def slide_report(
    study: Study,
    entry: SlideEntry,
    split: str,
    explanation: Explanation,
    figure: bytes,
) -> SlideReport:
    """The page of a slide, its pictures but one left out."""
    folder = study.folder
    features = read_features(folder.features(entry.slide_id))
    absent = json.loads(features.provenance.get("absent", "[]"))
    name, measured = study.classes[explanation.target], study.classes[explanation.importance.target]
    fold, by_object = study.fold_of(entry), explanation.object
    temperature = temperatures(folder.table("calibration"), fold)
    needs = cohort_needs(folder.table("importance"), measured)
    calibrated = ", ".join(f"{model} by {value:.3g}" for model, value in temperature.items())
    return SlideReport(
        slide_id=entry.slide_id,
        label=entry.label,
        split=split,
        predicted=name,
        explained=name,
        probability={
            "object-aware": _probability(
                explanation.object.logits, study.classes, temperature.get("object_aware", 1.0)
            ),
            "standard": _probability(
                explanation.patch.logits, study.classes, temperature.get("attention", 1.0)
            ),
        },
        figure=figure,
        overview=b"",
        layers=(),
        rows=_rows(
            explanation,
            _areas(explanation, features, objects_of(study, entry)),
            needs,
            cohort_evidence(folder.table("evidence")),
            absent=absent,
            guesses=study.asked.guesses,
            answers=study.asked.answers,
        ),
        not_found=tuple(short_name(name) for name in absent),
        absence=float(by_object.bars[np.isin(by_object.objects, absent)].sum()),
        baseline=baseline_of(by_object, study.classes),
        facts={
            "slide": entry.path.name,
            **features.provenance,
            "xpath": version("xpath-pathology"),
        },
        synthetic=study.config.drawn or study.segmentor.synthetic_only,
        untaught=study.asked.guess_names,
        answers=answers_in_words(study.asked.answers),
        measured=measured,
        calibration=f"logits divided by a temperature, {calibrated}" if calibrated else "",
        training=training_sentences(study.model_folder("object_aware", fold), folder.split),
        morphometry=morphometry_table(folder.morphometry(entry.slide_id), folder.root),
        hide=HIDDEN_BY[study.config.explain.hide],
        methods=_methods(study, entry),
    )


def _methods(study: Study, entry: SlideEntry) -> ComparedMethods | None:
    """Attributions of the slide by other methods, None where none were asked for."""
    folder = study.folder.attributions(entry.slide_id)
    if not study.config.explain.methods or not is_done(folder, attributions_key(study, entry)):
        return None
    return ComparedMethods(
        maps=(folder / "maps.png").read_bytes(),
        objects=file_table(folder / "objects.csv", study.folder.root),
        faithfulness=file_table(folder / "faithfulness.csv", study.folder.root),
    )


def _areas(
    explanation: Explanation, features: SlideFeatures, objects: ObjectTable
) -> NDArray[np.float64]:
    """Share of the area of all patches ``(L,)`` under the masks of what the classifier reads.

    Of "other", which has no mask, its coverage: that of features leaves out the rims of masks.
    """
    shares = dict(zip(features.objects, features.object_coverage.mean(axis=0), strict=True))
    covered = covered_pixels(objects.grid)
    shares |= zip(objects.labels, objects.label_pixels * objects.scale**2 / covered, strict=True)
    return np.array([shares[name] for name in explanation.object.objects], np.float64)


def _rows(
    explanation: Explanation,
    area: NDArray[np.float64],
    needs: Mapping[str, CohortNeed],
    verdicts: Mapping[str, Evidence],
    *,
    absent: Sequence[str],
    guesses: Container[str],
    answers: Mapping[str, Sequence[str]],
) -> tuple[ObjectRow, ...]:
    by_object, importance = explanation.object, explanation.importance
    hidden = {name: e for e, name in enumerate(importance.objects)}
    rows = []
    for j in np.argsort(-by_object.bars, kind="stable"):
        name = by_object.objects[j]
        if name in absent:
            continue
        e = hidden.get(name)
        rows.append(
            ObjectRow(
                name="other (no mask)" if name == OTHER else short_name(name),
                colour=hex_colour(object_colour(name)),
                area=float(area[j]),
                contribution=float(by_object.contribution[j]),
                centred=float(by_object.centred[j]),
                removal=float(by_object.removal[j]),
                effect=None if e is None else float(importance.effect[e]),
                null=None if e is None else float(importance.null[e]),
                imp=None if e is None else float(importance.imp[e]),
                p=None if e is None else float(importance.p[e]),
                random_masks=importance.random.shape[-1],
                cover=None if e is None else float(importance.cover[e]),
                cohort=needs.get(name),
                evidence=verdicts.get(name),
                guess=name in guesses,
                answers_for=answered_names(name, answers[name]) if name in answers else "",
                enough=bool(by_object.present[j]),
            )
        )
    return tuple(rows)


def _probability(
    logits: NDArray[np.float64], classes: Sequence[str], temperature: float = 1.0
) -> dict[str, float]:
    return dict(zip(classes, scaled_probability(logits, temperature).tolist(), strict=True))
