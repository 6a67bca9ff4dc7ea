"""Numbers of nuclei on annotated images: the annotation's, and those of every place that counts.

    XPATH_SHARED=../shared python benchmarks/object_counts.py

Each NuInsSeg image is segmented with the weights that ship. ``joined`` are the connected components
of 4 square microns or more, ``objects`` what ``xpath.objects`` counts: touching nuclei separated.
``of_truth`` is counted by the same rule from the annotation's own mask. That mask joins nuclei that
touch, and ``annotated`` are its components, so on crowded images the truth is above them. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xpath.labels import load_labels
from xpath.objects.find import find_in_image
from xpath.objects.rule import ObjectConfig
from xpath.segment.predict.predictor import SegmentPredictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("13", "178", "358")
LABEL = "unspecified-nuclei-nuclei"


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", default=",".join(NAMES), help="numbers, separated by commas")
    args = parser.parse_args()
    data = Path(os.environ["XPATH_SHARED"]) / "data"
    annotated = {row["image"]: row for row in _rows(data / "labels.csv") if row["label"] == LABEL}
    mpp = {row["image"]: row["mpp"] for row in _rows(data / "images.csv")}
    predictor = SegmentPredictor.from_pretrained()
    prompt = load_labels().parse(LABEL, allow_new=True).prompt
    rows = []
    for name in args.images.split(","):
        image = f"annotated/nuinsseg/images/{name}.jpg"
        row, um = annotated[image], float(mpp[image])
        pixels = np.asarray(Image.open(data / image).convert("RGB"))
        embedding = predictor.encode(pixels, mpp=um)
        mask = np.asarray(predictor.masks(embedding, [prompt]).masks[0, 0], bool)
        truth = np.asarray(Image.open(data / row["mask"])) == int(row["value"])
        rows.append({
            "image": f"{name}.jpg",
            "annotated": int(row["objects"]),
            "objects": count(mask, um),
            "joined": count(mask, um, separate=False),
            "of_truth": count(truth, um),
        })
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    print(
        json.dumps({
            "benchmark": "object_counts",
            "rule": ObjectConfig().sentence(um),
            "segmentor": predictor.info.name,
            "images": rows,
            "device": platform.machine(),
        })
    )


def count(mask: NDArray[np.bool_], mpp: float, *, separate: bool = True) -> int:
    """Objects of a mask of nuclei."""
    return len(find_in_image(mask, LABEL, mpp=mpp, config=ObjectConfig(separate=separate)))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
