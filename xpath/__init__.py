"""Explainable pathology analytics: what on the slide decided, in objects a pathologist can name."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from xpath.errors import XPathError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.object_aware import ObjectAwareMIL

if TYPE_CHECKING:
    from xpath.segment.predictor import SegmentPredictor

__all__ = [
    "AttentionMIL",
    "Bag",
    "ObjectAwareMIL",
    "SegmentPredictor",
    "XPathError",
    "__version__",
]

__version__ = version("xpath-pathology")


def __getattr__(name: str) -> Any:
    """The segmentor, with all it loads, only when it is asked for."""
    if name != "SegmentPredictor":
        raise AttributeError(f"module 'xpath' has no attribute {name!r}; it has {__all__}")
    from xpath.segment.predictor import SegmentPredictor

    return SegmentPredictor
