"""Measure a trained segmentor on held-out images and write the folder that ships, with its card.

    python pipelines/card_segmentor.py --run run --data DIR --out weights --against otsu=samples.csv

RUN is the folder of pipelines/train_segmentor.py, whose weights went through
pipelines/calibrate_segmentor.py. Scores are of the weights as shipped, in half
precision. DIR and --split are those of the training. --against names samples.csv of other models
on the same images, as pipelines/train_baseline.py writes. Out come the checkpoint with README.md,
the samples and the curves, all or nothing, for everyone to read.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xpath.errors import CheckpointError
from xpath.pathseg.collection import collect
from xpath.segment.checkpoints.checkpoint import FILES, SCHEMA
from xpath.segment.evaluation import card
from xpath.segment.evaluation import validation as scoring
from xpath.segment.predict.calibration import PRESENCE
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.store.schema import atomic

FROM_RUN = ("curves.png", "log.csv", "sessions.csv", "validation.csv")
SIZES = (0.25, 0.35, 0.5, 0.75, 1.0)
LEAST = 10  # held-out images of an object class that counts in the mean


def main() -> None:
    """From a run to a folder of weights with its card."""
    args = arguments()
    refuse_other_files(args.out)
    with atomic(args.out) as draft:
        shutil.copytree(args.run / "weights", draft)
        text = measure(draft, args)
        (draft / "README.md").write_text(text)
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    print(text)


def measure(weights: Path, args: argparse.Namespace) -> str:
    """Writes the card of weights, with the files it rests on beside it."""
    held_out = collect(args.data, args.split).held_out
    predictor = SegmentPredictor.from_pretrained(weights)
    samples = scoring.validate(predictor, tqdm(held_out, desc="held-out images"))
    some = held_out[::4]
    by_size = {m: scoring.validate(predictor, tqdm(some, f"at {m} mpp"), mpp=m) for m in SIZES}
    others = dict(pair.split("=", 1) for pair in args.against)
    theirs = {name: scoring.read_samples(Path(path)) for name, path in others.items()}
    comparisons = {name: card.compare(samples, rows) for name, rows in theirs.items()}
    (weights / "scores").mkdir()
    scoring.write_samples(weights / "scores" / "samples.csv", samples)
    for name, path in others.items():
        shutil.copy(path, weights / "scores" / f"{name}.csv")
    for name in FROM_RUN:
        if (args.run / name).exists():
            shutil.copy(args.run / name, weights / name)
    classes = scoring.mean_by_label(samples).values()
    template = Path(__file__).with_suffix(".md").read_text()
    return template.format(
        name=predictor.info.name,
        parameters=f"{sum(p.numel() for p in predictor.model.parameters()) / 1e6:.1f}",
        licence=predictor.info.licence,
        by_kind=card.score_table(samples, card.object_class_of),
        by_source=card.score_table(samples, lambda s: f"{s.source}: {card.object_class_of(s)}"),
        mean=f"{np.mean([dice for count, dice in classes if count >= LEAST]):.3f}",
        presence=card.presence_table(samples),
        blank=blank_answers(predictor),
        answers=card.presence_answers(predictor, held_out),
        comparison=card.comparison_table(comparisons) if comparisons else "None was made.",
        sizes=size_table(by_size),
        labels=card.label_table(predictor.info),
        facts=json.dumps(json.loads(args.facts.read_text()) if args.facts else {}, indent=1),
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, split = parser.add_argument, Path(__file__).parent / "splits" / "annotated.csv"
    add("--run", type=Path, required=True, help="folder of train_segmentor.py")
    add("--data", type=Path, required=True, help="annotated images")
    add("--out", type=Path, required=True, help="folder to write; may hold an earlier card")
    add("--split", type=Path, default=split, help="which images are held out")
    add("--against", action="append", default=[], metavar="NAME=CSV", help="another's samples.csv")
    add("--facts", type=Path, help="JSON about the training: command, hours, hardware")
    return parser.parse_args()


def refuse_other_files(folder: Path) -> None:
    """A folder is replaced as a whole, so only a segmentor's may lie there."""
    config = folder / "config.json"
    ours = config.is_file() and SCHEMA in config.read_text(errors="replace")
    known = {*FILES, *FROM_RUN, PRESENCE, "cuts.csv", "scores"} if ours else set()
    files = [folder] if folder.is_file() else folder.glob("*")
    if others := {path.name for path in files} - known:
        raise CheckpointError(
            f"{folder} would be replaced, but {sorted(others)[:5]} is no part of a segmentor;"
            " choose another folder, or remove it first"
        )


def blank_answers(predictor: SegmentPredictor) -> str:
    """Share of bare glass taken for an object, with every label that was trained."""
    rng = np.random.default_rng(0)
    prompts = [scoring.prompt_of(label) for label in predictor.info.labels]
    shades = [np.full(3, level) + rng.uniform(-6, 0, 3) for level in np.linspace(225, 250, 8)]
    images = [np.clip(c + rng.normal(0, 2, (256, 256, 3)), 0, 255).astype(np.uint8) for c in shades]
    present = predictor.masks(predictor.encode(np.stack(images)), prompts).present
    return f'On bare glass {int(present.sum())} of {present.size} answers are "present"'


def size_table(by_size: dict[float, list[scoring.Sample]]) -> str:
    """Dice of each object class at each resolution."""
    class_of = card.object_class_of
    names = sorted({class_of(s) for s in next(iter(by_size.values())) if s.present})
    rows = ["| | " + " | ".join(f"{mpp} mpp" for mpp in by_size) + " |", "|---" * 6 + "|"]
    for name in names:
        present = ([s for s in every if s.present] for every in by_size.values())
        scores = [np.mean([s.dice for s in some if class_of(s) == name]) for some in present]
        rows.append(f"| {name} | " + " | ".join(f"{score:.2f}" for score in scores) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
