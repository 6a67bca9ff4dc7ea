"""A cohort of labelled slides with features, read once and split.

The features of a run and those of other toolkits are read alike, so every classifier, fold and
score exists for both. Axes: B slides, L object classes, K classes, D features.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from xpath.batch.done import key_of
from xpath.batch.slides import read_labels
from xpath.device import device_of
from xpath.errors import ConfigError, DataError, StoreError
from xpath.labels import OTHER
from xpath.mil.bag import Bag, warn_of_single_patches
from xpath.mil.classifier import CLASSIFIERS, CONTROLS, ClassifierConfig, FeatureSizes, View
from xpath.mil.splits import (
    SPLITS,
    Split,
    SplitConfig,
    group_folds,
    patient_of,
    stratified_split,
    tcga_site,
)
from xpath.store.clam_tables import read_clam_split
from xpath.store.features import read_features
from xpath.store.foreign_features import find_feature_files, read_patch_features
from xpath.store.names import match_names, nearly
from xpath.store.schema import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from xpath.mil.feature_cache import FeatureCache
    from xpath.store.features import SlideFeatures
    from xpath.store.foreign_features import PatchFeatures

__all__ = [
    "Cohort",
    "CohortConfig",
    "CohortSlide",
    "find_slides",
    "not_in_cohort",
    "read_cohort",
    "split_cohort",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortConfig:
    """How a cohort is split and its classifiers are built, trained and scored."""

    split: SplitConfig = field(default_factory=SplitConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    min_coverage: float = 0.001
    """Smallest share of a patch an object must cover to count as present in it."""
    draws: int = 2000
    """Of the bootstrap over patients."""
    seed: int = 0
    """Of the bootstrap."""
    device: str = "cpu"
    """Where classifiers are trained: ``cpu``, ``cuda``, ``cuda:1`` ..."""
    table: str | None = None
    """Of LazySlide's stores: which table of features, where they have several."""
    version: int = 1
    """Number of the training; checkpoints that another one made are made again."""

    def __post_init__(self) -> None:
        """Raises ConfigError for no draws, or a device that this machine has not."""
        if self.draws < 1:
            raise ConfigError(f"draws must be 1 or more, got {self.draws}")
        device_of(self.device)


class CohortSlide(NamedTuple):
    """A labelled slide and its feature file."""

    slide_id: str
    path: Path
    label: str
    """Name of its class."""
    patient: str
    key: str
    """All that the features depend on: with another key the classifiers are trained again."""
    site: str = ""
    """Hospital, empty where no table has it: then a TCGA barcode does."""


class Cohort(NamedTuple):
    """Labelled slides with their features in memory, or mapped to it."""

    slides: tuple[CohortSlide, ...]
    """B of them, in the order of their names."""
    bags: Mapping[View, tuple[Bag, ...]]
    """``(B,)`` by what a classifier reads; those views that the files hold and some model wants."""
    models: tuple[str, ...]
    """Names of the classifiers that these features can train."""
    sizes: FeatureSizes
    about: Mapping[str, Any]
    """How the features were made, kept with the models."""
    left_out: tuple[str, ...]
    """Labelled slides that could not be used, with the reason."""

    def bags_for(self, name: str) -> tuple[Bag, ...]:
        """``(B,)`` bags as a classifier sees them."""
        row = CLASSIFIERS[name]
        return tuple(row.sees(bag, self.sizes) for bag in self.bags[row.reads])

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient of each slide."""
        return tuple(slide.patient for slide in self.slides)


class _Features(NamedTuple):
    """One feature file."""

    bags: Mapping[View, tuple[Tensor, Tensor | None]]
    """Features and presence, by what a classifier reads."""
    dim: int
    objects: tuple[str, ...]
    about: Mapping[str, Any]


def find_slides(
    folder: Path, labels: Path, *, keep_na: bool = False
) -> tuple[list[CohortSlide], list[str]]:
    """Slides that have a feature file and a label, and why others are left out.

    Patients come from the table's ``patient`` or ``case_id``; else from TCGA barcodes; else every
    slide is a patient of its own.

    Args:
        folder: A run, or feature files of CLAM, TRIDENT, STAMP or LazySlide.
        labels: CSV with ``slide_id``, ``label`` and if wanted ``patient`` or ``case_id``, ``site``.
        keep_na: NA, None or ``-`` in the column ``label`` is the name of a class.

    Raises:
        DataError: No feature files, or an unreadable table.
    """
    files, rows = find_feature_files(folder), read_labels(labels, keep_na=keep_na)
    named = {name: row for name, row in rows.items() if row.label}
    meant = match_names(named, files)
    free, absent = set(files) - set(meant.values()), [name for name in named if name not in meant]
    lost = [f"{name}: no feature file in {folder}{nearly([name], free)}" for name in absent]
    if not meant:
        raise DataError(
            f"no labelled slide has features: {labels} names {list(named)[:3]}, {folder} has"
            f" {list(files)[:3]}{nearly(named, files)}"
        )
    return [
        CohortSlide(
            slide_id, files[slide_id], named[name].label, patient_of(slide_id, named[name].patient),
            _content(files[slide_id]), named[name].site,
        )
        for name, slide_id in meant.items()
    ], lost  # fmt: skip


def read_cohort(
    slides: Sequence[CohortSlide],
    config: CohortConfig,
    *,
    cache: FeatureCache | None = None,
    on_slide: Callable[[str], None] | None = None,
) -> Cohort:
    """Features of labelled slides, as the bags that the classifiers of the settings read.

    Slides are put in the order of their names, so that the same ones train the same models
    wherever they come from. Those that cannot be read are left out, with the reason, and so are the
    few whose features are of another encoder, width or set of objects than most; classifiers of
    objects too, with a warning, where the files hold no objects.

    Args:
        slides: With labels.
        config: Which classifiers, and when an object counts as present.
        cache: Where features beyond the memory go; None to keep all in memory.
        on_slide: Called with the name of each slide that was read.

    Raises:
        DataError: Slides of fewer than two classes could be read, features of several encoders,
            widths or sets of objects none of which most have, or no classifier to train.
        StoreError: No room on disk for features beyond the memory.
    """
    keep = cache.keep if cache else lambda tensor: tensor
    used, read, left_out = [], [], []
    for slide in sorted(slides):
        try:
            features = _read(slide.path, config)
        except (StoreError, DataError) as error:
            left_out.append(f"{slide.slide_id}: {error}")
            continue
        bags = {view: (keep(rows), present) for view, (rows, present) in features.bags.items()}
        read.append(features._replace(bags=bags))
        used.append(slide)
        if on_slide:
            on_slide(slide.slide_id)
    used, read, others = _of_one_making(used, read)
    left_out += others
    classes = tuple(sorted({slide.label for slide in used}))
    if len(classes) < 2:
        raise DataError(
            f"training needs slides with features of two classes, got {list(classes)}; were the"
            f" features made, and does the label table name the slides? {' '.join(left_out[:1])}"
        )
    first = read[0]
    warn_of_single_patches([len(rows) for one in read for rows, _ in list(one.bags.values())[:1]])
    bags_of_view = {
        view: tuple(
            Bag(*one.bags[view], classes.index(slide.label), slide.slide_id)
            for one, slide in zip(read, used, strict=True)
        )
        for view in first.bags
    }
    return Cohort(
        tuple(used),
        bags_of_view,
        _usable(config.classifier.models, bags_of_view, first.objects),
        FeatureSizes(first.dim, first.objects, classes),
        first.about,
        tuple(left_out),
    )


def split_cohort(cohort: Cohort, config: SplitConfig) -> list[Split]:
    """The split of the paper, folds, or that of a table.

    Where so few patients have so few classes that nothing can be held out all slides train, and a
    warning says that all scores and explanations are of training slides.

    Raises:
        DataError: Too few patients or sites for it, a table that names no slide of a split, or two
            classes that are large enough and one that is not, as by a slip in a label.
    """
    labels, patients = [slide.label for slide in cohort.slides], cohort.patients
    if config.table:
        return [_split_of_table(cohort, Path(config.table))]
    if config.folds > 1:
        groups = patients
        if config.by == "site":
            groups = tuple(slide.site or tcga_site(slide.patient) for slide in cohort.slides)
        share = config.validation / (config.train + config.validation)
        return group_folds(labels, groups, folds=config.folds, validation=share, seed=config.seed)
    fractions = (config.train, config.validation, 1 - config.train - config.validation)
    try:
        return [stratified_split(labels, fractions, config.seed, patients)]
    except DataError as error:
        members: dict[str, set[str]] = {}
        for label, patient in zip(labels, patients, strict=True):
            members.setdefault(label, set()).add(patient)
        if sum(len(those) >= len(SPLITS) for those in members.values()) > 1:
            raise DataError(f"{error}; or is a label misspelt?") from error
        logger.warning("nothing can be held out, so all scores are of training slides: %s", error)
        none = np.zeros(0, np.int64)
        return [Split(np.arange(len(labels)), none, none)]


def _split_of_table(cohort: Cohort, path: Path) -> Split:
    named = read_clam_split(path)
    meant = match_names(named, [slide.slide_id for slide in cohort.slides])
    of = {slide_id: named[name] for name, slide_id in meant.items()}
    of_slide = np.array([of.get(slide.slide_id, "") for slide in cohort.slides])
    members = [np.flatnonzero(of_slide == name) for name in SPLITS]
    if not len(members[0]) or not len(members[2]):
        raise DataError(f"{path} names no slide with features for training, or none for test")
    return Split(*members)


def not_in_cohort(cohort: Cohort, config: SplitConfig) -> list[str]:
    """Slides that the table of the split names and the cohort has not, with the reason."""
    names = read_clam_split(Path(config.table)) if config.table else {}
    known = [slide.slide_id for slide in cohort.slides]
    absent = names.keys() - match_names(names, known).keys()
    reason = f"named by {config.table}, but without label or features"
    return [f"{name}: {reason}{nearly([name], known)}" for name in names if name in absent]


def _of_one_making(
    slides: list[CohortSlide], read: list[_Features]
) -> tuple[list[CohortSlide], list[_Features], list[str]]:
    """Those slides whose features are made as most are, and why the others are left out.

    Raises:
        DataError: No way of making them is that of more than half.
    """
    makings = [
        (one.about["encoder"], one.dim, one.objects, one.about.get("encoder_sha256"))
        for one in read
    ]
    ranked = Counter(makings).most_common()
    if len(ranked) < 2:
        return slides, read, []
    (usual, count), names = ranked[0], {making: _making_name(making) for making, _ in ranked}
    strays = [(s, m) for s, m in zip(slides, makings, strict=True) if m != usual]
    if 2 * count <= len(read):
        examples = "; ".join(
            f"{number} of {names[making]}, such as {slides[makings.index(making)].slide_id}"
            for making, number in ranked
        )
        raise DataError(
            f"the features are of several encoders, widths or objects: {examples}; pass those of"
            " one, or name only its slides in the label table"
        )
    kept = [making == usual for making in makings]
    return (
        [slide for slide, keep in zip(slides, kept, strict=True) if keep],
        [one for one, keep in zip(read, kept, strict=True) if keep],
        [f"{s.slide_id}: features of {names[m]}, most are of {names[usual]}" for s, m in strays],
    )


def _making_name(making: tuple[str, int, tuple[str, ...], str | None]) -> str:
    """Words for encoder, width and objects of features."""
    encoder, dim, objects, digest = making
    weights = f" ({digest[:8]})" if digest else ""
    what = f" and {len(objects)} object classes" if objects else ""
    return f"{encoder or 'an unnamed encoder'}{weights} with {dim} features{what}"


def _read(path: Path, config: CohortConfig) -> _Features:
    """A feature file, as the classifiers of the settings read it."""
    patches = read_patch_features(path, table=config.table)
    ours = read_features(path) if patches.layout == "xpath" else None
    bags: dict[View, tuple[Tensor, Tensor | None]] = {
        "patches": (torch.from_numpy(patches.features), None)
    }
    names: tuple[str, ...] = ()
    if ours is not None:
        names = tuple(n for n in ours.objects if config.classifier.other or n != OTHER)
        kept = [ours.objects.index(name) for name in names]
        coverage = torch.from_numpy(ours.object_coverage[:, kept])
        bags["coverage"] = (coverage, None)
        # Half precision, as stored: packing widens a few slides at a time.
        objects = torch.from_numpy(ours.object_features[:, kept])
        bags["objects"] = (objects, coverage >= config.min_coverage)
    wanted = {CLASSIFIERS[name].reads for name in config.classifier.models}
    return _Features(
        {view: rows for view, rows in bags.items() if view in wanted},
        patches.features.shape[1],
        names,
        _about(patches, ours, config.min_coverage),
    )


def _usable(
    names: Sequence[str], bags: Mapping[View, object], objects: Sequence[str]
) -> tuple[str, ...]:
    """Classifiers that these bags can train. The others are named in a warning."""
    usable = tuple(
        name
        for name in names
        if CLASSIFIERS[name].reads in bags and (objects or name not in CONTROLS)
    )
    lost = [name for name in names if name not in usable]
    if not usable:
        raise DataError(
            f"the feature files hold no objects, which {', '.join(lost)} learn from; take those of"
            " an xpath run, or other classifier.models, such as attention"
        )
    if lost:
        logger.warning("left out, as the feature files hold no objects: %s", ", ".join(lost))
    return usable


def _about(
    patches: PatchFeatures, ours: SlideFeatures | None, min_coverage: float
) -> dict[str, Any]:
    """How the features were made, to be kept with the models."""
    about: dict[str, Any] = {"layout": patches.layout, "encoder": patches.encoder}
    if ours is None:
        return about
    names = ("encoder_sha256", "segmentor", "segmentor_sha256")
    about |= {name: ours.provenance[name] for name in names if name in ours.provenance}
    if ours.grid.mpp is not None:
        about |= {"patch_um": ours.grid.pixels * ours.grid.mpp, "mpp": ours.grid.mpp}
    return {**about, "min_coverage": min_coverage}


def _content(path: Path) -> str:
    """SHA-256 of a file, or over all files of a folder."""
    if path.is_file():
        return sha256_of(path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return key_of([(one.relative_to(path).as_posix(), sha256_of(one)) for one in files])
