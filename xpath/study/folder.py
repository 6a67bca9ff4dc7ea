"""Where everything of a run lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunFolder"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of a run; nothing is created by asking."""

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
        """Which slide is in which split."""
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

    def features(self, slide_id: str) -> Path:
        """Patch and object features of one slide."""
        return self.slide(slide_id) / "features.h5"

    def explanation(self, slide_id: str) -> Path:
        """Maps and importances of one slide."""
        return self.slide(slide_id) / "explanation.h5"

    def morphometry(self, slide_id: str) -> Path:
        """What the objects of one slide look like."""
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
