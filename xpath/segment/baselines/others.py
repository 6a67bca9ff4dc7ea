"""Scores of other models on the questions of an evaluation."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xpath.errors import CheckpointError, ConfigError, DataError
from xpath.segment.baselines.box_segmenter import BoxSegmenter, score_boxes
from xpath.segment.baselines.class_predictor import FILES, ClassPredictor
from xpath.segment.baselines.grounding_dino import DetectorSegmenter
from xpath.segment.baselines.nnunet import FACTS, NnuNet, NnuNetConfig
from xpath.segment.baselines.otsu import OtsuNuclei
from xpath.segment.evaluation.compared import named_paths
from xpath.segment.evaluation.evaluate import Evaluation, evaluate_segmentor
from xpath.segment.evaluation.predictions import MaskFolder, score_masks
from xpath.store.checkpoints import checkpoint_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from xpath.segment.evaluation.evaluate import Sample
    from xpath.segment.evaluation.questions import EvaluationConfig, Problem, Question

    Questions = Mapping[Path, Sequence[Question]]

__all__ = ["Others", "add_options", "scores_of_others"]

logger = logging.getLogger(__name__)

WAYS: tuple[Literal["union", "instance"], ...] = ("union", "instance")
OTSU = "otsu"
WEIGHTS = "weights"

MASKS_HELP = "masks of another tool: named as the data's, or label maps beside labels.csv"
BOXES_HELP = (
    "box-prompted MedSAM or SAM-Med2D (folder, hub id, .pth; sam:WEIGHTS for SAM itself): union and"
    " instance boxes"
)
MODELS_HELP = "a run of train_baseline.py, one of its sources, a hub id, or otsu"
DETECTORS_HELP = "Grounding DINO, and a box-prompted model for its boxes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Others:
    """Models to score beside the segmentor, by name."""

    masks: Mapping[str, Path] = field(default_factory=dict)
    """Folders of masks that other tools wrote."""
    boxes: Mapping[str, Path] = field(default_factory=dict)
    """Weights of box-prompted models."""
    models: Mapping[str, Path] = field(default_factory=dict)
    """Folders of trained baselines, or ``otsu``."""
    detectors: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Weights of a detector and of a box-prompted model."""
    device: str = "cpu"
    nnunet: Path | None = None
    """Folder of nnU-Net's programs; found on the path if None."""

    @classmethod
    def of(cls, args: argparse.Namespace, taken: Iterable[str] = ()) -> Others:
        """From a command line with ``add_options``.

        Args:
            args: The command line.
            taken: Names that models have already.

        Raises:
            ConfigError: A model is not written as wanted, or two have one name.
            DataError: A folder of masks is not there.
        """
        named = [f"{name}=." for name in taken]
        named_paths([*named, *args.predictions, *args.boxes, *args.model, *args.detector])
        masks = named_paths(args.predictions)
        if missing := [str(folder) for folder in masks.values() if not folder.is_dir()]:
            raise DataError(f"--predictions wants folders of masks; no folder: {missing}")
        detectors = {}
        for name, path in named_paths(args.detector).items():
            detector, comma, boxes = str(path).partition(",")
            if not comma:
                raise ConfigError(f"--detector takes NAME=DINO,WEIGHTS, got {name}={path}")
            detectors[name] = (detector, boxes)
        return cls(
            masks=masks,
            boxes=named_paths(args.boxes),
            models=named_paths(args.model),
            detectors=detectors,
            device=args.device,
            nnunet=args.nnunet,
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that ``Others.of`` reads, but for the device."""
    add = parser.add_argument
    add("--predictions", action="append", default=[], metavar="NAME=DIR", help=MASKS_HELP)
    add("--boxes", action="append", default=[], metavar="NAME=WEIGHTS", help=BOXES_HELP)
    add("--model", action="append", default=[], metavar="NAME=RUN", help=MODELS_HELP)
    add("--detector", action="append", default=[], metavar="NAME=DINO,WEIGHTS", help=DETECTORS_HELP)
    add("--nnunet", type=Path, metavar="BIN", help="folder of nnUNetv2_predict, if not on the path")


def scores_of_others(
    questions: Questions, config: EvaluationConfig, others: Others, out: Path
) -> Iterator[tuple[str, Evaluation]]:
    """Names and scores of the models, box-prompted ones in both ways.

    Args:
        questions: By image, as for ``evaluate_segmentor``. The nearest trained label is one of the
            weights they were made for, so other models are asked for the label itself.
        config: Of the evaluation.
        others: The models.
        out: Gets the label maps of nnU-Net, in ``NAME/masks``.

    Raises:
        CheckpointError: There are no such weights.
        DataError: A folder that holds no masks of these images.
    """
    questions = {
        image: [replace(one, nearest=None, trained=True) for one in of_image]
        for image, of_image in questions.items()
    }
    for name, folder in others.masks.items():
        yield name, score_masks(MaskFolder(folder), questions, config)
    for name, weights in others.boxes.items():
        segmenter = BoxSegmenter.from_pretrained(weights, device=others.device)
        for way in WAYS:
            yield f"{name} {way}", score_boxes(segmenter, questions, config, way)
    for name, run in others.models.items():
        yield name, _of_run(run, questions, config, others, out / name / "masks")
    for name, (detector, boxes) in others.detectors.items():
        model = DetectorSegmenter.from_pretrained(detector, boxes, device=others.device)
        yield name, evaluate_segmentor(model, questions, config)


def _of_run(
    run: Path, questions: Questions, config: EvaluationConfig, others: Others, out: Path
) -> Evaluation:
    """Scores of a baseline: of one model, or of each source's own on the images of that source."""
    if str(run) == OTSU:
        return evaluate_segmentor(OtsuNuclei(), questions, config)
    run = checkpoint_folder(run, FILES)
    if _is_trained(run):
        return _of_model(run, questions, config, others, out)
    trained = {path.name: path for path in sorted(run.glob("*")) if _is_trained(path)}
    if not trained:
        raise CheckpointError(
            f"{run} is neither {OTSU!r} nor a run of pipelines/train_baseline.py: no model in it"
        )
    asked: dict[str, dict[Path, Sequence[Question]]] = {}
    for image, of_image in questions.items():
        asked.setdefault(of_image[0].source, {})[image] = of_image
    if not trained.keys() & asked.keys():
        raise DataError(
            f"{run} was trained on {', '.join(trained)}, and the questions are of"
            f" {', '.join(asked)}; to ask one source's model of others, name it: {run}/SOURCE"
        )
    samples: list[Sample] = []
    problems: list[Problem] = []
    for source, some in asked.items():
        if source not in trained:
            logger.warning("%s has no model of %s, which is left out", run, source)
            continue
        scored = _of_model(trained[source], some, config, others, out / source)
        samples += scored.samples
        problems += scored.problems
    return Evaluation(tuple(samples), tuple(problems))


def _is_trained(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (FACTS, WEIGHTS + "/config.json", FILES[0]))


def _of_model(
    folder: Path, questions: Questions, config: EvaluationConfig, others: Others, out: Path
) -> Evaluation:
    """Scores of one trained baseline."""
    if not (folder / FACTS).is_file():
        weights = folder if (folder / FILES[0]).is_file() else folder / WEIGHTS
        predictor = ClassPredictor.from_pretrained(weights, device=others.device)
        return evaluate_segmentor(predictor, questions, config)
    model = NnuNet(folder, others.nnunet)
    model.predict(list(questions), out, NnuNetConfig(device=others.device))
    model.write_labels(out, [one.name for some in questions.values() for one in some])
    return score_masks(MaskFolder(out), questions, config)
