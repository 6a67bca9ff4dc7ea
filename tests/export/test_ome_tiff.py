"""OME-TIFF: every level, the size of a pixel, scores bit by bit, colours that OpenSlide opens."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from xpath.errors import DataError
from xpath.export.ome_tiff import array_tiles, write_ome_tiff
from xpath.export.pyramid import halved
from xpath.geometry import Size


def write(path, image, **change):
    given = {
        "size": Size(image.shape[1], image.shape[0]),
        "dtype": image.dtype.name,
        "um_per_pixel": 0.5,
        "name": "map",
    }
    write_ome_tiff(path, array_tiles(image), **{**given, **change})


@pytest.fixture
def score(rng):
    values = rng.normal(size=(1100, 1301)).astype(np.float32)
    values[:600, :700] = np.nan
    values[700:, 600:] = -0.0
    return values


def test_scores_come_back_bit_by_bit_with_all_levels(tmp_path, score):
    path = tmp_path / "score.ome.tif"

    write(path, score)

    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert file.is_ome
        assert series.axes == "YX"
        assert [level.shape for level in series.levels] == [(1100, 1301), (550, 651), (275, 326)]
        found = series.asarray()
        assert found.dtype == np.float32
        assert found.tobytes() == score.tobytes()
        half = halved(score)
        np.testing.assert_array_equal(series.levels[1].asarray(), half)
        np.testing.assert_array_equal(series.levels[2].asarray(), halved(half))
        page = file.pages[0]
        assert len(file.pages) == 1  # the other levels are SubIFDs
        assert (page.tilewidth, page.tilelength) == (512, 512)
        assert len(page.pages) == 2
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
        assert 'PhysicalSizeY="0.5"' in file.ome_metadata
        assert page.tags["XResolution"].value == (20000, 1)  # per centimetre


def test_smaller_levels_are_coarser_by_their_factor(tmp_path, score):
    write(tmp_path / "a.ome.tif", score)

    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        found = [level.keyframe.tags["XResolution"].value for level in file.series[0].levels]

    assert [top / bottom for top, bottom in found] == [20000, 10000, 5000]


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_open_in_openslide(tmp_path, rng, channels):
    import openslide

    image = rng.integers(0, 256, (700, 900, channels)).astype(np.uint8)
    if channels == 4:
        image[..., 3] = 255
    path = tmp_path / "colour.ome.tif"

    write(path, image)

    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.series[0].asarray(), image)
        assert file.series[0].axes == "YXS"
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (900, 700)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        region = np.asarray(slide.read_region((500, 500), 0, (100, 100)))
        np.testing.assert_array_equal(region[..., :3], image[500:600, 500:600, :3])


def test_a_map_smaller_than_a_tile(tmp_path):
    image = np.full((3, 5), -1.5, np.float32)

    write(tmp_path / "a.ome.tif", image)

    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.ome.tif"), image)


def test_each_tile_is_asked_for_once_and_equal_input_gives_equal_bytes(tmp_path, score):
    asked = []

    def tile(left, top, width, height):
        asked.append((left, top))
        return score[top : top + height, left : left + width]

    facts = {"size": Size(1301, 1100), "dtype": "float32", "um_per_pixel": 0.25, "name": "a"}
    write_ome_tiff(tmp_path / "a.ome.tif", tile, **facts)

    assert asked == [(x, y) for y in (0, 512, 1024) for x in (0, 512, 1024)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.tif"]


@pytest.mark.parametrize(
    ("image", "change", "message"),
    [
        (np.zeros((9, 9)), {"dtype": "float32"}, "must be float32, got float64"),
        (np.zeros((9, 9), np.float32), {"size": Size(10, 9)}, "must be"),
        (np.zeros((9, 9, 2), np.uint8), {}, "3 or 4"),
        (np.zeros((9, 9), np.float32), {"um_per_pixel": float("nan")}, "um_per_pixel"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, image, change, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "a.ome.tif", image, **change)

    assert list(tmp_path.iterdir()) == []
