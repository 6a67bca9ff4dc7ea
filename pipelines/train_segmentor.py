"""Train a PathSegmentor on annotated images, resumable at any time.

    python pipelines/train_segmentor.py --data DIR --out run --steps 20000 --device cuda --precision bf16
    python pipelines/train_segmentor.py --data DIR --out run --steps 20000 ...     # goes on where it stopped
    torchrun --nproc-per-node 4 pipelines/train_segmentor.py ...                   # one batch, four GPUs

DIR holds images.csv and labels.csv (see xpath.pathseg.annotated). --split names a CSV
(source,image,group,split); images marked "test" are never trained on and are what is validated.
--drawn N adds N fields of drawn tissue, which alone show fat, vessels and necrosis.
Out come state.pt (to resume), log.csv, validation.csv, samples.csv, figures and weights/ (to use).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from xpath.config import to_json
from xpath.export.training_figures import draw_answers, draw_curves
from xpath.pathseg.annotated import read_annotated
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.packed import Packed, pack
from xpath.pathseg.prompts import sentences
from xpath.pathseg.record import SourceImage
from xpath.segment.batches import BatchConfig, Batches, stream
from xpath.segment.checkpoint import SegmentorInfo, save_segmentor
from xpath.segment.predictor import SegmentPredictor
from xpath.segment.tokenizer import PromptTokenizer, fit_tokenizer
from xpath.segment.train import TrainConfig, Trainer, TrainStep
from xpath.segment.training_run import RunConfig, TrainingRun
from xpath.segment.validate import mean_by_label, validate
from xpath.segment.variants import build_segmentor, mini_config, tiny_config
from xpath.testing.crops import drawn_images

CONFIGS = {"mini": mini_config, "tiny": tiny_config}
LICENCE = "CC BY-NC-SA 4.0"


def main() -> None:
    """From arguments to weights."""
    args = arguments()
    rank, world = join_processes(args.device)
    torch.manual_seed(args.seed)
    train, held_out = divide(read_annotated(args.data), args.split)
    tokenizer = fit_tokenizer(sentences())
    config = CONFIGS[args.model](tokenizer.vocabulary)
    model = build_segmentor(config, drop_path=args.drop_path, layer_scale=0.5)
    settings = TrainConfig(
        steps=args.steps, lr=args.lr, warmup=200, precision=args.precision, ema=args.ema
    )
    device = f"cuda:{rank}" if args.device == "cuda" and world > 1 else args.device
    trainer = Trainer(model, settings, device=device)
    facts = {"train": to_json(settings), "model": to_json(config), "shapes": args.shapes}
    run = TrainingRun(args.out, trainer, facts, lead=rank == 0)

    shapes = tuple(tuple(map(int, shape.split("x"))) for shape in args.shapes.split(","))
    batches = BatchConfig(
        shapes=shapes, seed=args.seed, part=(rank, world), workers=args.workers  # type: ignore[arg-type]
    )
    packed = packed_by_source(train, show=rank == 0)
    if args.drawn:
        packed["drawn"] = [pack(item.read(), item.mpp) for item in drawn_images(range(args.drawn))]
    total = args.steps * max(crops for crops, _ in shapes)
    crops = PromptedCrops(packed, CropConfig(), total=total, seed=args.seed)

    info = SegmentorInfo(
        name=f"pathsegmentor-{args.model}",
        mpp=0.25,
        image_size=max(size for _, size in shapes),
        labels=tuple(sorted({name for s in packed.values() for p in s for name in p.labels})),
        licence=LICENCE,
        synthetic_only=False,
    )
    predictor = partial(averaged_predictor, trainer, config, tokenizer, info)
    with tqdm(desc="training", unit="step", total=args.steps, initial=trainer.step) as bar:
        finished = run.run(
            stream(Batches(crops, tokenizer, batches), batches, start=trainer.step, steps=args.steps),
            RunConfig(minutes=args.minutes, validate_steps=args.validate_steps),
            on_step=partial(show_step, bar),
            validate=lambda: mean_by_label(validate(predictor(), held_out[:: args.thin])),
        )
    if rank == 0:
        finish(args.out, run, predictor(), held_out, config)
        print(f"{'finished' if finished else 'stopped, give the command again to go on'}: {args.out}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of images.csv, labels.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--split", type=Path, help="CSV that says which images are held out",
                        default=Path(__file__).parent / "splits" / "annotated.csv")
    parser.add_argument("--model", choices=CONFIGS, default="mini")
    parser.add_argument("--steps", type=int, default=20_000, help="length of the schedule")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after, to resume")
    parser.add_argument("--shapes", default="32x256", help="crops x pixels of a batch, by turns")
    parser.add_argument("--drawn", type=int, default=0, help="fields of drawn tissue to add")
    parser.add_argument("--lr", type=float, default=8e-4, help="largest learning rate")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights")
    parser.add_argument("--drop-path", type=float, default=0.1, help="stochastic depth")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--validate-steps", type=int, default=0, help="steps between validations")
    parser.add_argument("--thin", type=int, default=1, help="validate on every so manyth image")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def join_processes(device: str) -> tuple[int, int]:
    """Rank and number of processes; one unless started by torchrun."""
    if "RANK" not in os.environ:
        return 0, 1
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def divide(images: list[SourceImage], split: Path) -> tuple[list[SourceImage], list[SourceImage]]:
    """Images to train on and images held out."""
    with split.open(newline="") as file:
        held = {(r["source"], r["image"]) for r in csv.DictReader(file) if r["split"] == "test"}
    train = [item for item in images if (item.source, item.name) not in held]
    return train, [item for item in images if (item.source, item.name) in held]


def packed_by_source(images: list[SourceImage], *, show: bool) -> dict[str, list[Packed]]:
    """Decoded images of each source."""
    packed: dict[str, list[Packed]] = {}
    for item in tqdm(images, desc="reading", disable=not show):
        packed.setdefault(item.source, []).append(pack(item.read(), item.mpp))
    return packed


def averaged_predictor(trainer, config, tokenizer: PromptTokenizer, info: SegmentorInfo):  # noqa: ANN001, ANN201
    """The averaged weights, ready to answer."""
    model = build_segmentor(config)
    model.load_state_dict(trainer.averaged())
    return SegmentPredictor(model, tokenizer, info, device=str(trainer.device))


def show_step(bar: tqdm, step: TrainStep) -> None:
    """Moves the bar; looks at the loss now and then, as that waits for the device."""
    bar.update()
    if step.step % 20 == 0:
        bar.set_postfix({k: f"{float(v):.3f}" for k, v in step.loss._asdict().items()})


def finish(out: Path, run: TrainingRun, predictor, held_out: list[SourceImage], config) -> None:  # noqa: ANN001
    """Scores, figures and weights."""
    samples = validate(predictor, tqdm(held_out, desc="validating"), on_image=draw_answers(out))
    run.record(mean_by_label(samples))
    with (out / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(samples[0]._fields)
        writer.writerows(samples)
    draw_curves(out)
    scores = "\n".join(f"- {k}: {v:.3f} ({n})" for k, (n, v) in mean_by_label(samples).items())
    save_segmentor(
        out / "weights", predictor.model, config, predictor.tokenizer, predictor.info,
        card=f"# {predictor.info.name}\n\nMean Dice on held-out images:\n\n{scores}\n",
    )
    print(scores)


if __name__ == "__main__":
    main()
