"""Train a specialised model on each source: DeepLabV3+, U-Net, SAM-Path or nnU-Net.

    python pipelines/train_baseline.py --model deeplabv3plus --data PATHSEG --out DEEPLAB
    python pipelines/train_baseline.py --model sam-path --sam sam_vit_b.pth --data PATHSEG --out P
    python pipelines/train_baseline.py --model nnunet --nnunet NNUNET/bin --data PATHSEG --out N

DATA holds SOURCE/train.json as `xpath pathseg build` makes it, or images.csv and labels.csv; then
--split names a table source,image,group,split. A model has one output per label of its source, and
knows no others. Out come OUT/SOURCE/weights, tables and state.pt, from which the same command goes
on; `evaluate_segmentor.py --model NAME=OUT` scores them, each on the images of its own source.

DeepLabV3+ and U-Net need segmentation-models-pytorch: pip install 'xpath-pathology[baselines]'.
nnU-Net is installed in an environment of its own (pip install nnunetv2), and trains by its own
rules: 250,000 steps unless --steps or --minutes say less.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from xpath.config import to_json
from xpath.errors import ConfigError, XPathError
from xpath.pathseg.collection import collect, in_memory_or_stored, index_images
from xpath.pathseg.dataset import PromptedCrops
from xpath.pathseg.record import SourceImage
from xpath.pathseg.resolution import Resolutions
from xpath.segment.baselines.class_models import CLASS_MODELS, ClassConfig
from xpath.segment.baselines.class_predictor import ClassPredictor, save_class_model
from xpath.segment.baselines.class_training import (
    ClassBatches,
    ClassStart,
    exhaustive,
    start_training,
)
from xpath.segment.baselines.nnunet import NnuNet, NnuNetConfig
from xpath.segment.evaluation.validation import validate, write_samples
from xpath.segment.training import options
from xpath.segment.training.batches import BatchConfig, batch_shapes, stream
from xpath.segment.training.run import RunConfig, TrainingRun, show_step


def main(arguments: list[str] | None = None) -> int:
    """From arguments to a model per source; 1 if something cannot be used."""
    args = _parser().parse_args(arguments)
    try:
        train, held_out = collect(args.data, args.split, mpp=Resolutions.parse(args.mpp))
        finished = [_train(args, train, held_out, source) for source in _sources(args, train)]
    except XPathError as error:
        print(f"train_baseline: {error}", file=sys.stderr)
        return 1
    print("finished" if all(finished) else "stopped; the same command goes on")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, split = parser.add_argument, Path(__file__).parent / "splits" / "annotated.csv"
    add("--model", choices=[*CLASS_MODELS, "nnunet"], required=True, help="what is trained")
    add("--data", type=Path, required=True, help="annotated images, see above")
    add("--out", type=Path, required=True, help="folder of the models, one in it per source")
    add("--split", type=Path, default=split, help="which images are held out")
    add("--sources", nargs="*", help="only these")
    add("--mpp", action="append", default=[], metavar="SOURCE=X", help="where SOURCE does not tell")
    add("--encoder", help="backbone, by its name in segmentation-models-pytorch or tu-TIMM")
    add("--pretrained", help="its weights by their name there, such as imagenet (default: random)")
    add("--sam", help="Segment Anything that SAM-Path starts from: .pth, folder or hub id")
    add("--pathology", type=Path, help="weights of SAM-Path's second encoder (HIPT's ViT-S)")
    add("--preset", choices=options.PRESETS, default="own", help="paper: whole images, unchanged")
    add("--shapes", type=batch_shapes, default="4x1024", help="crops x pixels, by turns")
    add("--epochs", type=float, default=50, help="length of the schedule, in crops per image")
    add("--steps", type=int, help="its length in steps, instead")
    add("--minutes", type=float, default=math.inf, help="stop each source after, to resume")
    add("--lr", type=float, help="largest learning rate (default: as published)")
    add("--memory-gb", type=float, default=8, help="keep larger data on disk")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--device", default="cpu", help="cpu or cuda")
    add("--workers", type=int, default=0, help="processes that make batches")
    add("--nnunet", type=Path, metavar="BIN", help="folder of nnUNetv2_train, if not on the path")
    add("--seed", type=int, default=0, help="decides everything random but nnU-Net's")
    return parser


def _sources(args: argparse.Namespace, images: list[SourceImage]) -> list[str]:
    """Names of the sources to train on."""
    names = dict.fromkeys(image.source for image in images)
    if strange := set(args.sources or ()) - names.keys():
        raise ConfigError(f"no source is called {sorted(strange)}; there are {list(names)}")
    return list(args.sources or names)


def _train(
    args: argparse.Namespace, train: list[SourceImage], held_out: list[SourceImage], source: str
) -> bool:
    """Trains on a source and returns whether the schedule is finished."""
    images = [image for image in train if image.source == source]
    out = args.out / source
    with tqdm(desc=f"{source}: reading", total=len(images)) as bar:
        if args.model == "nnunet":
            length = {} if args.steps is None else {"steps": args.steps}
            print(f"{source}: nnU-Net's own words are in {out / 'nnUNetv2_train.log'}")
            settings = NnuNetConfig(minutes=args.minutes, device=args.device, **length)
            return NnuNet(out, args.nnunet).train(images, settings, on_image=bar.update)
        out.mkdir(parents=True, exist_ok=True)
        stored = index_images(images, out / "index.csv", on_image=bar.update)
    stored, labels = exhaustive(stored)
    views = options.views_of(args.preset, prompts=len(labels), emphasis={})
    views = dataclasses.replace(views, absent=1.0)  # all labels of every crop
    steps = args.steps or options.steps_of(args.epochs, len(stored), args.shapes)
    config = ClassConfig(
        model=args.model,
        source=source,
        labels=labels,
        mpp_range=None if views.whole else (views.fine[0], views.coarse[1]),
    )
    names = ("encoder", "pretrained", "sam", "pathology", "lr", "precision", "device", "seed")
    start = ClassStart(steps=steps, **{name: getattr(args, name) for name in names})
    config, trainer = start_training(config, start)
    facts = {name: to_json(it) for name, it in (("model", config), ("crops", views))}
    facts["train"] = to_json(dataclasses.replace(trainer.config, steps=1))
    run = TrainingRun(out, trainer, facts | {"shapes": str(args.shapes)})
    packed = in_memory_or_stored(stored, args.memory_gb)
    total = steps * max(count for count, _ in args.shapes)
    crops = PromptedCrops(packed, views, total=total, seed=args.seed)
    batching = BatchConfig(shapes=args.shapes, seed=args.seed, workers=args.workers)
    batches = stream(
        ClassBatches(crops, labels, batching), batching, start=trainer.step, steps=steps
    )
    with tqdm(desc=source, unit="step", total=steps, initial=trainer.step) as bar:
        show = partial(show_step, bar)
        finished = run.run(batches, RunConfig(minutes=args.minutes), on_step=show)
    card = f"# {args.model} of {source}\n\n{trainer.step} steps on {len(stored)} images.\n"
    save_class_model(out / "weights", trainer.model, config, card=card)
    predictor = ClassPredictor(trainer.model, config, device=args.device)
    asked = [image for image in held_out if image.source == source]
    scores = validate(predictor, tqdm(asked, desc=f"{source}: scoring"), mpp=config.mpp_range)
    write_samples(out / "samples.csv", scores)
    return finished


if __name__ == "__main__":
    sys.exit(main())
