"""Training, validation and test slides: one split, folds, or slides held out, by whole groups.

Slides of one hospital share stain, scanner and case mix. A model that has seen the hospital can
answer from these: site-preserved folds (Howard et al. 2021) show what is left without.
Axes: B slides, K classes, F folds, G groups (patients or sites).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "SPLITS",
    "HeldOut",
    "Split",
    "SplitConfig",
    "group_folds",
    "hold_out",
    "patient_of",
    "stratified_split",
    "tcga_patient",
    "tcga_site",
]

SPLITS = ("train", "validation", "test")
"""Names of the three splits, in the order of ``Split``."""
BARCODE = re.compile(r"TCGA-([A-Z0-9]{2})-[A-Z0-9]{4}(?=$|[-._])", re.IGNORECASE)
ROUNDS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """Which slides train, which choose the epoch, which are reported."""

    train: float = 0.7
    """Share of the patients (paper, section 4.3.1: 7 to 1 to 2)."""
    validation: float = 0.1
    """Share of the patients; with folds, relative to ``train`` among those that are not tested."""
    seed: int = 0
    """Seed of the split; no patient is ever in two."""
    folds: int = 1
    """1: one split. 2 or more: cross-validation, in which every slide is tested once, and explained
    by the model that never saw it."""
    by: Literal["patient", "site"] = "patient"
    """The groups a fold keeps together. Sites (of TCGA barcodes) show how much is left without
    the hospital's stain and scanner."""
    table: str = ""
    """CLAM's ``splits_k.csv`` to follow instead; slides it does not name take no part."""

    def __post_init__(self) -> None:
        """Refuses shares that leave a split empty, and two ways to hold out at once.

        Raises:
            ConfigError: A share of 0 or less, nothing left for the test, less than one fold, one
                fold of sites, or folds beside a table.
        """
        if not (min(self.train, self.validation) > 0 and self.train + self.validation < 1 - 1e-9):
            raise ConfigError(
                f"split.train and split.validation must be above 0 and leave a share for the test,"
                f" got {self.train} and {self.validation}; the paper has 0.7 and 0.1"
            )
        if self.by not in ("patient", "site") or self.folds < 1:
            raise ConfigError(
                f"split.by must be patient or site and split.folds 1 or more, got {self.by!r} and"
                f" {self.folds}"
            )
        if self.table and (self.folds > 1 or self.by == "site"):
            raise ConfigError(
                "split.table (--split) says what is held out; leave out folds and sites (--folds,"
                " --by), or the table"
            )
        if self.by == "site" and self.folds == 1:
            raise ConfigError("sites are kept together by folds; ask for 2 or more, such as 3")


class Split(NamedTuple):
    """Indices of the slides that train, validate and test, rising."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def stratified_split(
    labels: Sequence[int] | Sequence[str],
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Split:
    """A label-stratified split (paper, section 4.3.1: 7 to 1 to 2).

    Two nested splits, as is usual: first the test slides, then validation from the rest. 787 and
    198 slides give 551 + 138, 79 + 20 and 157 + 40. Every class is in every split.

    Args:
        labels: Class of each slide.
        fractions: Shares of training, validation and test; they sum to 1.
        seed: Another seed is another split.
        groups: Patient of each slide. A patient is never in two splits, and counts as one, with the
            class of the first slide; so the shares are shares of patients.

    Raises:
        DataError: A class has fewer than three patients, the shares do not sum to 1, or there is
            not one group per label.
    """
    if len(fractions) != len(SPLITS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"fractions must be three, positive, and sum to 1, got {fractions}")
    names = list(groups) if groups is not None else [str(i) for i in range(len(labels))]
    if len(names) != len(labels):
        raise DataError(f"got {len(names)} groups for {len(labels)} labels; give one for each")
    patients = {name: index for index, name in enumerate(dict.fromkeys(names))}
    truth = np.array([labels[names.index(name)] for name in patients])
    classes, counts = np.unique(truth, return_counts=True)
    _check_counts(dict(zip(classes.tolist(), counts.tolist(), strict=True)))

    test = _shares(counts, fractions[2], keep=2)
    validation = _shares(counts - test, fractions[1] / (fractions[0] + fractions[1]), keep=1)
    rng = np.random.default_rng(seed)
    number = np.zeros(len(truth), np.int64)  # in the order of SPLITS
    for label, tests, validations in zip(classes, test, validation, strict=True):
        members = rng.permutation(np.flatnonzero(truth == label))
        number[members[:tests]] = 2
        number[members[tests : tests + validations]] = 1
    of_slide = number[[patients[name] for name in names]]
    return Split(*(np.flatnonzero(of_slide == n) for n in range(len(SPLITS))))


def _check_counts(counts: dict[int | str, int]) -> None:
    rare = {label: count for label, count in counts.items() if count < len(SPLITS)}
    if rare or not counts:
        raise DataError(
            f"every class needs 3 patients at least, one for each split; patients per class are"
            f" {counts}; add slides, or leave out the classes {list(rare)}"
        )


def _shares(counts: NDArray[np.int64], fraction: float, *, keep: int) -> NDArray[np.int64]:
    """How many of each class go into a split, in all ``fraction`` of them, rounded up.

    At least one of each class goes, and at least ``keep`` stay.
    """
    total = math.ceil(counts.sum() * fraction - 1e-9)  # 0.1 / 0.8 * 80 is a hair above 10
    due = total * counts / counts.sum()
    chosen = np.ones_like(counts)
    while chosen.sum() < total and (chosen < counts - keep).any():
        # One by one to the class furthest below its due: the method of largest remainders.
        chosen[np.where(chosen < counts - keep, due - chosen, -np.inf).argmax()] += 1
    return chosen


class HeldOut(NamedTuple):
    """Indices of the slides that train and of those held out, rising."""

    train: NDArray[np.int64]
    held: NDArray[np.int64]


def tcga_site(barcode: str) -> str:
    """Tissue source site of a TCGA barcode: ``TCGA-A2-A0T2-01Z-00-DX1`` is of ``A2``.

    A hospital can have several codes; the Genomic Data Commons lists which.

    Raises:
        DataError: Not a TCGA barcode.
    """
    return _barcode(barcode)[1].upper()


def tcga_patient(barcode: str) -> str:
    """Patient of a TCGA barcode: ``TCGA-A2-A0T2-01Z-00-DX1`` is of ``TCGA-A2-A0T2``.

    Raises:
        DataError: Not a TCGA barcode.
    """
    return _barcode(barcode)[0].upper()


def patient_of(slide_id: str, given: str = "") -> str:
    """Patient of a slide: from a table, else from its TCGA barcode, else the slide itself.

    Args:
        slide_id: Name of the slide.
        given: Patient from a table; empty where there is none.
    """
    if given:
        return given
    return tcga_patient(slide_id) if BARCODE.match(slide_id) else slide_id


def group_folds(
    labels: Sequence[int] | Sequence[str],
    groups: Sequence[str],
    *,
    folds: int = 5,
    validation: float = 0.125,
    seed: int = 0,
) -> list[Split]:
    """Folds of whole groups, with the classes as alike in all of them as the groups allow.

    Groups are patients (``[tcga_patient(name) for name in slide_ids]``) or sites (``tcga_site``):
    no group is in two splits of a fold, and each is tested in one fold.

    Args:
        labels: Class of each slide.
        groups: Patient or site of each slide.
        folds: How many.
        validation: Share of the slides outside the test that choose the epoch; 0 for none.
            Also of whole groups.
        seed: Another seed is another split.

    Returns:
        One split per fold.

    Raises:
        DataError: Not one group per label, too few groups, or a class that no
            training slide of a fold has, with the groups it is in.
    """
    names = np.asarray(groups)
    truth = np.unique(np.asarray(labels), return_inverse=True)[1]
    if len(names) != len(labels) or not 0 <= validation < 1 or folds < 2:
        raise DataError(
            f"wanted one group per label, 2 folds or more and validation from 0 to below 1; got"
            f" {len(names)} groups for {len(labels)} labels, {folds} and {validation}"
        )
    rng = np.random.default_rng(seed)
    fold = _assign(truth, names, np.full(folds, 1 / folds), rng)
    splits = []
    for number in range(folds):
        rest, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        held = np.zeros(len(rest), np.int64)
        if validation:
            shares = np.array([1 - validation, validation])
            held = _assign(truth[rest], names[rest], shares, rng)
        splits.append(Split(rest[held == 0], rest[held == 1], test))
    _check_classes(splits, np.asarray(labels), names)
    return splits


def hold_out(
    labels: Sequence[int] | Sequence[str], groups: Sequence[str], share: float, seed: int = 0
) -> HeldOut:
    """Holds out a share of the slides, whole groups, classes as alike as the groups allow.

    A class of a single group stays in training.

    Args:
        labels: Class of each slide.
        groups: Patient or site of each slide.
        share: From 0, for nothing, to below 1.
        seed: Another seed is another split.

    Raises:
        DataError: Not one group per label, a share that cannot be, or too few groups.
    """
    names = np.asarray(groups)
    classes = np.asarray(labels)
    if len(names) != len(classes) or not 0 <= share < 1:
        raise DataError(
            f"wanted one group per label and a share from 0 to below 1; got {len(names)} groups for"
            f" {len(classes)} labels, and {share}"
        )
    alone = [one for one in np.unique(classes) if len(np.unique(names[classes == one])) == 1]
    stays = np.isin(names, names[np.isin(classes, alone)])
    free = np.flatnonzero(~stays)
    held = np.zeros(len(classes), np.int64)
    if share and len(np.unique(names[free])) < 2:
        raise DataError(
            f"no group can be held out: the classes {[*map(str, alone)]} lie in one group each and"
            " must train; give more patients, or hold out nothing (a share of 0)"
        )
    if share:
        truth = np.unique(classes[free], return_inverse=True)[1]
        rng = np.random.default_rng(seed)
        held[free] = _assign(truth, names[free], np.array([1 - share, share]), rng)
    return HeldOut(np.flatnonzero(held == 0), np.flatnonzero(held == 1))


def _assign(
    truth: NDArray[np.int64],
    names: NDArray[np.str_],
    shares: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Number of the share each slide ``(B,)`` goes to, each class shared out as asked, nearly.

    Large groups first, each to where it helps most; then groups move as long as that helps.
    """
    groups, index = np.unique(names, return_inverse=True)
    if len(groups) < len(shares):
        raise DataError(
            f"{len(groups)} groups cannot fill {len(shares)} splits: {groups[:5].tolist()}; ask for"
            " fewer folds, or less to be held out"
        )
    counts = np.zeros((len(groups), int(truth.max(initial=0)) + 1))
    np.add.at(counts, (index, truth), 1)
    weight = counts / counts.sum(axis=0).clip(min=1)  # in shares of each class: rare ones matter
    order = rng.permutation(len(groups))
    order = order[np.argsort(-weight[order].sum(axis=1), kind="stable")]
    owner = np.full(len(groups), -1)
    lack = np.repeat(shares[:, None], weight.shape[1], axis=1)
    for _ in range(ROUNDS):
        moved = False
        for group in order:
            old = owner[group]
            if old >= 0 and (owner == old).sum() == 1:
                continue  # no share may become empty
            if old >= 0:
                lack[old] += weight[group]
            # Squared lack falls most where w·lack is largest; shares count by their own size.
            gain = (lack @ weight[group] - weight[group] @ weight[group] / 2) / shares
            new = old if old >= 0 and gain[old] >= gain.max() - 1e-12 else int(gain.argmax())
            lack[new] -= weight[group]
            owner[group] = new
            moved |= new != old
        if not moved:
            break
    owner[order[: len(shares)]] = _filled(owner, order, len(shares))
    return np.asarray(owner[index], np.int64)


def _filled(owner: NDArray[np.int64], order: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Shares of the largest groups, changed only if some share would have no group at all."""
    first = owner[order[:count]]
    if len(np.unique(owner)) == count:
        return first
    return np.arange(count)


def _check_classes(
    splits: Sequence[Split], labels: NDArray[np.generic], names: NDArray[np.str_]
) -> None:
    for number, split in enumerate(splits):
        lost = np.setdiff1d(labels, labels[split.train])
        if len(lost):
            where = np.unique(names[labels == lost[0]])
            raise DataError(
                f"class {lost[0]} would be missing from the training slides of fold {number}: it is"
                f" only in {len(where)} groups, {where[:5].tolist()}; merge groups, leave the class"
                " out, or ask for another number of folds"
            )


def _barcode(text: str) -> re.Match[str]:
    match = BARCODE.match(text)
    if match is None:
        raise DataError(f"{text!r} is no TCGA barcode; one starts like TCGA-A2-A0T2")
    return match
