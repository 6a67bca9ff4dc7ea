"""The page of a whole run, ``index.html``, and its figures for print."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from xpath.batch.claim import at_work
from xpath.batch.done import is_done
from xpath.explain.explanation import read_explanation
from xpath.explain.perturbation import HIDDEN_BY
from xpath.explain.verdict import Evidence
from xpath.export.answers import answered_names, answers_in_words
from xpath.export.colour import hex_colour, object_colour
from xpath.export.figures import activation_figure, importance_figure
from xpath.export.hidden import hidden_figure
from xpath.export.overlay import marked_name, short_name
from xpath.export.report.pages import write_index
from xpath.export.report.reasons import prediction_doubt
from xpath.export.report.records import CohortReport, FileTable, SlideReport
from xpath.export.report.tables import file_table
from xpath.export.report.words import cohort_need, doubt_in_words, need
from xpath.metrics.calibration import scaled_probability
from xpath.mil.classifier import CONTROLS
from xpath.store.masks import open_masks
from xpath.store.tables import read_rows, read_table
from xpath.study.exports import OVERVIEW, hidden_of, panels_of, slide_report
from xpath.study.folder import slide_predictions, slide_probabilities, slide_splits
from xpath.study.label_tables import LabelRow
from xpath.study.slides import EXPLAINED, explain_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xpath.batch.slides import SlideEntry
    from xpath.explain.explanation import Explanation
    from xpath.study.study import Study

__all__ = ["export_index"]

NO_DOUBT = {"probability": "", "doubt": ""}
SCORES = ("auc", "auc_low", "auc_high", "balanced_accuracy", "f1")
"""Columns of ``tables/metrics.csv`` that the page shows."""


def export_index(
    study: Study,
    importance: Sequence[Mapping[str, Any]],
    contributions: Sequence[Mapping[str, Any]],
    *,
    title: str,
) -> None:
    """Writes ``index.html`` and ``figures/``."""
    splits, predicted = slide_splits(study.folder), slide_predictions(study.folder)
    doubt, answers = _doubts(study), study.asked.answers
    slides = tuple(
        _slide_row(study, entry, splits, predicted) | doubt.get(entry.slide_id, NO_DOUBT)
        for entry in study.slides
    )
    metrics = read_table(study.folder.table("metrics"), **dict.fromkeys(SCORES, float))
    rows = tuple(
        {
            **row,
            "name": marked_name(row["object"], guess=row["object"] in study.asked.guesses),
            "answers_for": answered_names(row["object"], answers.get(row["object"], ())),
            "colour": hex_colour(object_colour(row["object"])),
        }
        for row in importance
    )
    best = _best(study)
    report = CohortReport(
        title=title,
        headline=_headline(study, rows, metrics),
        classes=study.classes,
        metrics=tuple(metrics),
        importance=rows,
        contributions=tuple(contributions),
        evidence=tuple(read_rows(study.folder.table("evidence"), Evidence)),
        faithfulness=_faithfulness(study),
        controls=not set(CONTROLS).isdisjoint(study.config.classifier.models),
        hide=HIDDEN_BY[study.config.explain.hide],
        groups=_groups(contributions),
        examples=tuple(_examples(study, best, splits)),
        slides=slides,
        facts={
            "xpath": version("xpath-pathology"),
            "segmentor": study.segmentor.name,
            "segmentor SHA-256": study.segmentor.digest,
            "encoder": study.encoder_info.name,
            "encoder SHA-256": study.encoder_info.digest,
            "settings": "run.json",
            "tables": "tables/*.csv",
            "figures for print": "figures/*.pdf, figures/*.png",
        },
        synthetic=study.config.drawn or study.segmentor.synthetic_only,
        untaught=study.asked.guess_names,
        answers=answers_in_words(answers),
        not_found=_not_found(study),
    )
    write_index(study.folder.index, report)
    _draw_figures(study, best, importance)


def _faithfulness(study: Study) -> FileTable | None:
    """Means of ``tables/faithfulness.csv``, without their intervals."""
    if not study.config.explain.methods:
        return None
    table = file_table(study.folder.table("faithfulness"), study.folder.root)
    if table is None:
        return None
    kept = [i for i, name in enumerate(table.columns) if not name.endswith(("_low", "_high"))]
    return replace(
        table,
        columns=tuple(table.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
    )


def _not_found(study: Study) -> tuple[str, ...]:
    """Short names of labels that were looked for and are on no slide."""
    rows = read_rows(study.folder.table("labels"), LabelRow)
    found = {row.label for row in rows if row.present}
    return tuple(dict.fromkeys(short_name(row.label) for row in rows if row.label not in found))


def _doubts(study: Study) -> dict[str, dict[str, str]]:
    """Probability of the predicted class and doubt in it, as printed, by slide id."""
    standard = slide_probabilities(study.folder, "attention")
    return {
        name: {
            "probability": _printed(max(chances.values())),
            "doubt": _printed(prediction_doubt(chances, standard.get(name, {}))),
        }
        for name, chances in slide_probabilities(study.folder).items()
        if chances
    }


def _printed(share: float) -> str:
    """Three digits, never rounded to certainty."""
    return f"{min(share, 0.999) if share < 1 else share:.3f}"


def _groups(contributions: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """Short names of objects that go together, two at least in each group."""
    groups = dict.fromkeys(row["group"] for row in contributions)
    named = (tuple(short_name(name) for name in group.split(" + ")) for group in groups)
    return tuple(group for group in named if len(group) > 1)


def _headline(
    study: Study, importance: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]
) -> str:
    sentences = []
    for name in study.classes:
        of_class = [row for row in importance if row["class_name"] == name]
        if not of_class:
            continue
        first = next((row for row in of_class if need(cohort_need(row)) == "supports"), None)
        if first:
            sentences.append(
                f"For {name} the standard model needs {first['name']} most{doubt_in_words(first)}."
            )
        else:
            sentences.append(f"No object stands out for {name}.")
    test = [row for row in metrics if row["split"] == "test" and row["model"] in EXPLAINED]
    sentences += [_auc_in_words(row) for row in test]
    return " ".join(sentences) or "No slide has been explained yet."


def _auc_in_words(row: Mapping[str, Any]) -> str:
    """A row of ``tables/metrics.csv`` in a sentence."""
    model, count = str(row["model"]).replace("_", "-"), int(row["slides"])
    slides = f"{count} test slide{'s' if count != 1 else ''}"
    if math.isnan(row["auc"]):
        return f"The {model} model has no AUC: a class is not among the {slides}."
    reach = f"[{row['auc_low']:.2f}, {row['auc_high']:.2f}]"
    return f"The {model} model has AUC {row['auc']:.2f} {reach} on {slides}."


def _examples(
    study: Study, best: Sequence[tuple[SlideEntry, Explanation]], splits: Mapping[str, str]
) -> Iterator[SlideReport]:
    for entry, explanation in best:
        picture = (study.folder.exports(entry.slide_id) / "explanation.png").read_bytes()
        yield slide_report(study, entry, splits.get(entry.slide_id, ""), explanation, picture)


def _best(study: Study) -> list[tuple[SlideEntry, Explanation]]:
    """The most certain explained test slide of each class, and every slide without a label."""
    best: dict[str, tuple[float, SlideEntry, Explanation]] = {}
    for entry in study.slides:
        path = study.folder.explanation(entry.slide_id)
        figure = study.folder.exports(entry.slide_id) / "explanation.png"
        if not figure.exists() or not is_done(path, explain_key(study, entry)):
            continue
        explanation = read_explanation(path)
        right = study.classes[explanation.target] == entry.label
        score = scaled_probability(explanation.object.logits, 1.0).max() if right else -1.0
        group = entry.label or entry.slide_id
        if group not in best or score > best[group][0]:
            best[group] = (score, entry, explanation)
    return [(entry, explanation) for _, (_, entry, explanation) in sorted(best.items())]


def _draw_figures(
    study: Study,
    best: Sequence[tuple[SlideEntry, Explanation]],
    importance: Sequence[Mapping[str, Any]],
) -> None:
    """``figures/``: activation maps of one slide per class, and importance by object."""
    panels, hidden = [], []
    for entry, explanation in best:
        masks = open_masks(study.folder.masks(entry.slide_id))
        with study.open_slide(entry) as slide:
            overview = slide.thumbnail(OVERVIEW)
            hidden.append((entry.slide_id, hidden_of(study, slide, masks, explanation)))
        panels.append(panels_of(study, entry, explanation, masks, overview))
    if panels:
        activation_figure(study.folder.root / "figures" / "activation", panels)
    hidden_figure(study.folder.root / "figures" / "hidden", hidden)
    if importance:
        stem = study.folder.root / "figures" / "importance"
        importance_figure(stem, importance, study.classes)


def _slide_row(
    study: Study, entry: SlideEntry, splits: Mapping[str, str], predicted: Mapping[str, str]
) -> dict[str, str]:
    stages = ("segment", "features", "explain", "export")
    failed = [
        f"{known.stage} failed: {known.reason}"
        for known in (study.ledger.entry(entry.slide_id, stage) for stage in stages)
        if known.status == "failed" and known.reason
    ]
    page = study.folder.exports(entry.slide_id) / "report.html"
    folder, name = study.folder, entry.slide_id
    busy = at_work([folder.masks(name), folder.features(name), folder.explanation(name)])
    reached = f"busy: {busy}" if busy else "explained" if page.exists() else "done"
    return {
        "slide_id": entry.slide_id,
        "label": entry.label,
        "split": splits.get(entry.slide_id, ""),
        "predicted": predicted.get(entry.slide_id, ""),
        "status": "; ".join(failed) or reached,
        "link": quote(page.relative_to(study.folder.root).as_posix()) if page.exists() else "",
    }
