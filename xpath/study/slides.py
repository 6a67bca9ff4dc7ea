"""The stages that work on one slide: segment, features, explain."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.batch.attempts import attempt
from xpath.batch.done import key_of, make_once, read_key
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.importance import PerturbationConfig, Scene, object_importance
from xpath.explain.perturbation import Blur
from xpath.mil.bag import Bag, pack
from xpath.objects.extract import extract_objects
from xpath.segment.predict.whole_slide import segment_slide
from xpath.store.explanations import SlideExplanation, write_explanation
from xpath.store.features import read_features, write_features
from xpath.store.masks import open_masks
from xpath.wsi.grid import cut_grid
from xpath.wsi.probe import probe
from xpath.wsi.tissue import find_tissue

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.batch.slides import SlideEntry
    from xpath.mil.attention_mil import AttentionMIL
    from xpath.mil.object_aware import ObjectAwareMIL
    from xpath.store.features import SlideFeatures
    from xpath.study.study import Study

__all__ = ["Classifiers", "bags_of", "explain", "explain_key", "extract", "segment"]

Classifiers = tuple["AttentionMIL", "ObjectAwareMIL"]
"""The standard and the object-aware classifier."""
OF_THE_COHORT = ("parts", "resamples")
"""Settings of the explanations that no single one depends on."""


def segment(study: Study, entry: SlideEntry) -> bool:
    """Object masks of a slide; True if they had to be made."""
    output, key = study.folder.masks(entry.slide_id), study.masks_key(entry)

    def produce() -> None:
        probe(entry.path)  # in a child process, which a broken file may end
        with attempt(output, key), study.open_slide(entry) as slide:
            grid = cut_grid(slide, find_tissue(slide, study.config.tissue), study.config.grid)
            segment_slide(
                slide, grid, study.predictor, study.labels, output, config=study.segment_config
            )

    return make_once(output, key, produce)


def extract(study: Study, entry: SlideEntry) -> bool:
    """Patch and object features of a slide; True if they had to be made."""
    masks, output = study.folder.masks(entry.slide_id), study.folder.features(entry.slide_id)
    study.require(masks, study.masks_key(entry), "segment")
    key = study.features_key(entry)

    def produce() -> None:
        with attempt(output, key), study.open_slide(entry) as slide:
            features = extract_objects(
                slide,
                open_masks(masks),
                study.encoder,
                slide_id=entry.slide_id,
                batch=study.config.objects.batch,
            )
            write_features(output, features)

    return make_once(output, key, produce)


def explain(study: Study, entry: SlideEntry, classifiers: Classifiers) -> bool:
    """Activation maps and importances of a slide; True if they had to be made."""
    output = study.folder.explanation(entry.slide_id)
    features = study.folder.features(entry.slide_id)
    study.require(features, study.features_key(entry), "features")
    study.require(study.folder.masks(entry.slide_id), study.masks_key(entry), "segment")
    key = explain_key(study, entry)

    def produce() -> None:
        with attempt(output, key):
            write_explanation(output, _explanation(study, entry, features, classifiers))

    return make_once(output, key, produce)


def explain_key(study: Study, entry: SlideEntry) -> str:
    """What the explanation of a slide depends on."""
    settings = asdict(study.config.explain)
    return key_of(
        "explanation",
        study.features_key(entry),
        read_key(study.folder.model("attention")),
        read_key(study.folder.model("object_aware")),
        {name: value for name, value in settings.items() if name not in OF_THE_COHORT},
        study.config.objects.min_coverage,
        entry.label,
    )


def bags_of(slide: SlideFeatures, label: int | None, min_coverage: float) -> tuple[Bag, Bag]:
    """A slide as a bag of patches, and as a bag of objects."""
    present = torch.from_numpy(slide.object_coverage >= min_coverage)
    objects = torch.from_numpy(slide.object_features)  # half, as stored: packing widens a few
    return (
        Bag(torch.from_numpy(slide.features), None, label, slide.slide_id),
        Bag(objects, present, label, slide.slide_id),
    )


def _explanation(
    study: Study, entry: SlideEntry, path: Path, classifiers: Classifiers
) -> SlideExplanation:
    standard, aware = classifiers
    slide = read_features(path)
    min_coverage = study.config.objects.min_coverage
    patches, objects = bags_of(slide, None, min_coverage)
    with torch.inference_mode():
        logits = [model(pack([bag])).logits[0].double().numpy()
                  for model, bag in ((standard, patches), (aware, objects))]  # fmt: skip
    target = int(logits[1].argmax())
    patch = patch_activation(standard, patches, target)
    kind = object_activation(aware, objects, target)
    classes = aware.classes
    true = classes.index(entry.label) if entry.label in classes else target
    settings = study.config.explain
    asked = [name for name in settings.labels if name in slide.objects]

    def predict(features: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = standard(pack([Bag(features)])).logits[0]
            return logits

    with study.open_slide(entry) as opened:
        masks = open_masks(study.folder.masks(entry.slide_id))
        importance = object_importance(
            predict,
            study.encoder,
            Scene(slide_id=entry.slide_id, slide=opened, masks=masks, features=slide.features),
            objects=asked,
            target=true,
            perturbation=Blur(settings.sigma_um),
            config=PerturbationConfig(
                feather_um=settings.feather_um,
                null_draws=settings.null_draws,
                batch=2 * study.config.objects.batch,
                seed=settings.seed,
            ),
        )
    return SlideExplanation(
        slide_id=entry.slide_id,
        target=target,
        attention_logits=logits[0],
        object_logits=logits[1],
        attention=patch.attention,
        patch_scores=patch.scores,
        class_scores=_class_scores(standard, patches),
        patch_bias=patch.bias,
        objects=kind.objects,
        activation=kind.activation,
        contribution=kind.contribution,
        patch_contribution=kind.patch_contribution,
        object_bias=kind.bias,
        importance_target=true,
        hidden=importance.objects,
        probability=importance.probability,
        hidden_probability=importance.hidden_probability,
        imp=importance.imp,
        effect=importance.effect,
        null=importance.null,
        patches=importance.patches,
        area=importance.area,
    )


def _class_scores(standard: AttentionMIL, patches: Bag) -> NDArray[np.float64]:
    """What each patch adds to the logit of each class, ``(K, N)``."""
    classes = range(len(standard.classes))
    return np.stack([patch_activation(standard, patches, k).scores for k in classes])
