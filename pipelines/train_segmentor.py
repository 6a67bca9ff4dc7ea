"""Train a PathSegmentor on annotated images, resumable at any time.

    python pipelines/train_segmentor.py --data DIR --out run --shapes 8x256 --drawn 24 --workers 1
    python pipelines/train_segmentor.py --preset shipped --data DIR DIR --out run --minutes 160
    torchrun --nproc-per-node 4 pipelines/train_segmentor.py ...      # one batch, four GPUs
    python pipelines/train_segmentor.py --preset paper --init START --data DIR --out run

DIR holds SOURCE/train.json as `xpath pathseg build` makes it, or images.csv and labels.csv; then
--split names a table source,image,group,split, or a folder of such. Images of the test part are
never seen, those of the validation part are validated and not trained on; without such a part those
of the test part are validated. --drawn N adds N fields of drawn tissue.

Out come tables, pictures, weights/ to use and state.pt, from which the same command goes on, to the
same bits on the same machine. OUT holds all that is needed for it but the images: it may be carried
elsewhere, and so may --precision change, which is chosen by the processor.

--preset shipped is the recipe of the weights that ship, and starts from them. --preset paper trains
as PathSegmentor's paper does (sections 4.2 and 4.4), from START, which
`xpath weights import biomedparse_v1.pt --bert PUBMEDBERT --out START` makes of the weights that the
paper starts from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from xpath.config import to_json
from xpath.export.training_figures import draw_curves, judge
from xpath.pathseg.collection import TrainingData, read_training
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.resolution import Resolutions
from xpath.segment.checkpoints.checkpoint import load_segmentor, save_segmentor
from xpath.segment.checkpoints.pretrained import pretrain
from xpath.segment.model.variants import build_segmentor
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.training import options
from xpath.segment.training.batches import BatchConfig, Batches, stream
from xpath.segment.training.command import training_arguments
from xpath.segment.training.precision import choose_precision
from xpath.segment.training.run import RunConfig, TrainingRun, join_processes, show_step
from xpath.segment.training.start import Start
from xpath.segment.training.trainer import TrainConfig, Trainer, take_over
from xpath.testing.crops import DRAWN, drawn_images


def main() -> None:
    """From arguments to weights."""
    started = time.monotonic()
    args = training_arguments(__doc__, Path(__file__).parent / "splits")
    options.check_preset(args.preset, args.model, args.init)
    rank, world, args.device = join_processes(args.device)
    precision = choose_precision(args.precision, args.device)
    args.precision = precision.name
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA: the loss needs no more
    start = Start.of(args.out, args.model, args.init, args.set)
    data = read_training(
        args.data,
        args.split,
        mpp=Resolutions.parse(args.mpp),
        more=drawn_images(range(args.drawn)),
        index=args.out / f"index-{rank}.csv",
        memory_gb=args.memory_gb,
    )
    crops, views = crops_of(args, data)
    batching = BatchConfig(
        shapes=args.shapes, seed=args.seed, part=(rank, world), workers=args.workers
    )
    batches = Batches(crops, start.tokenizer, batching)
    trainer = begin(start, args, batches)
    fixed = facts_of(args, trainer, start, views, data.digest)
    run, first = TrainingRun(args.out, trainer, fixed, lead=rank == 0), trainer.step
    print(f"precision: {precision.name}, {precision.why}")
    largest = max(size for _, size in args.shapes)
    taught = crops.images_with(without=DRAWN)
    info = options.describe(start.name, taught, views, image_size=largest)

    def averaged() -> SegmentPredictor:
        (answering := build_segmentor(start.config)).load_state_dict(trainer.averaged())
        return SegmentPredictor(answering, start.tokenizer, info, device=args.device)

    spent = (time.monotonic() - started) / 60
    with tqdm(desc="training", unit="step", total=args.steps, initial=trainer.step) as bar:
        finished = run.run(
            stream(batches, batching, start=trainer.step, steps=args.steps),
            RunConfig(minutes=args.minutes - spent, validate_steps=args.validate_steps),
            on_step=partial(show_step, bar),
            validate=lambda: judge(averaged(), data.validation, args.out),
        )
    if rank > 0:
        return
    run.record(scores := judge(best := averaged(), data.validation, args.out))
    run.note_session(first, time.monotonic() - started, precision)
    draw_curves(args.out)
    text = "".join(f"- {name}: {dice:.3f} ({n})\n" for name, (n, dice) in scores.items())
    card = f"# {info.name}\n\nMean Dice (images) on validation images:\n\n{text}"
    save_segmentor(args.out / "weights", best.model, *start[:2], info, card=card)
    print(text, "finished" if finished else "stopped; the same command goes on")


def crops_of(args: argparse.Namespace, data: TrainingData) -> tuple[PromptedCrops, CropConfig]:
    """The crops of the whole training, and how they are made."""
    args.steps = args.steps or options.steps_of(args.epochs, data.number, args.shapes)
    own = {"shares": args.shares, "compose": args.compose, "balance": True, "unions": args.unions}
    views = options.views_of(args.preset, prompts=args.prompts, emphasis=args.emphasis, **own)
    total = args.steps * max(count for count, _ in args.shapes)
    return PromptedCrops(data.images, views, total=total, seed=args.seed), views


def facts_of(
    args: argparse.Namespace, trainer: Trainer, start: Start, views: CropConfig, images: str
) -> dict[str, str]:
    """All that decides about a step, and must be the same when the training goes on.

    The number of steps may be changed on the way, the schedule stretches; and so may the precision.
    """
    train = dataclasses.replace(trainer.config, steps=1, precision="")
    fixed = {"train": train, "model": start.config, "crops": views}
    named = {name: str(getattr(args, name)) for name in ("shapes", "drop_path")}
    named |= {"set": json.dumps(args.set, sort_keys=True), "images": images}
    return {name: to_json(value) for name, value in fixed.items()} | named


def begin(start: Start, args: argparse.Namespace, batches: Batches) -> Trainer:
    """Fresh weights, or as many of a checkpoint and of a pretrained encoder as fit.

    A training that goes on takes all of them from its state.
    """
    model = build_segmentor(start.config, drop_path=args.drop_path, layer_scale=0.5)
    if start.fresh:
        if args.init:
            print(f"taken over: {take_over(model, load_segmentor(args.init)[0])} tensors")
        if args.encoder:
            pretrain(model, args.encoder, (batches[number].images for number in range(32)))
    names = ("steps", "lr", "encoder_lr", "text_lr", "contrast", "accumulate", "ema", "seed")
    chosen = {name: getattr(args, name) for name in (*names, "full_heads", "precision")}
    return Trainer(model, TrainConfig(warmup=200, **chosen), device=args.device)


if __name__ == "__main__":
    sys.exit(options.until_interrupted(main, "train_segmentor"))
