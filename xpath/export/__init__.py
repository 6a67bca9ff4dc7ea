"""Results for people and other programs: pictures, pages, QuPath, DICOM, OME-TIFF."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
