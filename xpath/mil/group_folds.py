"""Cross-validation that keeps patients, or whole hospitals, together.

Slides of one hospital share stain, scanner and case mix. A model that has seen the hospital can
answer from these: site-preserved folds (Howard et al. 2021) show what is left without.
Axes: B slides, K classes, F folds, G groups.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.mil.folds import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["HeldOut", "group_folds", "hold_out", "patient_of", "tcga_patient", "tcga_site"]

BARCODE = re.compile(r"TCGA-([A-Z0-9]{2})-[A-Z0-9]{4}(?=$|[-._])", re.IGNORECASE)
ROUNDS = 50


class HeldOut(NamedTuple):
    """Places of the slides in each part, rising."""

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
    """Whose slide it is: as a table says, else as its TCGA barcode does, else its own.

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
    no group is in two parts of a split, and each is in one test part.

    Args:
        labels: Class of each slide.
        groups: Patient or site of each slide.
        folds: How many.
        validation: Share of the slides outside the test part that choose the epoch; 0 for none.
            Also of whole groups.
        seed: Another seed is another division.

    Returns:
        One split per fold.

    Raises:
        DataError: Not one group per label, too few groups, or a class that a fold's training part
            would miss, with the groups it is in.
    """
    names = np.asarray(groups)
    truth = np.unique(np.asarray(labels), return_inverse=True)[1]
    if len(names) != len(labels) or not 0 <= validation < 1 or folds < 2:
        raise DataError(
            f"wanted one group per label, 2 folds or more and validation from 0 to below 1; got"
            f" {len(names)} groups for {len(labels)} labels, {folds} and {validation}"
        )
    rng = np.random.default_rng(seed)
    fold = _divide(truth, names, np.full(folds, 1 / folds), rng)
    splits = []
    for number in range(folds):
        rest, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        held = np.zeros(len(rest), np.int64)
        if validation:
            shares = np.array([1 - validation, validation])
            held = _divide(truth[rest], names[rest], shares, rng)
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
        seed: Another seed is another division.

    Raises:
        DataError: Not one group per label, a share that cannot be, or too few groups.
    """
    names = np.asarray(groups)
    kinds = np.asarray(labels)
    if len(names) != len(kinds) or not 0 <= share < 1:
        raise DataError(
            f"wanted one group per label and a share from 0 to below 1; got {len(names)} groups for"
            f" {len(kinds)} labels, and {share}"
        )
    alone = [kind for kind in np.unique(kinds) if len(np.unique(names[kinds == kind])) == 1]
    stays = np.isin(names, names[np.isin(kinds, alone)])
    free = np.flatnonzero(~stays)
    part = np.zeros(len(kinds), np.int64)
    if share and len(np.unique(names[free])) < 2:
        raise DataError(
            f"no group can be held out: the classes {[*map(str, alone)]} lie in one group each and"
            " must train; give more patients, or hold out nothing (a share of 0)"
        )
    if share:
        truth = np.unique(kinds[free], return_inverse=True)[1]
        rng = np.random.default_rng(seed)
        part[free] = _divide(truth, names[free], np.array([1 - share, share]), rng)
    return HeldOut(np.flatnonzero(part == 0), np.flatnonzero(part == 1))


def _divide(
    truth: NDArray[np.int64],
    names: NDArray[np.str_],
    shares: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Part of each slide ``(B,)``, so that every part has its share of each class, nearly.

    Large groups first, each to where it helps most; then groups move as long as that helps.
    """
    found, index = np.unique(names, return_inverse=True)
    if len(found) < len(shares):
        raise DataError(
            f"{len(found)} groups cannot fill {len(shares)} parts: {found[:5].tolist()}; ask for"
            " fewer folds, or less to be held out"
        )
    counts = np.zeros((len(found), int(truth.max(initial=0)) + 1))
    np.add.at(counts, (index, truth), 1)
    weight = counts / counts.sum(axis=0).clip(min=1)  # in shares of each class: rare ones matter
    order = rng.permutation(len(found))
    order = order[np.argsort(-weight[order].sum(axis=1), kind="stable")]
    part = np.full(len(found), -1)
    lack = np.repeat(shares[:, None], weight.shape[1], axis=1)
    for _ in range(ROUNDS):
        moved = False
        for group in order:
            old = part[group]
            if old >= 0 and (part == old).sum() == 1:
                continue  # no part may become empty
            if old >= 0:
                lack[old] += weight[group]
            # Squared lack falls most where w·lack is largest; parts count by their own size.
            gain = (lack @ weight[group] - weight[group] @ weight[group] / 2) / shares
            new = old if old >= 0 and gain[old] >= gain.max() - 1e-12 else int(gain.argmax())
            lack[new] -= weight[group]
            part[group] = new
            moved |= new != old
        if not moved:
            break
    part[order[: len(shares)]] = _filled(part, order, len(shares))
    return np.asarray(part[index], np.int64)


def _filled(part: NDArray[np.int64], order: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Parts of the largest groups, changed only if some part would have no group at all."""
    first = part[order[:count]]
    if len(np.unique(part)) == count:
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
                f"class {lost[0]} would be missing from the training part of fold {number}: it is"
                f" only in {len(where)} groups, {where[:5].tolist()}; merge groups, leave the class"
                " out, or ask for another number of folds"
            )


def _barcode(text: str) -> re.Match[str]:
    match = BARCODE.match(text)
    if match is None:
        raise DataError(f"{text!r} is no TCGA barcode; one starts like TCGA-A2-A0T2")
    return match
