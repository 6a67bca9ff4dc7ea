"""The stages of a study, one after the other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from xpath.batch.attempts import forget_attempts
from xpath.batch.claim import claim_in_turn
from xpath.batch.runner import Executor, InProcess, run_stage
from xpath.batch.selection import Selection
from xpath.study.attributions import tabulate_faithfulness
from xpath.study.cohort import load_explained, train_classifiers
from xpath.study.dicom import require_dicom
from xpath.study.evidence import tabulate_contributions, tabulate_evidence, tabulate_importance
from xpath.study.index_page import export_index
from xpath.study.jobs import StudyJob
from xpath.study.label_tables import tabulate_labels
from xpath.study.preflight import preflight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xpath.batch.ledger import LedgerEntry, StageReport
    from xpath.batch.slides import SlideEntry
    from xpath.mil.cohort import Cohort
    from xpath.study.study import Study

__all__ = [
    "Batch",
    "attributions_stage",
    "dicom_stage",
    "explain_stage",
    "export_stage",
    "features_stage",
    "pyramids_stage",
    "run_chain",
    "segment_stage",
    "to_explain",
    "train_stage",
]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Where the slides of a stage are worked on, and which of them."""

    executor: Executor = field(default_factory=InProcess)
    selection: Selection = field(default_factory=Selection)

    def chosen(
        self, stage: str, study: Study, slides: Sequence[SlideEntry]
    ) -> Sequence[SlideEntry]:
        """Those of the slides that are selected. Failed ones that are get a new chance."""
        chosen = self.selection.of(slides, stage, study.ledger)
        if self.selection.failed:
            for slide in chosen:
                forget_attempts(study.folder.slide(slide.slide_id))
        return chosen

    @property
    def elsewhere(self) -> Executor | None:
        """The executor, None if it is this process."""
        return None if isinstance(self.executor, InProcess) else self.executor

    def run(
        self,
        stage: str,
        study: Study,
        slides: Sequence[SlideEntry],
        *,
        job: str = "",
        before: Mapping[str, LedgerEntry] = MappingProxyType({}),
    ) -> StageReport:
        """Does a stage's work on those of the slides that are selected.

        Args:
            stage: Its name.
            study: The study.
            slides: The candidates.
            job: One of ``STAGES`` that does the stage and more, by default the stage itself.
            before: As of ``run_stage``.
        """
        chosen = self.chosen(stage, study, slides)
        work = StudyJob(job or stage, study)
        return run_stage(stage, chosen, work, study.ledger, executor=self.executor, before=before)


HERE = Batch()
"""All slides, one after the other in this process."""


def segment_stage(
    study: Study,
    slides: Sequence[SlideEntry] | None = None,
    batch: Batch = HERE,
    *,
    features: bool = False,
) -> StageReport:
    """Object masks of all slides, or of some.

    Args:
        study: The study.
        slides: Some of its slides.
        batch: Where and which.
        features: Make the features of what is segmented too, while its pixels are at hand.

    Raises:
        XPathError: Labels, weights, device or numbers that no slide could be segmented with.
    """
    study.require_tools(encoder=features)
    job = "segment, features" if features else ""
    report = batch.run("segment", study, study.slides if slides is None else slides, job=job)
    with claim_in_turn(study.folder.table("labels")):
        tabulate_labels(study)
    return report


def features_stage(
    study: Study,
    slides: Sequence[SlideEntry] | None = None,
    batch: Batch = HERE,
    *,
    before: Mapping[str, LedgerEntry] = MappingProxyType({}),
) -> StageReport:
    """Features of all slides, or of some. Those without masks fail.

    Args:
        study: The study.
        slides: Some of its slides.
        batch: Where and which.
        before: As of ``run_stage``.

    Raises:
        XPathError: An encoder, weights or device that no slide could be encoded with.
    """
    study.require_tools(encoder=True)
    slides = study.slides if slides is None else slides
    return batch.run("features", study, slides, before=before)


def train_stage(study: Study, batch: Batch = HERE) -> Cohort:
    """Trains the classifiers, one process at a time, on all slides that have features.

    Args:
        study: The study.
        batch: Where models are trained.

    Raises:
        XPathError: As of ``train_classifiers``.
    """
    with claim_in_turn(study.folder.split):
        return train_classifiers(study, batch.elsewhere)


def explain_stage(study: Study, batch: Batch = HERE) -> StageReport:
    """Explanations of the slides that are to be explained, and the tables over all of them."""
    load_explained(study)
    report = batch.run("explain", study, to_explain(study))
    with claim_in_turn(study.folder.table("importance")):
        importance = tabulate_importance(study)
        tabulate_contributions(study)
        tabulate_evidence(study, importance, batch.elsewhere)
    return report


def attributions_stage(study: Study, batch: Batch = HERE) -> StageReport:
    """Explained slides attributed by every method of ``explain.methods``, and the table of these.

    Raises:
        StoreError: There are no trained classifiers.
    """
    load_explained(study)
    slides = to_explain(study) if study.config.explain.methods else ()
    report = batch.run("attributions", study, slides)
    with claim_in_turn(study.folder.table("faithfulness")):
        tabulate_faithfulness(study)
    return report


def export_stage(study: Study, *, title: str, batch: Batch = HERE) -> StageReport:
    """Pictures and pages of the explained slides, and ``index.html``."""
    with claim_in_turn(study.folder.table("importance")):
        importance, contributions = tabulate_importance(study), tabulate_contributions(study)
    report = batch.run("export", study, to_explain(study))
    with claim_in_turn(study.folder.index):
        export_index(study, importance, contributions, title=title)
    return report


def pyramids_stage(study: Study, batch: Batch = HERE) -> StageReport:
    """Maps of the explained slides as OME-TIFF."""
    return batch.run("pyramids", study, to_explain(study))


def dicom_stage(study: Study, batch: Batch = HERE) -> StageReport:
    """Masks of all DICOM slides of a run as ``slides/ID/objects.dcm``.

    Slides of other formats fail and the others go on, unless all are of other formats.

    Raises:
        DataError: None of the slides is DICOM.
        MissingDependencyError: highdicom is not installed.
    """
    require_dicom(study)
    return batch.run("dicom-seg", study, study.slides)


def run_chain(study: Study, *, title: str, batch: Batch = HERE) -> bool:
    """Runs every stage from segmentation to export. True if no slide failed or was left out.

    A slide that fails in a stage is left out of the following ones. Of several processes on one run
    folder each waits for the slides of the others before it trains. A shard, or any other part of
    the slides, ends with the features, because training needs all of them.

    Raises:
        XPathError: A stage of all slides together failed, such as training on one class.
    """
    before = {s.slide_id: study.ledger.entry(s.slide_id, "features") for s in study.slides}
    for problem in preflight(study, batch.selection.of(study.slides, "segment", study.ledger)):
        logger.warning("before any work: %s", problem)
    masks = segment_stage(study, batch=batch, features=True)
    again = batch.chosen("features", study, study.slides) if batch.selection.failed else ()
    some = _those(study, {*masks.done, *(slide.slide_id for slide in again)})
    features = features_stage(study, some, Batch(executor=batch.executor), before=before)
    if batch.selection.is_part:
        logger.warning("part of the slides have features; run without --shard and --only to train")
        return masks.ok and features.ok
    cohort = train_stage(study, batch)
    explained = explain_stage(study, batch)
    methods = [attributions_stage(study, batch)] if study.config.explain.methods else []
    exported = export_stage(study, title=title, batch=batch)
    reports = (masks, features, explained, *methods, exported)
    return all(report.ok for report in reports) and not cohort.left_out


def to_explain(study: Study) -> list[SlideEntry]:
    """Slides that are to be explained and whose features are done."""
    return study.with_features(study.slides_to_explain())


def _those(study: Study, slide_ids: set[str]) -> list[SlideEntry]:
    return [entry for entry in study.slides if entry.slide_id in slide_ids]
