"""Learn of trained weights where to cut each class, and when to say "not present".

    python pipelines/calibrate_segmentor.py --weights run/weights --data DIR DIR
    python pipelines/calibrate_segmentor.py ... --refuse "breast-tissue-necrosis or debris"

Both are learnt on training images alone: --data and --split are those of the training. Cuts go into
config.json of the weights, and with all that was tried into cuts.csv; what tells from a mask
whether its object is there goes into presence.json. --refuse names labels that the held-out images
show not to have been learnt: answers to them are guesses from then on, as to labels never taught.
It may be repeated: it begins anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from xpath.pathseg.collection import collect, to_train_on
from xpath.pathseg.record import SourceImage
from xpath.segment.checkpoints.checkpoint import load_segmentor, read_config, save_segmentor
from xpath.segment.evaluation.cut_fitting import Cut, ask_cuts, cuts_of, fit_cuts
from xpath.segment.evaluation.presence_calibration import calibrate, untaught_labels
from xpath.segment.predict.calibration import PRESENCE
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.store.tables import write_table
from xpath.testing.crops import drawn_images

CUTS = "cuts.csv"
DRAWN = range(9000, 9008)
"""Seeds of drawn fields to learn absence from; training counts from 0."""


def main() -> None:
    """From weights to weights that know their cuts."""
    args = arguments()
    parts = [collect(folder, args.split) for folder in args.data]
    training = to_train_on((image for part in parts for image in part.train), args.split)
    images = sorted((*training.train, *training.validation), key=lambda it: (it.source, it.name))
    images = images[:: args.thin]
    fitted = teach_cuts(args.weights, images, args.refuse)
    teach_absence(args.weights, images + drawn_images(DRAWN))
    for cut in fitted:
        verdict = f"cut at {cut.best}" if cut.taken else "cut at 0.5"
        print(f"{cut.object_class}: {verdict}, {cut.gain:+.3f} of Dice in {cut.images} images")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, split = parser.add_argument, Path(__file__).parent / "splits"
    add("--weights", type=Path, required=True, help="folder of a checkpoint; it is changed")
    add("--data", type=Path, nargs="+", required=True, help="annotated images")
    add("--split", type=Path, default=split, help="which of them are held out")
    add("--refuse", nargs="+", default=[], metavar="LABEL", help="not learnt: to be guesses")
    add("--thin", type=int, default=2, help="learn from every so manyth training image")
    return parser.parse_args()


def teach_cuts(weights: Path, images: list[SourceImage], refused: list[str]) -> list[Cut]:
    """Learns where to cut each class, and keeps it with the weights, and what they refuse."""
    model, tokenizer, info = load_segmentor(weights)
    config, _ = read_config(weights)
    plain = replace(info.refusing(refused), cuts={})
    predictor = SegmentPredictor(model, tokenizer, plain)
    fitted = fit_cuts(ask_cuts(predictor, tqdm(images, desc="learning where to cut")))
    card = (weights / "README.md").read_text()
    known = replace(plain, cuts=cuts_of(fitted))
    save_segmentor(weights, model, config, tokenizer, known, card=card)
    write_table(weights / CUTS, fitted, Cut)
    return fitted


def teach_absence(weights: Path, images: list[SourceImage]) -> None:
    """Learns when to say "not present", and keeps it beside the weights."""
    predictor = SegmentPredictor.from_pretrained(weights, drawn=True)
    untaught = untaught_labels(predictor.info.labels)
    asked = tqdm(images, desc="learning what is absent")
    calibrate(predictor, asked, untaught=untaught).save(weights / PRESENCE)


if __name__ == "__main__":
    main()
