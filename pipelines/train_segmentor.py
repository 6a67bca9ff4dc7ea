"""Train a PathSegmentor on annotated images, resumable at any time.

    python pipelines/train_segmentor.py --data DIR --out run --shapes 8x256 --drawn 24 --workers 1
    python pipelines/train_segmentor.py --preset shipped --data DIR DIR --out run --minutes 165
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
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from xpath.config import to_json
from xpath.export.training_figures import draw_curves, judge
from xpath.pathseg.collection import collect, in_memory_or_stored, index_images, to_train_on
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.record import SourceImage
from xpath.pathseg.resolution import Resolutions
from xpath.segment.checkpoints.checkpoint import load_segmentor, save_segmentor
from xpath.segment.checkpoints.pretrained import pretrain
from xpath.segment.model.variants import SegmentorConfig, build_segmentor
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.training import options
from xpath.segment.training.batches import BatchConfig, Batches, batch_shapes, stream
from xpath.segment.training.precision import AUTO, PRECISIONS, choose_precision
from xpath.segment.training.run import STATE, RunConfig, TrainingRun, join_processes, show_step
from xpath.segment.training.trainer import TrainConfig, Trainer, take_over
from xpath.testing.crops import DRAWN, drawn_images


class Data(NamedTuple):
    """What is trained on, and what is asked in between."""

    crops: PromptedCrops
    views: CropConfig
    digest: str
    """Of the names of all images, in order: the same crops need the same images."""
    validation: list[SourceImage]


def main() -> None:
    """From arguments to weights."""
    started = time.monotonic()
    args = arguments()
    options.check_preset(args.preset, args.model, args.init)
    rank, world, device = join_processes(args.device)
    precision = choose_precision(args.precision, device)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA: the loss needs no more
    if (args.out / STATE).exists():
        config, tokenizer = options.kept_architecture(args.out)
    else:
        config, tokenizer = options.architecture(args.model, args.init, args.set)
        options.keep_architecture(args.out, config, tokenizer)
    data = read_data(args, rank)
    batching = BatchConfig(
        shapes=args.shapes, seed=args.seed, part=(rank, world), workers=args.workers
    )
    batches = Batches(data.crops, tokenizer, batching)
    trainer = begin(config, args, Processor(device, precision.name), batches)
    run = TrainingRun(args.out, trainer, facts_of(args, trainer, config, data), lead=rank == 0)
    first = trainer.step
    if rank == 0:
        print(f"precision: {precision.name}, {precision.why}")
    info = options.describe(
        options.name_of(args.model, args.init),
        data.crops.images_with(without=DRAWN),
        data.views,
        image_size=max(size for _, size in args.shapes),
    )

    def averaged() -> SegmentPredictor:
        (answering := build_segmentor(config)).load_state_dict(trainer.averaged())
        return SegmentPredictor(answering, tokenizer, info, device=device)

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
    save_segmentor(args.out / "weights", best.model, config, tokenizer, info, card=card)
    print(text, "finished" if finished else "stopped; the same command goes on")


def read_data(args: argparse.Namespace, rank: int) -> Data:
    """All images, decoded if they fit into memory, and the crops to be made of them."""
    resolutions = Resolutions.parse(args.mpp)
    parts = [collect(folder, args.split, mpp=resolutions) for folder in args.data]
    train, validation = to_train_on(
        (image for part in parts for image in part.train),
        args.split if args.split.exists() else None,
    )
    train += drawn_images(range(args.drawn))
    with tqdm(desc="reading", total=len(train)) as bar:
        stored = index_images(train, args.out / f"index-{rank}.csv", on_image=bar.update)
    images = in_memory_or_stored(stored, args.memory_gb)
    args.steps = args.steps or options.steps_of(args.epochs, len(train), args.shapes)
    own = {"shares": args.shares, "compose": args.compose, "balance": True}
    views = options.views_of(args.preset, prompts=args.prompts, emphasis=args.emphasis, **own)
    total = args.steps * max(count for count, _ in args.shapes)
    crops = PromptedCrops(images, views, total=total, seed=args.seed)
    names = "\n".join(f"{item.image.source}/{item.image.name}" for item in stored)
    held_out = [image for part in parts for image in part.held_out]
    return Data(crops, views, sha256(names.encode()).hexdigest(), validation or held_out)


def facts_of(
    args: argparse.Namespace, trainer: Trainer, config: SegmentorConfig, data: Data
) -> dict[str, str]:
    """All that decides about a step, and must be the same when the training goes on.

    The number of steps may be changed on the way, the schedule stretches; and so may the precision.
    """
    train = dataclasses.replace(trainer.config, steps=1, precision="")
    fixed = {"train": train, "model": config, "crops": data.views}
    named = {name: str(getattr(args, name)) for name in ("shapes", "drop_path", "set")}
    return {k: to_json(v) for k, v in fixed.items()} | named | {"images": data.digest}


class Processor(NamedTuple):
    """Where a training runs, and in which floating-point type."""

    device: str
    precision: str


def begin(
    config: SegmentorConfig, args: argparse.Namespace, where: Processor, batches: Batches
) -> Trainer:
    """Fresh weights, or as many of a checkpoint and of a pretrained encoder as fit.

    A training that goes on takes all of them from its state.
    """
    model = build_segmentor(config, drop_path=args.drop_path, layer_scale=0.5)
    if not (args.out / STATE).exists():
        if args.init:
            print(f"taken over: {take_over(model, load_segmentor(args.init)[0])} tensors")
        if args.encoder:
            pretrain(model, args.encoder, (batches[number].images for number in range(32)))
    names = ("steps", "lr", "encoder_lr", "contrast", "accumulate", "ema", "seed", "full_heads")
    chosen = {name: getattr(args, name) for name in names}
    settings = TrainConfig(warmup=200, precision=where.precision, **chosen)
    return Trainer(model, settings, device=where.device)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, split = parser.add_argument, Path(__file__).parent / "splits"
    add("--data", type=Path, nargs="+", required=True, help="annotated images, see above")
    add("--mpp", action="append", default=[], metavar="SOURCE=X", help="where SOURCE does not tell")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--split", type=Path, default=split, help="which images are held out, and validated")
    add("--preset", choices=options.PRESETS, default="own", help="see above")
    add("--model", choices=options.MODELS, default="mini", help="init: as the checkpoint of --init")
    add("--init", type=Path, help="checkpoint to take fitting weights from")
    add("--set", type=options.settings, default={}, help="pixel_dim=64,...: other sizes of it")
    add("--epochs", type=float, default=200, help="length of the schedule, in crops per image")
    add("--steps", type=int, help="its length in steps, instead")
    add("--accumulate", type=int, default=1, help="parts of a batch, one after the other")
    add("--minutes", type=float, default=float("inf"), help="stop after, to resume")
    add("--shapes", type=batch_shapes, default="32x256", help="crops x pixels, by turns")
    add("--memory-gb", type=float, default=8, help="keep larger data on disk")
    add("--emphasis", type=options.factors, default={}, help="source=2,...: to see more of")
    add("--shares", type=options.factors, default={}, help="source=0.1,...: of all crops")
    add("--compose", type=float, default=0, help="share of tissue crops set into others")
    add("--drawn", type=int, default=0, help="fields of drawn tissue to add")
    add("--lr", type=float, default=8e-4, help="largest learning rate")
    add("--encoder", type=Path, help="pretrained weights of the image encoder, a state dict")
    add("--encoder-lr", type=float, default=1, help="its learning rate, as a share of --lr")
    add("--contrast", type=float, default=0, help="weight of the loss between object classes")
    add("--ema", type=float, default=0.999, help="decay of the mean of the weights; 0: none")
    add("--prompts", type=int, default=4, help="questions per crop")
    add("--drop-path", type=float, default=0.1, help="stochastic depth")
    add("--full-heads", type=int, default=0, help="last answers judged at full size; 0: all")
    add("--precision", choices=PRECISIONS, default=AUTO, help="auto: by the processor")
    add("--device", default="cpu", help="cpu or cuda")
    add("--workers", type=int, default=0, help="processes that make batches")
    add("--validate-steps", type=int, default=0, help="steps between validations")
    add("--seed", type=int, default=0, help="decides everything random")
    parser.set_defaults(**options.PRESETS[parser.parse_known_args()[0].preset])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(options.until_interrupted(main, "train_segmentor"))
