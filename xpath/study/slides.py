"""The stages that work on one slide: segment, features, explain."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from xpath.batch.attempts import attempt
from xpath.batch.done import make_once, read_key
from xpath.batch.runner import SlideJob
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.explanation import Explanation, write_explanation
from xpath.explain.grouping import shared_area
from xpath.explain.hiding import SegmentedSlide
from xpath.explain.importance import hide_objects, importance_of
from xpath.explain.perturbation import PerturbationConfig, perturbation_of
from xpath.mil.bag import Bag, pack
from xpath.objects.extract import extract_objects
from xpath.objects.find import find_objects
from xpath.segment.predict.whole_slide import segment_slide
from xpath.store.features import read_features, write_features
from xpath.store.masks import open_masks
from xpath.store.objects import read_objects, write_objects
from xpath.study.keys import stage_key
from xpath.wsi.grid import cut_grid
from xpath.wsi.kept_patches import KeptPatches
from xpath.wsi.probe import probe
from xpath.wsi.tissue import find_tissue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from xpath.batch.slides import SlideEntry
    from xpath.explain.importance import HiddenObjects, ObjectImportance
    from xpath.mil.attention_mil import AttentionMIL
    from xpath.mil.object_aware import ObjectAwareMIL
    from xpath.store.features import SlideFeatures
    from xpath.store.objects import ObjectTable
    from xpath.study.study import Study

__all__ = [
    "EXPLAINED",
    "ExplainedModels",
    "bags_of",
    "explain",
    "explain_key",
    "extract",
    "hidden_objects",
    "logits_of",
    "objects_of",
    "segment",
    "segment_and_extract",
]


class ExplainedModels(NamedTuple):
    """The classifiers whose predictions are explained, by their names in the settings."""

    attention: AttentionMIL
    object_aware: ObjectAwareMIL


EXPLAINED = ExplainedModels._fields
"""Their names."""


def segment(study: Study, entry: SlideEntry, kept: KeptPatches | None = None) -> bool:
    """Makes masks of a slide and the table of its objects, True if any had to be made.

    Args:
        study: The study.
        entry: The slide.
        kept: Gets the patches that are read.
    """
    output, key = study.folder.masks(entry.slide_id), study.masks_key(entry)

    def produce() -> None:
        probe(entry.path)  # in a child process, which a broken file may end
        with attempt(output, key), study.open_slide(entry) as slide:
            grid = cut_grid(slide, find_tissue(slide, study.config.tissue), study.config.grid)
            source = kept.start(slide, grid) if kept else slide
            segment_slide(
                source,
                grid,
                study.predictor,
                study.labels,
                output,
                config=study.segment_config,
                on_patches=study.ledger.counter(entry.slide_id, "segment", len(grid)),
            )

    made = make_once(output, key, produce)
    return _count_objects(study, entry) or made


def objects_of(study: Study, entry: SlideEntry) -> ObjectTable:
    """The objects of a segmented slide, counted now if that was not done or by another rule.

    Raises:
        Busy: Another process is counting them.
        StoreError: The slide has no finished masks, or they are damaged.
    """
    _count_objects(study, entry)
    return read_objects(study.folder.objects(entry.slide_id))


def _count_objects(study: Study, entry: SlideEntry) -> bool:
    masks, output = study.folder.masks(entry.slide_id), study.folder.objects(entry.slide_id)

    def produce() -> None:
        write_objects(output, find_objects(open_masks(masks), study.config.counting))

    return make_once(output, study.objects_key(entry), produce)


def extract(study: Study, entry: SlideEntry, kept: KeptPatches | None = None) -> bool:
    """Makes patch and object features of a slide, True if they had to be made.

    Args:
        study: The study.
        entry: The slide.
        kept: Its patches, so that it need not be read.
    """
    masks, output = study.folder.masks(entry.slide_id), study.folder.features(entry.slide_id)
    study.require(masks, study.masks_key(entry), "segment")
    key = study.features_key(entry)

    def produce() -> None:
        with attempt(output, key), nullcontext(kept) if kept else study.open_slide(entry) as source:
            found = open_masks(masks)
            features = extract_objects(
                source,
                found,
                study.encoder,
                slide_id=entry.slide_id,
                batch=study.config.objects.batch,
                rim_um=study.config.objects.rim_um,
                on_patches=study.ledger.counter(entry.slide_id, "features", len(found.grid)),
            )
            write_features(output, features)

    return make_once(output, key, produce)


def segment_and_extract(study: Study, entry: SlideEntry) -> bool:
    """Makes masks, objects and features of a slide, of which every patch is decoded once.

    Features, with their own entry in the ledger, are made only where the masks had to be: those of
    a slide that is segmented already are left to ``extract``.

    Returns:
        True if masks or objects had to be made and the ledger does not know it yet.
    """
    folder = study.folder.slide(entry.slide_id)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with KeptPatches(folder) as kept:
        made = segment(study, entry, kept)
        if not kept.complete:
            return made
        study.ledger.note(entry.slide_id, "segment", seconds=time.monotonic() - started)
        SlideJob("features", partial(extract, study, kept=kept), study.ledger)(entry)
        return False


def explain(study: Study, entry: SlideEntry, models: ExplainedModels) -> bool:
    """Makes the explanation of a slide, True if it had to be made."""
    output = study.folder.explanation(entry.slide_id)
    features = study.folder.features(entry.slide_id)
    study.require(features, study.features_key(entry), "features")
    study.require(study.folder.masks(entry.slide_id), study.masks_key(entry), "segment")
    key = explain_key(study, entry)

    def produce() -> None:
        with attempt(output, key):
            write_explanation(output, _explanation(study, entry, features, models))

    return make_once(output, key, produce)


def explain_key(study: Study, entry: SlideEntry) -> str:
    """Key of the explanation of a slide."""
    return stage_key(
        "explanation",
        study.config,
        study.features_key(entry),
        *(read_key(study.model_folder(name, study.fold_of(entry))) for name in EXPLAINED),
        study.config.explain.labels,
        entry.label,
    )


def bags_of(
    slide: SlideFeatures,
    label: int | None,
    min_coverage: float,
    objects: Sequence[str] | None = None,
) -> tuple[Bag, Bag]:
    """A slide as a bag of patches, and as a bag of objects, all or those a classifier reads."""
    kept = [slide.objects.index(name) for name in objects or slide.objects]
    present = torch.from_numpy(slide.object_coverage[:, kept] >= min_coverage)
    features = torch.from_numpy(slide.object_features[:, kept])  # half: packing widens a few
    return (
        Bag(torch.from_numpy(slide.features), None, label, slide.slide_id),
        Bag(features, present, label, slide.slide_id),
    )


def _explanation(
    study: Study, entry: SlideEntry, path: Path, models: ExplainedModels
) -> Explanation:
    standard, aware = models.attention, models.object_aware
    slide = read_features(path)
    patches, objects = bags_of(slide, None, study.config.objects.min_coverage, aware.objects)
    by_object = object_activation(aware, objects, contrast="runner_up")
    return Explanation(
        patch=patch_activation(standard, patches, by_object.target, contrast="runner_up"),
        object=by_object,
        importance=_importance(study, entry, slide, standard, by_object.target),
        shared=shared_area(open_masks(study.folder.masks(entry.slide_id))),
    )


def hidden_objects(study: Study, entry: SlideEntry, slide: SlideFeatures) -> HiddenObjects:
    """A slide with each object hidden that the settings ask about, as any classifier would see it.

    Args:
        study: Its encoder encodes what is seen.
        entry: The slide.
        slide: Its features.
    """
    settings = study.config.explain
    with study.open_slide(entry) as opened:
        masks = open_masks(study.folder.masks(entry.slide_id))
        return hide_objects(
            study.encoder,
            SegmentedSlide(
                slide_id=entry.slide_id, slide=opened, masks=masks, features=slide.features
            ),
            objects=[
                name for name in study.asked.for_labels(settings.labels) if name in slide.objects
            ],
            perturbation=perturbation_of(settings.hide, settings.sigma_um),
            config=PerturbationConfig(
                feather_um=settings.feather_um,
                null=settings.null,
                null_draws=settings.null_draws,
                batch=2 * study.config.objects.batch,
                seed=settings.seed,
            ),
        )


def _importance(
    study: Study, entry: SlideEntry, slide: SlideFeatures, standard: AttentionMIL, predicted: int
) -> ObjectImportance:
    """Importance of objects for the true class, or the predicted one where it is not known."""
    classes = standard.classes
    target = classes.index(entry.label) if entry.label in classes else predicted
    return importance_of(logits_of(standard), hidden_objects(study, entry, slide), target)


def logits_of(standard: AttentionMIL) -> Callable[[Tensor], Tensor]:
    """The standard classifier as a function from patch features ``(N, D)`` to logits ``(K,)``."""

    def predict(features: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = standard(pack([Bag(features)])).logits[0]
            return logits

    return predict
