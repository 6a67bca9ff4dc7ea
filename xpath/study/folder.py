"""The folder of a run: its paths, and its small tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpath.metrics.calibration import scaled_probability
from xpath.store.tables import read_table

__all__ = ["RunFolder", "slide_predictions", "slide_probabilities", "slide_splits"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of a run. Asking for one creates nothing."""

    root: Path

    @property
    def settings(self) -> Path:
        """Configuration, versions, digests."""
        return self.root / "run.json"

    @property
    def ledger(self) -> Path:
        """One row per slide and stage."""
        return self.root / "slides.csv"

    @property
    def logs(self) -> Path:
        """Tracebacks of slides that failed."""
        return self.root / "logs"

    @property
    def split(self) -> Path:
        """The split of every slide."""
        return self.root / "tables" / "split.csv"

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.root / "index.html"

    def slide(self, slide_id: str) -> Path:
        """Folder of one slide."""
        return self.root / "slides" / slide_id

    def masks(self, slide_id: str) -> Path:
        """Object masks of one slide."""
        return self.slide(slide_id) / "masks.zarr"

    def objects(self, slide_id: str) -> Path:
        """Table of the objects of one slide, from which all of them are counted."""
        return self.slide(slide_id) / "objects.h5"

    def features(self, slide_id: str) -> Path:
        """Patch and object features of one slide."""
        return self.slide(slide_id) / "features.h5"

    def explanation(self, slide_id: str) -> Path:
        """Maps and importances of one slide."""
        return self.slide(slide_id) / "explanation.h5"

    def attributions(self, slide_id: str) -> Path:
        """Attributions of one slide by every method of the settings, compared."""
        return self.slide(slide_id) / "attributions"

    def morphometry(self, slide_id: str) -> Path:
        """Number, size, shape and distances of the objects of one slide."""
        return self.slide(slide_id) / "morphometry.csv"

    def exports(self, slide_id: str) -> Path:
        """Pictures, GeoJSON and report of one slide."""
        return self.slide(slide_id) / "export"

    @property
    def models(self) -> Path:
        """The slide classifiers, a checkpoint folder each."""
        return self.root / "models"

    def model(self, name: str) -> Path:
        """A slide classifier, such as ``attention``, or of a fold ``attention_0``."""
        return self.models / name

    def table(self, name: str) -> Path:
        """A table of the run, by name."""
        return self.root / "tables" / f"{name}.csv"


def slide_splits(folder: RunFolder) -> dict[str, str]:
    """Split of every slide in ``tables/split.csv``, by slide id, empty before training.

    Raises:
        StoreError: The table lacks a column.
    """
    rows = read_table(folder.split, slide_id=str, split=str)
    return {row["slide_id"]: row["split"] for row in rows}


def slide_predictions(folder: RunFolder, model: str = "object_aware") -> dict[str, str]:
    """Class that a model predicts for every slide, by slide id, empty before training.

    Raises:
        StoreError: ``tables/predictions.csv`` lacks a column.
    """
    rows = read_table(folder.table("predictions"), model=str, slide_id=str, predicted=str)
    return {row["slide_id"]: row["predicted"] for row in rows if row["model"] == model}


def slide_probabilities(
    folder: RunFolder, model: str = "object_aware"
) -> dict[str, dict[str, float]]:
    """Probability of each class, by slide id, empty before training, as on the slides' own pages.

    It is softened by the temperature in ``tables/calibration.csv``, where there is one and
    ``tables/predictions.csv`` was written without.

    Raises:
        StoreError: A table lacks a column.
    """
    rows = read_table(folder.table("predictions"), model=str, slide_id=str, fold=int)
    known = {"model": str, "fold": int, "temperature": float}
    temperature = {
        row["fold"]: row["temperature"]
        for row in read_table(folder.table("calibration"), **known)
        if row["model"] == model and row.get("in_predictions") != "True"
    }
    return {
        row["slide_id"]: _softened(row, temperature.get(row["fold"], 1.0))
        for row in rows
        if row["model"] == model
    }


def _softened(row: dict[str, Any], temperature: float) -> dict[str, float]:
    """Probabilities of a row of ``tables/predictions.csv``, ``softmax(log p / temperature)``."""
    chances = {
        column.removeprefix("p "): float(value)
        for column, value in row.items()
        if column.startswith("p ") and value
    }
    if temperature == 1 or not chances:
        return chances
    logits = np.log(np.maximum(list(chances.values()), np.finfo(float).tiny))
    return dict(zip(chances, scaled_probability(logits, temperature).tolist(), strict=True))
