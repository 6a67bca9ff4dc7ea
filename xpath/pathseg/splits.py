"""Which images train and which test: once decided, written down and never changed.

The official split where the source tells it, else 80 to 20 by patient or slide where known, else
by image (paper, section 4.1). The draw goes by hashes, not by positions: the order of the files
does not matter, and with the frozen rows images that come later change nothing for the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from xpath.errors import ConfigError, DataError
from xpath.store.tables import read_rows, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from xpath.pathseg.record import SourceImage

__all__ = ["SPLITS", "SplitConfig", "SplitRow", "read_splits", "split_images", "write_splits"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "test")
OFFICIAL = "official"
FOLLOWS = "as its group"


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """How images without an official split are divided."""

    test: float = 0.2
    """Share of images to test on; of n images the whole part of ``test * n``."""
    seed: int = 0
    """Another seed, another draw."""
    official_overlap: bool = True
    """Take an official split as it is even where a patient is in both of its splits (as in GlaS);
    False refuses it."""

    def __post_init__(self) -> None:
        """Refuses shares that leave nothing to train on."""
        if not 0 <= self.test < 1:
            raise ConfigError(f"test is a share in [0, 1), got {self.test}")


class SplitRow(NamedTuple):
    """Where an image belongs, and why."""

    source: str
    image: str
    """Name of the image within its source."""
    group: str
    """Patient or slide, or the image itself."""
    split: str
    """``train`` or ``test``."""
    reason: str
    """``official``, ``external``, ``drawn by group``, ``drawn by image``, or ``as its group``."""


def split_images(
    images: Iterable[SourceImage],
    config: SplitConfig | None = None,
    *,
    frozen: Iterable[SplitRow] = (),
    external: bool = False,
) -> list[SplitRow]:
    """A row per image, in the order of the images.

    Args:
        images: All of one source; none is decoded.
        config: Share and seed of the draw.
        frozen: Rows decided before; they hold, whatever the draw would say now.
        external: The source is only tested on.

    Raises:
        DataError: Images of several sources, two of one name, a split that is neither train nor
            test, or a group that would be in both.
    """
    config = config or SplitConfig()
    images = list(images)
    _check_images(images)
    decided = {row.image: row for row in frozen if images and row.source == images[0].source}
    for image in images:
        if external:
            decided.setdefault(image.name, _row(image, "test", "external"))
        elif image.split is not None:
            decided.setdefault(image.name, _row(image, image.split, OFFICIAL))
    for row in _drawn(images, decided, config):
        decided[row.image] = row
    rows = [decided[image.name] for image in images]
    _check_groups(rows, config)
    return rows


def read_splits(path: Path) -> list[SplitRow]:
    """Rows of a frozen split, none if there is no such file.

    Raises:
        DataError: No such split, an image that is named twice, or a group that was not split
            officially and is in both.
        StoreError: No table, or a column is missing.
    """
    rows = read_rows(path, SplitRow)
    for line, row in enumerate(rows, start=2):
        if row.split not in SPLITS or not row.image:
            raise DataError(
                f"{path}, line {line}: split {row.split!r} of image {row.image!r}; wanted an image "
                "and train or test"
            )
    names = [(row.source, row.image) for row in rows]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} names {' '.join(twice[0])} twice; keep one of the lines")
    for _, of_source in groupby(sorted(rows), key=lambda row: row.source):
        _check_groups(list(of_source), SplitConfig())
    return rows


def write_splits(path: Path, rows: Iterable[SplitRow]) -> None:
    """Writes rows as CSV, whole or not at all."""
    write_table(path, rows, SplitRow)


def _row(image: SourceImage, split: str, reason: str) -> SplitRow:
    return SplitRow(image.source, image.name, image.group, split, reason)


def _drawn(
    images: Sequence[SourceImage], decided: dict[str, SplitRow], config: SplitConfig
) -> list[SplitRow]:
    """Rows of the images that nobody has decided about.

    Groups in the order of their hashes fill the test split until it has its share of what is drawn,
    earlier draws included.
    """
    belongs = {row.group: row.split for row in decided.values()}
    rows, groups = [], dict[str, list["SourceImage"]]()
    for image in images:
        if image.name in decided:
            continue
        if image.group in belongs:
            rows.append(_row(image, belongs[image.group], FOLLOWS))
        else:
            groups.setdefault(image.group, []).append(image)
    tested = _tested(images, groups, list(decided.values()), config)
    for group, members in groups.items():
        reason = "drawn by image" if group == members[0].name else "drawn by group"
        split = "test" if group in tested else "train"
        rows += [_row(image, split, reason) for image in members]
    return rows


def _tested(
    images: Sequence[SourceImage],
    groups: dict[str, list[SourceImage]],
    decided: Sequence[SplitRow],
    config: SplitConfig,
) -> set[str]:
    """Groups to test on: of two or more, with none tested on yet, at least the smallest."""
    before = [row for row in decided if row.reason.startswith("drawn")]
    total = len(before) + sum(map(len, groups.values()))
    wanted = int(config.test * total + 1e-9)  # 0.2 of 500 is 100, whatever binary fractions say
    tests = sum(row.split == "test" for row in before)
    chosen = set[str]()
    for group in sorted(groups, key=lambda name: _hash(images[0].source, name, config.seed)):
        if 2 * (wanted - tests) >= len(groups[group]):  # nearer to the share with it than without
            chosen.add(group)
            tests += len(groups[group])
    if wanted and not tests and len(groups) > 1:
        chosen.add(min(groups, key=lambda name: (len(groups[name]), name)))
    return chosen


def _hash(source: str, group: str, seed: int) -> str:
    return sha256(f"{seed}\0{source}\0{group}".encode()).hexdigest()


def _check_images(images: Sequence[SourceImage]) -> None:
    sources = sorted({image.source for image in images})
    if len(sources) > 1:
        raise DataError(f"images of {', '.join(sources)}; split one source after the other")
    names = set[str]()
    for image in images:
        if image.name in names:
            raise DataError(
                f"{image.source} has two images named {image.name!r}, one of them {image.path}; "
                "remove the copy"
            )
        names.add(image.name)
        if image.split not in (None, *SPLITS):
            raise DataError(f"{image.path}: split {image.split!r}; wanted train, test or None")


def _check_groups(rows: Sequence[SplitRow], config: SplitConfig) -> None:
    """Refuses a patient in both splits, unless the publishers put it there."""
    splits_of: dict[str, dict[str, str]] = {}
    for row in rows:
        splits_of.setdefault(row.group, {}).setdefault(row.split, row.reason)
    torn = {group: reasons for group, reasons in splits_of.items() if len(reasons) > 1}
    given = {OFFICIAL, FOLLOWS}
    official = sorted(group for group, reasons in torn.items() if given >= set(reasons.values()))
    refused = sorted(set(torn) - set(official)) if config.official_overlap else sorted(torn)
    if refused:
        raise DataError(
            f"{rows[0].source}: {', '.join(refused[:5])} ({len(refused)} groups) would be in train "
            "and test; put all images of a group in one split"
        )
    if official:
        logger.warning(
            "%s: the official split has %d groups in both splits, such as %s",
            rows[0].source,
            len(official),
            official[0],
        )
