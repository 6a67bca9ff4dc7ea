"""One stage over many slides: what is done, who is at it, what failed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
