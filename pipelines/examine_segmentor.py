"""Examine weights on all held-out images in one go, and write what was found as JSON.

    python pipelines/examine_segmentor.py --weights W --data DIR --more MORE --out result.json
    python pipelines/examine_segmentor.py ... --against unet=samples.csv --thin 4

DIR and MORE are folders with images.csv and labels.csv, whose held-out images --split names.
`classes`: Dice of every class on DIR, its mean over classes with ten or more images, and the
difference to other models on the same images. `words`: Dice of published words whose truth is that
of the classes they belong to, asked as they are and as their nearest taught class. `tissue`: Dice
on MORE. `refusal`: labels the weights were not taught, of which each image is asked for four, and
how many of these are called present; and the real images that taught each label. Beside the JSON
lies samples.csv, a row per question about DIR.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from xpath.pathseg.collection import collect
from xpath.pathseg.parents import Word, in_words
from xpath.pathseg.record import SourceImage
from xpath.segment.evaluation import card
from xpath.segment.evaluation import validation as scoring
from xpath.segment.evaluation.presence_calibration import ask_presence, untaught_labels
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor
from xpath.store.schema import atomic

SCHEMA = "xpath.examination/1"
LEAST = 10
"""Held-out images of a class that counts in the mean."""
WORDS = tuple(
    Word(structure, name)
    for name in ("lymphocyte", "plasma cells", "macrophage", "fibroblast")
    for structure in ("nuclei", "cell")
) + tuple(
    Word("cell", name)
    for name in ("epithelial", "malignant epithelial", "cancerous", "healthy epithelial", "muscle")
)


def main(arguments: list[str] | None = None) -> None:
    """From weights to JSON."""
    args = _parser().parse_args(arguments)
    predictor = SegmentPredictor.from_pretrained(args.weights)
    held_out = collect(args.data, args.split).held_out[:: args.thin]
    samples = validated(predictor, held_out, "classes")
    report = {
        "schema": SCHEMA,
        "weights": predictor.info.name,
        "digest": predictor.info.digest,
        "images": len(held_out),
        "classes": classes(samples, dict(pair.split("=", 1) for pair in args.against)),
        "words": words(predictor, args, held_out),
        "tissue": tissue(predictor, args),
        "refusal": refusal(predictor, held_out),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    scoring.write_samples(args.out.with_name("samples.csv"), samples)
    with atomic(args.out) as draft:
        draft.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["classes"]["mean"]), json.dumps(report["words"]), sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, split = parser.add_argument, Path(__file__).parent / "splits"
    add("--weights", help="checkpoint folder or hub id (default: the weights that ship)")
    add("--data", type=Path, required=True, help="annotated images")
    add("--more", type=Path, help="further annotated images, of tissue")
    add("--out", type=Path, required=True, help="JSON to write")
    add("--split", type=Path, default=split, help="which images are held out")
    add("--against", action="append", default=[], metavar="NAME=CSV", help="another's samples.csv")
    add("--thin", type=int, default=1, help="ask every so manyth image only")
    return parser


def validated(
    predictor: SegmentPredictor, images: list[SourceImage], what: str
) -> list[scoring.Sample]:
    """Answers to all questions about images, at their own resolution."""
    return scoring.validate(predictor, tqdm(images, desc=what), mpp=predictor.info.mpp_range)


def classes(samples: list[scoring.Sample], others: dict[str, str]) -> dict[str, Any]:
    """Scores of every class, their mean, and the differences to other models."""
    table = card.class_scores(samples)
    counted = [row["dice"] for row in table.values() if row.get("images", 0) >= LEAST]
    theirs = {name: scoring.read_samples(Path(path)) for name, path in others.items()}
    against = {name: card.differences(card.compare(samples, it)) for name, it in theirs.items()}
    mean = round(float(np.mean(counted)), 4) if counted else None
    return {"mean": mean, "by_class": table, "difference": against}


def words(
    predictor: SegmentPredictor, args: argparse.Namespace, images: list[SourceImage]
) -> dict[str, Any]:
    """Scores of published words, asked as they are and as their nearest taught class."""
    asked = [in_words(image, WORDS) for image in images]
    near = SegmentPredictor.from_pretrained(args.weights, config=PredictorConfig(parents=True))
    return {
        "as_asked": card.class_scores(validated(predictor, asked, "words")),
        "as_nearest_taught": card.class_scores(validated(near, asked, "nearest taught")),
    }


def tissue(predictor: SegmentPredictor, args: argparse.Namespace) -> dict[str, Any]:
    """Scores on the held-out images of the other folder."""
    if args.more is None:
        return {}
    return card.class_scores(
        validated(predictor, collect(args.more, args.split).held_out, "tissue")
    )


def refusal(predictor: SegmentPredictor, images: list[SourceImage]) -> dict[str, Any]:
    """Whether labels the weights were not taught are refused."""
    untaught = untaught_labels(predictor.info.labels)
    asked = ask_presence(predictor, tqdm(images, desc="refusal"), untaught=untaught)
    judge = predictor.calibration
    called = None
    if judge is not None:
        names = predictor.labels_of([scoring.prompt_of(label) for label in asked.labels])
        score = judge(asked.statistics, names)
        called = int(((score >= judge.threshold) & asked.untaught).sum())
    return {
        "untaught_labels": len(untaught),
        "untaught_asked": int(asked.untaught.sum()),
        "untaught_called_present": called,
        "taught": dict(predictor.info.taught),
        "drawn_only": list(predictor.info.drawn),
    }


if __name__ == "__main__":
    main()
