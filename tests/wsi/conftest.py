"""Slides on disk with any pyramid, and a stand-in for what only asks where things are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import tifffile

from xpath.errors import ResolutionError
from xpath.geometry import Box, Size
from xpath.wsi.pyramid import Level


@pytest.fixture
def write_tiff(tmp_path):
    """Writes a tiled TIFF from the pictures of its pyramid and gives the path."""

    def write(*levels, mpp=0.5, name="slide.tiff", **options):
        per_cm = {} if mpp is None else _resolution(mpp)
        with tifffile.TiffWriter(tmp_path / name) as file:
            for index, picture in enumerate(levels):
                file.write(
                    picture,
                    photometric="rgb",
                    tile=(128, 128),
                    metadata=None,
                    subfiletype=1 if index else 0,
                    **(per_cm | options),
                )
        return tmp_path / name

    return write


def _resolution(mpp):
    across, down = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    return {"resolution": (1e4 / across, 1e4 / down), "resolutionunit": "CENTIMETER"}


class FakeSlide(SimpleNamespace):
    """A slide without a file, as far as a grid asks for one."""

    def __init__(self, width, height, *, mpp=0.5, bounds=None, downsamples=(1.0,)):
        size = Size(width, height)
        super().__init__(
            path=Path("fake.svs"),
            size=size,
            mpp_or_none=mpp,
            bounds=bounds or Box(0, 0, width, height),
            levels=tuple(
                Level(scale, Size(round(width / scale), round(height / scale)))
                for scale in downsamples
            ),
        )

    @property
    def mpp(self):
        if self.mpp_or_none is None:
            raise ResolutionError("fake.svs stores no resolution; pass mpp=")
        return self.mpp_or_none


@pytest.fixture(scope="session")
def fake_slide():
    """The class of slides without a file."""
    return FakeSlide
