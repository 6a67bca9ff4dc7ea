"""Train a PathSegmentor on annotated images, resumable at any time.

    python pipelines/train_segmentor.py --data DIR --out run --shapes 8x256 --drawn 24 --workers 1
    torchrun --nproc-per-node 4 pipelines/train_segmentor.py ...      # one batch, four GPUs
    python pipelines/train_segmentor.py --preset paper --init START --data DIR --out run

DIR holds SOURCE/train.json as `xpath pathseg build` makes it, or images.csv and labels.csv; then
--split names a table source,image,group,split. Images of the test part are validated, never trained
on. --drawn N adds N fields of drawn tissue, which alone show fat, vessels and necrosis. Out come
tables, pictures, weights/ to use and state.pt, from which the same command goes on.

--preset paper trains as PathSegmentor's paper does (sections 4.2 and 4.4), from START, which
`xpath weights import biomedparse_v1.pt --bert PUBMEDBERT --out START` makes of the weights that the
paper starts from. The default, own, is the recipe of the weights that ship.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from xpath.config import to_json
from xpath.export.training_figures import draw_curves, judge
from xpath.pathseg.collection import collect, in_memory_or_stored, index_images
from xpath.pathseg.dataset import PromptedCrops
from xpath.pathseg.resolution import Resolutions
from xpath.segment.checkpoints.checkpoint import load_segmentor, save_segmentor
from xpath.segment.checkpoints.pretrained import pretrain
from xpath.segment.model.variants import SegmentorConfig, build_segmentor
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.training import options
from xpath.segment.training.batches import BatchConfig, Batches, batch_shapes, stream
from xpath.segment.training.run import RunConfig, TrainingRun, join_processes, show_step
from xpath.segment.training.trainer import TrainConfig, Trainer, take_over
from xpath.testing.crops import DRAWN, drawn_images


def main() -> None:
    """From arguments to weights."""
    args = arguments()
    options.check_preset(args.preset, args.model, args.init)
    rank, world, device = join_processes(args.device)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA: the loss needs no more
    train, held_out = collect(args.data, args.split, mpp=Resolutions.parse(args.mpp))
    train += drawn_images(range(args.drawn))
    with tqdm(desc="reading", total=len(train)) as bar:
        stored = index_images(train, args.out / f"index-{rank}.csv", on_image=bar.update)
    images = in_memory_or_stored(stored, args.memory_gb)
    args.steps = args.steps or options.steps_of(args.epochs, len(train), args.shapes)
    config, tokenizer = options.architecture(args.model, args.init)
    batching = BatchConfig(
        shapes=args.shapes, seed=args.seed, part=(rank, world), workers=args.workers
    )
    total = args.steps * max(count for count, _ in args.shapes)
    views = options.views_of(args.preset, prompts=args.prompts, emphasis=args.emphasis)
    crops = PromptedCrops(images, views, total=total, seed=args.seed)
    batches = Batches(crops, tokenizer, batching)
    trainer = begin(config, args, device, batches)
    # The number of steps may be changed on the way: the schedule stretches.
    fixed = {"train": dataclasses.replace(trainer.config, steps=1), "model": config, "crops": views}
    facts = {name: to_json(it) for name, it in fixed.items()} | {
        name: str(getattr(args, name)) for name in ("shapes", "drop_path")
    }
    run = TrainingRun(args.out, trainer, facts, lead=rank == 0)
    name, largest = options.name_of(args.model, args.init), max(size for _, size in args.shapes)
    info = options.describe(
        name, crops.labels, views, image_size=largest, drawn=crops.labels_only_of(DRAWN)
    )

    def averaged() -> SegmentPredictor:
        (answering := build_segmentor(config)).load_state_dict(trainer.averaged())
        return SegmentPredictor(answering, tokenizer, info, device=device)

    with tqdm(desc="training", unit="step", total=args.steps, initial=trainer.step) as bar:
        finished = run.run(
            stream(batches, batching, start=trainer.step, steps=args.steps),
            RunConfig(minutes=args.minutes, validate_steps=args.validate_steps),
            on_step=partial(show_step, bar),
            validate=lambda: judge(averaged(), held_out, args.out),
        )
    if rank > 0:
        return
    run.record(scores := judge(best := averaged(), held_out, args.out))
    draw_curves(args.out)
    text = "".join(f"- {name}: {dice:.3f} ({n})\n" for name, (n, dice) in scores.items())
    card = f"# {info.name}\n\nMean Dice (images) on held-out images:\n\n{text}"
    save_segmentor(args.out / "weights", best.model, config, tokenizer, info, card=card)
    print(text, "finished" if finished else "stopped; the same command goes on")


def begin(
    config: SegmentorConfig, args: argparse.Namespace, device: str, batches: Batches
) -> Trainer:
    """Fresh weights, or as many of a checkpoint and of a pretrained encoder as fit."""
    model = build_segmentor(config, drop_path=args.drop_path, layer_scale=0.5)
    if args.init:
        print(f"taken over: {take_over(model, load_segmentor(args.init)[0])} tensors")
    if args.encoder:
        pretrain(model, args.encoder, (batches[number].images for number in range(32)))
    names = ("steps", "lr", "encoder_lr", "contrast", "accumulate", "ema", "precision", "seed")
    settings = TrainConfig(warmup=200, **{name: getattr(args, name) for name in names})
    return Trainer(model, settings, device=device)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, split = parser.add_argument, Path(__file__).parent / "splits" / "annotated.csv"
    add("--data", type=Path, required=True, help="annotated images, see above")
    add("--mpp", action="append", default=[], metavar="SOURCE=X", help="where SOURCE does not tell")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--split", type=Path, default=split, help="which images are held out")
    add("--preset", choices=options.PRESETS, default="own", help="paper: see above")
    add("--model", choices=options.MODELS, default="mini", help="init: as the checkpoint of --init")
    add("--init", type=Path, help="checkpoint to take fitting weights from")
    add("--epochs", type=float, default=200, help="length of the schedule, in crops per image")
    add("--steps", type=int, help="its length in steps, instead")
    add("--accumulate", type=int, default=1, help="parts of a batch, one after the other")
    add("--minutes", type=float, default=float("inf"), help="stop after, to resume")
    add("--shapes", type=batch_shapes, default="32x256", help="crops x pixels, by turns")
    add("--memory-gb", type=float, default=8, help="keep larger data on disk")
    add("--emphasis", type=options.factors, default={}, help="source=2,...: to see more of")
    add("--drawn", type=int, default=0, help="fields of drawn tissue to add")
    add("--lr", type=float, default=8e-4, help="largest learning rate")
    add("--encoder", type=Path, help="pretrained weights of the image encoder, a state dict")
    add("--encoder-lr", type=float, default=1, help="its learning rate, as a share of --lr")
    add("--contrast", type=float, default=0, help="weight of the loss between object classes")
    add("--ema", type=float, default=0.999, help="decay of the mean of the weights; 0: none")
    add("--prompts", type=int, default=4, help="questions per crop")
    add("--drop-path", type=float, default=0.1, help="stochastic depth")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--device", default="cpu", help="cpu or cuda")
    add("--workers", type=int, default=0, help="processes that make batches")
    add("--validate-steps", type=int, default=0, help="steps between validations")
    add("--seed", type=int, default=0, help="decides everything random")
    parser.set_defaults(**options.PRESETS[parser.parse_known_args()[0].preset])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(options.until_interrupted(main, "train_segmentor"))
