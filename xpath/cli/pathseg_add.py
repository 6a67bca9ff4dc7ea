"""``xpath pathseg add``: corrections drawn in QuPath become training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command, microns

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from xpath.pathseg.additions import Drawn
    from xpath.pathseg.record import Annotated

__all__ = ["COMMAND"]

DESCRIPTION = """\
Takes what was drawn or corrected in QuPath (File, Export objects as GeoJSON) back into the data the
segmentor learns from. Classes are labels of the region by any spelling. Areas of class Region bound
what was looked at; without one that is the whole image. Within it a class that was drawn is taken
as drawn completely. A slide needs at least one Region: only these are cut out.
"""

EPILOG = """\
examples:
  xpath pathseg add tile.png tile.geojson --region breast --mpp 0.25 --out pathseg/ours
  xpath pathseg add case.svs corrected.geojson --region breast --out pathseg/ours
then: train with pipelines/train_segmentor.py --data pathseg
"""
IMAGES = {".png", ".jpg", ".jpeg", ".bmp"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add = parser.add_argument
    add("picture", type=Path, metavar="IMAGE-OR-SLIDE", help="what was drawn on")
    add("drawn", type=Path, metavar="GEOJSON", help="what was drawn")
    add("--region", required=True, help="what the picture shows, e.g. breast")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of all such pictures")
    add("--mpp", type=microns, help="microns per pixel, where the picture stores none")
    add("--split", choices=("train", "test"), default="train", help="what it is added to")
    add("--absent", default="", metavar="A,B", help="labels that are nowhere in it, by commas")
    add("--name", help="of the picture in the folder (default: that of its file)")


def run(args: argparse.Namespace) -> int:
    """Adds the picture, or every region of a slide, and prints how many masks that gave."""
    from xpath.errors import DataError
    from xpath.labels import load_labels
    from xpath.pathseg.additions import add_picture, read_drawn

    if not args.picture.is_file():
        raise DataError(f"{args.picture} is no file")
    drawn = read_drawn(args.drawn, args.region)
    words = [word.strip() for word in args.absent.split(",") if word.strip()]
    absent = tuple(load_labels().parse(f"{args.region} {word}").id for word in words)
    name, pictures, masks = args.name or args.picture.stem, 0, 0
    for number, (annotated, mpp) in enumerate(_pictures(args, drawn, absent)):
        of = name if not number else f"{name}-{number}"
        masks += add_picture(args.out, of, annotated, region=args.region, mpp=mpp, split=args.split)
        pictures += 1
    print(f"{args.out}: {masks} masks of {pictures} pictures added to {args.split}")
    return 0


def _pictures(
    args: argparse.Namespace, drawn: Drawn, absent: tuple[str, ...]
) -> Iterator[tuple[Annotated, float]]:
    """Annotated pictures, each with its microns per pixel.

    Raises:
        ConfigError: An image of unknown resolution, or a slide without a region.
        DataError: Areas beyond an image.
    """
    from xpath.errors import ConfigError
    from xpath.pathseg.additions import annotate, refuse_beyond
    from xpath.pathseg.reading import read_image
    from xpath.store.pixel_types import is_picture

    if args.picture.suffix.lower() in IMAGES or is_picture(args.picture):
        if not args.mpp:
            raise ConfigError("an image says nothing of its resolution; give --mpp")
        image = read_image(args.picture)
        refuse_beyond(drawn, image.shape[:2])
        yield annotate(image, drawn, absent=absent), args.mpp
        return
    if not drawn.bounds:
        raise ConfigError(
            f"{args.drawn} bounds nothing; draw a rectangle of class Region around what is"
            " annotated completely"
        )
    yield from _of_slide(args, drawn, absent)


def _of_slide(
    args: argparse.Namespace, drawn: Drawn, absent: tuple[str, ...]
) -> Iterator[tuple[Annotated, float]]:
    """Every region of a slide, at 40x or at the slide's own resolution if that is coarser."""
    from xpath.geometry import Box, Size
    from xpath.pathseg.additions import annotate
    from xpath.pathseg.standardisation import MPP_AT_40X
    from xpath.wsi.slide import Slide

    with Slide.open(args.picture, mpp=args.mpp) as slide:
        start = (slide.bounds.x, slide.bounds.y)
        scale = min(1.0, slide.mpp / MPP_AT_40X)
        for region in drawn.bounds:
            low, high = region.points.min(axis=0), region.points.max(axis=0)
            wide, tall = (max(1, round(float(side))) for side in high - low)
            x, y = (round(float(at)) for at in low)
            box = Box(x + start[0], y + start[1], wide, tall)
            image = slide.read(box, Size(max(1, round(wide * scale)), max(1, round(tall * scale))))
            some = drawn._replace(bounds=[region])
            one = annotate(image, some, corner=(x, y), scale=scale, absent=absent)
            yield one, slide.mpp / scale


COMMAND = Command(
    name="add",
    help="take corrections drawn in QuPath into the training data",
    description=DESCRIPTION,
    epilog=EPILOG,
    arguments=add_arguments,
    run=run,
)
