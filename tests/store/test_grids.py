"""Grids mean the same to CLAM, to TRIDENT and to us."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from xpath.errors import DataError, StoreError
from xpath.geometry import Size
from xpath.store.grids import read_grid, write_grid


def clam_footprint(path):
    """Level-0 side as CLAM's attributes define it."""
    with h5py.File(path) as file:
        attributes = file["coords"].attrs
        return attributes["patch_size"] * attributes["downsample"][0]


def trident_footprints(path):
    """Level-0 side as TRIDENT stores it, and as it derives it when it extracts features."""
    with h5py.File(path) as file:
        at = file["coords"].attrs
        derived = at["patch_size"] * at["level0_magnification"] / at["target_magnification"]
        return at["patch_size_level0"], derived


def same(a, b):
    names = ("footprint", "pixels", "mpp", "overlap", "slide_size", "slide_mpp")
    np.testing.assert_array_equal(a.coords, b.coords)
    return [getattr(a, name) for name in names] == [getattr(b, name) for name in names]


@pytest.mark.parametrize("changes", [{}, {"mpp": None, "slide_mpp": None}, {"overlap": 0}])
def test_round_trip(tmp_path, make_grid, changes):
    grid = make_grid(**changes)
    write_grid(tmp_path / "grid.h5", grid, "slide-1")

    assert same(read_grid(tmp_path / "grid.h5"), grid)


@pytest.mark.parametrize("slide_mpp", [0.1, 0.2501, 0.252, 0.499, 0.75, 2.6])
def test_both_toolkits_find_our_footprint(tmp_path, make_grid, slide_mpp):
    path, footprint = tmp_path / "grid.h5", round(128 / slide_mpp)
    write_grid(path, make_grid(footprint=footprint, slide_mpp=slide_mpp), "slide-1")

    assert clam_footprint(path) == footprint
    assert trident_footprints(path) == (footprint, footprint)


def test_patches_of_a_lower_level(tmp_path, make_grid):
    """256 px at a level that is 4.0002 times smaller: 1024 px, never cut down to 3 or 4 times."""
    path = tmp_path / "grid.h5"
    grid = make_grid(footprint=1024, pixels=256, slide_mpp=0.25, mpp=None, overlap=64)
    write_grid(path, grid, "s", patch_level=1, level_downsample=4.0002, level_size=Size(555, 741))

    with h5py.File(path) as file:
        attributes = dict(file["coords"].attrs)
    assert attributes["patch_size"] == 256
    assert attributes["patch_level"] == 1
    assert attributes["overlap"] == 16
    assert attributes["level_dim"].tolist() == [555, 741]
    assert clam_footprint(path) == pytest.approx(1024, abs=0.1)
    assert trident_footprints(path) == pytest.approx((1024, 1024), abs=0.1)
    assert same(read_grid(path), grid)


def test_every_attribute_the_toolkits_read_is_there(tmp_path, make_grid):
    write_grid(tmp_path / "grid.h5", make_grid(), "slide-1", provenance={"tissue": "otsu"})

    with h5py.File(tmp_path / "grid.h5") as file:
        coords, attributes = file["coords"], dict(file["coords"].attrs)
        assert file.attrs["provenance"] == '{"tissue": "otsu"}'
        assert coords.dtype == np.int64
    clam = "patch_size patch_level downsample downsampled_level_dim level_dim name save_path"
    trident = "patch_size_level0 level0_magnification target_magnification overlap name savetodir"
    ours = "mpp level0_mpp level0_width level0_height"
    assert set(f"{clam} {trident} {ours}".split()) <= set(attributes)
    assert attributes["level0_magnification"] == 20
    assert (attributes["level0_mpp"], attributes["mpp"]) == (0.499, 0.5)
    assert [attributes[name] for name in ("name", "save_path", "savetodir")] == [
        "slide-1",
        ".",
        ".",
    ]


def test_an_unknown_resolution_has_no_magnification(tmp_path, make_grid):
    write_grid(tmp_path / "grid.h5", make_grid(mpp=None, slide_mpp=None), "slide-1")

    with h5py.File(tmp_path / "grid.h5") as file:
        names = set(file["coords"].attrs)
    assert not names & {"mpp", "level0_mpp", "level0_magnification", "target_magnification"}
    assert clam_footprint(tmp_path / "grid.h5") == 257


@pytest.mark.parametrize(("level", "downsample"), [(0, 4.0), (1, 1.0), (1, 100.0)])
def test_contradictions_are_refused(tmp_path, make_grid, level, downsample):
    with pytest.raises(DataError, match="downsample"):
        write_grid(
            tmp_path / "g.h5", make_grid(), "s", patch_level=level, level_downsample=downsample
        )
    assert not list(tmp_path.iterdir())


def test_a_file_of_clam_is_not_ours(tmp_path):
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["coords"] = np.zeros((3, 2), np.int64)

    with pytest.raises(StoreError, match="not written by xpath"):
        read_grid(tmp_path / "clam.h5")
