"""Fine-tune a grounded model (UniBiomed) on annotated images, resumable at any time.

    python pipelines/train_grounded.py --init WEIGHTS --data CRAG CONSEP --out run --device cuda
    python pipelines/train_grounded.py --init WEIGHTS --reports reports.json --out run

WEIGHTS is a folder or hub id with the published names. Every DATA holds train/, train_mask/ and
train.json as BiomedParseData does, and teaches --tasks; --reports names JSON lists of image_file,
mask_file, abnormality, anatomy, report, caption. The language model learns through low-rank
adapters, image encoders stay as they are. Out come log.csv, weights/ to use, adapters merged, and
state.pt, from which the same command goes on. Needs peft: pip install 'xpath-pathology[grounded]'.
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
from xpath.errors import XPathError
from xpath.grounded.checkpoint import LoadedGrounded, load_grounded, save_grounded
from xpath.grounded.lora import LoraSizes, merged_state
from xpath.grounded.samples import GroundedSamples, SampleConfig, batches, schedule
from xpath.grounded.tasks import OF_MASKS, OF_REPORTS, Annotation, annotations_of, read_reports
from xpath.grounded.train import GroundedTrainConfig, GroundedTrainer
from xpath.pathseg.biomedparse_data import read_biomedparse
from xpath.segment.training.run import RunConfig, TrainingRun, show_step


def main(arguments: list[str] | None = None) -> int:
    """From arguments to weights; 1 if something cannot be used."""
    args = _parser().parse_args(arguments)
    try:
        finished = _train(args)
    except XPathError as error:
        print(f"train_grounded: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"train_grounded: interrupted; what was saved last in {args.out} is kept, the same"
            " command goes on",
            file=sys.stderr,
        )
        return 130
    print("finished" if finished else "stopped; the same command goes on")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, lora, train = parser.add_argument, LoraSizes(), GroundedTrainConfig()
    add("--init", required=True, help="weights to start from: a folder or hub id")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--data", type=Path, nargs="*", default=[], help="folders in BiomedParseData's layout")
    add("--split", default="train", help="which part of them")
    add("--tasks", nargs="+", choices=OF_MASKS, default=OF_MASKS, help="what they teach")
    add("--reports", type=Path, nargs="*", default=[], help="JSON lists of described images")
    add("--epochs", type=float, default=10, help="length of the schedule")
    add("--steps", type=int, help="its length in steps, instead")
    add("--batch", type=int, default=4, help="samples at once")
    add("--accumulate", type=int, default=32, help="batches per step (published: 128 samples)")
    add("--lr", type=float, default=train.lr, help="largest learning rate")
    add("--rank", type=int, default=lora.rank, help="of the adapters; they count twice")
    add("--max-tiles", type=int, default=SampleConfig().max_tiles, help="most tiles of an image")
    add("--no-repeat", action="store_true", help="show small data sets once per epoch only")
    add("--minutes", type=float, default=math.inf, help="stop after, to resume")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of matrix products")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    add("--workers", type=int, default=0, help="processes that read images ahead")
    add("--seed", type=int, default=0, help="decides everything random")
    return parser


def _train(args: argparse.Namespace) -> bool:
    loaded = load_grounded(args.init)
    sampling = SampleConfig(max_tiles=args.max_tiles, repeat=not args.no_repeat, seed=args.seed)
    shown = schedule(_data(args), sampling)
    size, parts = args.batch, args.accumulate
    sizes = {"size": size, "accumulate": parts}
    steps = args.steps or math.ceil(args.epochs * len(shown) / (size * parts))
    config = GroundedTrainConfig(steps=steps, lr=args.lr, precision=args.precision, seed=args.seed)
    lora = LoraSizes(rank=args.rank, alpha=2 * args.rank)
    tokenizer = loaded.tokenizer
    trainer = GroundedTrainer(loaded.model, tokenizer.seg, config, lora=lora, device=args.device)
    # The number of steps may be changed on the way: the schedule stretches.
    fixed = {"train": dataclasses.replace(config, steps=1), "lora": lora, "samples": sampling}
    facts = {name: to_json(it) for name, it in fixed.items()}
    facts |= {"init": loaded.info.digest, "batch": f"{size} x {parts}", "shown": str(len(shown))}
    run = TrainingRun(args.out, trainer, facts)
    samples = GroundedSamples(shown, loaded.model.config, tokenizer, sampling)
    ahead = range(trainer.step, steps)
    with tqdm(desc="training", unit="step", total=steps, initial=trainer.step) as bar:
        finished = run.run(
            batches(samples, ahead, workers=args.workers, pad=tokenizer.pad, **sizes),
            RunConfig(minutes=args.minutes, log_steps=1),
            on_step=partial(show_step, bar),
        )
    _save(args, loaded, trainer.step)
    return finished


def _data(args: argparse.Namespace) -> list[dict[str, list[Annotation]]]:
    """Annotations by task, data set by data set."""
    folders = [annotations_of(read_biomedparse(folder, args.split)) for folder in args.data]
    described = [read_reports(path) for path in args.reports]
    taught = [{task: items} for items in folders for task in args.tasks]
    return taught + [dict.fromkeys(OF_REPORTS, items) for items in described]


def _save(args: argparse.Namespace, loaded: LoadedGrounded, step: int) -> None:
    info = dataclasses.replace(loaded.info, name=f"{loaded.info.name}-tuned")
    sources = [path.name for path in (*args.data, *args.reports)]
    card = (
        f"{loaded.info.name} ({loaded.info.digest}), fine-tuned for {step} steps on"
        f" {', '.join(sources)}.\n\nFor research; not for diagnosis. Its words are generated.\n"
    )
    state, model = merged_state(loaded.model), loaded.model
    save_grounded(args.out / "weights", state, model.config, loaded.tokenizer, info, card=card)


if __name__ == "__main__":
    sys.exit(main())
