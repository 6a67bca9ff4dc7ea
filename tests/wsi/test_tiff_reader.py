"""The fast reader gives OpenSlide's pixels, or is not used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from xpath.errors import SlideError
from xpath.geometry import Box
from xpath.wsi.openslide_reader import OpenSlideReader
from xpath.wsi.tiff_reader import TiffReader, faster

COMPRESSIONS = ["none", "zlib", "lzw", "jpeg", "zstd"]


@pytest.fixture
def picture(rng):
    """Smooth colours with some noise, as JPEG has them."""
    y, x = np.mgrid[0:500, 0:700]
    smooth = np.stack((x % 256, y % 256, (x + y) % 256), axis=-1)
    return (smooth * 0.8 + rng.integers(0, 50, smooth.shape)).astype(np.uint8)


@pytest.fixture
def write(write_tiff, picture):
    def write(compression="jpeg", **options):
        return write_tiff(picture, picture[::2, ::2], compression=compression, **options)

    return write


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_region_is_that_of_openslide(write, compression, rng):
    slow = OpenSlideReader(write(compression))
    fast = faster(slow)

    assert isinstance(fast, TiffReader)
    assert fast.level_dimensions == slow.level_dimensions
    for index, (width, height) in enumerate(fast.level_dimensions):
        for _ in range(20):
            x, y = int(rng.integers(width - 1)), int(rng.integers(height - 1))
            box = Box(x, y, int(rng.integers(1, width - x)), int(rng.integers(1, height - y)))
            np.testing.assert_array_equal(fast.region(index, box), slow.region(index, box))
    fast.close()


def test_other_formats_are_left_to_openslide(write):
    reader = OpenSlideReader(write())
    reader.properties["openslide.vendor"] = "philips-tiff"

    assert faster(reader) is reader


def test_other_pixels_are_left_to_openslide(write, monkeypatch):
    """As if a codec rounded in another way."""
    reader = OpenSlideReader(write())
    region = reader.region
    monkeypatch.setattr(reader, "region", lambda index, box: region(index, box) ^ 1)

    assert faster(reader) is reader


def test_grey_and_transparent_pictures_are_left_to_openslide(tmp_path, rng):
    for shape, photometric in (((300, 300), "minisblack"), ((300, 300, 4), "rgb")):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        path = tmp_path / f"{photometric}.tiff"
        tifffile.imwrite(path, pixels, photometric=photometric, tile=(128, 128), metadata=None)
        reader = OpenSlideReader(path)
        assert faster(reader) is reader


def test_what_it_cannot_decode_openslide_decides(write):
    path = write()
    reader = faster(OpenSlideReader(path))
    with tifffile.TiffFile(path) as file:
        # The sixth tile is in no sample, so nobody has it yet.
        start, count = file.pages[0].dataoffsets[5], file.pages[0].databytecounts[5]
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)

    with pytest.raises(SlideError, match=r"damaged at.*Not a JPEG"):
        reader.region(0, Box(650, 20, 40, 60))
    assert reader.region(0, Box(10, 10, 60, 60)).std() > 0


def test_tiles_that_are_not_in_the_file_are_white(write):
    path = write("zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = list(file.pages[0].databytecounts)
        file.pages[0].tags["TileByteCounts"].overwrite([0, *counts[1:]])

    with_gap = OpenSlideReader(path)
    reader = faster(with_gap)

    assert (reader.region(0, Box(0, 0, 128, 128)) == 255).all()
    assert reader.region(0, Box(128, 0, 64, 64)).std() > 0


def test_threads_may_share_it(write, rng):
    reader = faster(OpenSlideReader(write()))
    boxes = [Box(*rng.integers(0, 400, 2).tolist(), 90, 90) for _ in range(60)]
    wanted = [reader.region(0, box) for box in boxes]
    reader._tile.cache_clear()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda box: reader.region(0, box), boxes))

    np.testing.assert_array_equal(found, wanted)


def test_a_closed_reader_says_so(write):
    reader = faster(OpenSlideReader(write()))
    reader.close()

    with pytest.raises(SlideError, match="is closed"):
        reader.region(0, Box(0, 0, 9, 9))
