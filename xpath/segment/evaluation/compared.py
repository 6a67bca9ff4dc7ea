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
    "ModelSize",
    "compare_by",
    "improvement_rows",
    "model_trends",
    "named_paths",
    "named_sizes",
    "named_tables",
    "read_compared",
    "size_rows",
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


def named_tables(texts: Iterable[str]) -> dict[str, Path]:
    """``NAME=PATH`` several times, each the ``samples.csv`` of a model, which is looked at.

    Raises:
        ConfigError: Of ``named_paths``.
        StoreError: A file is no such table.
        DataError: A table has a question twice.
    """
    named = named_paths(texts)
    for name, path in named.items():
        read_compared({name: path})
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


def improvement_rows(compared: Compared) -> list[Row]:
    """Gain of our model over the best other one, by object type (BiomedParse, Fig. 3b to d).

    The other is the one with the highest mean over all shared questions. Beside the gain stand the
    mean shape traits of the object type; no rows without another model.
    """
    ours, others = compared.dice[:, 0], compared.dice[:, 1:]
    if not others.size or not np.isfinite(others).any():
        return []
    rival = int(np.nanargmax(np.nanmean(others, axis=0)))
    shared = np.isfinite(ours) & np.isfinite(others[:, rival])
    members: dict[str, list[int]] = {}
    for position, name in enumerate(compared.level("object_type")):
        if shared[position]:
            members.setdefault(name, []).append(position)
    return [
        {
            "object_type": name,
            "n": len(rows),
            "against": compared.models[1 + rival],
            "difference": float((ours[rows] - others[rows, rival]).mean()),
            "difference_median": float(np.median(ours[rows]) - np.median(others[rows, rival])),
            **{t.name: _mean_of(compared.traits[t.name][rows]) for t in TRAITS},
        }
        for name, rows in sorted(members.items())
    ]


class ModelSize(NamedTuple):
    """Size of all that a user must keep of a model to segment what was asked."""

    parameters: float
    """Of all its models together, millions."""
    models: int = 1
    """Specialised tools train one per data set."""


def named_sizes(texts: Iterable[str]) -> dict[str, ModelSize]:
    """``NAME=MILLIONS[,MODELS]`` several times.

    Raises:
        ConfigError: Anything else.
    """
    sizes = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            parameters, _, models = numbers.partition(",")
            sizes[name] = ModelSize(float(parameters), int(models or 1))
        except ValueError:
            sizes[name] = ModelSize(0.0, 0)
        if not name or min(sizes[name]) <= 0:
            raise ConfigError(
                f"wanted NAME=MILLIONS or NAME=MILLIONS,MODELS, both above 0, got {text!r}"
            )
    return sizes


def size_rows(compared: Compared, sizes: Mapping[str, ModelSize]) -> list[Row]:
    """Overall Dice beside number of models, labels per model and size (Fig. 3b).

    Raises:
        ConfigError: A size of a model that is not compared.
    """
    if unknown := [name for name in sizes if name not in compared.models]:
        raise ConfigError(f"no model is called {unknown[0]}; they are {', '.join(compared.models)}")
    rows: list[Row] = []
    for name, size in sizes.items():
        dice = compared.dice[:, compared.models.index(name)]
        asked = np.flatnonzero(np.isfinite(dice))
        labels = len({compared.keys[position][2] for position in asked})
        rows.append({
            "model": name,
            "models": size.models,
            "parameters_millions": size.parameters,
            "labels": labels,
            "labels_per_model": labels / size.models,
            "dice": _mean_of(dice),
        })
    return rows


def _mean_of(values: NDArray[np.float64]) -> float:
    """Mean of what is defined."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def write_comparison(folder: Path, compared: Compared, *, seed: int = 0) -> dict[str, list[Row]]:
    """Writes the tables ``compare_*.csv`` and returns the rows of ``compare_by`` by level."""
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
    gains = improvement_rows(compared)
    write_table(folder / "compare_improvement.csv", gains, ("object_type", "n", "difference"))
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
