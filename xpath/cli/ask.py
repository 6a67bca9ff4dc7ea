"""``xpath ask``: a question or a report in words, answered with objects on an image or slide."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xpath.cli.command import Command, microns
from xpath.errors import ConfigError, DataError

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

    from xpath.ask.answer import Asked
    from xpath.export.report.linked import Generated
    from xpath.language.reading import Case, Reader

__all__ = ["COMMAND"]

DESCRIPTION = """\
Ask in words, get objects. The text is read first: which labels it means, by which of its words,
and whether it affirms, doubts or denies them. What is denied ("no necrosis"), of the past or left
out on request is never looked for. Then the image or slide is segmented with what is left.
"""

EPILOG = """\
examples:
  xpath ask "TILs, but no necrosis" --region breast        read only: labels, spans, statuses
  xpath ask tile.png "where are the lymphocytes?" --region breast --mpp 0.25
  xpath ask case.svs --report report.txt --region breast   every finding a report names
  xpath ask case.svs --everything --region colon           all labels of a region
  xpath ask tile.png "mitoses" --region breast --reader http://localhost:8000/v1
  xpath ask tile.png "is there tumor?" --region breast --grounded UNIBIOMED_FOLDER

written to --out (by default ask-NAME):
  ask.html           open this: click a word of the text, and its objects light up
  objects.csv        a row per object: label, centre in level-0 pixels, area, confidence
  objects.geojson    the same for QuPath
  overlay.png        the picture with the objects in their colours
  reading.json       what was read in the text: labels, spans, statuses, what was not understood
  masks/*.png        a mask per label; of a slide masks.zarr and objects.h5 as a run has them

--grounded lets a model answer an image in its own words as well. They are marked as generated, with
the question and the weights' hash, and each phrase shows the mask the model points at.

A text is read on this machine, by a lexicon. --reader sends it to the language model at a URL you
give: https anywhere, http to this machine only. A label that the weights never learnt is looked
for all the same and marked as a guess; `xpath labels --region breast` lists what can be asked for.
"""

IMAGES = {".png", ".jpg", ".jpeg", ".bmp"}
SLIDES = {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".bif", ".dcm", ".czi"}
EVERYTHING = "Show everything."


class _Question(NamedTuple):
    picture: Path | None
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add = parser.add_argument
    add("words", nargs="*", metavar="IMAGE-OR-SLIDE QUESTION", help="either, or both in this order")
    add("--region", help="what the picture shows, e.g. breast; else the text must tell")
    add("--report", type=Path, metavar="FILE", help="a report to find on the picture, as text")
    add("--everything", action="store_true", help="look for all labels of the region")
    add("--reader", metavar="URL", help="a language model behind an OpenAI-compatible server")
    add("--reader-model", default="default", metavar="NAME", help="its name on that server")
    add("--grounded", metavar="PATH", help="a grounded model (UniBiomed) that answers, too")
    add("--mpp", type=microns, help="microns per pixel of the picture, where it stores none")
    add("--weights", metavar="PATH", help="segmentor: folder or hub id (default: those that ship)")
    add("--device", default="cpu", help="where the segmentor runs, such as cuda (default: cpu)")
    add("--out", type=Path, metavar="DIR", help="folder to write (default: ask-NAME)")


def run(args: argparse.Namespace) -> int:
    """Prints the reading, then answers it. Returns 1 if nothing can be looked for."""
    from xpath.ask.answer import Asked
    from xpath.ask.words import reading_lines
    from xpath.language.reading import Request
    from xpath.segment.checkpoints.checkpoint import locate, read_info

    question = _question(args)
    case: Case | None = "report" if args.report else "exploratory" if args.everything else None
    reading = _reader(args).read(Request(question.text, case, args.region))
    taught = read_info(locate(args.weights)).labels
    for line in reading_lines(question.text, reading, taught):
        print(line)
    if not reading.labels:
        print(
            "xpath: the text asks for nothing that can be segmented; name objects of"
            " `xpath labels`, and the --region",
            file=sys.stderr,
        )
        return 1
    if question.picture is None:
        return 0
    folder = args.out or Path(f"ask-{question.picture.stem}")
    for path in _answer(question.picture, Asked(question.text, reading), args, folder):
        print(path)
    return 0


def _question(args: argparse.Namespace) -> _Question:
    """A picture and the question about it.

    Raises:
        ConfigError: Nothing is asked, or more than one thing.
        DataError: The picture or the report is not there.
    """
    words = list(args.words)
    known = bool(words) and (Path(words[0]).is_file() or Path(words[0]).suffix in IMAGES | SLIDES)
    picture = Path(words.pop(0)) if known or len(words) > 1 else None
    if picture is not None and not picture.is_file():
        raise DataError(f"{picture} is no file; the image or slide comes first, then the question")
    texts = [*words, *([_report(args.report)] if args.report else [])]
    texts += [EVERYTHING] if args.everything else []
    if len(texts) != 1:
        raise ConfigError(
            f"ask one thing, got {len(texts)}: a question in quotes, --report FILE or --everything"
        )
    if args.everything and not args.region:
        raise ConfigError("--everything needs a --region; see `xpath labels`")
    return _Question(picture, texts[0])


def _report(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text in UTF-8: {error}") from error


def _reader(args: argparse.Namespace) -> Reader:
    from xpath.language.endpoint import EndpointReader
    from xpath.language.offline import OfflineReader

    if args.reader:
        return EndpointReader(args.reader, args.reader_model)
    return OfflineReader()


def _answer(
    picture: Path, asked: Asked, args: argparse.Namespace, folder: Path
) -> tuple[Path, ...]:
    """Everything that is written, the page first."""
    from xpath.ask.files import write_answer, write_masks
    from xpath.ask.picture import ask_image, ask_slide
    from xpath.pathseg.reading import read_image
    from xpath.segment.predict.predictor import SegmentPredictor
    from xpath.store.pixel_types import is_picture
    from xpath.wsi.slide import Slide

    predictor = SegmentPredictor.from_pretrained(args.weights, device=args.device)
    if picture.suffix.lower() in IMAGES or is_picture(picture):
        image = read_image(picture)
        answer, masks = ask_image(image, asked, predictor, name=picture.stem, mpp=args.mpp)
        generated = _generated(image, asked.text, args)
        written = write_answer(answer, folder, generated=generated)
        return (*written, *write_masks(answer, masks, folder))
    if args.grounded:
        raise ConfigError(f"--grounded answers images, {picture.name} is a slide; cut a tile of it")
    with Slide.open(picture, mpp=args.mpp) as slide:
        answer = ask_slide(slide, asked, predictor, folder)
    return (*write_answer(answer, folder), folder / "masks.zarr", folder / "objects.h5")


def _generated(
    image: NDArray[np.uint8], question: str, args: argparse.Namespace
) -> tuple[Generated, ...]:
    """Answer of a grounded model, where one is asked."""
    if not args.grounded:
        return ()
    from xpath.ask.generated import generated_words
    from xpath.grounded.interpreter import GroundedInterpreter

    interpreter = GroundedInterpreter.from_pretrained(args.grounded, device=args.device)
    return (generated_words(interpreter.answer(interpreter.encode(image), question)),)


COMMAND = Command(
    name="ask",
    help="ask an image or slide in words; find what a report names",
    description=DESCRIPTION,
    epilog=EPILOG,
    arguments=add_arguments,
    run=run,
)
