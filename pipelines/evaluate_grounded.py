"""Examine a grounded model (UniBiomed) on annotated images.

    python pipelines/evaluate_grounded.py --weights WEIGHTS --data CRAG CONSEP --out OUT
    python pipelines/evaluate_grounded.py --weights WEIGHTS --reports reports.json --out OUT

WEIGHTS is a folder or hub id with the published names. Every DATA holds test/, test_mask/ and
test.json as BiomedParseData does and is asked in --tasks: masks by words, diseases, classes of
boxed regions. --reports names JSON lists of image_file, mask_file, abnormality, anatomy, report
and caption: questions with an anatomy, reports, regions in words. The published figures are over
the first 300 annotations of each test file: --limit 300.

OUT gets scores.csv (accuracy, Dice, intervals), texts.csv (BLEU, ROUGE-L, METEOR where the real one
is installed, findings in common with the reference) and answers.csv (every question with the truth
and what was generated, by which weights). Broken items are named and left out; the exit code is
then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from xpath.errors import XPathError
from xpath.grounded.evaluate import (
    Examined,
    evaluate_grounded,
    questions_of,
    score_table,
    text_table,
)
from xpath.grounded.inference import InterpreterConfig
from xpath.grounded.interpreter import GroundedInterpreter
from xpath.grounded.samples import SampleConfig, schedule
from xpath.grounded.tasks import OF_MASKS, OF_REPORTS, annotations_of, read_reports
from xpath.pathseg.biomedparse_data import read_biomedparse
from xpath.store.tables import write_table

SHOWN = ("bleu_1", "bleu_4", "rouge_l", "fact_precision", "fact_recall")
"""Scores of texts that are printed; texts.csv has all."""


def main(arguments: list[str] | None = None) -> int:
    """From arguments to tables; 1 if something was left out."""
    args = _parser().parse_args(arguments)
    try:
        examined = _examine(args)
    except XPathError as error:
        print(f"evaluate_grounded: {error}", file=sys.stderr)
        return 1
    for problem in examined.problems:
        print(f"left out: {problem}", file=sys.stderr)
    scores = score_table(examined.graded, seed=args.seed)
    for it in scores:
        print(f"{it.mean:.3f} [{it.low:.3f}, {it.high:.3f}]  n = {it.n:<6} {it.task} {it.measure}")
    texts = text_table(examined.graded)
    for text in texts:
        named = [f"{name} {value:.3f}" for name, value in text._asdict().items() if name in SHOWN]
        print(f"{text.task}, n = {text.n}: {', '.join(named)}")
    write_table(args.out / "scores.csv", [score._asdict() for score in scores])
    if texts:
        write_table(args.out / "texts.csv", [text._asdict() for text in texts])
    return 1 if examined.problems or not (scores or texts) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, config = parser.add_argument, InterpreterConfig()
    add("--weights", required=True, help="a folder or hub id")
    add("--out", type=Path, required=True, help="folder for tables")
    add("--data", type=Path, nargs="*", default=[], help="folders in BiomedParseData's layout")
    add("--split", default="test", help="which part of them")
    add("--tasks", nargs="+", choices=OF_MASKS, default=OF_MASKS, help="what they are asked in")
    add("--reports", type=Path, nargs="*", default=[], help="JSON lists of described images")
    add("--limit", type=int, help="only the first annotations of every folder and list")
    add("--max-tiles", type=int, default=config.max_tiles, help="most tiles of an image")
    add("--max-tokens", type=int, default=config.max_tokens, help="longest answer")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of matrix products")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    add("--seed", type=int, default=0, help="of the boxed regions and the intervals")
    return parser


def _examine(args: argparse.Namespace) -> Examined:
    problems: list[str] = []

    def note(error: XPathError) -> None:
        problems.append(str(error))

    folders = [read_biomedparse(folder, args.split, on_error=note) for folder in args.data]
    lists = [read_reports(path, on_error=note) for path in args.reports]
    limit = slice(args.limit)
    data = [dict.fromkeys(args.tasks, annotations_of(items)[limit]) for items in folders]
    data += [dict.fromkeys(OF_REPORTS, items[limit]) for items in lists]
    questions = questions_of(schedule(data, SampleConfig(repeat=False)))
    config = InterpreterConfig(
        precision=args.precision, max_tiles=args.max_tiles, max_tokens=args.max_tokens
    )
    interpreter = GroundedInterpreter.from_pretrained(
        args.weights, device=args.device, config=config
    )
    with tqdm(desc="examining", unit="image", total=len(questions)) as bar:
        examined = evaluate_grounded(interpreter, questions, seed=args.seed, on_image=bar.update)
    weights = {"model": interpreter.info.name, "weights_sha256": interpreter.info.digest}
    write_table(args.out / "answers.csv", [it._asdict() | weights for it in examined.graded])
    return examined._replace(problems=(*problems, *examined.problems))


if __name__ == "__main__":
    sys.exit(main())
