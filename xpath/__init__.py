"""Explainable pathology analytics: what on the slide decided, in objects a pathologist can name."""

from importlib.metadata import version

__version__ = version("xpath-pathology")

try:
    import lazy_loader
except ImportError:  # `xpath doctor` says what is missing
    __all__: list[str] = []
else:
    __getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
