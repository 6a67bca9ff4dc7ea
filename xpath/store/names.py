"""Names of slides and missing values, as label tables, splits and feature folders write them.

One rule for all: a name is that of the file without the suffixes that slides and features have,
and what R, pandas and spreadsheets write for a gap is a gap.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

__all__ = [
    "FEATURE_SUFFIXES",
    "SLIDE_SUFFIXES",
    "alike",
    "count_missing",
    "is_missing",
    "match_names",
    "nearly",
    "plain_name",
    "shown",
]

SLIDE_SUFFIXES = frozenset((
    ".svs",
    ".tif",
    ".tiff",
    ".qptiff",
    ".ndpi",
    ".mrxs",
    ".scn",
    ".svslide",
    ".bif",
    ".vms",
    ".vmu",
    ".czi",
    ".dcm",
))
FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".zarr")
"""In the order in which they are preferred: coordinates are in CLAM's .h5, not in its .pt."""
KNOWN = (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES, ".ome")
MISSING = frozenset((
    "", "na", "n/a", "n.a.", "nan", "-nan", "none", "null", "<null>", "nil", "-", "--", "\u2013",
    "\u2014", "\u2212", ".", "?", "<na>", "nat", "#n/a", "#n/a n/a", "#na", "#null!", "#ref!",
    "#value!", "#div/0!", "#name?", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "\\n",
    "not available", "not applicable", "not reported", "missing", "[not available]",
    "[not applicable]", "[not evaluated]", "[unknown]", "[discrepancy]",
))  # fmt: skip
"""In lower case: what R, pandas, SAS, databases, spreadsheets and the tables of TCGA and GDC write
where there is no value."""
SHOWN = 10


def plain_name(name: str) -> str:
    """A slide's name of that of its slide or feature file: ``a`` of ``a.svs.h5``, ``a.ome.tif``.

    Folders before it, as some tables have them, are no part of it, nor are marks that are not seen,
    as copies of web pages and of Excel hold them. An accent is one letter with its vowel, whereas
    macOS writes two into the names of files.
    """
    name = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    name = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    while (dot := name.rfind(".")) > 0 and name[dot:].lower() in KNOWN:
        name = name[:dot]
    return name


def is_missing(text: str) -> bool:
    """Whether a cell of a table has no value: empty, NA, NaN, None, null, N/A, ``-``."""
    return text.strip().lower() in MISSING


def count_missing(texts: Iterable[str]) -> str:
    """Words for a gap and how often each is written, empty where there is none.

    Cells that are plainly empty do not count: they cannot be meant otherwise.
    """
    words = Counter(text for text in texts if text and is_missing(text))
    return ", ".join(f"{word} {count} times" for word, count in words.items())


def alike(names: Iterable[str]) -> str:
    """Names that differ only in capitals, blanks or the form of a number, each quoted.

    Empty where there are none: ``'IDC', 'idc'; '1', '1.0'``.
    """
    forms: dict[str, list[str]] = {}
    for name in dict.fromkeys(filter(None, names)):
        forms.setdefault(_number(name) or _folded(name), []).append(name)
    return "; ".join(", ".join(map(repr, same)) for same in forms.values() if len(same) > 1)


def nearly(names: Iterable[str], known: Iterable[str]) -> str:
    """A hint at names that are no known ones, but would be but for their spelling. Empty for none.

    Capitals, blanks, dashes, quotes, zeros before a number and its form make the difference.
    """
    by_form = {_loose(name): name for name in known}
    near = [(name, by_form[_loose(name)]) for name in names if _loose(name) in by_form]
    pairs = ", ".join(f"{name!r} and {other!r}" for name, other in near[:SHOWN])
    return f"; nearly the same are {pairs}: spell them alike if they are one" if near else ""


def match_names(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """The known name that each name means. A name that means none, or several, is left out.

    A name means itself, else the one that is equal without suffixes, else the only one that is the
    same whole number (``108.0`` for ``108``, as spreadsheets and pandas write it).

    Raises:
        DataError: Two names mean the same one.
    """
    given = dict.fromkeys(names)
    exact, plain, numbers = set(known), _unique(plain_name, known), _unique(_number, known)
    meant = {}
    for name in given:
        number = _number(name)
        fit = name if name in exact else plain.get(plain_name(name)) or numbers.get(number or "")
        if fit is not None:
            meant[name] = fit
    by_meaning: dict[str, str] = {}
    for name, fit in meant.items():
        if (other := by_meaning.setdefault(fit, name)) != name:
            raise DataError(f"{other!r} and {name!r} both mean {fit!r}; leave one row of each")
    return meant


def shown(names: Collection[str]) -> str:
    """The first names, and how many there are beside these."""
    first = ", ".join(list(names)[:SHOWN])
    return first if len(names) <= SHOWN else f"{first} and {len(names) - SHOWN} others"


def _unique(form: Callable[[str], str | None], known: Iterable[str]) -> dict[str, str]:
    """Known names by a form of them, without forms that two have in common."""
    by_form: dict[str, list[str]] = {}
    for name in known:
        if (text := form(name)) is not None:
            by_form.setdefault(text, []).append(name)
    return {text: names[0] for text, names in by_form.items() if len(names) == 1}


def _folded(name: str) -> str:
    """A name without capitals, blanks, and letters that are not seen."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in letters if not c.isspace() and unicodedata.category(c) != "Cf")


def _loose(name: str) -> str:
    """A name of which only letters and digits count, or the whole number that it is."""
    name = _folded(plain_name(name))
    try:
        return str(int(float(name)))
    except (ValueError, OverflowError):
        return "".join(c for c in name if c.isalnum()) or name


def _number(name: str) -> str | None:
    """The whole number a name is, None if it is none. Leading zeros are part of a name."""
    text = plain_name(name)
    try:
        value = float(text)
    except ValueError:
        return None
    whole = math.isfinite(value) and value == int(value)
    return str(int(value)) if whole and text.removesuffix(".0") == str(int(value)) else None
