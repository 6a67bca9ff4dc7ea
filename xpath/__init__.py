"""Explainable pathology analytics: what on the slide decided, in objects a pathologist can name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from xpath.errors import XPathError

if TYPE_CHECKING:
    from xpath.mil.attention_mil import AttentionMIL
    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectAwareMIL
    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = [
    "AttentionMIL",
    "Bag",
    "ObjectAwareMIL",
    "SegmentPredictor",
    "XPathError",
    "__version__",
]

__version__ = version("xpath-pathology")


_HOMES = {
    "AttentionMIL": "xpath.mil.attention_mil",
    "Bag": "xpath.mil.bag",
    "ObjectAwareMIL": "xpath.mil.object_aware",
    "SegmentPredictor": "xpath.segment.predict.predictor",
}


def __getattr__(name: str) -> Any:
    """Classes, with all they load, only when they are asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'xpath' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What completion offers."""
    return sorted({*globals(), *__all__})
