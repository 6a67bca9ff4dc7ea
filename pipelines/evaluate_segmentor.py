"""Measure a segmentor on images with masks in the layout of BiomedParseData.

    python pipelines/evaluate_segmentor.py --data DIR --out OUT
    python pipelines/evaluate_segmentor.py --data CRAG CONSEP --out OUT --weights W --mpp CRAG=0.5

Every DIR holds test/ (images), test_mask/ (non-zero is the object) and test.json; its name is the
name of the source. The label is read from sentences like "nuclei-level lymphocyte in breast
pathology.", or from --mapping: CSV "sentence,label[,ignore]" or JSON {"sentence": "label"}. Other
sentences are asked as they are and reported under their own words. Folders of `xpath pathseg build`
tell the resolution of every image; for others it is given by --mpp.
OUT gets dice_by_label.csv (last row "overall"), further tables, figures/ and answers/, and with
--against or another model (--model, --boxes, --detector, --predictions) what compare_segmentors.py
writes. Broken items are named and left out; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from xpath.errors import XPathError
from xpath.export.biomedparse_figures import write_answer_figures, write_recognition
from xpath.export.comparison_figures import write_comparison_figures
from xpath.export.evaluation_figures import draw_examples, write_figures
from xpath.export.example_figures import draw_panels, models_of
from xpath.pathseg.reading import read_table
from xpath.segment.baselines.others import Others, add_options, scores_of_others
from xpath.segment.evaluation.compared import (
    named_paths,
    named_tables,
    read_compared,
    write_comparison,
)
from xpath.segment.evaluation.evaluate import Evaluation, evaluate_segmentor
from xpath.segment.evaluation.folders import read_folders
from xpath.segment.evaluation.mapping import read_ignore_values
from xpath.segment.evaluation.questions import EvaluationConfig, Problem, questions_of
from xpath.segment.evaluation.recognised import recognise_images
from xpath.segment.evaluation.tables import dice_by, write_tables
from xpath.segment.predict.calibration import load_presence
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor

MPP = "microns per pixel of images that say nothing of it (default: pixels as they are)"


def main(arguments: list[str] | None = None) -> int:
    """From arguments to tables and figures. Returns 1 if images were left out or none found."""
    args = _parser().parse_args(arguments)
    try:
        evaluation = _evaluate(args)
    except XPathError as error:
        print(f"evaluate_segmentor: {error}", file=sys.stderr)
        return 1
    for problem in evaluation.problems:
        print(f"left out: {problem.what}", file=sys.stderr)
    for row in dice_by(evaluation.samples, "label", seed=args.seed):
        low, high = row["ci_low"], row["ci_high"]
        print(f"{row['dice']:.3f} [{low:.3f}, {high:.3f}]  n = {row['n']:<6} {row['label']}")
    print(f"see {args.out / 'dice_by_label.csv'}; {len(evaluation.problems)} items left out")
    return 1 if evaluation.problems or not evaluation.samples else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help="folders in BiomedParseData's layout")
    add("--out", type=Path, required=True, help="folder for tables and figures")
    add("--split", default="test", help="which part of the data (default: test)")
    add("--weights", help="checkpoint folder or hub id (default: the weights that ship)")
    add("--mapping", type=Path, help="what the sentences mean: CSV or JSON")
    add("--groups", type=Path, help="CSV image,group: patients are drawn whole in intervals")
    add("--mpp", action="append", default=[], metavar="[SOURCE=]X", help=MPP)
    add("--batch", type=int, default=4, help="images encoded at once")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default: {device})")
    add("--limit", type=int, help="only the first images of every folder")
    add("--absent", action="store_true", help="labels an image has no mask of are absent: ask them")
    add("--invalid", type=int, default=0, metavar="N", help="ask N labels of other regions too")
    add("--presence", type=Path, help="presence.json that judges (default: that of the weights)")
    add("--recognise", action="store_true", help="also recognise everything at once: F1, Dice")
    add("--name", default="PathSegmentor", help="name of this model in comparisons")
    add("--against", action="append", default=[], metavar="NAME=CSV", help="their samples.csv")
    add_options(parser)
    add("--parents", action="store_true", help="ask untaught labels as the nearest taught ones")
    add("--seed", type=int, default=0, help="of the intervals")
    return parser


def _evaluate(args: argparse.Namespace) -> Evaluation:
    against = named_tables(args.against)
    others = Others.of(args, taken=(args.name, *against))  # looked at before hours go into ours
    where = {"split": args.split, "mapping": args.mapping, "mpp": args.mpp, "limit": args.limit}
    items, problems = read_folders(args.data, **where)
    predictor = SegmentPredictor.from_pretrained(
        args.weights, device=args.device, config=PredictorConfig(parents=args.parents)
    )
    if args.presence:
        predictor.calibration = load_presence(args.presence)
    asked = {"absent": args.absent, "invalid": args.invalid}
    config = EvaluationConfig(trained=predictor.info.labels, batch=args.batch, **asked)
    groups = read_table(args.groups, "image", "group") if args.groups else []
    ignore = read_ignore_values(args.mapping) if args.mapping else {}
    by_name = {row["image"]: row["group"] for row in groups}
    questions = questions_of(items, config, groups=by_name, ignore=ignore)
    with tqdm(total=len(questions), desc="evaluating", unit="image") as bar:
        scored = evaluate_segmentor(predictor, questions, config, on_images=bar.update)
    problems += scored.problems
    write_tables(args.out, scored._replace(problems=tuple(problems)), seed=args.seed)
    if scored.samples:
        write_figures(args.out / "figures", scored.samples, seed=args.seed)
        write_answer_figures(args.out / "figures", scored.samples)
        draw_examples(args.out / "answers", scored.samples, predictor)
        models = models_of(args.name, predictor, named_paths(args.predictions))
        draw_panels(args.out / "answers", scored.samples, models)
    scored_others = scores_of_others(questions, config, others, args.out / "models")
    problems += _compare(args, against, scored_others)  # its boxes of all models replace ours
    if args.recognise:
        write_recognition(args.out, recognise_images(predictor, questions), seed=args.seed)
    return scored._replace(problems=tuple(problems))


def _compare(
    args: argparse.Namespace, against: dict[str, Path], models: Iterable[tuple[str, Evaluation]]
) -> list[Problem]:
    """Scores other models, and compares all of them. Returns what was left out."""
    tables = {args.name: args.out / "samples.csv"} | against
    problems: list[Problem] = []
    for name, scored in models:
        problems += scored.problems
        write_tables(args.out / "models" / name, scored, seed=args.seed)
        tables[name] = args.out / "models" / name / "samples.csv"
    if len(tables) > 1:
        compared = read_compared(tables)
        rows = write_comparison(args.out, compared, seed=args.seed)
        write_comparison_figures(args.out / "figures", compared, rows)
    return problems


if __name__ == "__main__":
    sys.exit(main())
