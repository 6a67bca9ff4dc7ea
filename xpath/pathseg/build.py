"""Converts whole sources into the layout of BiomedParseData, and goes on where it was stopped.

Written for every source: ``OUT/SOURCE/{train,test}``, their masks and indices, and
``build.jsonl``, a line per image that is complete. ``OUT/splits.csv`` holds the split of all
sources; it is read again and never changes for an image that is in it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from xpath.batch.claim import claim, claimant
from xpath.errors import StoreError
from xpath.pathseg.biomedparse_writer import PromptedImage, write_image, write_index
from xpath.pathseg.splits import SPLITS, SplitConfig, read_splits, split_images, write_splits
from xpath.pathseg.standardisation import StandardConfig, standardise
from xpath.pathseg.tally import Tally
from xpath.pathseg.workers import each_image
from xpath.store.schema import atomic, check_schema
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from xpath.pathseg.record import Source, SourceImage, SourceInfo
    from xpath.pathseg.workers import Outcome

__all__ = ["BuildConfig", "BuildReport", "Converter", "build_source", "read_ledger"]

SCHEMA = "xpath.pathseg-build/1"
LEDGER = "build.jsonl"
FAILED = "failed.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """How sources are converted."""

    standard: StandardConfig = field(default_factory=StandardConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    workers: int = 1
    """Processes that decode and write."""
    progress: bool = True
    """Show a bar on stderr."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """Result of converting a source."""

    source: str
    converted: int
    """Images of the source converted in this run."""
    kept: int
    """Images that were there already."""
    failed: Mapping[str, str]
    """Image to reason."""
    tally: Tally
    """Images and masks in the folder now."""


@dataclass(frozen=True, slots=True)
class Converter:
    """The work on one image: decode, standardise, write."""

    folder: Path
    info: SourceInfo
    config: StandardConfig
    splits: Mapping[str, str]
    """Image to split."""

    def __call__(self, image: SourceImage) -> dict[str, Any]:
        """Writes all parts of an image and returns the line for the ledger.

        Raises:
            DataError: The image is broken.
            LabelError: A label that cannot be.
            StoreError: The disk is full.
        """
        split = self.splits[image.name]
        entries = [
            write_image(self.folder, split, PromptedImage(tile.name, image.region, tile.annotated))
            | {"window": list(tile.window)}
            for tile in standardise(image, self.info, self.config)
        ]
        return {"image": image.name, "split": split, "entries": entries}


def build_source(
    source: Source, root: Path, out: Path, config: BuildConfig | None = None
) -> BuildReport:
    """Converts what is there of a source, but not images that are done and whole.

    Args:
        source: The source.
        root: The folder that holds ``NAME`` of the source.
        out: Where the folder of the source is written.
        config: How it is converted.

    Raises:
        DataError: The source cannot be listed, or its split cannot be.
        StoreError: The disk is full, another process is at it, or the folder was built with other
            settings.
    """
    config = config or BuildConfig()
    name = source.info.name
    folder = out / name
    ledger = folder / LEDGER
    with claim(ledger) as owned:
        if not owned:
            raise StoreError(f"{folder} is being written by {claimant(ledger)}")
        images = list(source.images(root / name))
        splits = _freeze(images, out, source.info, config.split)
        _open_ledger(ledger, name, config.standard)
        done = {line["image"] for line in _whole(folder, splits)}
        work = Converter(folder, source.info, config.standard, splits)
        todo = [image.name for image in images if image.name not in done]
        outcomes = each_image(source, root / name, todo, work, workers=config.workers)
        bar = tqdm(
            outcomes,
            desc=f"{name:>16}",
            total=len(images),
            initial=len(images) - len(todo),
            unit="image",
            disable=not config.progress,
        )
        failed = _record(bar, ledger)
        paths = {image.name: image.path for image in images if image.name in failed}
        _write_failed(folder / FAILED, failed, paths)
        tally = _write_indices(folder, source.info, splits)
    kept = len(images) - len(todo)
    converted = len(todo) - len(failed)
    return BuildReport(source=name, converted=converted, kept=kept, failed=failed, tally=tally)


def read_ledger(folder: Path) -> Iterator[dict[str, Any]]:
    """Newest line of each image in a source's ledger, without one cut short by a kill.

    Raises:
        StoreError: A ledger of another schema.
    """
    path = folder / LEDGER
    if not path.exists():
        return
    newest = {line["image"]: number for number, line in _lines(path)}
    for number, line in _lines(path):
        if newest[line["image"]] == number:
            yield line


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        _check_head(path, file.readline())
        for number, text in enumerate(file, start=2):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "image" in line:
                yield number, line


def _check_head(path: Path, text: str) -> dict[str, Any]:
    try:
        head = json.loads(text)
    except ValueError:
        head = {}
    head = head if isinstance(head, dict) else {}
    check_schema(path, head.get("schema"), SCHEMA)
    return head


def _open_ledger(path: Path, source: str, config: StandardConfig) -> None:
    """Begins a ledger, or makes sure that the one there has the same settings."""
    settings = json.loads(json.dumps(asdict(config)))
    if not path.exists():
        with atomic(path) as draft:
            head = {"schema": SCHEMA, "source": source, "settings": settings}
            draft.write_text(json.dumps(head) + "\n", encoding="utf-8")
        return
    with path.open(encoding="utf-8") as file:
        written = _check_head(path, file.readline()).get("settings", {})
    other = sorted(key for key in settings if settings[key] != written.get(key))
    if other:
        changes = ", ".join(f"{key} {written.get(key)} -> {settings[key]}" for key in other)
        raise StoreError(
            f"{path.parent} was built with other settings ({changes}); choose another folder, or "
            "remove this one"
        )
    with path.open("rb+") as file:  # what a kill cut short must not run into the next line
        if file.seek(0, 2) and (file.seek(-1, 2), file.read())[1] != b"\n":
            file.write(b"\n")


def _freeze(
    images: list[SourceImage], out: Path, info: SourceInfo, config: SplitConfig
) -> dict[str, str]:
    """The split of every image, added to ``splits.csv`` where it is new."""
    path = out / "splits.csv"
    frozen = read_splits(path)
    rows = split_images(images, config, frozen=frozen, external=info.external)
    known = {(row.source, row.image) for row in frozen}
    new = [row for row in rows if (row.source, row.image) not in known]
    if new:
        write_splits(path, [*frozen, *new])
    return {row.image: row.split for row in rows}


def _whole(folder: Path, splits: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Lines of images whose files are all there."""
    for line in read_ledger(folder):
        split = line["split"]
        if splits.get(line["image"]) != split:
            continue
        if all(_has_files(folder, split, entry) for entry in line["entries"]):
            yield line


def _has_files(folder: Path, split: str, entry: Mapping[str, Any]) -> bool:
    files = [folder / split / entry["file_name"]]
    files += [folder / f"{split}_mask" / mask["mask_file"] for mask in entry["masks"]]
    if "ignore_file" in entry:
        files.append(folder / f"{split}_ignore" / entry["ignore_file"])
    try:
        return all(path.stat().st_size for path in files)  # a power cut leaves empty files
    except OSError:
        return False


def _record(outcomes: Iterator[Outcome], ledger: Path) -> dict[str, str]:
    """Writes down what is complete, line by line, and returns image to reason of failures."""
    failed = {}
    with ledger.open("a", encoding="utf-8") as file:
        for outcome in outcomes:
            if outcome.result is None:
                failed[outcome.image] = outcome.error
                continue
            file.write(json.dumps(outcome.result, ensure_ascii=False) + "\n")
            file.flush()
    return failed


def _write_failed(path: Path, failed: Mapping[str, str], paths: Mapping[str, Path]) -> None:
    if not failed:
        path.unlink(missing_ok=True)
        return
    rows = [{"image": n, "path": paths[n], "reason": reason} for n, reason in failed.items()]
    write_table(path, rows)


def _write_indices(folder: Path, info: SourceInfo, splits: Mapping[str, str]) -> Tally:
    """Both indices from the ledger, and what they count."""
    tally = Tally()
    about = {"source": info.name, "licence": info.licence, "citation": info.citation}
    for split in SPLITS:
        lines = (line for line in _whole(folder, splits) if line["split"] == split)
        entries = list[dict[str, Any]]()
        for line in sorted(lines, key=lambda line: line["image"]):
            tally.add_record(line)
            entries += line["entries"]
        write_index(folder, split, entries, info=about | {"url": info.url})
    return tally
