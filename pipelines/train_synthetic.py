"""Train the small segmentor on synthetic tissue, and measure it on tissue it has not seen.

    python pipelines/train_synthetic.py --out xpath/segment/weights/synthetic --minutes 20
    python pipelines/train_synthetic.py --out weights --minutes 1 --fields 8      # a first try

The result knows drawn tissue only. It exists so that every stage can be run and tested with real
predictions where no other weights are at hand; it is not for real slides.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from xpath.labels import load_labels
from xpath.metrics.overlap import dice
from xpath.segment.checkpoint import SegmentorInfo, load_segmentor, save_segmentor
from xpath.segment.predictor import SegmentPredictor
from xpath.segment.tokenizer import fit_tokenizer
from xpath.segment.train import TrainConfig, TrainStep, train_segmentor
from xpath.segment.variants import build_segmentor, small_config
from xpath.testing.crops import CROP, FIELD, MPP, Field, crop_batches, paint_fields
from xpath.testing.tissue import LABELS


def main() -> None:
    """From arguments to a checkpoint folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--minutes", type=float, default=20, help="training time")
    parser.add_argument("--fields", type=int, default=160, help="painted fields to train on")
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument("--prompts", type=int, default=6, help="prompts per crop")
    parser.add_argument("--start", type=Path, help="checkpoint folder to go on from")
    parser.add_argument("--lr", type=float, default=8e-4, help="largest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of tissue, weights and order")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    print(f"painting {args.fields} fields of {FIELD} px at {MPP} mpp")
    fields = paint_fields([args.seed * 100_000 + i for i in range(args.fields)])
    tokenizer = fit_tokenizer(label.prompt for label in load_labels())
    config = small_config(tokenizer.vocabulary)
    model = build_segmentor(config, drop_path=0.05, layer_scale=0.5)
    if args.start:
        model.load_state_dict(load_segmentor(args.start)[0].state_dict())

    bar = tqdm(desc="training", unit="step")
    rng = np.random.default_rng(args.seed)
    stream = crop_batches(fields, LABELS, tokenizer, (args.batch, args.prompts), rng)
    settings = TrainConfig(steps=1_000_000, minutes=args.minutes, lr=args.lr)

    def report(step: TrainStep) -> None:
        bar.update()
        bar.set_postfix({k: f"{float(v):.3f}" for k, v in step.loss._asdict().items()})

    train_segmentor(model, stream, settings, on_step=report)
    bar.close()

    info = SegmentorInfo(
        name="pathsegmentor-small-synthetic",
        mpp=MPP,
        image_size=CROP,
        labels=LABELS,
        licence="Apache-2.0",
        synthetic_only=True,
    )
    held_out = paint_fields([args.seed * 100_000 + 50_000 + i for i in range(12)])
    scores = evaluate(SegmentPredictor(model, tokenizer, info), held_out, LABELS)
    facts = {
        "steps": bar.n,
        "minutes": args.minutes,
        "fields": args.fields,
        "batch": args.batch,
        "seed": args.seed,
        "start": load_segmentor(args.start)[2].digest if args.start else "fresh weights",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "training": dataclasses.asdict(settings),
    }
    save_segmentor(args.out, model, config, tokenizer, info, card=card(scores, facts))
    print(json.dumps({"out": str(args.out), "scores": scores}, indent=1))


def evaluate(
    predictor: SegmentPredictor, fields: list[Field], labels: tuple[str, ...]
) -> dict[str, dict[str, float | None]]:
    """Per label: mean Dice over crops that hold it, and share of empty answers where it is not."""
    tree = load_labels()
    hits: dict[str, list[float]] = {name: [] for name in labels}
    rejections: dict[str, list[bool]] = {name: [] for name in labels}
    for field, y, x in itertools.product(fields, (0, FIELD // 2), (0, FIELD // 2)):
        window = np.s_[y : y + CROP, x : x + CROP]
        embedding = predictor.encode(field.image[window])
        found = predictor.masks(embedding, [tree[name].prompt for name in labels]).masks[0]
        for name, mask in zip(labels, found, strict=True):
            truth = field.mask(name)[window]
            if truth.sum() >= 64:
                hits[name].append(dice(mask, truth))
            elif not truth.any():
                rejections[name].append(not mask.any())
    return {
        name: {
            "dice": mean(hits[name]),
            "crops": len(hits[name]),
            "absent_empty": mean(rejections[name]),
        }
        for name in labels
    }


def mean(values: Sequence[float]) -> float | None:
    """Rounded mean; None of nothing."""
    return round(float(np.mean(values)), 3) if values else None


def card(scores: dict[str, dict[str, float | None]], facts: dict[str, object]) -> str:
    """The model card."""
    rows = "\n".join(
        f"| {name} | {s['dice']} | {s['crops']} | {s['absent_empty']} |"
        for name, s in scores.items()
    )
    return f"""# pathsegmentor-small-synthetic

**Synthetic tissue only.** This model has never seen a real slide. Its masks are real predictions of
the PathSegmentor architecture, but only on images drawn by `xpath.testing`. Do not read findings
off real slides with it.

Made by `pipelines/train_synthetic.py`; use at {MPP} microns per pixel. Licence: Apache-2.0.

| label | Dice, held-out crops | crops | empty answer when absent |
|---|---|---|---|
{rows}

```json
{json.dumps(facts, indent=1)}
```
"""


if __name__ == "__main__":
    main()
