"""What a training step costs, by architecture and by what is judged.

    python benchmarks/training_step.py --steps 3
    python benchmarks/training_step.py --variants as_published narrow --precision fp32

CPU seconds (all threads) of whole steps of the model that ships, optimiser and average included,
on a batch of random pixels and masks: the median of ``--steps`` after one that is not counted.
Variants take turns, so that what else the machine does falls on all alike. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from xpath.segment.checkpoints.checkpoint import DEFAULT_WEIGHTS, load_segmentor, read_config
from xpath.segment.model.variants import build_segmentor
from xpath.segment.training.precision import AUTO, PRECISIONS, choose_precision
from xpath.segment.training.trainer import TrainBatch, TrainConfig, Trainer, take_over

NARROW: dict[str, Any] = {"pixel_dim": 64, "mask_dim": 64}


class Variant(NamedTuple):
    """Other sizes of the model, and the number of heads judged at full size."""

    sizes: dict[str, Any]
    full_heads: int


VARIANTS = {
    "as_published": Variant({}, 0),
    "last_head": Variant({}, 1),
    "separable": Variant({"fine": "separable"}, 1),
    "narrow": Variant(NARROW, 1),
    "narrow_separable": Variant(NARROW | {"fine": "separable"}, 1),
    "detail_32": Variant({"mask_dim": 32, "detail": 32}, 1),
    "detail_64": Variant({"mask_dim": 64, "detail": 64}, 1),
    "detail_32_separable": Variant({"mask_dim": 32, "detail": 32, "fine": "separable"}, 1),
}


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=3, help="steps of each that count")
    parser.add_argument("--crops", type=int, default=8, help="crops of 256 px in a batch")
    parser.add_argument("--prompts", type=int, default=6, help="questions per crop")
    parser.add_argument("--precision", choices=PRECISIONS, default=AUTO)
    args = parser.parse_args()

    precision = choose_precision(args.precision, "cpu")
    batch = random_batch(args.crops, args.prompts)
    trainers, facts = {}, {}
    for name in args.variants:
        trainers[name], facts[name] = trainer_of(VARIANTS[name], precision.name)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(args.steps + 1):
        for name, trainer in trainers.items():
            start = time.process_time()
            trainer(batch)
            seconds[name].append(time.process_time() - start)
    for name, values in seconds.items():
        facts[name]["cpu_seconds"] = round(statistics.median(values[1:]), 3)
        print(f"{name:20s} {facts[name]}")
    record = {
        "benchmark": "training_step",
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "why": precision.why,
        "crops": args.crops,
        "prompts": args.prompts,
        "steps": args.steps,
        "variants": facts,
    }
    print(json.dumps(record))


def random_batch(crops: int, prompts: int) -> TrainBatch:
    """Noise, with masks that have objects."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((crops, prompts, 16, 16), generator=generator) < 0.2
    ids = torch.randint(1, 600, (crops, prompts, 14), generator=generator)
    return TrainBatch(
        torch.randint(0, 256, (crops, 3, 256, 256), generator=generator, dtype=torch.uint8),
        ids,
        torch.ones_like(ids, dtype=torch.bool),
        coarse.repeat_interleave(16, 2).repeat_interleave(16, 3).to(torch.uint8),
    )


def trainer_of(variant: Variant, precision: str) -> tuple[Trainer, dict[str, Any]]:
    """A trainer of the shipped model in other sizes, and what is known of it."""
    config, _ = read_config(DEFAULT_WEIGHTS)
    torch.manual_seed(0)
    model = build_segmentor(replace(config, **variant.sizes))
    taken = take_over(model, load_segmentor(DEFAULT_WEIGHTS)[0])
    settings = TrainConfig(precision=precision, contrast=0.3, full_heads=variant.full_heads)
    return Trainer(model, settings), {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tensors_taken_over": f"{taken} of {len(model.state_dict())}",
    }


if __name__ == "__main__":
    main()
