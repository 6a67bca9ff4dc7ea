"""Everything xpath raises on purpose.

Catch ``XPathError`` to catch them all::

    XPathError
    ├── ConfigError              a setting that cannot be
    ├── DataError                values that cannot be used: NaN features, an empty bag
    │   └── ShapeError           an array of the wrong shape
    ├── LabelError               a label or object list that is not known
    ├── SlideError               a slide that cannot be opened or read
    │   ├── ResolutionError      no resolution stored, or an absurd one
    │   └── EmptyTissueError     no tissue found
    ├── StoreError               a file that is truncated, foreign or of another version
    ├── CheckpointError          weights that do not fit or cannot be read
    ├── ReaderError              a language server that fails or answers nonsense
    └── MissingDependencyError   an optional package is not installed

A message says what we got, what we wanted and what to do.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EmptyTissueError",
    "LabelError",
    "MissingDependencyError",
    "ReaderError",
    "ResolutionError",
    "ShapeError",
    "SlideError",
    "StoreError",
    "XPathError",
]


class XPathError(Exception):
    """The root of all errors raised by xpath."""


class ConfigError(XPathError, ValueError):
    """A setting that cannot be: unknown name, wrong type, out of range."""


class DataError(XPathError, ValueError):
    """Values that cannot be used: NaN features, an empty bag, labels that do not fit."""


class ShapeError(DataError):
    """An array or tensor of the wrong shape."""


class LabelError(XPathError, ValueError):
    """A label, prompt or object list that is not known."""


class SlideError(XPathError):
    """A slide that cannot be opened or read."""


class ResolutionError(SlideError):
    """A slide that stores no resolution, or an absurd one."""


class EmptyTissueError(SlideError):
    """A slide on which no tissue, or no patch with enough tissue, was found."""


class StoreError(XPathError):
    """A file that is truncated, not ours, or of another schema version."""


class CheckpointError(XPathError):
    """Weights that do not fit the model, or a checkpoint that cannot be read."""


class ReaderError(XPathError):
    """A language server that cannot be reached, fails, or does not answer what was asked."""


class MissingDependencyError(XPathError, ImportError):
    """An optional package is not installed. The message carries the pip command."""
