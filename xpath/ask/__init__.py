"""Questions in words about an image, a slide or a view: read, segmented, and shown word by word."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
