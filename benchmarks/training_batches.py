"""Does the model wait for its data? A training step beside the batch it needs.

    python benchmarks/training_batches.py --batch 8x256 --steps 5

Drawn fields of 1024 px are written as PNG, as a data set on disk would be. A batch is made from
decoded images (what fits into memory) and from files, in one process; a step is forward, backward
and optimiser of the mini model. Below 1, ``batch_per_step`` says that one worker keeps up. Last
line: JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from xpath.pathseg.collection import in_memory_or_stored, index_images
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.prompts import sentences
from xpath.pathseg.record import Annotated, LabelMask, SourceImage
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import pathsegmentor_mini
from xpath.segment.training.batches import BatchConfig, Batches, batch_shapes
from xpath.segment.training.trainer import TrainConfig, Trainer
from xpath.testing.crops import drawn_images


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=batch_shapes, default="8x256", help="crops x pixels")
    parser.add_argument("--fields", type=int, default=6, help="images to draw")
    parser.add_argument("--steps", type=int, default=5, help="steps; the fastest counts")
    args = parser.parse_args()

    tokenizer = fit_tokenizer(sentences())
    config = BatchConfig(shapes=args.batch)
    seconds, batches = {}, {}
    with tempfile.TemporaryDirectory() as home:
        images = [written(image, Path(home)) for image in drawn_images(range(args.fields))]
        stored = index_images(images, Path(home) / "index.csv")
        for name, memory in (("memory", 8.0), ("files", 0.0)):
            crops = PromptedCrops(
                in_memory_or_stored(stored, memory), CropConfig(), total=10_000, seed=0
            )
            batches[name] = Batches(crops, tokenizer, config)
            seconds[name] = fastest(partial(batches[name].__getitem__, 0), args.steps)
        batch = batches["memory"][0]
    torch.manual_seed(0)
    trainer = Trainer(pathsegmentor_mini(tokenizer.vocabulary), TrainConfig(steps=100))
    step = fastest(lambda: trainer(batch), args.steps)
    print(
        json.dumps({
            "benchmark": "training_batches",
            "batch": args.batch,
            "batch_seconds": {name: round(value, 4) for name, value in seconds.items()},
            "step_seconds": round(step, 3),
            "batch_per_step": {name: round(value / step, 3) for name, value in seconds.items()},
            "device": f"{platform.machine()}, {torch.get_num_threads()} CPU threads",
        })
    )


def written(image: SourceImage, home: Path) -> SourceImage:
    """The same image, read from PNG files."""
    annotated = image.read()
    folder = home / image.name
    folder.mkdir()
    cv2.imwrite(str(folder / "image.png"), np.ascontiguousarray(annotated.image[..., ::-1]))
    for label, mask in annotated.masks:
        cv2.imwrite(str(folder / f"{label}.png"), mask.view(np.uint8) * 255)
    labels = tuple(label for label, _ in annotated.masks)
    return SourceImage(
        source=image.source,
        name=image.name,
        group=image.group,
        split=None,
        mpp=image.mpp,
        region=image.region,
        path=folder,
        read=partial(read, folder, labels, annotated.absent),
    )


def read(folder: Path, labels: tuple[str, ...], absent: tuple[str, ...]) -> Annotated:
    """Decodes what ``written`` wrote."""
    image = cv2.imread(str(folder / "image.png"))[..., ::-1]
    masks = tuple(
        LabelMask(label, cv2.imread(str(folder / f"{label}.png"), cv2.IMREAD_GRAYSCALE) > 0)
        for label in labels
    )
    return Annotated(np.ascontiguousarray(image), masks, None, absent)


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Wall time, the fastest, for other work disturbs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
