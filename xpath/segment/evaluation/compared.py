"""Several models on the same questions: the paper's Tables 6 and 12 to 18.

Everything is read from ``samples.csv``, so models may have been run anywhere, one after the other.
Axes: N questions, M models.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.metrics.bootstrap import bootstrap_means, paired_t_test
from xpath.segment.evaluation.mapping import label_of
from xpath.segment.evaluation.tables import OVERALL, WITHOUT_LABEL
from xpath.segment.evaluation.trend_lines import TRAITS, trend_of
from xpath.store.tables import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, KeysView, Mapping

    from numpy.typing import NDArray

    from xpath.segment.evaluation.trend_lines import Trend

    Row = dict[str, object]
    Key = tuple[str, str, str]

__all__ = [
    "COMPARED_LEVELS",
    "SIGNIFICANT",
    "Compared",
    "compare_by",
    "model_trends",
    "named_paths",
    "read_compared",
    "write_comparison",
]

logger = logging.getLogger(__name__)

COMPARED_LEVELS = ("source", "region", "structure", "object_type", "label")
"""Groups that models are compared over."""
SIGNIFICANT = 0.05
"""Largest p of a star (Fig. 3)."""


class Compared(NamedTuple):
    """Dice of several models on one list of questions whose object is there."""

    models: tuple[str, ...]
    """Ours first."""
    keys: tuple[Key, ...]
    """Source, file name of the image, and label of each question."""
    groups: tuple[str, ...]
    """``(N,)`` patient, slide or image: what is drawn together."""
    dice: NDArray[np.float64]
    """``(N, M)``; NaN where a model was not asked."""
    traits: Mapping[str, NDArray[np.float64]]
    """Name of a trait to ``(N,)`` values of the true masks."""

    def level(self, name: str) -> list[str]:
        """``(N,)`` source, region, structure, object type or label of each question."""
        if name in ("source", "label"):
            return [key[0] if name == "source" else key[2] for key in self.keys]
        known = {key[2]: label_of(key[2]) for key in self.keys}
        return [str(getattr(known[key[2]], name, WITHOUT_LABEL)) for key in self.keys]


def named_paths(texts: Iterable[str]) -> dict[str, Path]:
    """``NAME=PATH`` several times.

    Raises:
        ConfigError: Anything else, or a name twice.
    """
    named: dict[str, Path] = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not (name and sign and path):
            raise ConfigError(f"wanted NAME=PATH, got {text!r}")
        if name in named:
            raise ConfigError(f"two models are called {name}; give each its own name")
        named[name] = Path(path)
    return named


def read_compared(tables: Mapping[str, Path]) -> Compared:
    """Reads the ``samples.csv`` of several models.

    The questions are those of the first model. Another may have answered a part of them, as a model
    trained on one source does; it is then compared on these, and how many it lacks is logged.

    Args:
        tables: Name of a model to its table, ours first.

    Raises:
        DataError: A model shares no question with the first, or a table has a question twice.
        StoreError: A file is no such table.
    """
    rated = {name: _read(path) for name, path in tables.items()}
    models = tuple(rated)
    first = rated[models[0]]
    for name in models[1:]:
        _check_shared(name, tables[name], rated[name].keys(), first.keys())
    empty: Row = {}
    dice = np.array(
        [[rated[name].get(key, empty).get("dice", np.nan) for name in models] for key in first],
        np.float64,
    ).reshape(len(first), len(models))
    traits = {
        trait.name: np.array([_number(row.get(trait.name)) for row in first.values()], np.float64)
        for trait in TRAITS
    }
    groups = tuple(f"{key[0]}/{row.get('group') or key[1]}" for key, row in first.items())
    return Compared(models, tuple(first), groups, dice, traits)


def compare_by(compared: Compared, level: str, *, seed: int = 0) -> list[Row]:
    """Mean Dice of every model by a level, with intervals, ranks and a test. Ends with ``overall``.

    In each row the models stand on the questions that all of them answered; a model without any
    in it has an empty cell. ``p`` is of the one-sided paired t-test of our model against the best
    of the others: small where ours is better.

    Args:
        compared: From ``read_compared``.
        level: One of ``COMPARED_LEVELS``.
        seed: Of the intervals; a row's does not depend on the other rows.
    """
    members: dict[str, list[int]] = {}
    for position, name in enumerate(compared.level(level)):
        members.setdefault(name, []).append(position)
    named = {name: np.array(members[name]) for name in sorted(members)}
    named[OVERALL] = np.arange(len(compared.keys))
    return [{level: name, **_row(compared, rows, seed)} for name, rows in named.items()]


def model_trends(compared: Compared, trait: str) -> dict[str, Trend]:
    """How the Dice of each model changes with a trait of the true masks (Fig. 5)."""
    known = next(each for each in TRAITS if each.name == trait)
    lines = {}
    for model, name in enumerate(compared.models):
        asked = np.isfinite(compared.dice[:, model])
        lines[name] = trend_of(known, compared.traits[trait][asked], compared.dice[asked, model])
    return lines


def write_comparison(folder: Path, compared: Compared, *, seed: int = 0) -> dict[str, list[Row]]:
    """Writes ``compare_by_LEVEL.csv`` and ``compare_trends.csv`` and returns the rows by level."""
    tables = {level: compare_by(compared, level, seed=seed) for level in COMPARED_LEVELS}
    for level, rows in tables.items():
        write_table(folder / f"compare_by_{level}.csv", rows, (level, "n"))
    curves: list[Row] = [
        {"trait": trait.name, "model": name, "form": curve.form, "curve": curve.equation,
         "mae": curve.mae, "rmse": curve.rmse}
        for trait in TRAITS
        for name, line in model_trends(compared, trait.name).items()
        for curve in line.curves
    ]  # fmt: skip
    columns = ("trait", "model", "form", "curve", "mae", "rmse")
    write_table(folder / "compare_trends.csv", curves, columns)
    return tables


def _row(compared: Compared, rows: NDArray[np.intp], seed: int) -> Row:
    dice = compared.dice[rows]
    asked = [m for m in range(len(compared.models)) if np.isfinite(dice[:, m]).any()]
    shared = np.isfinite(dice[:, asked]).all(axis=1) if asked else np.zeros(len(rows), bool)
    values = dice[shared][:, asked]
    groups = [compared.groups[position] for position in rows[shared]]
    intervals = bootstrap_means(values, np.random.default_rng(seed), groups=groups)
    row: Row = {"n": int(shared.sum())}
    for model, name in enumerate(compared.models):
        interval = intervals[asked.index(model)] if model in asked else None
        row[name] = interval.mean if interval else None
        row[f"{name} low"] = interval.low if interval else None
        row[f"{name} high"] = interval.high if interval else None
    order = sorted(asked, key=lambda model: -intervals[asked.index(model)].mean)
    names = [compared.models[model] for model in order] if len(values) else []
    row["best"], row["second"] = [*names, "", ""][:2]
    rivals = [model for model in order if model]
    row["against"] = compared.models[rivals[0]] if rivals and 0 in asked else ""
    row |= {"difference": None, "t": None, "p": None}
    if row["against"] and len(values) > 1:
        rival = asked.index(rivals[0])
        _, row["difference"], row["t"], row["p"] = paired_t_test(values[:, 0], values[:, rival])
    return row


def _read(path: Path) -> dict[Key, Row]:
    """Question to row, of questions whose object is there."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; wanted samples.csv of evaluate_segmentor.py")
    rated: dict[Key, Row] = {}
    for row in read_table(path, source=str, image=str, label=str, present=bool, dice=float):
        if not row["present"]:
            continue
        key = (row["source"], PurePath(row["image"].replace("\\", "/")).name, row["label"])
        if key in rated:
            raise DataError(f"{path} has {' / '.join(key)} twice; keep one of the rows")
        rated[key] = row
    return rated


def _check_shared(name: str, path: Path, theirs: KeysView[Key], ours: KeysView[Key]) -> None:
    shared = len(theirs & ours)
    if not shared:
        example = next(iter(theirs), ("", "no row", ""))
        raise DataError(
            f"{name}: {path} has no image and label of the first model, such as"
            f" {' / '.join(next(iter(ours), ('', 'no row', '')))}, but others, such as"
            f" {' / '.join(example)}; evaluate both on the same data"
        )
    if shared < len(ours):
        logger.warning("%s answered %d of %d questions", name, shared, len(ours))


def _number(cell: object) -> float:
    return float(str(cell)) if cell not in (None, "") else float("nan")
