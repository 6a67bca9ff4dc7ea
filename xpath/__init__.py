"""Explainable pathology analytics: what on the slide decided, in objects a pathologist can name."""

from __future__ import annotations

from importlib.metadata import version

from xpath.errors import XPathError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["AttentionMIL", "Bag", "ObjectAwareMIL", "XPathError", "__version__"]

__version__ = version("xpath-pathology")
