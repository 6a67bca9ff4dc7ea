"""Encode once and ask many times, against encoding the image for every prompt.

    python benchmarks/segment_prompts.py --size 256 --prompts 11

Both run the weights that ship, one after the other in one process, so the ratio holds on a noisy
machine. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from xpath.labels import load_labels
from xpath.segment.predictor import SegmentPredictor

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="side of the image in pixels")
    parser.add_argument("--prompts", type=int, default=11, help="prompts per image")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many counts")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (args.size, args.size, 3), dtype=np.uint8)
    prompts = [label.prompt for label in load_labels()][: args.prompts]
    predictor = SegmentPredictor.from_pretrained()

    def once() -> np.ndarray:
        return predictor.masks(predictor.encode(image), prompts).probability[0]

    def each() -> np.ndarray:
        return np.concatenate([
            predictor.masks(predictor.encode(image), [p]).probability[0] for p in prompts
        ])

    difference = float(np.abs(once() - each()).max())
    ours, naive = seconds(once, args.repeats), seconds(each, args.repeats)
    print(
        json.dumps({
            "benchmark": "segment_prompts",
            "size": args.size,
            "prompts": args.prompts,
            "encode_once_s": round(ours, 4),
            "encode_each_s": round(naive, 4),
            "time_ratio": round(naive / ours, 2),
            "largest_difference": difference,
            "device": f"{platform.machine()}, {torch.get_num_threads()} CPU threads",
        })
    )


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Wall time of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
