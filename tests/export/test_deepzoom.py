"""DeepZoom: cut as OpenSlide's generator cuts, without seams, from slides and overlays."""

from __future__ import annotations

import io
import zipfile
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from xpath.errors import ConfigError, DataError
from xpath.export.deepzoom import DeepZoomConfig, array_strips, slide_strips, write_deepzoom
from xpath.export.pyramid import halved
from xpath.geometry import Box, Size
from xpath.wsi.slide import Slide

PNG = DeepZoomConfig(side=62, overlap=1, format="png")


@pytest.fixture
def overlay(rng):
    image = rng.integers(0, 256, (150, 201, 4)).astype(np.uint8)
    image[:70, :90, 3] = 0
    return image


@pytest.fixture
def slide_path(tmp_path, rng):
    import tifffile

    image = rng.integers(0, 256, (300, 417, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", image, tile=(64, 64), photometric="rgb")
    return tmp_path / "slide.tif"


def tiles_of(folder, level):
    found = {}
    for path in (folder / str(level)).iterdir():
        column, row = map(int, path.stem.split("_"))
        found[column, row] = np.asarray(Image.open(path))
    return found


def put_together(tiles, config, size):
    """The level; neighbours must agree on what they share."""
    channels = next(iter(tiles.values())).shape[2]
    whole = np.zeros((size.height, size.width, channels), np.uint8)
    seen = np.zeros((size.height, size.width), bool)
    for (column, row), tile in tiles.items():
        left = max(0, column * config.side - config.overlap)
        top = max(0, row * config.side - config.overlap)
        place = (slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1]))
        np.testing.assert_array_equal(whole[place][seen[place]], tile[seen[place]])
        whole[place], seen[place] = tile, True
    assert seen.all()
    return whole


@pytest.mark.parametrize("overlap", [0, 1, 5])
def test_tiles_put_together_are_the_levels(tmp_path, overlay, overlap):
    config = DeepZoomConfig(side=62, overlap=overlap, format="png")
    strips = array_strips(overlay)

    count = write_deepzoom(tmp_path / "out", strips[1], strips[0], name="map", config=config)

    level = overlay
    total = 0
    for number in range(8, -1, -1):  # 201 px: 2 ** 8 is the first power of two above
        tiles = tiles_of(tmp_path / "out" / "map_files", number)
        total += len(tiles)
        whole = put_together(tiles, config, Size(level.shape[1], level.shape[0]))
        np.testing.assert_array_equal(whole, level)
        level = halved(level)
    assert total == count
    assert level.shape == (1, 1, 4)


def test_a_slide_is_cut_as_openslides_generator_cuts(tmp_path, slide_path):
    import openslide
    from openslide.deepzoom import DeepZoomGenerator

    with Slide.open(slide_path) as slide:
        size, strips = slide_strips(slide)
        write_deepzoom(tmp_path / "out", strips, size, name="slide", config=PNG)

    with openslide.OpenSlide(slide_path) as handle:
        wanted = DeepZoomGenerator(handle, tile_size=62, overlap=1)
        folder = tmp_path / "out" / "slide_files"
        assert sorted(int(path.name) for path in folder.iterdir()) == list(
            range(wanted.level_count)
        )
        for level, (across, down) in enumerate(wanted.level_tiles):
            tiles = tiles_of(folder, level)
            assert set(tiles) == {(x, y) for x in range(across) for y in range(down)}
            for place, tile in tiles.items():
                assert tile.shape[1::-1] == wanted.get_tile_dimensions(level, place)
        last = wanted.level_count - 1
        for place, tile in tiles_of(folder, last).items():
            np.testing.assert_array_equal(tile, np.asarray(wanted.get_tile(last, place)))
        given = ET.fromstring(wanted.get_dzi("png"))
    mine = ET.parse(tmp_path / "out" / "slide.dzi").getroot()
    assert (mine.tag, mine.attrib) == (given.tag, given.attrib)
    assert mine[0].attrib == given[0].attrib


def test_a_part_of_a_slide_at_lower_resolution(tmp_path, slide_path):
    with Slide.open(slide_path) as slide:
        box = Box(10, 20, 200, 101)
        size, strips = slide_strips(slide, box=box, downsample=2)
        picture = np.concatenate(list(strips))
        wanted = slide.read(Box(10, 20, 200, 102), Size(100, 51))

    assert size == Size(100, 51)
    np.testing.assert_array_equal(picture, wanted)


def test_an_archive_holds_the_same_files(tmp_path, overlay):
    for name in ("out", "out.zip"):
        size, strips = array_strips(overlay)
        write_deepzoom(tmp_path / name, strips, size, name="map", config=PNG)

    folder = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == folder


def test_jpeg_for_slides(tmp_path):
    size, strips = array_strips(np.full((40, 50, 3), 200, np.uint8))

    write_deepzoom(tmp_path / "a.zip", strips, size, name="a")

    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        tile = np.asarray(Image.open(io.BytesIO(archive.read("a_files/6/0_0.jpeg"))))
    assert tile.shape == (40, 50, 3)
    assert np.abs(tile.astype(int) - 200).max() <= 2


def test_what_cannot_be_written_leaves_nothing(tmp_path, overlay):
    size, strips = array_strips(overlay)

    with pytest.raises(DataError, match="format='png'"):
        write_deepzoom(tmp_path / "out", strips, size, name="map")
    with pytest.raises(DataError, match="strips end"):
        write_deepzoom(tmp_path / "out", [overlay[:5]], size, name="map", config=PNG)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"format": "gif"}, {"overlap": 300}, {"quality": 0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigError):
        DeepZoomConfig(**change)
