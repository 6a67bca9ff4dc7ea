"""PanNuke: nuclei of five types in 19 organs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.pathseg.reading import absent_labels, read_array, too_few
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SOURCE"]

OBJECT_TYPES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
"""Object type of the first five channels of ``masks.npy``; the sixth is background."""

ORGANS = {
    "Adrenal_gland": "adrenal",
    "Bile-duct": "bile duct",
    "Bladder": "bladder",
    "Breast": "breast",
    "Cervix": "cervix",
    "Colon": "colon",
    "Esophagus": "esophagus",
    "HeadNeck": "head neck",
    "Kidney": "kidney",
    "Liver": "liver",
    "Lung": "lung",
    "Ovarian": "ovarian",
    "Pancreatic": "pancreatic",
    "Prostate": "prostate",
    "Skin": "skin",
    "Stomach": "stomach",
    "Testis": "testis",
    "Thyroid": "thyroid",
    "Uterus": "uterus",
}
"""Value in ``types.npy`` to anatomical region."""

NEVER = {
    ("bladder", "dead"),
    ("kidney", "dead"),
    ("lung", "epithelial"),
    ("ovarian", "dead"),
    ("pancreatic", "dead"),
    ("prostate", "dead"),
    ("skin", "dead"),
    ("stomach", "epithelial"),
    ("testis", "dead"),
}
"""Region and type that no image has, and that so are no label (paper, Table 5)."""

FOLDS = {"fold1": 2656, "fold2": 2523, "fold3": 2722}
SIDE = 256


def _label(region: str, object_type: str) -> str:
    return f"{region}-nuclei-{object_type}"


# Table 1 counts 86 labels and, in its other rows, the background as one of them. Here it cannot:
# the masks of these 86 add up to the 16,223 of the table, and only with all of them are there 160.
LABELS = tuple(
    _label(region, object_type)
    for region in ORGANS.values()
    for object_type in OBJECT_TYPES
    if (region, object_type) not in NEVER
)

INFO = published("PanNuke", LABELS)


class PanNuke:
    """Patches of three folds, meant for cross-validation and so no split. Patients are unknown."""

    info = INFO

    def images(self, root: Path) -> Iterator[SourceImage]:
        """All patches, fold by fold, in the order of the arrays.

        A fold that cannot be listed is refused only after the others.

        Raises:
            DataError: A ``types.npy`` is damaged or names an unknown organ.
        """
        refused: list[DataError] = []
        for fold, types in _folds(root).items():
            try:
                regions = _regions(types)
            except DataError as error:
                refused.append(error)
                continue
            masks = types.parents[2] / "masks" / fold / "masks.npy"
            for index, region in enumerate(regions):
                yield INFO.image(
                    types.with_name("images.npy"),
                    partial(
                        _read, types.with_name("images.npy"), masks, index, region, len(regions)
                    ),
                    name=f"{fold}_{index:04d}",
                    region=region,
                )
        if refused:
            raise refused[0]

    def missing(self, root: Path) -> list[str]:
        """Arrays that are not there, and how many patches."""
        gaps, folds = [], _folds(root)
        for fold, patches in FOLDS.items():
            if fold not in folds:
                gaps.append(f"Fold {fold[-1]}/images/{fold}/types.npy")
                continue
            others = (
                folds[fold].with_name("images.npy"),
                folds[fold].parents[2] / "masks" / fold / "masks.npy",
            )
            gaps += [
                f"Fold {fold[-1]}/{path.parts[-3]}/{fold}/{path.name}"
                for path in others
                if not path.exists()
            ]
            try:
                gaps += too_few(len(_regions(folds[fold])), patches, f"patches in {fold}")
            except DataError as error:
                gaps.append(str(error))
        return gaps


SOURCE = PanNuke()


def _folds(root: Path) -> dict[str, Path]:
    """Fold to its list of organs, as archives unpack into ``Fold 1`` or one folder deeper."""
    lists = sorted(path for path in root.rglob("types.npy") if path.parent.name in FOLDS)
    return {path.parent.name: path for path in sorted(lists, key=lambda path: path.parent.name)}


def _regions(types: Path) -> list[str]:
    """Anatomical region of every patch of a fold."""
    organs = [str(organ) for organ in read_array(types).ravel()]
    unknown = sorted(set(organs) - set(ORGANS))
    if unknown:
        raise DataError(
            f"{types} names unknown organs {unknown[:5]}, known are {', '.join(ORGANS)}; take "
            "the file as distributed"
        )
    return [ORGANS[organ] for organ in organs]


def _read(images: Path, masks: Path, index: int, region: str, patches: int) -> Annotated:
    """A patch with its nuclei, of which none was left out."""
    image = _patch(images, index, (patches, SIDE, SIDE, 3))
    instances = _patch(masks, index, (patches, SIDE, SIDE, len(OBJECT_TYPES) + 1))
    if image.min() < 0 or image.max() > 255:
        raise DataError(f"{images} has values outside 0..255; take the file as distributed")
    labels, ignore = [], np.zeros(image.shape[:2], bool)
    for channel, object_type in enumerate(OBJECT_TYPES):
        mask = instances[..., channel] > 0
        if (region, object_type) in NEVER:
            ignore |= mask
        elif mask.any():
            labels.append(LabelMask(_label(region, object_type), mask))
    own = [label for label in LABELS if label.startswith(f"{region}-")]
    return Annotated(
        image.astype(np.uint8),
        tuple(labels),
        ignore if ignore.any() else None,
        absent_labels(own, labels),
    )


def _patch(path: Path, index: int, shape: tuple[int, ...]) -> NDArray[np.floating]:
    """One entry of an array too large for memory."""
    stored = read_array(path, lazy=True)
    if stored.shape != shape:
        raise DataError(
            f"{path} is {stored.shape}, wanted {shape}; take all arrays of a fold from the same "
            "archive"
        )
    return np.asarray(stored[index])
