"""Which slides to work on: a table, a folder, or a file."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xpath.batch.dicom_series import one_of_each_series
from xpath.errors import DataError
from xpath.store.names import (
    SLIDE_SUFFIXES,
    alike,
    count_missing,
    is_missing,
    match_names,
    nearly,
    plain_name,
    shown,
)
from xpath.store.tables import parse_number, read_user_table

__all__ = [
    "SlideEntry",
    "SlideLabel",
    "find_slides",
    "labels_without_slide",
    "read_labels",
    "with_labels",
]

logger = logging.getLogger(__name__)

SAFE_NAME = re.compile(
    r"(?!\.)(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))"
    r"[^/\\:*?\"<>|\x00-\x1f\ud800-\udfff]{1,200}(?<![ .])",
    re.IGNORECASE,
)
"""Names that a folder can have on every system, because results go to one of the slide's name."""


PATIENT_COLUMNS = ("patient", "case_id", "patient_id")
"""Where label tables have whose slide it is, the first that is there; the second is CLAM's."""
PATIENT_WORDS = ("patient", "case", "subject", "participant", "donor")


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideEntry:
    """A slide to work on."""

    slide_id: str
    """Name of the slide and of the folder of its results."""
    path: Path
    """Made absolute, so that a run can be gone on with from any folder."""
    label: str = ""
    """Class name, empty where unknown."""
    patient: str = ""
    """Whose slide it is. Empty where each slide has a patient of its own."""
    site: str = ""
    """Hospital or laboratory it comes from, empty where unknown."""
    mpp: float | None = None
    """Microns per pixel, where the slide stores none or a wrong one."""

    def __post_init__(self) -> None:
        """Refuses names that lead out of the run's folder, and absurd resolutions.

        Raises:
            DataError: Such a name or resolution.
        """
        if not SAFE_NAME.fullmatch(self.slide_id):
            raise DataError(
                f"a slide cannot be named {self.slide_id!r} ({str(self.path)!r}), because results"
                " go to a folder of that name; rename the file: letters, digits, blanks, - _ and ."
                " inside"
            )
        object.__setattr__(self, "path", self.path.absolute())
        if self.mpp is not None and not (math.isfinite(self.mpp) and self.mpp > 0):
            raise DataError(f"mpp of {self.slide_id} must be positive, got {self.mpp}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideLabel:
    """A row of a label table."""

    label: str
    """Empty where the table has none."""
    patient: str
    mpp: float | None
    site: str = ""


def find_slides(sources: Path | Iterable[Path]) -> list[SlideEntry]:
    """Slides among files and in folders, however deep, named by their file's stem.

    Args:
        sources: A folder or file, or several. In folders files are chosen by suffix, and hidden
            ones are left out; links are followed, but no folder is entered twice. A file is taken
            whatever its suffix. The files of a DICOM series are one slide, named by the first.

    Raises:
        DataError: No slides, a path that does not exist, two slides of one name, or names that no
            folder can have.
    """
    paths: list[Path] = []
    for source in [sources] if isinstance(sources, Path) else sources:
        if not source.exists():
            raise DataError(f"{source} does not exist; pass a slide or a folder of slides")
        paths += sorted(_in_folder(source)) if source.is_dir() else [source]
    paths = one_of_each_series(dict.fromkeys(paths))
    if not paths:
        raise DataError(f"no slides found; looked for {', '.join(sorted(SLIDE_SUFFIXES))}")
    _refuse_one_name(paths)
    slides, refused = [], []
    for path in paths:
        try:
            slides.append(SlideEntry(slide_id=plain_name(path.stem), path=path))
        except DataError as error:
            refused.append(str(error))
    if refused:
        raise DataError("; ".join(refused))
    return slides


def read_labels(path: Path, *, keep_na: bool = False) -> dict[str, SlideLabel]:
    """Labels by slide id.

    A CSV file with columns ``slide_id`` and ``label``, and if wanted ``patient`` (or CLAM's
    ``case_id``, or ``patient_id``), ``site`` and ``mpp``. NA, NaN, None, null, N/A and ``-`` are
    gaps, and counted in a warning.

    Args:
        path: The file.
        keep_na: Such a word in the column ``label`` is the name of a class.

    Raises:
        DataError: The file or a column is missing, a slide stands there twice, or mpp is no number.
    """
    return _labels_of(path, _rows(path, "slide_id", "label"), keep_na=keep_na)


def with_labels(slides: Sequence[SlideEntry], labels: Mapping[str, SlideLabel]) -> list[SlideEntry]:
    """Slides with their labels. Warns of slides without a label and labels without a slide.

    Labels and patients of an earlier table are dropped, its resolutions kept.

    Raises:
        DataError: The table names none of the slides.
    """
    meant = match_names(labels, [slide.slide_id for slide in slides])
    if slides and not meant:
        raise DataError(
            f"the labels name none of the {len(slides)} slides; they name {list(labels)[:3]}, the"
            f" slides are {[slide.slide_id for slide in slides[:3]]} (file names without suffix)"
            f"{nearly(labels, [slide.slide_id for slide in slides])}"
        )
    of_slide = {meant[name]: label for name, label in labels.items() if name in meant}
    lost = [s.slide_id for s in slides if s.slide_id not in of_slide]
    if lost:
        logger.warning("%d of %d slides have no label: %s", len(lost), len(slides), shown(lost))
    unknown = labels_without_slide(slides, labels)
    if unknown:
        logger.warning(
            "%d of %d labels are of slides that are not there: %s%s",
            len(unknown),
            len(labels),
            shown(unknown),
            nearly(unknown, lost),
        )
    return [_labelled(slide, of_slide.get(slide.slide_id)) for slide in slides]


def labels_without_slide(
    slides: Sequence[SlideEntry], labels: Mapping[str, SlideLabel]
) -> list[str]:
    """Names in a label table that mean none of the slides."""
    meant = match_names(labels, [slide.slide_id for slide in slides])
    return [name for name in labels if name not in meant]


def _labelled(slide: SlideEntry, label: SlideLabel | None) -> SlideEntry:
    if label is None:
        return replace(slide, label="", patient="", site="")
    mpp = label.mpp if slide.mpp is None else slide.mpp
    return replace(slide, label=label.label, patient=label.patient, site=label.site, mpp=mpp)


def _in_folder(folder: Path) -> Iterator[Path]:
    """Files that look like slides, but for hidden ones like the ``._x.svs`` of macOS.

    A link whose file is gone is one, too: it is a slide that cannot be read, not none.
    """
    waiting, links, entered = [folder], list[Path](), set[Path]()
    while waiting or links:
        home = waiting.pop() if waiting else links.pop()
        if home.resolve() in entered:
            continue
        entered.add(home.resolve())
        for path in _listed(home):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                (links if path.is_symlink() else waiting).append(path)
            elif path.suffix.lower() in SLIDE_SUFFIXES and (path.is_file() or path.is_symlink()):
                yield path


def _listed(folder: Path) -> list[Path]:
    """Files and folders in a folder, none, with a warning, where it may not be read."""
    try:
        return sorted(folder.iterdir())
    except PermissionError as error:
        logger.warning("%s is not searched for slides: %s", folder, error.strerror)
        return []


def _refuse_one_name(paths: Sequence[Path]) -> None:
    """Refuses two slides whose results would go to one folder."""
    first: dict[str, Path] = {}
    for path in paths:
        name = plain_name(path.stem)
        other = first.setdefault(name.casefold(), path)
        if other != path:
            alike = "" if plain_name(other.stem) == name else " but for capitals"
            raise DataError(
                f"{other} and {path} are both named {name!r}{alike}, and results go by name; rename"
                " one, or pass only the files that are meant"
            )


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a table of slides.

    Raises:
        DataError: Unreadable, without rows or a wanted column, or a slide without name or twice.
    """
    try:
        table = read_user_table(path, *columns, also=(*PATIENT_COLUMNS, "site", "mpp"))
    except DataError as error:
        raise DataError(f"{error}{_stamp_hint(error)}") from error
    empty = [number for number, row in enumerate(table, start=2) if not row["slide_id"]]
    if empty:
        raise DataError(f"{path} has no slide_id in lines {empty[:5]}; name or remove them")
    named = [row | {"slide_id": plain_name(row["slide_id"])} for row in table]
    twice = [name for name, n in Counter(row["slide_id"] for row in named).items() if n > 1]
    if twice:
        raise DataError(f"{path}: several rows are named {twice[:5]}; a slide has one row")
    return named


def _stamp_hint(error: DataError) -> str:
    """A word for those who come from STAMP, whose slides are in another table than the labels."""
    hint = "; of STAMP's tables, join the two and name FILENAME slide_id, PATIENT patient"
    return hint if "filename" in str(error) else ""


def _labels_of(
    path: Path, rows: Sequence[Mapping[str, str]], *, keep_na: bool
) -> dict[str, SlideLabel]:
    """Labels of the rows of a table by slide id. Words for gaps are counted in warnings."""
    written = [row.get("label", "") for row in rows]
    if lacking := sum(not text if keep_na else is_missing(text) for text in written):
        words = "" if keep_na else count_missing(written)
        gaps = f" ({words}); is it a class, say --keep-na" if words else ""
        logger.warning("%s: %d of %d slides have no label%s", path, lacking, len(rows), gaps)
    patients = [next(filter(None, map(row.get, PATIENT_COLUMNS)), "") for row in rows]
    _tell_patients(path, rows[0])
    if words := count_missing(patients):
        logger.warning("%s: slides without a patient (%s) are each a patient's", path, words)
    labels = {
        row["slide_id"]: SlideLabel(
            label=label if keep_na else _known(label),
            patient=_known(patient),
            site=_known(row.get("site", "")),
            mpp=_mpp(row, path),
        )
        for row, label, patient in zip(rows, written, patients, strict=True)
    }
    for column in ("label", "patient", "site"):
        if names := alike(getattr(row, column) for row in labels.values()):
            logger.warning(
                "%s: the column %s has names that are nearly the same, and are taken for different"
                " ones: %s; correct the table if they are one", path, column, names,
            )  # fmt: skip
    return labels


def _tell_patients(path: Path, row: Mapping[str, str]) -> None:
    """Warns of a column that may name patients, where none is read: they would be torn apart."""
    likely = [name for name in row if any(word in name for word in PATIENT_WORDS)]
    if likely and not any(name in row for name in PATIENT_COLUMNS):
        logger.warning(
            "%s: the column %s is not read; if it says whose slides they are, name it patient, or"
            " slides of one patient may train and test", path, likely[0],
        )  # fmt: skip


def _known(text: str) -> str:
    """A cell, empty where it is a word for a gap."""
    return "" if is_missing(text) else text


def _mpp(row: Mapping[str, str], path: Path) -> float | None:
    text = row.get("mpp", "")
    try:
        mpp = None if is_missing(text) else parse_number(text)
    except ValueError:
        mpp = math.nan
    if mpp is not None and not 0 < mpp < math.inf:
        raise DataError(
            f"{path}: mpp of {row['slide_id']} must be microns per pixel, often 0.25 (40x),"
            f" got {text!r}"
        )
    return mpp
