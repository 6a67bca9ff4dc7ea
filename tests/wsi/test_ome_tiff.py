"""OME-TIFF: resolution in any unit, and pyramids that OpenSlide does not see."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from xpath.errors import SlideError
from xpath.geometry import Box, Size
from xpath.wsi.pyramid import Level
from xpath.wsi.resolution import PixelSize, contradiction, stored_mpp, stored_objective
from xpath.wsi.slide import Slide
from xpath.wsi.tiff_reader import TiffReader

MICRON = "\u00b5m"
UNITS = {
    MICRON: 0.5,
    "\u03bcm": 0.5,
    "nm": 500.0,
    "mm": 0.0005,
    "cm": 0.00005,
    "m": 5e-7,
    "pm": 5e5,
    "Å": 5000.0,
    "km": 5e-10,
    "fm": 5e8,
    "microns": 0.5,
    "in": 0.5 / 25_400,
    "inch": 0.5 / 25_400,
    "mil": 0.5 / 25.4,
    "thou": 0.5 / 25.4,
    "pt": 0.5 / 25_400 * 72,
}
"""Half a micron."""


@pytest.fixture
def write_ome(tmp_path, rng):
    """Writes an OME-TIFF of three levels, the lower ones in SubIFDs as tifffile and QuPath do."""

    def write(length=0.5, unit=MICRON, **options):
        path = tmp_path / "slide.ome.tif"
        picture = rng.integers(0, 256, (600, 800, 3), dtype=np.uint8)
        metadata = {"axes": "YXS", **_lengths(length, unit)}
        with tifffile.TiffWriter(path, ome=True) as file:
            options = {"photometric": "rgb", "tile": (128, 128), **options}
            file.write(picture, subifds=2, metadata=metadata, **options)
            for level, factor in ((1, 2), (2, 4)):
                part = np.full_like(picture[::factor, ::factor], 50 * level)
                file.write(part, subfiletype=1, **options)
        return path, picture

    return write


def _lengths(length, unit):
    if length is None:
        return {}
    return {f"PhysicalSize{axis}": length for axis in "XY"} | {
        f"PhysicalSize{axis}Unit": unit for axis in "XY"
    }


@pytest.mark.parametrize("unit", UNITS)
def test_physical_sizes_in_every_unit(write_ome, unit):
    with Slide.open(write_ome(UNITS[unit], unit)[0]) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-6)


def test_its_own_resolution_goes_before_that_of_a_screen(write_ome):
    path, _ = write_ome(0.25, resolution=(72, 72), resolutionunit="INCH")

    with Slide.open(path) as slide:
        assert slide.mpp == 0.25


def test_what_stores_no_length_has_no_resolution(write_ome):
    with Slide.open(write_ome(None)[0]) as slide:
        assert slide.mpp_or_none is None
    with Slide.open(write_ome(1.0, "pixel")[0]) as slide:
        assert slide.mpp_or_none is None


def test_the_pyramid_in_sub_ifds_is_read(write_ome):
    path, picture = write_ome()

    with Slide.open(path) as slide:
        sizes = [Size(800, 600), Size(400, 300), Size(200, 150)]
        assert slide.levels == tuple(
            Level(scale, size) for scale, size in zip((1, 2, 4), sizes, strict=True)
        )
        np.testing.assert_array_equal(slide.read(Box(50, 40, 333, 222)), picture[40:262, 50:383])
        assert (slide.read(Box(-20, -20, 400, 400), Size(200, 200))[20:, 20:] == 50).all()
        assert (slide.read_level(2) == 100).all()
        assert (slide.thumbnail(100) == 100).all()


def test_damage_in_a_level_that_only_we_see_is_named(write_ome):
    path, _ = write_ome(compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0].pages[0]
        start, count = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)

    with Slide.open(path) as slide:
        assert isinstance(slide._reader, TiffReader)
        with pytest.raises(SlideError, match=r"slide\.ome\.tif is damaged at.*level 1"):
            slide.read(Box(0, 0, 100, 100), Size(50, 50))
        assert (slide.read_level(2) == 100).all()


@pytest.mark.parametrize("missing", [' PhysicalSizeX="0.25"', ' PhysicalSizeY="0.25"'])
def test_one_length_is_that_of_square_pixels(missing):
    (name, text), *_ = ome((4000, 3000, 0.25)).items()

    assert stored_mpp({name: text.replace(missing, "")}, Size(4000, 3000)) == (0.25, 0.25)


NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome(*images, objectives=()):
    """OME-XML of images ``(width, height, mpp)``."""
    pixels = "".join(
        f'<Image ID="Image:{i}"><Pixels SizeX="{w}" SizeY="{h}" PhysicalSizeX="{mpp}"'
        f' PhysicalSizeY="{mpp}"/></Image>'
        for i, (w, h, mpp) in enumerate(images)
    )
    lenses = "".join(f'<Objective NominalMagnification="{power}"/>' for power in objectives)
    return {"tiff.ImageDescription": f'<OME xmlns="{NAMESPACE}">{lenses}{pixels}</OME>'}


def test_the_image_of_the_slides_size_counts():
    """Not that of its label, which may come first."""
    properties = ome((100, 100, 20.0), (4000, 3000, 0.25))

    assert stored_mpp(properties, Size(4000, 3000)) == PixelSize(0.25, 0.25)
    assert stored_mpp(properties, Size(4000, 3001)) is None


@pytest.mark.parametrize("text", ["<OME", "<OME><Pixels", "<OME>\ud800</OME>", "no OME at all"])
def test_broken_descriptions_say_nothing(text):
    assert stored_mpp({"tiff.ImageDescription": text}, Size(9, 9)) is None
    assert stored_objective({"tiff.ImageDescription": text}) is None


@pytest.mark.parametrize(("powers", "wanted"), [((20,), 20.0), ((20, 40), None), (("x",), None)])
def test_objectives_of_ome(powers, wanted):
    """Of several, nobody knows which it was."""
    assert stored_objective(ome(objectives=powers)) == wanted


@pytest.mark.parametrize(
    ("mpp", "objective", "doubted"),
    [
        (0.25, 40, False),
        (0.5, 20, False),
        (0.23, 40, False),
        (0.25, 20, True),
        (0.5, 40, True),
        (0.23, 20, True),  # there are such scanners; it is a warning, no error
        (None, 20, False),
        (0.25, None, False),
        (0.25, 0, False),
    ],
)
def test_resolutions_that_do_not_go_with_the_objective(mpp, objective, doubted):
    assert bool(contradiction(mpp, objective)) == doubted
