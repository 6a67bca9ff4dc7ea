"""Slides: what is stored, levels, pixels. Real OpenSlide reads every file here."""

from __future__ import annotations

import logging
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile

from xpath.errors import ConfigError, ResolutionError, SlideError
from xpath.geometry import Box, Size
from xpath.store.pixel_types import is_picture
from xpath.wsi import slide as module
from xpath.wsi.pyramid import Level
from xpath.wsi.slide import Slide


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)


@pytest.fixture
def slide(write_tiff, picture):
    with Slide.open(write_tiff(picture)) as slide:
        yield slide


def bare(properties=None, downsamples=(1.0,)):
    """A slide of what OpenSlide would tell about it."""
    handle = SimpleNamespace(
        properties=properties or {},
        level_downsamples=downsamples,
        level_dimensions=[(round(1000 / d), round(800 / d)) for d in downsamples],
        close=lambda: None,
    )
    return Slide(Path("bare.svs"), handle, None)


# What is stored


def test_size_levels_and_resolution(write_tiff, picture):
    path = write_tiff(picture, picture[::2, ::2], mpp=0.25)

    with Slide.open(str(path)) as slide:
        assert slide.size == Size(400, 300)
        assert slide.levels == (Level(1.0, Size(400, 300)), Level(2.0, Size(200, 150)))
        assert slide.mpp == pytest.approx(0.25, rel=1e-3)
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert "slide.tiff" in repr(slide)
        assert "400 x 300" in repr(slide)


def test_a_given_resolution_replaces_the_stored_one(write_tiff, picture):
    with Slide.open(write_tiff(picture, mpp=0.25), mpp=0.5) as slide:
        assert slide.mpp == 0.5
        assert slide.mpp_or_none == 0.5


def test_without_resolution_a_slide_opens_and_says_the_way_out_when_asked(write_tiff, picture):
    with Slide.open(write_tiff(picture, mpp=None)) as slide:
        assert slide.mpp_or_none is None
        with pytest.raises(ResolutionError, match=r"slide\.tiff.*mpp=.*--mpp.*0\.25 \(40x\)"):
            _ = slide.mpp


def test_an_absurd_resolution_is_not_believed(write_tiff, picture):
    """72 dots per inch, as image programs write, are 352.8 microns per pixel."""
    path = write_tiff(picture, mpp=352.8)

    with Slide.open(path) as slide:
        assert slide.mpp_or_none is None
        with pytest.raises(ResolutionError, match=r"352\.\d+ microns per pixel.*--mpp"):
            _ = slide.mpp
    with Slide.open(path, mpp=0.5) as slide:
        assert slide.mpp == 0.5


@pytest.mark.parametrize("mpp", [0.0, -0.25, 0.001, 250.0, float("nan"), float("inf"), "0.5"])
def test_an_absurd_given_resolution_is_refused(write_tiff, picture, mpp):
    with pytest.raises(ResolutionError, match="must be a number within"):
        Slide.open(write_tiff(picture), mpp=mpp)


@pytest.mark.parametrize("stored", ["nan", "inf", "0", "-1"])
def test_resolutions_that_are_no_lengths_are_not_believed(stored):
    slide = bare({"openslide.mpp-x": stored, "openslide.mpp-y": stored})

    assert slide.mpp_or_none is None


def test_resolutions_that_are_no_numbers_count_as_missing():
    slide = bare({"openslide.mpp-x": "0,25", "openslide.mpp-y": "0,25"})

    with pytest.raises(ResolutionError, match="stores no resolution"):
        _ = slide.mpp


@pytest.mark.parametrize("axis", ["x", "y"])
def test_one_length_is_that_of_square_pixels(axis, caplog):
    assert bare({f"openslide.mpp-{axis}": "0.25"}).mpp == 0.25
    assert not caplog.records


@pytest.mark.parametrize(("down", "warned"), [(0.505, False), (0.6, True)])
def test_pixels_that_are_not_square_are_averaged_and_reported(
    write_tiff, picture, caplog, down, warned
):
    with (
        caplog.at_level(logging.WARNING, "xpath"),
        Slide.open(write_tiff(picture, mpp=(0.5, down))) as slide,
    ):
        assert slide.mpp == pytest.approx((0.5 + down) / 2, rel=1e-3)
    assert ("not square" in caplog.text) == warned


@pytest.mark.parametrize(
    ("stored", "wanted"), [("40", 40.0), ("40x", 40.0), ("20x?", None), (None, None)]
)
def test_objective(stored, wanted):
    slide = bare({} if stored is None else {"openslide.objective-power": stored})

    assert slide.objective == wanted


@pytest.mark.parametrize(
    ("fields", "mpp", "objective"),
    [
        ("AppMag = 20|MPP = 0,4990", 0.499, 20.0),
        ("AppMag = 40x|MPP = 2.5e-1", 0.25, 40.0),
        ("AppMag = 20|MPP = 0", None, 20.0),
        ("AppMag = 20|MPP = -0.25", None, 20.0),
        ("AppMag = 20|MPP = 0.25 um", None, 20.0),
        ("MPP = 0.25", 0.25, None),
    ],
)
def test_what_aperio_writes_is_read(write_tiff, picture, caplog, fields, mpp, objective):
    description = f"Aperio Image Library v1\r\n400x300|{fields}"

    with Slide.open(write_tiff(picture, mpp=None, description=description)) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert (slide.mpp_or_none, slide.objective) == (mpp, objective)

    assert "not square" not in caplog.text


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("micron", (2, 2), 0.5),
        ("um", (4, 2), 0.375),
        ("\\u00B5m", (2, 2), 0.5),
        ("mm", (2000, 2000), 0.5),
        ("inch", (50800, 50800), 0.5),
        ("pixel", (2, 2), None),
        ("micron", (0, 0), None),
    ],
)
def test_what_imagej_writes_is_read(write_tiff, picture, unit, per_unit, mpp):
    description = f"ImageJ=1.53t\nunit={unit}\nspacing=1.0\n"
    options = {"resolution": per_unit, "resolutionunit": "NONE", "description": description}

    with Slide.open(write_tiff(picture, mpp=None, **options)) as slide:
        assert slide.mpp_or_none == (None if mpp is None else pytest.approx(mpp, rel=1e-6))


def test_the_byte_order_that_is_not_read_is_named(tmp_path, picture):
    with tifffile.TiffWriter(tmp_path / "a.tiff", byteorder=">") as file:
        file.write(picture, tile=(128, 128), photometric="rgb")

    with pytest.raises(SlideError, match=r"in the byte order of PCs.*vips tiffsave"):
        Slide.open(tmp_path / "a.tiff")


SCANNED_AT_20 = "Aperio Image Library v1\r\n400x300|AppMag = 20"


def test_a_refusal_names_the_objective(write_tiff, picture):
    path = write_tiff(picture, mpp=None, description=SCANNED_AT_20)

    with (
        Slide.open(path) as slide,
        pytest.raises(ResolutionError, match=r"0\.5 \(20x\); it was scanned with a 20x objective"),
    ):
        _ = slide.mpp


@pytest.mark.parametrize(("mpp", "warned"), [(0.5, False), (0.25, True)])
def test_a_resolution_that_contradicts_the_objective_is_used_but_warned_of(
    write_tiff, picture, caplog, mpp, warned
):
    path = write_tiff(picture, mpp=None, description=SCANNED_AT_20)

    with caplog.at_level(logging.WARNING, "xpath"), Slide.open(path, mpp=mpp) as slide:
        assert slide.mpp == mpp

    text = "slide.tiff: 0.25 microns per pixel do not go with the 20x objective"
    assert (text in caplog.text) == warned


def test_an_overview_without_pyramid_says_that_it_takes_a_while(slide, caplog, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_PIXELS", 9000)
    monkeypatch.setattr(module, "SLOW_PIXELS", 100_000)

    with caplog.at_level(logging.WARNING, "xpath"):
        slide.thumbnail(40)

    assert "slide.tiff: 120,000 pixels are read for a picture of 40 x 30" in caplog.text


def test_bounds_are_the_scanned_part_or_all():
    sides = {"x": "10", "y": "20", "width": "300", "height": "400"}
    properties = {f"openslide.bounds-{side}": value for side, value in sides.items()}

    assert bare(properties).bounds == Box(10, 20, 300, 400)
    assert bare().bounds == Box(0, 0, 1000, 800)
    del properties["openslide.bounds-width"]
    assert bare(properties).bounds == Box(0, 0, 1000, 800)


# What is no slide


@pytest.mark.parametrize("content", [b"", b"hello\n", b"II*\0" + b"\0" * 400, b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_slides(tmp_path, content):
    (tmp_path / "case.svs").write_bytes(content)

    with pytest.raises(SlideError, match=r"case\.svs is no slide.*complete"):
        Slide.open(tmp_path / "case.svs")


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("a.jp2", b"\0\0\0\x0cjP  ", "JPEG 2000 is a picture.*vips tiffsave a.jp2"),
        ("a.webp", b"RIFF", "WebP is a picture"),
        ("a.lif", b"p\0\0\0", "bfconvert a.lif a.ome.tiff"),
        ("a.czi", b"ZISRAWFILE", "QuPath"),
    ],
)
def test_pictures_and_slides_of_others_come_with_the_way_to_convert_them(
    tmp_path, name, start, words
):
    (tmp_path / name).write_bytes(start + bytes(500))

    with pytest.raises(SlideError, match=words):
        Slide.open(tmp_path / name)


def test_a_slide_that_claims_more_pixels_than_its_bytes_can_hold_is_refused(tmp_path, picture):
    path = tmp_path / "boast.tiff"
    with tifffile.TiffWriter(path) as file:
        file.write(picture, tile=(64, 64), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(2**22)

    with pytest.raises(SlideError, match=r"boast.tiff claims to have \d+ x 4194304 pixels, in"):
        Slide.open(path)


def test_a_file_of_another_form_comes_with_the_way_to_convert_it(tmp_path, picture):
    tifffile.imwrite(tmp_path / "strips.tif", picture, photometric="rgb", rowsperstrip=16)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)

    with pytest.raises(SlideError, match=r"in tiles, not strips.*vips tiffsave strips\.tif strips"):
        Slide.open(tmp_path / "strips.tif")
    (tmp_path / "strips.tif").rename(tmp_path / "it's 1.tif")
    with pytest.raises(SlideError) as caught:
        Slide.open(tmp_path / "it's 1.tif")
    command = str(caught.value).rpartition("`vips ")[2].partition("`")[0]
    assert shlex.split(command)[:3] == ["tiffsave", "it's 1.tif", "it's 1.converted.tiff"]
    with pytest.raises(SlideError, match=r"PNG is a picture.*vips tiffsave"):
        Slide.open(tmp_path / "picture.png")


@pytest.mark.parametrize("tile", [(128, 128), None])
@pytest.mark.parametrize(
    ("type_", "named"),
    [
        ("f2", "16-bit float"),
        ("f4", "32-bit float"),
        ("f8", "64-bit float"),
        ("u4", "32-bit integer"),
        ("i2", "16-bit signed integer"),
        ("i1", "8-bit signed integer"),
    ],
)
def test_pixels_that_are_not_of_8_bits_are_named_and_never_called_damage(
    tmp_path, picture, type_, named, tile
):
    values = picture / 255 if "f" in type_ else picture // 2
    tifffile.imwrite(tmp_path / "deep.tif", values.astype(type_), photometric="rgb", tile=tile)

    with pytest.raises(SlideError, match=rf"{named} pixels, and 8-bit RGB.*vips linear") as caught:
        Slide.open(tmp_path / "deep.tif")

    assert "damage" not in str(caught.value) and "complete" not in str(caught.value)


def test_of_16_bits_the_upper_8_are_seen_which_is_said_once(write_tiff, picture, caplog):
    path = write_tiff(picture.astype(np.uint16) * 257)
    for _ in range(2):
        with Slide.open(path) as slide:
            np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 300)), picture)

    assert caplog.text.count("has 16-bit pixels, of which the upper 8 bits are seen") == 1
    caplog.clear()
    Slide.open(write_tiff(picture, name="plain.tiff")).close()
    assert not caplog.records


def test_16_bits_that_leave_the_upper_8_empty_are_refused(write_tiff, picture):
    """They would be read as black."""
    with pytest.raises(SlideError, match=r"16-bit \(but no value above 4080, as of 12 bits\)"):
        Slide.open(write_tiff(np.full_like(picture, 255).astype(np.uint16) * 16))
    black = write_tiff(np.zeros_like(picture, np.uint16), name="black.tiff")
    with Slide.open(black) as slide:
        assert not slide.read(Box(0, 0, 8, 8)).any()


@pytest.mark.parametrize("orientation", [2, 3, 4, 6, 7, 8])
def test_a_slide_that_asks_to_be_turned_is_read_as_it_is_stored(
    tmp_path, picture, caplog, orientation
):
    """OpenSlide mirrors every tile in its place."""
    tag = [(274, "H", 1, orientation, True)]
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(128, 128), extratags=tag)

    with Slide.open(path) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 300)), picture)
    assert f"turn or mirror it (orientation {orientation})" in caplog.text

    tifffile.imwrite(path, picture[..., 0], tile=(128, 128), extratags=tag)
    with pytest.raises(SlideError, match=rf"orientation {orientation}.*vips autorot a\.tiff"):
        Slide.open(path)


@pytest.mark.parametrize(
    ("suffix", "needs"), [(".mrxs", "the folder of its name"), (".vms", "the pictures beside it")]
)
def test_what_a_slide_of_several_files_lacks_is_named(tmp_path, suffix, needs):
    """A .mrxs begins as a JPEG does, and is none."""
    (tmp_path / f"a{suffix}").write_bytes(b"\xff\xd8\xff\xe0" + bytes(99))

    with pytest.raises(SlideError, match=f"read together with {needs}") as caught:
        Slide.open(tmp_path / f"a{suffix}")
    assert "vips" not in str(caught.value)


def test_pictures_are_told_from_slides(write_tiff, tmp_path, picture):
    tifffile.imwrite(tmp_path / "strips.tif", picture, photometric="rgb")
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "empty.tif").touch()

    assert is_picture(tmp_path / "strips.tif") and is_picture(tmp_path / "a.png")
    ndpi = [(65420, "I", 1, 1, True)]
    tifffile.imwrite(tmp_path / "n.tif", picture, photometric="rgb", extratags=ndpi)
    (tmp_path / "n.ndpi").write_bytes((tmp_path / "strips.tif").read_bytes())
    for path in (
        write_tiff(picture),
        *(tmp_path / n for n in ["a.mrxs", "empty.tif", "n.tif", "n.ndpi"]),
    ):
        assert not is_picture(path)


def test_what_is_missing_and_what_is_a_folder(tmp_path):
    with pytest.raises(SlideError, match=r"nobody\.svs does not exist"):
        Slide.open(tmp_path / "nobody.svs")
    (tmp_path / "link.svs").symlink_to("/away/a.svs")
    with pytest.raises(SlideError, match=r"link\.svs does not exist.*link to /away/a\.svs"):
        Slide.open(tmp_path / "link.svs")
    with pytest.raises(SlideError, match="is a folder"):
        Slide.open(tmp_path)


def test_a_size_that_no_glass_has_is_damage():
    """Else its overview would take days."""
    reader = SimpleNamespace(
        properties={}, level_downsamples=(1.0,), level_dimensions=[(2**24, 2**24)]
    )

    with pytest.raises(SlideError, match=r"bare\.svs claims 16777216 x 16777216 pixels"):
        Slide(Path("bare.svs"), reader, None)


# Levels


@pytest.mark.parametrize(
    ("asked", "level"),
    [(0.5, 0), (1.0, 0), (3.9, 0), (4.0, 1), (4.1, 1), (15.0, 1), (15.99, 2), (16, 2), (99, 2)],
)
def test_the_coarsest_level_that_is_fine_enough(asked, level):
    assert bare(downsamples=(1.0, 3.9998, 16.0)).best_level(asked) == level


@pytest.mark.parametrize(("downsample", "level"), [(3.9998, 1), (4.0002, 1), (4.003, 1), (4.1, 0)])
def test_a_level_a_hair_coarser_than_asked_serves(downsample, level):
    assert bare(downsamples=(1.0, downsample)).best_level(4.0) == level


def test_levels_need_not_be_in_order():
    assert bare(downsamples=(1.0, 16.0, 4.0)).best_level(5.0) == 2


FULL = 1300
EDGES = (100, 1003)
"""Left and right, top and bottom edge of the white square in the picture for footprints."""


@pytest.mark.parametrize("downsample", [1.9, 2.0, 2.3, 2.7, 3.0, 3.3, 3.7, 3.97, 3.998, 4.002, 4.1])
def test_what_is_shown_is_the_box_whatever_the_downsample(write_tiff, downsample):
    """Less than one level-0 pixel off: the dark rim around a white square is measured.

    One reader truncates a downsample of 3.9998 to 3 and shows 1364 pixels for 1024.
    """
    picture = np.zeros((FULL, FULL, 3), np.uint8)
    picture[slice(*EDGES), slice(*EDGES)] = 255
    side = round(FULL / downsample)
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)

    with Slide.open(write_tiff(picture, small)) as slide:
        assert slide.best_level(slide.levels[1].downsample) == 1
        rims = [
            rim
            for corner, width in [(40, 1024), (41, 1023), (53, 1010), (77, 979), (60, 1001)]
            for rim in _rims(slide, Box(corner, corner, width, width), round(width / downsample))
        ]

    found, wanted = np.array(rims).T
    assert np.abs(found - wanted).max() < 1


def _rims(slide, box, pixels):
    """Dark rims found and wanted, level-0 pixels: left, right, top, bottom."""
    image = slide.read(box, Size(pixels, pixels))[..., 0] / 255
    scale = box.width / pixels
    middle = pixels // 2
    for line in (image[middle], image[:, middle]):
        dark = (1 - line) * scale
        yield dark[:middle].sum(), EDGES[0] - box.x
        yield dark[middle:].sum(), box.right - EDGES[1]


# Pixels


def test_level_zero_comes_back_bit_by_bit(slide, picture):
    np.testing.assert_array_equal(slide.read(Box(100, 50, 123, 77)), picture[50:127, 100:223])
    np.testing.assert_array_equal(slide.read_level(0), picture)


def test_a_smaller_size_is_read_from_the_level_that_has_it(write_tiff):
    """The levels are of different colours, so the answer tells which was read."""
    levels = [np.full((256 // 2**k, 256 // 2**k, 3), 50 * (k + 1), np.uint8) for k in range(3)]

    with Slide.open(write_tiff(*levels)) as slide:
        for pixels, level in [(200, 0), (129, 0), (128, 1), (65, 1), (64, 2), (5, 2)]:
            found = slide.read(Box(0, 0, 256, 256), Size(pixels, pixels))
            assert (found == 50 * (level + 1)).all()
        assert (slide.read_level(2) == 150).all()


def test_shrinking_averages_and_enlarging_interpolates(slide, picture):
    wanted = picture[:256, :256].reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
    small = slide.read(Box(0, 0, 256, 256), Size(32, 32))
    large = slide.read(Box(10, 10, 4, 4), Size(8, 8))

    assert np.abs(small - wanted).max() <= 0.51
    assert np.abs(large[0, 0].astype(int) - picture[10, 10]).max() == 0
    wanted = 0.75 * picture[10, 10] + 0.25 * picture[10, 11]
    assert np.abs(large[0, 1] - wanted).max() <= 1


@pytest.mark.parametrize(
    "box", [Box(-30, -20, 60, 50), Box(380, 290, 60, 50), Box(-5, 100, 500, 3), Box(0, -9, 9, 99)]
)
def test_beyond_the_edge_is_white(slide, picture, box):
    wide = np.full((900, 1200, 3), 255, np.uint8)
    wide[300:600, 400:800] = picture

    found = slide.read(box)

    wanted = wide[300 + box.y : 300 + box.bottom, 400 + box.x : 400 + box.right]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("box", [Box(-99, -99, 50, 50), Box(4000, 0, 9, 9), Box(0, 300, 8, 8)])
def test_wholly_outside_is_white(slide, box):
    assert (slide.read(box) == 255).all()
    assert (slide.read(box, Size(4, 4)) == 255).all()


def test_transparent_parts_of_a_slide_are_white(write_tiff):
    picture = np.zeros((256, 256, 4), np.uint8)
    picture[..., 0] = 200
    picture[:, :128, 3] = 255
    picture[128:, 128:, 3] = 51  # a fifth

    with Slide.open(write_tiff(picture, extrasamples=["unassalpha"])) as slide:
        assert slide.read(Box(0, 0, 1, 1)).tolist() == [[[200, 0, 0]]]
        assert slide.read(Box(200, 0, 1, 1)).tolist() == [[[255, 255, 255]]]
        faint = slide.read(Box(200, 200, 1, 1))[0, 0].astype(int)

    assert np.abs(faint - [244, 204, 204]).max() <= 1


@pytest.mark.parametrize("box", [Box(0, 0, 0, 5), Box(0, 0, 5, 0), Box(0, 0, -5, 5)])
def test_empty_boxes_are_refused(slide, box):
    with pytest.raises(SlideError, match=r"slide\.tiff: cannot read an empty box"):
        slide.read(box)
    with pytest.raises(SlideError, match="empty"):
        slide.read(Box(0, 0, 5, 5), Size(0, 5))


@pytest.mark.parametrize("size", [Size(400, 300), Size(133, 100), Size(50, 41), Size(3, 2)])
def test_large_areas_are_read_in_strips_without_seams(slide, monkeypatch, size):
    box = Box(-10, -10, 420, 310)
    whole = slide.read(box, size)

    monkeypatch.setattr(module, "BLOCK_PIXELS", 9000)
    strips = slide.read(box, size)

    assert np.abs(strips.astype(int) - whole).max() <= 1


def test_enlarging_never_goes_in_strips(slide, monkeypatch):
    whole = slide.read(Box(0, 0, 100, 100), Size(200, 200))

    monkeypatch.setattr(module, "BLOCK_PIXELS", 900)

    np.testing.assert_array_equal(slide.read(Box(0, 0, 100, 100), Size(200, 200)), whole)


def test_thumbnails_keep_the_shape_and_never_enlarge(slide):
    assert slide.thumbnail(100).shape == (75, 100, 3)
    assert slide.thumbnail(4000).shape == (300, 400, 3)
    assert slide.thumbnail(1).shape == (1, 1, 3)
    with pytest.raises(ConfigError, match="max_side"):
        slide.thumbnail(0)


# Handles


def test_a_slide_travels_to_another_process_as_its_path(write_tiff, picture):
    with Slide.open(write_tiff(picture, mpp=None), mpp=0.33) as slide:
        parcel = pickle.dumps(slide)
    with pickle.loads(parcel) as copy:  # noqa: S301 - our own bytes
        assert copy.mpp == 0.33
        np.testing.assert_array_equal(copy.read(Box(0, 0, 9, 9)), picture[:9, :9])
    assert len(parcel) < 1000  # no pixels, no handle


def test_a_closed_slide_says_so(write_tiff, picture):
    with Slide.open(write_tiff(picture)) as slide:
        pass
    slide.close()  # twice is fine

    assert slide.size == Size(400, 300)
    with pytest.raises(SlideError, match=r"slide\.tiff is closed"):
        slide.read(Box(0, 0, 9, 9))


ABANDONED = """
import sys
import numpy as np
from xpath.geometry import PatchGrid, Size
from xpath.wsi.patches import iter_patches
from xpath.wsi.slide import Slide
coords = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) * 512
grid = PatchGrid(coords=coords, footprint=512, pixels=512, mpp=0.5, overlap=0,
                 slide_size=Size(2048, 2048), slide_mpp=0.5)
for _ in range(20):
    with Slide.open(sys.argv[1]) as slide:
        batches = iter_patches(slide, grid, batch=2)
        next(batches)
print("alive")
"""


def test_closing_while_patches_are_read_ahead_does_not_end_the_process(write_tiff, rng):
    """As when a network fails on a patch: OpenSlide aborts if its handle is in use."""
    path = write_tiff(rng.integers(0, 255, (2048, 2048, 3), dtype=np.uint8))

    command = [sys.executable, "-c", ABANDONED, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.stdout == "alive\n", done.stderr


def test_an_overview_without_pyramid_is_never_in_memory_at_once(slide, monkeypatch):
    """Strips bound what is decoded, whatever the size of the slide."""
    monkeypatch.setattr(module, "BLOCK_PIXELS", 9000)
    read, areas = slide._reader.region, []
    monkeypatch.setattr(
        slide._reader,
        "region",
        lambda index, box: areas.append(box.width * box.height) or read(index, box),
    )

    slide.thumbnail(40)

    assert len(areas) > 10
    assert max(areas) < 2 * 9000
