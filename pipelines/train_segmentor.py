"""Train a PathSegmentor on annotated images, resumable at any time.

    python pipelines/train_segmentor.py --data DIR --out run --shapes 8x256 --drawn 24 --workers 1
    the same command again                                            # goes on where it stopped
    torchrun --nproc-per-node 4 pipelines/train_segmentor.py ...      # one batch, four GPUs

DIR holds images.csv and labels.csv (see xpath.pathseg.annotated). --split names a table
source,image,group,split; images it calls "test" are never trained on: they are what is validated.
--drawn N adds N fields of drawn tissue, which alone show fat, vessels and necrosis.
Out come state.pt (to resume), log.csv, validation.csv, samples.csv, pictures, and weights/ to use.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from xpath.config import to_json
from xpath.export.training_figures import draw_answers, draw_curves
from xpath.pathseg.annotated import divide, read_annotated
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.packed import pack_all
from xpath.pathseg.prompts import sentences
from xpath.pathseg.record import SourceImage
from xpath.segment.batches import BatchConfig, Batches, batch_shapes, stream
from xpath.segment.checkpoint import SegmentorInfo, load_segmentor, save_segmentor
from xpath.segment.predictor import SegmentPredictor
from xpath.segment.tokenizer import fit_tokenizer
from xpath.segment.train import TrainConfig, Trainer, TrainStep, take_over
from xpath.segment.training_run import RunConfig, TrainingRun, join_processes
from xpath.segment.validate import mean_by_label, validate, write_samples
from xpath.segment.variants import build_segmentor, mini_config, tiny_config
from xpath.testing.crops import drawn_images

CONFIGS = {"mini": mini_config, "tiny": tiny_config}


def main() -> None:
    """From arguments to weights."""
    args = arguments()
    rank, world = join_processes(args.device)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA: the loss needs no more
    train, held_out = divide(read_annotated(args.data), args.split)
    packed = pack_all(tqdm(train, desc="reading", disable=rank > 0))
    packed |= pack_all(drawn_images(range(args.drawn)) if args.drawn else [])

    tokenizer = fit_tokenizer(sentences())
    config = CONFIGS[args.model](tokenizer.vocabulary)
    model = build_segmentor(config, drop_path=args.drop_path, layer_scale=0.5)
    if args.init:
        print(f"taken over: {take_over(model, load_segmentor(args.init)[0])} tensors")
    settings = TrainConfig(
        steps=args.steps, lr=args.lr, warmup=200, precision=args.precision, ema=args.ema
    )
    device = f"cuda:{rank}" if world > 1 and args.device == "cuda" else args.device
    trainer = Trainer(model, settings, device=device)
    # The number of steps may be changed on the way: the schedule stretches.
    fixed = {"train": to_json(dataclasses.replace(settings, steps=1)), "model": to_json(config)}
    run = TrainingRun(args.out, trainer, fixed | {"shapes": str(args.shapes)}, lead=rank == 0)

    batching = BatchConfig(
        shapes=args.shapes, seed=args.seed, part=(rank, world), workers=args.workers
    )
    total = args.steps * max(count for count, _ in args.shapes)
    crops = PromptedCrops(packed, CropConfig(), total=total, seed=args.seed)
    batches = Batches(crops, tokenizer, batching)
    info = SegmentorInfo(
        name=f"pathsegmentor-{args.model}",
        mpp=0.25,
        image_size=max(size for _, size in args.shapes),
        labels=crops.labels,
        licence="CC BY-NC-SA 4.0",
        synthetic_only=False,
    )

    def averaged() -> SegmentPredictor:
        answering = build_segmentor(config)
        answering.load_state_dict(trainer.averaged())
        return SegmentPredictor(answering, tokenizer, info, device=device)

    with tqdm(desc="training", unit="step", total=args.steps, initial=trainer.step) as bar:
        finished = run.run(
            stream(batches, batching, start=trainer.step, steps=args.steps),
            RunConfig(minutes=args.minutes, validate_steps=args.validate_steps),
            on_step=partial(show_step, bar),
            validate=lambda: mean_by_label(validate(averaged(), held_out)),
        )
    if rank > 0:
        return
    scores = judge(best := averaged(), held_out, run, args.out)
    card = f"# {info.name}\n\nMean Dice (images) on held-out images:\n\n{scores}"
    save_segmentor(args.out / "weights", best.model, config, tokenizer, info, card=card)
    print(scores + (f"finished: {args.out}" if finished else "stopped; the same command goes on"))


def judge(
    predictor: SegmentPredictor, images: list[SourceImage], run: TrainingRun, out: Path
) -> str:
    """Scores held-out images; writes samples.csv, pictures and curves."""
    samples = validate(predictor, tqdm(images, desc="validating"), on_image=draw_answers(out))
    write_samples(out / "samples.csv", samples)
    scores = mean_by_label(samples)
    run.record(scores)
    draw_curves(out)
    return "".join(f"- {kind}: {dice:.3f} ({n})\n" for kind, (n, dice) in scores.items())


def show_step(bar: tqdm, step: TrainStep) -> None:
    """Moves the bar; looks at the loss now and then, as that waits for the device."""
    bar.update()
    if step.step % 20 == 0:
        bar.set_postfix({k: f"{float(v):.3f}" for k, v in step.loss._asdict().items()})


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    split = Path(__file__).parent / "splits" / "annotated.csv"
    parser.add_argument("--data", type=Path, required=True, help="has images.csv, labels.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--split", type=Path, default=split, help="which images are held out")
    parser.add_argument("--model", choices=CONFIGS, default="mini", help="size of the model")
    parser.add_argument("--init", type=Path, help="checkpoint to take fitting weights from")
    parser.add_argument("--steps", type=int, default=20_000, help="length of the schedule")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after, to resume")
    parser.add_argument(
        "--shapes", type=batch_shapes, default="32x256", help="crops x pixels, by turns"
    )
    parser.add_argument("--drawn", type=int, default=0, help="fields of drawn tissue to add")
    parser.add_argument("--lr", type=float, default=8e-4, help="largest learning rate")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights")
    parser.add_argument("--drop-path", type=float, default=0.1, help="stochastic depth")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--validate-steps", type=int, default=0, help="steps between validations")
    parser.add_argument("--seed", type=int, default=0, help="decides everything random")
    return parser.parse_args()


if __name__ == "__main__":
    main()
