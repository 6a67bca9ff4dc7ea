"""Real tissue: colon glands of the GlaS challenge as bags of patches, benign or malignant.

    XPATH_SHARED=FOLDER python examples/glas_bags.py

FOLDER holds ``data/images.csv`` and ``data/labels.csv``, which list images, masks and patients.
Three classifiers answer for images of patients they have not seen (5 folds by patient): attention
over patches, the object-aware model over glands and what lies between them, and a logistic
regression on the area of the glands alone. The gland masks are a pathologist's, who knew what he
drew; they tell the object-aware model and the regression more than a segmentor would.

Patch features come from the segmentor that ships. It has seen glands of some of these images, but
never whether one is benign or malignant. Eighty-five
images of 15 patients are few: read the intervals, not the numbers.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from xpath import SegmentPredictor
from xpath.metrics.intervals import (
    classification_differences,
    classification_intervals,
)
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.cross_validation import out_of_fold
from xpath.mil.fractions import ObjectFractions, object_fractions
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.splits import Split, group_folds
from xpath.mil.training import TrainConfig
from xpath.objects.pool import add_other, cover, masked_average_pool
from xpath.segment.predict.patch_features import SegmentorEncoder

CLASSES = ("benign", "malignant")
OBJECTS = ("colon-tissue-gland", "other")
STRIDE, PATCH = 8, 128
"""Pixels of the image to a place of the feature map, before it is reduced, and to a patch's side:
79 microns at 0.62 mpp."""


class Picture(NamedTuple):
    """An image of the data set."""

    name: str
    image: Path
    mask: Path
    patient: str
    label: int


class Bags(NamedTuple):
    """One image, as each classifier wants it."""

    patches: Bag
    objects: Bag
    fractions: np.ndarray


def pictures(folder: Path) -> list[Picture]:
    """Images of GlaS in the tables, none if those are not there."""
    tables = [folder / "images.csv", folder / "labels.csv"]
    if not all(table.is_file() for table in tables):
        return []
    texts = (table.read_text(encoding="utf-8") for table in tables)
    images, labels = ([*csv.DictReader(text.splitlines())] for text in texts)
    known = {row["image"]: row["original"] for row in labels if row["source"] == "glas"}
    return [
        Picture(
            Path(row["image"]).stem,
            folder / row["image"],
            folder / row["mask"],
            row["group"],
            int(known[row["image"]].startswith("malignant")),
        )
        for row in images
        if row["source"] == "glas" and row["image"] in known
    ]


def bags_of(picture: Picture, encoder: SegmentorEncoder, reduce: int) -> Bags:
    """Encodes an image once and cuts the map into patches that do not overlap."""
    from PIL import Image

    image = Image.open(picture.image).convert("RGB")
    rows, columns = image.height // PATCH, image.width // PATCH
    image = image.crop((0, 0, columns * PATCH, rows * PATCH)).reduce(reduce)
    mask = np.array(Image.open(picture.mask))[: rows * PATCH, : columns * PATCH] > 0
    maps = encoder.maps(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0]
    cut = torch.from_numpy(mask).reshape(rows, PATCH, columns, PATCH).transpose(1, 2)
    masks = add_other(cut.reshape(-1, 1, PATCH, PATCH))
    places = PATCH // (STRIDE * reduce)
    tiles = maps.reshape(len(maps), rows, places, columns, places).permute(1, 3, 0, 2, 4)
    tiles = tiles.reshape(rows * columns, len(maps), places, places)
    pooled = masked_average_pool(tiles, cover(masks, (places, places)))
    return Bags(
        Bag(tiles.mean(dim=(2, 3)), None, picture.label, picture.name),
        Bag(pooled.features, pooled.coverage >= 0.02, picture.label, picture.name),
        object_fractions(pooled.coverage.numpy())[:1],
    )


def main() -> None:
    """From images to a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, help="only so many, for a quick look")
    parser.add_argument(
        "--reduce", type=int, choices=(1, 2, 4), default=2, help="pixels to one encoded"
    )
    parser.add_argument("--epochs", type=int, default=40, help="passes over the training images")
    parser.add_argument("--folds", type=int, default=5, help="parts of the patients")
    parser.add_argument("--seed", type=int, default=0, help="of folds, weights and intervals")
    args = parser.parse_args()

    shared = Path(os.environ.get("XPATH_SHARED", "../shared"))
    found = pictures(shared / "data")
    if not found:
        print(f"skipped: no GlaS images under {shared / 'data'}; set XPATH_SHARED")
        return
    if args.images:
        order = np.random.default_rng(args.seed).permutation(len(found))
        found = [found[i] for i in sorted(order[: args.images])]
    started = time.perf_counter()
    encoder = SegmentorEncoder(SegmentPredictor.from_pretrained())
    bags = []
    for number, picture in enumerate(found):
        bags.append(bags_of(picture, encoder, args.reduce))
        print(f"\rencoded {number + 1} of {len(found)}", end="", flush=True)
    print(f"; {encoder.name}, {encoder.dim} features, {time.perf_counter() - started:.0f} s")
    chance = answers(bags, found, encoder.dim, args)
    table(chance, found, args.seed)
    print(f"\n{time.perf_counter() - started:.0f} s")


def answers(
    bags: list[Bags], found: list[Picture], dim: int, args: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Probabilities of each classifier for images of patients it has not seen."""
    labels = np.array([picture.label for picture in found])
    patients = [picture.patient for picture in found]
    print(f"{len(labels)} images of {len(set(patients))} patients, {labels.sum()} malignant")
    folds = group_folds(labels.tolist(), patients, folds=args.folds, validation=0.0, seed=args.seed)
    fractions = np.stack([one.fractions for one in bags])
    chance = {"gland area, logistic regression": out_of_fold_fractions(fractions, labels, folds)}
    # without a validation part all epochs run: few patients are better spent on learning
    config = TrainConfig(lr=5e-4, weight_decay=1e-3, epochs=args.epochs, seed=args.seed)
    standard = out_of_fold(
        lambda: AttentionMIL(dim, CLASSES, dropout=0.25), [b.patches for b in bags], folds, config
    )
    chance["attention over patches"] = standard.predictions.probability
    aware = out_of_fold(
        lambda: ObjectAwareMIL(dim, OBJECTS, CLASSES, dropout=0.25),
        [b.objects for b in bags],
        folds,
        config,
    )
    chance["object-aware, glands and other"] = aware.predictions.probability
    return chance


def table(chance: dict[str, np.ndarray], found: list[Picture], seed: int) -> None:
    """Scores and differences with intervals over patients."""
    labels = np.array([picture.label for picture in found])
    patients = [picture.patient for picture in found]
    print(f"\n{'out of fold, 95 % over patients':34}{'AUC':24}{'balanced accuracy'}")
    for name, probability in chance.items():
        rng = np.random.default_rng(seed)
        scores = classification_intervals(probability, labels, rng, groups=patients)
        print(f"{name:34}{shown(scores.auc):24}{shown(scores.balanced_accuracy)}")
    *others, aware = chance
    for name in others:
        rng = np.random.default_rng(seed)
        gain = classification_differences(chance[aware], chance[name], labels, rng, groups=patients)
        print(f"object-aware minus {name:34} AUC {shown(gain.auc)}")


def out_of_fold_fractions(
    fractions: np.ndarray, labels: np.ndarray, folds: list[Split]
) -> np.ndarray:
    """Probabilities of the regression for images of patients it has not seen."""
    chance = np.zeros((len(labels), len(CLASSES)))
    for fold in folds:
        model = ObjectFractions(OBJECTS[:1], CLASSES)
        model.fit(fractions[fold.train], labels[fold.train])
        chance[fold.test] = model.predict_proba(fractions[fold.test])
    row = ObjectFractions(OBJECTS[:1], CLASSES).fit(fractions, labels).coefficients()[1]
    print(f"on all images, one percent more gland: logit of malignant {row.per_percent:+.3f}")
    return chance


def shown(interval: tuple[float, float, float]) -> str:
    """A value and where it may lie."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*interval)


if __name__ == "__main__":
    main()
