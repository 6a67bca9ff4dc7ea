"""All images below a folder, whichever layout they are in, and whether they fit into memory."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from xpath.errors import DataError
from xpath.pathseg.annotated import presuming_absence, read_annotated, read_split, split_images
from xpath.pathseg.biomedparse_data import read_biomedparse
from xpath.pathseg.biomedparse_source import images_of
from xpath.pathseg.packed import Stored, pack_all
from xpath.pathseg.parents import with_unions
from xpath.pathseg.resolution import Resolutions
from xpath.store.tables import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from xpath.pathseg.packed import Packed
    from xpath.pathseg.record import SourceImage

__all__ = ["Collected", "Training", "collect", "in_memory_or_stored", "index_images", "to_train_on"]

logger = logging.getLogger(__name__)

BYTES = 5
"""Of memory per pixel: three colours, their smaller copies and a plane of masks."""

COLUMNS = ("source", "image", "height", "width", "labels", "absent")


class Collected(NamedTuple):
    """Images of a folder."""

    train: list[SourceImage]
    held_out: list[SourceImage]


class Training(NamedTuple):
    """Images of the training part."""

    train: list[SourceImage]
    validation: list[SourceImage]


class TrainingData(NamedTuple):
    """Images of a training, and those to validate it on."""

    images: dict[str, list[Packed | Stored]]
    """By source."""
    number: int
    """Of images to train on."""
    validation: list[SourceImage]
    """Those of the training part that are set apart for it, or, if there are none, the held out."""
    digest: str
    """Of the names of all images in their order: the same crops need the same images."""


def collect(
    folder: Path, split: Path | None = None, *, mpp: Resolutions | None = None
) -> Collected:
    """Images to train on and images held out.

    Args:
        folder: Holds ``images.csv`` and ``labels.csv`` (``pathseg.annotated``), or folders in the
            layout of BiomedParseData, as ``xpath pathseg build`` writes them; those know their own
            split.
        split: Which images of ``images.csv`` are held out, a table or a folder of tables; none if
            not given.
        mpp: Of folders in BiomedParseData's layout whose images say nothing of their resolution;
            0.25 for sources it does not name.

    Raises:
        DataError: Neither layout is found, or a table is broken.
    """
    if (folder / "images.csv").is_file():
        images = read_annotated(folder)
        return Collected(*split_images(images, split)) if split else Collected(images, [])
    sources = sorted(path.parent for path in folder.glob("*/train.json"))
    if (folder / "train.json").is_file():
        sources.append(folder)
    if not sources:
        raise DataError(
            f"{folder} holds neither images.csv nor SOURCE/train.json;"
            " `xpath pathseg build` makes such folders"
        )
    return Collected(
        *(_from_biomedparse(sources, part, mpp or Resolutions()) for part in ("train", "test"))
    )


def to_train_on(images: Iterable[SourceImage], split: Path | None) -> Training:
    """Training images with all that may be asked about them, and those to validate on.

    Args:
        images: That may be trained on.
        split: Says which of them are for ``validation``, a table or a folder of tables; none if not
            given.
    """
    named = read_split(split) if split else {}
    train: list[SourceImage] = []
    validation: list[SourceImage] = []
    for image in images:
        if named.get((image.source, image.name)) == "validation":
            validation.append(with_unions(image))
        else:
            train.append(with_unions(presuming_absence(image)))
    return Training(train, validation)


def read_training(
    folders: Iterable[Path],
    split: Path,
    *,
    mpp: Resolutions,
    more: Sequence[SourceImage] = (),
    index: Path,
    memory_gb: float,
) -> TrainingData:
    """All images of a training, decoded if they fit into memory.

    Args:
        folders: As ``collect`` takes them.
        split: Which images are held out or validated, a table or a folder of tables.
        mpp: Of images that say nothing of their resolution.
        more: Images from elsewhere to train on.
        index: A table of what all images show, which is read if it exists, and written.
        memory_gb: Larger data stay on disk.

    Raises:
        DataError: A folder without images, or a broken table.
    """
    parts = [collect(folder, split, mpp=mpp) for folder in folders]
    images = (image for part in parts for image in part.train)
    train, validation = to_train_on(images, split if split.exists() else None)
    train += more
    with tqdm(desc="reading", total=len(train)) as bar:
        stored = index_images(train, index, on_image=bar.update)
    names = "\n".join(f"{item.image.source}/{item.image.name}" for item in stored)
    return TrainingData(
        in_memory_or_stored(stored, memory_gb),
        len(train),
        validation or [image for part in parts for image in part.held_out],
        sha256(names.encode()).hexdigest(),
    )


def _from_biomedparse(
    folders: Iterable[Path], part: str, resolutions: Resolutions
) -> list[SourceImage]:
    images: list[SourceImage] = []
    for folder in folders:
        if (folder / f"{part}.json").is_file():
            items = resolutions.fill(
                read_biomedparse(folder, part, on_error=_say), folder.name, otherwise="are 0.25"
            )
            images += images_of(items, source=folder.name, split=part)
    return images


def _say(error: Exception) -> None:
    logger.warning("left out: %s", error)


def index_images(
    images: Sequence[SourceImage], table: Path, *, on_image: Callable[[], object] | None = None
) -> list[Stored]:
    """Size and labels of every image, so that crops can be drawn without decoding all.

    Broken images are named in the log and left out.

    Args:
        images: Decoded once, unless the table knows them.
        table: A CSV that is read if it exists, and written.
        on_image: Called after each image.
    """
    known = {(row["source"], row["image"]): row for row in read_table(table) if "absent" in row}
    stored: list[Stored] = []
    for image in images:
        row = known.get((image.source, image.name)) or _row(image)
        if row:
            known[image.source, image.name] = row
            labels, absent = (
                tuple(filter(None, row[name].split("|"))) for name in ("labels", "absent")
            )
            stored.append(Stored(image, (int(row["height"]), int(row["width"])), labels, absent))
        if on_image:
            on_image()
    write_table(table, known.values(), COLUMNS)
    return stored


def _row(image: SourceImage) -> dict[str, str] | None:
    try:
        annotated = image.read()
    except DataError as error:
        logger.warning("left out: %s", error)
        return None
    height, width = annotated.image.shape[:2]
    labels = "|".join(label for label, mask in annotated.masks if mask.any())
    absent = "|".join(annotated.absent)
    values = (image.source, image.name, str(height), str(width), labels, absent)
    return dict(zip(COLUMNS, values, strict=True))


def in_memory_or_stored(
    stored: Sequence[Stored], memory_gb: float
) -> dict[str, list[Packed | Stored]]:
    """Images of each source, decoded if all of them fit into ``memory_gb``."""
    pixels = sum(item.size[0] * item.size[1] for item in stored)
    sources: dict[str, list[Packed | Stored]] = {}
    if pixels * BYTES <= memory_gb * 1e9:
        for name, packed in pack_all(item.image for item in stored).items():
            sources[name] = list(packed)
        return sources
    logger.info("%.0f GB of images stay on disk; more workers may be needed", pixels * BYTES / 1e9)
    for item in stored:
        sources.setdefault(item.image.source, []).append(item)
    return sources
