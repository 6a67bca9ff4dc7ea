"""The cost of recognition beside the model: 22 labels of one image, logits given.

    python benchmarks/recognise.py --size 1024 --labels 22

Three images: ``tissue``, where labels share the image among them, a few lie upon each other and
many are absent, as in a real one; ``present``, where every label is there; and ``noise``, the worst
case, where every label is everywhere. Last line: JSON; ``outside_model_ms`` is that of ``present``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time

import numpy as np
import torch
from torch.nn import functional

from xpath.labels import Label, load_labels
from xpath.segment.predict.presence import biomedparse_pathology
from xpath.segment.predict.recognition import resolve


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="side of the image in pixels")
    parser.add_argument("--labels", type=int, default=22, help="labels asked for")
    parser.add_argument("--repeats", type=int, default=20, help="the fastest of so many counts")
    args = parser.parse_args()

    image = np.random.default_rng(0).integers(0, 256, (args.size, args.size, 3), dtype=np.uint8)
    labels = list(load_labels())[: args.labels]
    times = {
        name: milliseconds(scene(name, args.labels, args.size), image, labels, args.repeats)
        for name in ("tissue", "present", "noise")
    }
    print(
        json.dumps({
            "benchmark": "recognise",
            "size": args.size,
            "labels": args.labels,
            "outside_model_ms": times["present"],
            "by_scene_ms": times,
            "device": f"{platform.machine()}, {torch.get_num_threads()} CPU threads",
        })
    )


def scene(name: str, count: int, size: int) -> torch.Tensor:
    """Logits ``(P, h, w)``."""
    positions = -(-size // 32) * 8
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, positions, positions, generator=generator)
    if name == "noise":
        return noise * 4
    coarse = functional.avg_pool2d(noise[:, None], 16)
    fields = functional.interpolate(coarse, size=(positions, positions), mode="bicubic")[:, 0] * 16
    first, second = fields.topk(2, dim=0).values
    logits = 4 * (fields - (first + second) / 2)  # a label is ahead where its field is highest
    if name == "tissue":
        logits[count // 3 :] -= logits[count // 3 :].amax(dim=(1, 2), keepdim=True) + 1
        logits[1] = logits[0] - 0.5  # two that claim the same pixels
    return logits


def milliseconds(
    logits: torch.Tensor, image: np.ndarray, labels: list[Label], repeats: int
) -> float:
    """Wall time of recognition with its logits given, the fastest, for other work disturbs."""
    score = biomedparse_pathology().geometric_mean
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        resolve(logits, image, labels, score=score)
        times.append(time.perf_counter() - started)
    return round(1e3 * min(times), 1)


if __name__ == "__main__":
    main()
