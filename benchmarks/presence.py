"""Does the segmentor know what is not there, and what it never learnt?

    python benchmarks/presence.py --data DIR
    python benchmarks/presence.py --data DIR --weights W --bag 20 --bags 40

Every held-out image of pipelines/splits/annotated.csv is asked for the labels it is known to show
or to lack, and for four labels the weights were never taught. The last line is JSON: shares of
untaught labels called present (at most 0.10 is wanted), of taught ones found where they are (0.85)
and refused where they are not (0.80), and "met". ``drawn`` is the share called present of labels
that were learnt from drawn tissue only, which on real images count as untaught. ``slides`` are the
same shares for bags of images decided together as the patches of a slide are (``slide_presence``):
a bag is drawn from images that all show the label, or all lack it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from xpath.pathseg.collection import collect
from xpath.segment.evaluation.presence_calibration import (
    ask_presence,
    presence_called,
    presence_chances,
    untaught_labels,
)
from xpath.segment.predict.competition import slide_presence
from xpath.segment.predict.known_prompts import UNTAUGHT
from xpath.segment.predict.predictor import SegmentPredictor

if TYPE_CHECKING:
    from xpath.segment.evaluation.presence_calibration import PresenceQuestions

WANTED = {"untaught_called": (None, 0.10), "found": (0.85, None), "refused": (0.80, None)}
"""Least and most of each share."""


def main() -> None:
    """Asks, and prints the figures."""
    args = arguments()
    _, held_out = collect(args.data, args.split)
    predictor = SegmentPredictor.from_pretrained(args.weights)
    if predictor.calibration is None:
        raise SystemExit(
            "these weights have no presence.json; pipelines/card_segmentor.py makes it"
        )
    images, info = held_out[: args.images], predictor.info
    asked = ask_presence(
        predictor, tqdm(images, "asking"), untaught=untaught_labels(info.labels), seed=1
    )
    chances = presence_chances(predictor.calibration, asked)
    threshold = predictor.calibration.threshold
    figures = shares(chances >= threshold, asked.present, asked.untaught)
    figures["met"] = met(figures)
    if info.drawn:
        known = ask_presence(predictor, tqdm(images, "drawn"), untaught=info.drawn, seed=1)
        figures["drawn"] = mean(presence_called(predictor, known)[known.untaught])
    figures["slides"] = of_bags(asked, chances, threshold, args)
    print(json.dumps({"weights": predictor.info.name, "images": len(images), **figures}))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    split = Path(__file__).parent.parent / "pipelines" / "splits" / "annotated.csv"
    parser.add_argument("--data", type=Path, required=True, help="annotated images")
    parser.add_argument("--split", type=Path, default=split, help="which images are held out")
    parser.add_argument("--weights", help="checkpoint (default: the weights that ship)")
    parser.add_argument("--images", type=int, help="only so many held-out images")
    parser.add_argument("--bag", type=int, default=20, help="images of a bag")
    parser.add_argument("--bags", type=int, default=40, help="bags of each label and truth")
    return parser.parse_args()


def shares(called: np.ndarray, present: np.ndarray, untaught: np.ndarray) -> dict[str, float | int]:
    """What was called where it should, and where it should not."""
    there, absent = present & ~untaught, ~present & ~untaught
    return {
        "untaught": int(untaught.sum()),
        "untaught_called": mean(called[untaught]),
        "present": int(there.sum()),
        "found": mean(called[there]),
        "absent": int(absent.sum()),
        "refused": mean(~called[absent]),
    }


def mean(values: np.ndarray) -> float | None:
    """Share of True, None of nothing."""
    return round(float(values.mean()), 4) if len(values) else None


def met(figures: dict[str, float | int]) -> bool:
    """Whether every share is as wanted."""
    return all(
        figures[name] is not None
        and (least is None or figures[name] >= least)
        and (most is None or figures[name] <= most)
        for name, (least, most) in WANTED.items()
    )


def of_bags(
    asked: PresenceQuestions, chances: np.ndarray, threshold: float, args: argparse.Namespace
) -> dict[str, float | int]:
    """The shares for bags of questions about one object class, organs pooled."""
    rng = np.random.default_rng(0)
    classes = np.array([
        UNTAUGHT if u else name.split("-", 1)[1]
        for name, u in zip(asked.labels, asked.untaught, strict=True)
    ])
    rows = []
    for name in np.unique(classes):
        for there in (True, False):
            pool = np.flatnonzero((classes == name) & (asked.present == there))
            for _ in range(args.bags if len(pool) >= args.bag else 0):
                bag = rng.choice(pool, args.bag, replace=False)
                areas = asked.statistics.area[bag, None]
                chance = slide_presence(chances[bag, None], areas)[0]
                rows.append((bool(areas.any() and chance >= threshold), there, name == UNTAUGHT))
    if not rows:
        return {}
    return shares(*np.array(rows, bool).T)


if __name__ == "__main__":
    main()
