"""Do meaningless masks look needed to a model that knows nothing of objects?

The model knows how sharp a patch is and no more, and masks are drawn at random within the tissue,
in large patches (compact) or in specks (scattered). So they are worth as much as the rest, and the
mean excess must be 0. Blurring is that of studies. Patches are those of a real slide, or drawn ones
where none is given:

    python benchmarks/null_bias.py [--slide H_AND_E.svs] [--null shifted]

``head`` is what stands on the features: ``mean``, or ``attention``, which looks at the sharpest
patches most and so saturates. Last line: JSON, a row for every share of the tissue, shape and head.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from xpath.explain.hiding import SegmentedSlide
from xpath.explain.importance import object_importance
from xpath.explain.null_masks import tissue_pixels
from xpath.explain.perturbation import Blur, PerturbationConfig
from xpath.geometry import Box, PatchGrid, Size
from xpath.metrics.bootstrap import mean_interval
from xpath.testing.tissue import TissueRecipe, paint_tissue
from xpath.wsi.slide import Slide

PATCH, MPP = 128, 0.5
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
SHAPES = {"compact": 20.0, "scattered": 3.0}
"""Pixels over which a random field is smoothed; the mask is where it is highest."""
LEAST_TISSUE = 0.3


class Sharpness:
    """Mean absolute Laplacian of the grey image: knows nothing of objects."""

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Maps ``(B, 1, H, W)``."""
        grey = images.float().mean(dim=1, keepdim=True)
        kernel = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
        edges = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
        return torch.nn.functional.conv2d(edges, kernel).abs() / 25


def mean_head(features: torch.Tensor) -> torch.Tensor:
    """Two logits; the margin is the mean sharpness."""
    margin = 8 * features.mean()
    return torch.stack([torch.zeros_like(margin), margin])


def attention_head(features: torch.Tensor) -> torch.Tensor:
    """Two logits; the sharper a patch, the more it counts."""
    sharp = features[:, 0]
    margin = 8 * (torch.softmax(3 * sharp, dim=0) * sharp).sum()
    return torch.stack([torch.zeros_like(margin), margin])


HEADS = {"mean": mean_head, "attention": attention_head}


class Patches:
    """Patches side by side as a slide, with the members of ``SlideMasks`` that are used."""

    path = Path("patches")
    labels = ("anything",)
    size = PATCH

    def __init__(self, images: np.ndarray, masks: np.ndarray) -> None:
        count = len(images)
        self.images, self._masks = images, masks[:, None]
        self.area = self._masks.sum(axis=(2, 3), dtype=np.int64)
        self.grid = PatchGrid(
            coords=np.stack([PATCH * np.arange(count), np.zeros(count, int)], axis=1),
            footprint=PATCH, pixels=PATCH, mpp=MPP, overlap=0,
            slide_size=Size(PATCH * count, PATCH), slide_mpp=MPP,
        )  # fmt: skip

    def read(self, box: Box | int, size: Size | None = None) -> np.ndarray:  # noqa: ARG002
        """Pixels of a box, or masks of a patch."""
        if isinstance(box, Box):
            return self.images[box.x // PATCH]
        return self._masks[box]


@dataclass(frozen=True)
class Row:
    """Meaningless masks of one share and shape, over the slides."""

    head: str
    shape: str
    share: float
    effect: float
    null: float
    excess: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the interval of the excess has 0 in it."""
        return self.low <= 0 <= self.high


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """From arguments to one JSON line, which is also returned."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slide", type=Path, help="H&E slide; drawn tissue without")
    parser.add_argument("--null", choices=("off_object", "shifted"), default="off_object")
    parser.add_argument("--slides", type=int, default=20, help="slides of a cohort")
    parser.add_argument("--patches", type=int, default=12, help="patches of a slide")
    parser.add_argument("--draws", type=int, default=2, help="random masks of an object and patch")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    started = time.perf_counter()

    rng = np.random.default_rng(args.seed)
    pool = real_patches(args.slide) if args.slide else drawn_patches(rng)
    rows = []
    for shape in SHAPES:
        for share in args.shares:
            rows += measured(pool, shape, share, args, rng)
            for row in rows[-len(HEADS) :]:
                print(
                    f"{row.head:10}{row.shape:10}{row.share:4.1f} effect {row.effect:6.3f}"
                    f" null {row.null:6.3f} excess {row.excess:+.3f} [{row.low:+.3f},"
                    f" {row.high:+.3f}]{'' if row.holds else '  *'}",
                    flush=True,
                )
    result = {
        "benchmark": "null_bias",
        "slide": args.slide.name if args.slide else "drawn",
        "null": args.null,
        "rows": len(rows),
        "excess_about_0": sum(row.holds for row in rows),
        "largest_excess_over_effect": round(max(abs(r.excess) / abs(r.effect) for r in rows), 3),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(result))
    return result


def measured(
    pool: np.ndarray, shape: str, share: float, args: argparse.Namespace, rng: np.random.Generator
) -> list[Row]:
    """Hides meaningless masks in slides of patches out of a pool, a row for every head."""
    config = PerturbationConfig(null=args.null, null_draws=args.draws, batch=64)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in HEADS}
    encoder = Sharpness()
    for _ in range(args.slides):
        images = pool[rng.choice(len(pool), args.patches, replace=False)]
        masks = np.stack([random_mask(image, shape, share, rng) for image in images])
        patches = Patches(images, masks)
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
        features = encoder.maps(tensor).mean(dim=(2, 3)).numpy()
        slide = SegmentedSlide(slide_id="s", slide=patches, masks=patches, features=features)
        for name, head in HEADS.items():
            result = object_importance(
                head, encoder, slide, objects=patches.labels, target=1,
                perturbation=Blur(8.0), config=config,
            )  # fmt: skip
            found[name].append((result.effect[0], result.null[0]))
    rows = []
    for name, pairs in found.items():
        effect, null = np.array(pairs).T
        excess = mean_interval(effect - null)
        means = float(effect.mean()), float(null.mean())
        rows.append(Row(name, shape, share, *means, excess.mean, excess.low, excess.high))
    return rows


def random_mask(
    image: np.ndarray, shape: str, share: float, rng: np.random.Generator
) -> np.ndarray:
    """A share of the tissue of a patch: where a smooth random field is highest."""
    noise = rng.normal(size=(2 * PATCH, 2 * PATCH))  # its middle knows of no edges
    field = cv2.GaussianBlur(noise, (0, 0), SHAPES[shape])
    field = field[PATCH // 2 : -PATCH // 2, PATCH // 2 : -PATCH // 2]
    tissue = tissue_pixels(image, MPP)
    return np.asarray(tissue & (field > np.quantile(field[tissue], 1 - share)))


def real_patches(path: Path) -> np.ndarray:
    """Patches ``(N, H, W, 3)`` of a slide that have tissue, edges and lumina included."""
    with Slide.open(path) as slide:
        side = round(PATCH * MPP / slide.mpp)
        corners = [
            (x, y)
            for y in range(0, slide.size.height - side, side)
            for x in range(0, slide.size.width - side, side)
        ]
        size = Size(PATCH, PATCH)
        images = [slide.read(Box(x, y, side, side), size) for x, y in corners]
    return np.stack([i for i in images if tissue_pixels(i, MPP).mean() >= LEAST_TISSUE])


def drawn_patches(rng: np.random.Generator) -> np.ndarray:
    """Patches ``(N, H, W, 3)`` of drawn tissue."""
    side = 8 * PATCH
    image = paint_tissue(Size(side, side), TissueRecipe(), rng, mpp=MPP).image
    starts = range(0, side, PATCH)
    images = [image[y : y + PATCH, x : x + PATCH] for y in starts for x in starts]
    return np.stack([i for i in images if tissue_pixels(i, MPP).mean() >= LEAST_TISSUE])


if __name__ == "__main__":
    main()
