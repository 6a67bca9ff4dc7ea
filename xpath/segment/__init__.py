"""The text-prompted segmentor: model, weights, masks of images and slides, training, scores."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
