"""The sources of PathSeg on this disk, beside the published numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from xpath.errors import XPathError
from xpath.pathseg.build import BuildConfig, read_ledger
from xpath.pathseg.splits import split_images
from xpath.pathseg.standardisation import StandardConfig, standardise
from xpath.pathseg.tally import Tally, published_table, table_of, total
from xpath.pathseg.workers import each_image
from xpath.store.tables import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from xpath.pathseg.record import Source, SourceImage, SourceInfo
    from xpath.pathseg.tally import TableRow

__all__ = [
    "Counter",
    "SourceStatus",
    "count_built",
    "count_source",
    "look_at",
    "status_lines",
    "table_lines",
]

HEAD = (
    "source",
    "state",
    "files",
    "images",
    "published",
    "masks",
    "published",
    "train/test",
    "published",
    "labels",
    "licence",
)
TITLES = {
    "region": "by anatomical region (paper, Table 2)",
    "structure": "by histological structure (paper, Table 3)",
    "object_type": "by object type (paper, Table 4)",
    "label": "by label (paper, Table 5)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceStatus:
    """State of one source on this disk."""

    info: SourceInfo
    files: int
    """Images as published that can be listed; large ones become several standardised images."""
    missing: tuple[str, ...]
    """Parts of the layout that are not there, or why it cannot be listed, in words."""
    tally: Tally | None = None
    """Standardised images and masks; None if nobody counted."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Image to reason of those that could not be read while counting."""

    @property
    def state(self) -> str:
        """``present``, ``incomplete`` or ``missing``."""
        if not self.missing and self.files:
            return "present"
        return "incomplete" if self.files else "missing"


@dataclass(frozen=True, slots=True)
class Counter:
    """The work on one image: decode and standardise, write nothing."""

    info: SourceInfo
    config: StandardConfig
    splits: Mapping[str, str]
    """Image to split."""

    def __call__(self, image: SourceImage) -> dict[str, Any]:
        """Labels of every part of the image, as a line of a build's ledger has them.

        Raises:
            DataError: The image is broken.
            LabelError: A label that cannot be.
        """
        entries = [
            {"masks": [{"label": mask.label} for mask in tile.annotated.masks]}
            for tile in standardise(image, self.info, self.config)
        ]
        return {"image": image.name, "split": self.splits[image.name], "entries": entries}


def look_at(source: Source, root: Path) -> SourceStatus:
    """Lists the files of a source without decoding any.

    Args:
        source: The source.
        root: The folder that holds ``NAME`` of the source.
    """
    folder, files, missing = root / source.info.name, 0, list[str]()
    try:
        missing += source.missing(folder)
        files = sum(1 for _ in source.images(folder)) if folder.is_dir() else 0
    except XPathError as error:
        missing.append(str(error))
    if not files and not missing:
        missing.append(f"{folder} holds no image")
    return SourceStatus(info=source.info, files=files, missing=tuple(missing))


def count_source(
    source: Source, root: Path, config: BuildConfig | None = None
) -> tuple[Tally, dict[str, str]]:
    """Decodes and standardises every image of a source to count its masks.

    Returns:
        The counts, and image to reason of those that could not be read.

    Raises:
        DataError: The source cannot be listed, or its split cannot be.
        StoreError: A worker process died.
    """
    config = config or BuildConfig()
    info, folder = source.info, root / source.info.name
    rows = split_images(source.images(folder), config.split, external=info.external)
    splits = {row.image: row.split for row in rows}
    work = Counter(info, config.standard, splits)
    outcomes = each_image(source, folder, list(splits), work, workers=config.workers)
    tally, failed = Tally(), dict[str, str]()
    for outcome in tqdm(
        outcomes,
        desc=f"{info.name:>16}",
        total=len(splits),
        unit="image",
        disable=not config.progress,
    ):
        if outcome.result is None:
            failed[outcome.image] = outcome.error
        else:
            tally.add_record(outcome.result)
    return tally, failed


def count_built(out: Path, name: str) -> Tally:
    """Counts what ``xpath pathseg build`` has written of a source, zeros if nothing.

    Raises:
        StoreError: The folder was not written by xpath.
    """
    tally = Tally()
    for line in read_ledger(out / name):
        tally.add_record(line)
    return tally


def status_lines(statuses: Sequence[SourceStatus]) -> Iterator[str]:
    """A table with a line per source, totals, and what to do about what is not there."""
    rows = [HEAD, *(_row(status) for status in statuses), _total_row(statuses)]
    yield from aligned(rows, left={0, 1, 10})
    for status in statuses:
        if status.state == "present" and not status.failed:
            continue
        yield f"\n{status.info.name}: {status.state}"
        yield from (f"  missing: {what}" for what in status.missing)
        if status.missing:
            yield f"  layout:  {status.info.layout}"
            yield f"  get it:  {status.info.url}  ({status.info.licence})"
        yield from (f"  broken:  {reason}" for reason in list(status.failed.values())[:10])
        if len(status.failed) > 10:
            yield f"  broken:  and {len(status.failed) - 10} more"


def table_lines(tally: Tally) -> Iterator[str]:
    """Tables 2 to 5 of the paper, counted beside published."""
    for level, title in TITLES.items():
        rows = table_of(tally, level)
        new = len(rows) - len(published_table(level))
        yield f"\n{title}" + (f"; {new} not published" if new else "")
        head = ("", "labels", "published", "images", "published", "masks", "published")
        body = [_texts(row) for row in [*rows, total(rows)]]
        yield from aligned([head, *body])


def _row(status: SourceStatus) -> tuple[str, ...]:
    info, tally = status.info, status.tally
    counts = ("-",) * 3 if tally is None else _counts(tally)
    labels = str(len(info.labels)) if tally is None else f"{len(tally.by_label)}/{len(info.labels)}"
    return (
        info.name,
        status.state,
        f"{status.files:,}",
        counts[0],
        f"{info.images:,}",
        counts[1],
        f"{info.masks:,}",
        counts[2],
        f"{info.train_masks:,}/{info.test_masks:,}",
        labels,
        info.licence,
    )


def _counts(tally: Tally) -> tuple[str, str, str]:
    train, test = tally.by_split["train"], tally.by_split["test"]
    return f"{tally.images:,}", f"{tally.masks:,}", f"{train:,}/{test:,}"


def _total_row(statuses: Sequence[SourceStatus]) -> tuple[str, ...]:
    counted = [status.tally for status in statuses if status.tally is not None]
    everything = Tally()
    for tally in counted:
        everything.update(tally)
    infos = [status.info for status in statuses]
    published = {label for info in infos for label in info.labels}
    train, test = sum(i.train_masks for i in infos), sum(i.test_masks for i in infos)
    counts = _counts(everything) if counted else ("-",) * 3
    here = sum(status.state == "present" for status in statuses)
    return (
        "total",
        f"{here} of {len(statuses)}",
        f"{sum(status.files for status in statuses):,}",
        counts[0],
        f"{sum(info.images for info in infos):,}",
        counts[1],
        f"{sum(info.masks for info in infos):,}",
        counts[2],
        f"{train:,}/{test:,}",
        f"{len(everything.by_label)}/{len(published)}" if counted else str(len(published)),
        "",
    )


def _texts(row: TableRow) -> tuple[str, ...]:
    return (row.name, *(f"{number:,}" for number in row[1:]))
