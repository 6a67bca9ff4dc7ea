"""Nuclei by colour deconvolution and Otsu's threshold: what needs no training at all.

    python benchmarks/baselines/otsu.py --data DIR --out otsu

Haematoxylin (Ruifrok and Johnston 2001, scikit-image), smoothed, thresholded by Otsu, opened,
holes filled, specks removed. Scores the held-out images of pipelines/train_segmentor.py on nuclei
of any kind and writes samples.csv. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes, gaussian_filter, label
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu
from skimage.morphology import disk, opening
from tqdm import tqdm

from xpath.metrics.overlap import dice
from xpath.pathseg.collection import collect
from xpath.segment.evaluation.validation import Sample, mean_by_label, write_samples

NUCLEI = "-nuclei-nuclei"
SMALLEST = 30  # pixels at 0.25 microns per pixel, 2 square microns: what is no larger goes


def main() -> None:
    """From arguments to scores."""
    split = Path(__file__).parents[2] / "pipelines/splits/annotated.csv"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="has images.csv, labels.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for samples.csv")
    parser.add_argument("--split", type=Path, default=split, help="which images are held out")
    args = parser.parse_args()

    samples = []
    for item in tqdm(collect(args.data, args.split).held_out):
        annotated = item.read()
        for name, truth in annotated.masks:
            if name.endswith(NUCLEI):
                found = nuclei(annotated.image)
                score = dice(found, truth)
                area = int(found.sum())
                asked = (item.source, item.name, item.group, name, True)
                samples.append(Sample(*asked, score, 1.0, area, area > 0))
    args.out.mkdir(parents=True, exist_ok=True)
    write_samples(args.out / "samples.csv", samples)
    print(json.dumps({"benchmark": "otsu", "scores": mean_by_label(samples)}))


def nuclei(image: np.ndarray) -> np.ndarray:
    """Mask ``(H, W)`` of the nuclei of an RGB image."""
    stain = gaussian_filter(rgb2hed(image)[..., 0], 1)
    opened = opening(stain > threshold_otsu(stain), disk(2), mode="ignore")
    components, _ = label(binary_fill_holes(opened))
    large = np.bincount(components.ravel()) > SMALLEST
    large[0] = False  # background
    return large[components]


if __name__ == "__main__":
    main()
