"""Explainable pathology analytics: what on the slide decided, in objects a pathologist can name."""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("xpath-pathology")
