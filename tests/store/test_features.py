"""features.h5: the same bytes every time, damage refused, readable elsewhere."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import h5py
import numpy as np
import pytest

from xpath.errors import DataError, ShapeError, StoreError
from xpath.store.features import SlideFeatures, read_features, write_features

ARRAYS = ("features", "object_features", "object_coverage")


@pytest.fixture
def path(tmp_path, make_features):
    write_features(tmp_path / "features.h5", make_features())
    return tmp_path / "features.h5"


def test_round_trip(path, make_features):
    wanted, read = make_features(), read_features(path)

    for name in ARRAYS:
        array = getattr(read, name)
        np.testing.assert_array_equal(array, getattr(wanted, name))
        assert array.dtype == getattr(wanted, name).dtype
    np.testing.assert_array_equal(read.grid.coords, wanted.grid.coords)
    assert read.grid.footprint == 257
    facts = ("slide_id", "objects", "provenance")
    assert [getattr(read, it) for it in facts] == [getattr(wanted, it) for it in facts]


def test_equal_input_gives_equal_bytes(path, make_features):
    first = path.read_bytes()
    time.sleep(1.1)  # HDF5 counts time in seconds
    write_features(path, make_features())

    assert path.read_bytes() == first


def test_what_a_newer_version_added_is_named(path, make_features, caplog):
    with h5py.File(path, "r+") as file:
        file["neighbours"], file.attrs["scanner"] = [1, 2], "x"

    assert read_features(path).slide_id == make_features().slide_id
    assert "features.h5 has neighbours, scanner of a newer version" in caplog.text


def test_other_tools_find_what_they_read(path, make_features):
    """CLAM reads features and coords, TRIDENT their attributes, old libraries the old format."""
    with h5py.File(path) as file:
        assert file["features"].dtype == np.float32
        assert file["features"].shape == (5, 4)
        assert file["features"].attrs["encoder"] == "tiny"
        assert file["features"].attrs["name"] == "slide-1"
        coords = file["coords"]
        assert coords.attrs["patch_size"] * coords.attrs["downsample"][0] == 257
        assert coords.attrs["patch_size_level0"] == 257
        np.testing.assert_array_equal(coords[()], make_features().grid.coords)
    assert path.read_bytes()[8] == 0, "superblock version 0, which every HDF5 library reads"


def test_no_path_of_this_machine_is_kept(path):
    content = path.read_bytes()

    assert str(path.parent).encode() not in content
    assert os.fsencode(os.uname().nodename) not in content


def test_chunks_are_a_megabyte_or_more(tmp_path, make_features):
    write_features(tmp_path / "f.h5", make_features(count=1500, objects=("a",), dim=256))

    with h5py.File(tmp_path / "f.h5") as file:
        assert file["features"].chunks == (1024, 256)  # 1024 rows of 1 KiB
        assert file["object_features"].chunks == (1500, 1, 256)  # less than 2048 rows of 512 B


def test_truncation_is_never_accepted(path):
    whole = path.read_bytes()

    for size in [*range(0, 100, 9), *range(100, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match="truncated") as caught:
            read_features(path)
        assert str(path) in str(caught.value)
        assert "make it again" in str(caught.value)


def test_files_of_other_programs_are_refused(path, tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        read_features(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("not at all HDF5" * 100)
    with pytest.raises(StoreError, match="no HDF5 file"):
        read_features(tmp_path / "text.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = "xpath.features/2"
    with pytest.raises(StoreError, match="features/2"):
        read_features(path)


@pytest.mark.parametrize("name", ["coords", *ARRAYS])
def test_missing_and_short_datasets_are_refused(path, name):
    with h5py.File(path, "r+") as file:
        array = file[name][()]
        attributes = dict(file[name].attrs)
        del file[name]
    with pytest.raises(StoreError, match=r"damaged.*make it again"):
        read_features(path)
    with h5py.File(path, "r+") as file:
        file[name] = array[:-1]
        file[name].attrs.update(attributes)
    with pytest.raises(StoreError, match=r"damaged.*make it again"):
        read_features(path)


@pytest.mark.parametrize("name", ["slide_id", "objects", "provenance"])
def test_missing_facts_are_refused(path, name):
    with h5py.File(path, "r+") as file:
        del file.attrs[name]

    with pytest.raises(StoreError, match=name):
        read_features(path)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_name_slide_and_patch(make_features, name, value):
    slide = make_features()
    array = getattr(slide, name).copy()
    array[3] = value

    with pytest.raises(DataError, match=rf"{name} of slide slide-1 .* patch 3 and 0 others"):
        dataclasses.replace(slide, **{name: array})


def test_overflow_of_half_precision_is_refused(make_features):
    slide = make_features()
    array = slide.object_features.astype(np.float32)
    array[2, 1, 0] = 70_000.0

    with pytest.raises(DataError, match="beyond 65504 in patch 2"):
        dataclasses.replace(slide, object_features=array)
    array[2, 1, 0] = 65_504.0
    kept = dataclasses.replace(slide, object_features=array).object_features
    assert kept.dtype == np.float16
    assert kept[2, 1, 0] == 65_504


def test_arrays_must_belong_together(make_features):
    slide = make_features()

    with pytest.raises(ShapeError, match="object_coverage"):
        dataclasses.replace(slide, object_coverage=slide.object_coverage[:, :2])
    with pytest.raises(ShapeError, match="features"):
        dataclasses.replace(slide, features=slide.features[:4])
    with pytest.raises(DataError, match="0 to 1"):
        dataclasses.replace(slide, object_coverage=slide.object_coverage + 1)
    with pytest.raises(DataError, match="no patches"):
        make_features(count=0)
    assert isinstance(slide, SlideFeatures)


KILLED = """
from pathlib import Path
import numpy as np
from xpath.store.hdf5 import create_h5
import xpath.store.schema as schema
path, moment = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "sync":
    schema.os.fsync = die
else:
    Path.replace = die
with create_h5(path, schema.FEATURES) as file:
    file["features"] = np.zeros((100, 100))
"""


@pytest.mark.parametrize("moment", ["sync", "move"])
def test_a_killed_write_is_no_file(tmp_path, python, moment):
    path = tmp_path / "features.h5"
    done = python(KILLED, path, moment)

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [entry.suffix for entry in tmp_path.iterdir()] == [".part"]
    with pytest.raises(StoreError):
        read_features(path)


def test_a_full_disk_leaves_nothing(tmp_path, make_features, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(StoreError, match=r"disk is full.*features\.h5"):
        write_features(tmp_path / "features.h5", make_features())
    assert not list(tmp_path.iterdir())
