"""The stages of a study, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.batch.runner import run_stage
from xpath.study.cohort import load_explained, train_classifiers
from xpath.study.evidence import tabulate_contributions, tabulate_evidence, tabulate_importance
from xpath.study.exports import export, export_index
from xpath.study.folder import slide_splits
from xpath.study.label_tables import tabulate_labels
from xpath.study.pyramids import write_pyramids
from xpath.study.slides import explain, extract, segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.batch.ledger import StageReport
    from xpath.batch.slides import SlideEntry
    from xpath.study.study import Study

__all__ = [
    "explain_stage",
    "export_stage",
    "features_stage",
    "pyramids_stage",
    "run_chain",
    "segment_stage",
]


def segment_stage(study: Study, slides: Sequence[SlideEntry] | None = None) -> StageReport:
    """Object masks of all slides, or of some.

    Raises:
        XPathError: Labels, weights, device or numbers that no slide could be segmented with.
    """
    study.require_tools()
    chosen = study.slides if slides is None else slides
    report = run_stage("segment", chosen, lambda entry: segment(study, entry), study.ledger)
    tabulate_labels(study)
    return report


def features_stage(study: Study, slides: Sequence[SlideEntry] | None = None) -> StageReport:
    """Features of all slides, or of some. Those without masks fail.

    Raises:
        XPathError: An encoder, weights or device that no slide could be encoded with.
    """
    study.require_tools(encoder=True)
    chosen = study.slides if slides is None else slides
    return run_stage("features", chosen, lambda entry: extract(study, entry), study.ledger)


def explain_stage(study: Study) -> StageReport:
    """Explanations of the slides that are to be explained, and the tables over all of them."""
    models = load_explained(study)
    report = run_stage(
        "explain",
        to_explain(study),
        lambda entry: explain(study, entry, models[study.fold_of(entry)]),
        study.ledger,
    )
    importance = tabulate_importance(study)
    tabulate_contributions(study)
    tabulate_evidence(study, importance)
    return report


def export_stage(study: Study, *, title: str) -> StageReport:
    """Pictures and pages of the explained slides, and ``index.html``."""
    splits, importance = slide_splits(study.folder), tabulate_importance(study)
    contributions = tabulate_contributions(study)
    report = run_stage(
        "export",
        to_explain(study),
        lambda entry: export(study, entry, splits.get(entry.slide_id, "")),
        study.ledger,
    )
    export_index(study, importance, contributions, title=title)
    return report


def pyramids_stage(study: Study) -> StageReport:
    """Maps of the explained slides as OME-TIFF."""
    return run_stage(
        "pyramids", to_explain(study), lambda entry: write_pyramids(study, entry), study.ledger
    )


def run_chain(study: Study, *, title: str) -> bool:
    """Runs every stage from segmentation to export. True if no slide failed or was left out.

    A slide that fails in a stage is left out of the following ones.

    Raises:
        XPathError: A stage of all slides together failed, such as training on one class.
    """
    masks = segment_stage(study)
    features = features_stage(study, _those(study, masks.done))
    cohort = train_classifiers(study)
    explained = explain_stage(study)
    exported = export_stage(study, title=title)
    reports = (masks, features, explained, exported)
    return all(report.ok for report in reports) and not cohort.left_out


def to_explain(study: Study) -> list[SlideEntry]:
    """Slides of the chosen splits, or of all if nothing was held out, and those without label."""
    splits = slide_splits(study.folder)
    chosen = set(study.config.explain.splits) & set(splits.values()) or set(splits.values())
    return study.with_features(
        entry for entry in study.slides if splits.get(entry.slide_id) in chosen or not entry.label
    )


def _those(study: Study, slide_ids: Sequence[str]) -> list[SlideEntry]:
    wanted = set(slide_ids)
    return [entry for entry in study.slides if entry.slide_id in wanted]
