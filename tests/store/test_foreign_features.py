"""Files as CLAM, TRIDENT, STAMP and wsidata write them, made here by their published layout."""

import os
import re
import signal
import subprocess
import threading

import h5py
import numpy as np
import pytest
import torch
import zarr

from xpath.errors import DataError, ShapeError, StoreError
from xpath.store import trial
from xpath.store.features import SlideFeatures, write_features
from xpath.store.foreign_features import find_feature_files, read_patch_features
from xpath.testing.masks import grid_at

FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)
COORDS = np.array([[0, 0], [1024, 0], [0, 2048]])


def write_h5(path, attrs=None, **datasets):
    """A dataset is an array, or an array with its attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(attrs or {})
        for name, content in datasets.items():
            array, about = content if isinstance(content, tuple) else (content, {})
            file.create_dataset(name, data=array).attrs.update(about)
    return path


def trident(path, features=FEATURES):
    about = {"patch_size": 512, "patch_size_level0": 1024, "level0_magnification": 40}
    return write_h5(
        path, features=(features, {"encoder": "conch_v15", "name": "s"}), coords=(COORDS, about)
    )


def wsidata(path, tables=("uni_tiles",)):
    root = zarr.create_group(path)
    root.attrs["tile_spec"] = {"tiles": {"height": 256, "width": 256, "base_downsample": 4.0}}
    for name in (*tables, "cells_features", "agg_slide"):
        group = root.create_group(f"tables/{name}")
        group.attrs["region"] = "cells" if name == "cells_features" else "tiles"
        group.create_array("X", data=FEATURES * (1 + len(name)))
    return path


def test_clam_h5(tmp_path):
    path = write_h5(tmp_path / "s 1.h5", features=FEATURES, coords=COORDS.astype(np.int32))

    found = read_patch_features(path)

    assert (found.slide_id, found.layout, found.encoder) == ("s 1", "clam", "")
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.coords, COORDS)
    assert (found.unit, found.side) == ("level0", None)


def test_clam_h5_without_coordinates_and_with_an_axis_too_many(tmp_path):
    bare = read_patch_features(write_h5(tmp_path / "a.h5", features=FEATURES))
    wrapped = write_h5(tmp_path / "b.h5", features=FEATURES[None], coords=COORDS[None])

    assert bare.coords is None
    np.testing.assert_array_equal(read_patch_features(wrapped).features, FEATURES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_clam_pt(tmp_path, dtype):
    torch.save(torch.from_numpy(FEATURES).to(dtype), tmp_path / "s1.pt")

    found = read_patch_features(tmp_path / "s1.pt")

    assert (found.slide_id, found.layout, found.coords) == ("s1", "clam", None)
    np.testing.assert_array_equal(found.features, FEATURES)


def test_a_pt_that_could_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"features": Trap()}, tmp_path / "s1.pt")
    torch.save({"features": torch.zeros(2, 3)}, tmp_path / "s2.pt")
    (tmp_path / "s3.pt").write_bytes(b"not a tensor")

    with pytest.raises(StoreError, match=r"s1.pt.*run code"):
        read_patch_features(tmp_path / "s1.pt")
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(StoreError, match=r"holds a dict.*one tensor"):
        read_patch_features(tmp_path / "s2.pt")
    with pytest.raises(StoreError, match=r"s3\.pt"):
        read_patch_features(tmp_path / "s3.pt")


def test_trident(tmp_path):
    found = read_patch_features(trident(tmp_path / "s1.h5"))

    assert (found.layout, found.encoder, found.side) == ("trident", "conch_v15", 1024.0)
    assert found.unit == "level0"
    np.testing.assert_array_equal(found.coords, COORDS)


def test_stamp_of_today(tmp_path):
    about = {"extractor": "virchow2", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224}
    path = write_h5(tmp_path / "s1.h5", about, feats=FEATURES.astype(np.float16), coords=COORDS / 4)

    found = read_patch_features(path)

    assert (found.layout, found.encoder, found.side) == ("stamp", "virchow2", 256.0)
    assert found.unit == "um"
    np.testing.assert_array_equal(found.coords, COORDS / 4)
    assert found.features.dtype == np.float16


def test_early_stamp_counts_in_pixels_of_which_224_are_256_microns(tmp_path):
    coords = np.array([[0, 0], [224, 0], [448, 224]])
    told = write_h5(tmp_path / "a.h5", {"tile_size": 224}, feats=FEATURES, coords=coords)
    guessed = write_h5(tmp_path / "b.h5", feats=FEATURES, coords=coords)
    micron = {"tile_size": 300.0, "unit": "um"}
    v2 = write_h5(tmp_path / "c.h5", micron, feats=FEATURES, coords=coords)
    odd = write_h5(tmp_path / "d.h5", feats=FEATURES, coords=coords * 2)
    bare = write_h5(tmp_path / "e.h5", patch_embeddings=FEATURES)

    for path in (told, guessed):
        found = read_patch_features(path)
        assert found.side == 256.0
        np.testing.assert_allclose(found.coords, [[0, 0], [256, 0], [512, 256]])
    assert read_patch_features(v2).side == 300.0
    np.testing.assert_array_equal(read_patch_features(v2).coords, coords)
    assert read_patch_features(odd).coords is None
    assert read_patch_features(bare).coords is None


def test_wsidata(tmp_path):
    found = read_patch_features(wsidata(tmp_path / "s1.zarr"))

    assert (found.slide_id, found.layout, found.encoder) == ("s1", "wsidata", "uni")
    assert found.side == 1024.0
    np.testing.assert_array_equal(found.features, FEATURES * 10)


def test_wsidata_of_several_encoders_asks_which(tmp_path):
    path = wsidata(tmp_path / "s1.zarr", ("uni_tiles", "resnet50_tiles"))

    with pytest.raises(DataError, match=r"table=.*resnet50_tiles.*uni_tiles"):
        read_patch_features(path)
    assert read_patch_features(path, table="resnet50_tiles").encoder == "resnet50"
    with pytest.raises(StoreError, match=r"no table 'cells_features'"):
        read_patch_features(path, table="cells_features")
    with pytest.raises(StoreError, match="no table of tile features; it has agg"):
        read_patch_features(wsidata(tmp_path / "s2.zarr", ()))


def test_our_own_files_are_read_too(tmp_path):
    slide = SlideFeatures(
        slide_id="s1",
        grid=grid_at(COORDS, 1024, pixels=224),
        features=FEATURES,
        object_features=np.zeros((3, 1, 4), np.float16),
        object_coverage=np.zeros((3, 1), np.float32),
        objects=("other",),
        provenance={"encoder": "segmentor"},
    )
    write_features(tmp_path / "s1.h5", slide)

    found = read_patch_features(tmp_path / "s1.h5")

    assert (found.layout, found.encoder, found.side) == ("xpath", "segmentor", 1024.0)
    np.testing.assert_array_equal(found.features, FEATURES)


def test_features_that_cannot_train_are_refused_by_name(tmp_path):
    bad = FEATURES.copy()
    bad[1, 2] = np.nan
    with pytest.raises(DataError, match=r"slide nan have NaN.*patch 1 and 0 others"):
        read_patch_features(write_h5(tmp_path / "nan.h5", features=bad))
    for shape in ((0, 4), (0,)):
        with pytest.raises(DataError, match=r"slide empty has no patches"):
            read_patch_features(write_h5(tmp_path / "empty.h5", features=np.zeros(shape)))
    with pytest.raises(ShapeError, match=r"\(N, D\).*slide features"):
        read_patch_features(write_h5(tmp_path / "slide.h5", features=FEATURES[0]))
    with pytest.raises(DataError, match="floating"):
        read_patch_features(write_h5(tmp_path / "int.h5", features=FEATURES.astype(int)))
    with pytest.raises(ShapeError, match="do not belong together"):
        read_patch_features(write_h5(tmp_path / "two.h5", features=FEATURES, coords=COORDS[:2]))


def test_files_that_are_none_of_these_are_refused_by_name(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        read_patch_features(tmp_path / "missing.h5")
    with pytest.raises(StoreError, match=r"holds \['coords'\].*extract"):
        read_patch_features(write_h5(tmp_path / "coords.h5", coords=COORDS))
    whole = trident(tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"half.h5 is truncated"):
        read_patch_features(tmp_path / "half.h5")
    (tmp_path / "s.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="known suffixes"):
        read_patch_features(tmp_path / "s.npy")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(StoreError, match=r"empty\.zarr is no zarr store"):
        read_patch_features(tmp_path / "empty.zarr")


def test_the_folders_of_clam_and_trident_are_found(tmp_path):
    clam, job = tmp_path / "clam", tmp_path / "job"
    for name in ("b", "a"):
        write_h5(clam / "h5_files" / f"{name}.h5", features=FEATURES)
    (clam / "pt_files").mkdir()
    for name in ("a", "c"):
        torch.save(torch.zeros(1, 2), clam / "pt_files" / f"{name}.pt")
    features = job / "20x_512px_0px_overlap" / "features_uni"
    trident(features / "s1.h5")
    (features / "s1.h5.lock").write_text("{}")

    assert [str(path.relative_to(clam)) for path in find_feature_files(clam).values()] == [
        "h5_files/a.h5",
        "h5_files/b.h5",
        "pt_files/c.pt",
    ]
    assert list(find_feature_files(clam / "pt_files")) == ["a", "c"]
    for folder in (job, features, features.parent):
        assert list(find_feature_files(folder).values()) == [features / "s1.h5"]
    trident(features.with_name("features_conch") / "s1.h5")
    with pytest.raises(DataError, match=r"several encoders.*features_conch"):
        find_feature_files(job)


def test_a_folder_without_features_is_refused(tmp_path):
    with pytest.raises(DataError, match="no feature files"):
        find_feature_files(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        find_feature_files(tmp_path / "missing")


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
@pytest.mark.parametrize("type_", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "longdouble"])
def test_all_shapes_and_byte_orders_are_read_alike(tmp_path, shape, type_):
    values = FEATURES.reshape(shape)
    paths = [write_h5(tmp_path / "a.h5", features=values.astype(type_))]
    if type_.startswith("<"):
        torch.save(torch.from_numpy(values.astype(type_)), tmp_path / "a.pt")
        paths.append(tmp_path / "a.pt")

    for path in paths:
        features = read_patch_features(path).features
        np.testing.assert_array_equal(features, FEATURES)
        assert torch.from_numpy(features).shape == (3, 4)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 4).to_sparse(),
        torch.zeros(3, 4, dtype=torch.int32),
        torch.zeros(3, 4, dtype=torch.complex64),
        torch.zeros(3, 4, device="meta"),
        torch.zeros(1, 1).expand(1 << 20, 1 << 20),
        [torch.zeros(3, 4)],
    ],
)
def test_tensors_that_are_no_features_are_refused_by_name(tmp_path, tensor):
    torch.save(tensor, tmp_path / "odd.pt")

    with pytest.raises((StoreError, DataError), match="odd"):
        read_patch_features(tmp_path / "odd.pt")


def test_narrow_floats_are_widened(tmp_path):
    for type_ in (torch.bfloat16, torch.float8_e4m3fn):
        torch.save(torch.ones(3, 4).to(type_), tmp_path / "a.pt")

        np.testing.assert_array_equal(read_patch_features(tmp_path / "a.pt").features, 1.0)


@pytest.mark.parametrize("name", ["a.pt", "a.h5"])
@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + b"\xff" * 99]
)
def test_scraps_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(StoreError, match=re.escape(name)):
        read_patch_features(tmp_path / name)


def test_links_to_files_that_are_gone_are_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = h5py.ExternalLink("gone.h5", "/features")

    with pytest.raises(StoreError, match=r"a\.h5"):
        read_patch_features(tmp_path / "a.h5")


def test_a_file_that_unpacks_to_more_than_it_can_hold_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("features", (1 << 30, 1024), "f4", chunks=(1024, 1024))

    with pytest.raises(StoreError, match=r"bomb\.h5 has .* bytes and claims"):
        read_patch_features(tmp_path / "bomb.h5")


def test_the_subfolders_of_stamp_are_searched_and_one_name_is_one_slide(tmp_path):
    for name in ("uuid-1/a.svs.h5", "uuid-2/b.h5", "c.ome.h5"):
        write_h5(tmp_path / name, feats=FEATURES, coords=COORDS)

    files = find_feature_files(tmp_path)

    assert {name: str(path.relative_to(tmp_path)) for name, path in files.items()} == {
        "a": "uuid-1/a.svs.h5", "b": "uuid-2/b.h5", "c": "c.ome.h5"
    }  # fmt: skip
    assert read_patch_features(files["a"]).slide_id == "a"
    write_h5(tmp_path / "other" / "b.h5", feats=FEATURES)
    with pytest.raises(DataError, match="both features of 'b'"):
        find_feature_files(tmp_path)


def test_links_to_folders_are_followed_once(tmp_path):
    write_h5(tmp_path / "a.h5", feats=FEATURES)
    for name in ("loop", "again"):  # each in the other, without end
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)

    assert list(find_feature_files(tmp_path)) == ["a"]


@pytest.mark.parametrize("suffix", [".H5", ".hdf5", ".HDF5"])
def test_suffixes_of_hdf5_are_spelt_in_many_ways(tmp_path, suffix):
    path = write_h5(tmp_path / f"a{suffix}", feats=FEATURES)

    assert find_feature_files(tmp_path) == {"a": path}
    np.testing.assert_array_equal(read_patch_features(path).features, FEATURES)


def test_a_tensor_that_is_a_view_is_read(tmp_path):
    torch.save(torch.tensor(FEATURES).neg()._neg_view(), tmp_path / "a.pt")

    np.testing.assert_array_equal(read_patch_features(tmp_path / "a.pt").features, FEATURES)


def test_a_store_of_others_is_never_to_be_removed(tmp_path):
    import zarr

    path = wsidata(tmp_path / "s1.zarr")
    zarr.open_group(path, mode="a")["tables"].create_group("odd_tiles").attrs["region"] = "tiles"

    assert read_patch_features(path).encoder == "uni", "a table without X is none of features"


@pytest.mark.parametrize("ending", ["time.sleep(60)", "os.abort()"])
def test_a_file_that_holds_up_or_ends_its_reader_is_refused_and_the_next_is_read(
    tmp_path, monkeypatch, ending
):
    """The child is a made one: it stalls or aborts at files called bad, as HDF5 may."""
    child = (
        "import sys, time, os\nfor line in sys.stdin:\n"
        f"    'bad' in line and {ending}\n    print('looked', flush=True)"
    )
    popen = subprocess.Popen
    monkeypatch.setattr(trial, "SECONDS", 1.0)
    monkeypatch.setattr(
        trial.subprocess, "Popen", lambda command, **how: popen([command[0], "-c", child], **how)
    )
    trial._close()
    for name in ("bad", "good"):
        write_h5(tmp_path / f"{name}.h5", features=FEATURES)

    with pytest.raises(StoreError, match=r"bad\.h5 ended the process .* or held it up for 1 s"):
        read_patch_features(tmp_path / "bad.h5")
    monkeypatch.setattr(trial, "SECONDS", 60.0)  # another child begins, on a busy machine perhaps
    assert len(read_patch_features(tmp_path / "good.h5").features) == 3
    trial._close()


@pytest.fixture
def slow_child(monkeypatch):
    """In place of the child a made one: slow at files called slow, stuck at those called bad."""
    child = (
        "import sys, time\nfor line in sys.stdin:\n"
        "    time.sleep(60 if 'bad' in line else 5 if 'slow' in line else 0)\n"
        "    print('looked', flush=True)"
    )
    popen = subprocess.Popen
    trial._close()
    with monkeypatch.context() as patch:
        patch.setattr(
            trial.subprocess,
            "Popen",
            lambda command, **how: popen([command[0], "-c", child], **how),
        )
        yield
    trial._close()


@pytest.mark.usefixtures("slow_child")
def test_after_ctrl_c_a_file_does_not_get_the_answer_to_the_one_before(tmp_path, monkeypatch):
    """The child is slow, so that its answer comes when nobody waits for it any more."""
    monkeypatch.setattr(trial, "SECONDS", 60.0)
    trial.try_h5(tmp_path / "first.h5")  # the child is there
    ctrl_c = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        trial.try_h5(tmp_path / "slow.h5")

    monkeypatch.setattr(trial, "SECONDS", 8.0)
    with pytest.raises(StoreError, match=r"bad\.h5 ended the process"):
        trial.try_h5(tmp_path / "bad.h5")


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        ({"features/x": FEATURES}, "an empty array or a group"),
        ({"features": h5py.Empty("f4")}, "an empty array or a group"),
        ({"features": FEATURES, "coords/x": COORDS}, "an empty array or a group"),
        ({"features": FEATURES.astype("f8") * 1e39}, "beyond 3e38"),
        ({"features": np.stack((FEATURES, FEATURES))}, r"must be \(N, D\).*\(2, 3, 4\)"),
        ({"features": FEATURES.astype(complex)}, "floating, got complex"),
        ({"features": FEATURES > 0}, "floating, got bool"),
    ],
)
def test_files_that_are_whole_are_never_called_damaged(tmp_path, datasets, words):
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        for name, content in datasets.items():
            file[name] = content

    with pytest.raises((StoreError, DataError), match=words) as refused:
        read_patch_features(tmp_path / "odd.h5")

    assert "odd" in str(refused.value) and "damaged" not in str(refused.value)


def test_folders_and_files_of_the_wrong_form_are_named(tmp_path):
    (tmp_path / "a.h5").mkdir()
    (tmp_path / "a.zarr").touch()

    for name in ("a.h5", "a.zarr"):
        with pytest.raises(StoreError, match=rf"{name} is a f.* of features is a f\w+$"):
            read_patch_features(tmp_path / name)


def test_what_torch_says_comes_in_a_line_without_colours(tmp_path):
    torch.save(np.ones((3, 4)), tmp_path / "a.pt")

    with pytest.raises(StoreError, match="not loaded because they can run code") as refused:
        read_patch_features(tmp_path / "a.pt")

    assert str(refused.value).isprintable()


@pytest.mark.parametrize("side", ["256um", "", float("nan"), 0.0, -1.0, [256, 256], None])
def test_a_size_nobody_can_read_is_none_and_costs_no_features(tmp_path, side):
    about = {} if side is None else {"tile_size_um": side}
    stamp = write_h5(tmp_path / "a.h5", {"unit": "um", **about}, feats=FEATURES, coords=COORDS)
    about = {} if side is None else {"patch_size_level0": side}
    other = write_h5(tmp_path / "b.h5", features=FEATURES, coords=(COORDS, about))
    store = wsidata(tmp_path / "c.zarr")
    zarr.open_group(store, mode="a").attrs["tile_spec"] = [] if side is None else {"tiles": {}}

    for path in (stamp, other, store):
        found = read_patch_features(path)
        assert found.side is None and len(found.features) == 3


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_whose_copy_was_not_finished_is_refused(tmp_path, zarr_format):
    """Parts that are missing are read as zeros."""
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=zarr_format)
    group = root.create_group("tables/uni_tiles")
    group.attrs["region"] = "tiles"
    group.create_array("X", data=np.ones((5, 4), np.float32), chunks=(2, 4))
    assert read_patch_features(tmp_path / "a.zarr").features.all()

    last = sorted(
        path for path in (tmp_path / "a.zarr/tables/uni_tiles/X").rglob("*")
        if path.is_file() and not path.name.startswith((".z", "zarr"))
    )[-1]  # fmt: skip
    last.unlink()

    with pytest.raises(StoreError, match=r"a\.zarr has 2 of 3 parts of .*X.*copied or written"):
        read_patch_features(tmp_path / "a.zarr")


@pytest.mark.parametrize("chunks", [(2, 4), None])
def test_a_file_whose_writer_was_killed_is_refused(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        features = file.create_dataset("features", (5, 4), np.float32, chunks=chunks)
        if chunks:
            features[:3] = 1
    named = "2 of 3" if chunks else "0 of 1"

    with pytest.raises(StoreError, match=rf"a\.h5 has {named} parts of /features"):
        read_patch_features(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["features"][:] = 0

    assert not read_patch_features(tmp_path / "a.h5").features.any()  # zeros that were written


def test_stores_of_other_forms_are_named(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=FEATURES)
    zarr.create_group(tmp_path / "b.zarr").create_array("features", data=FEATURES)
    (tmp_path / "c.zarr").mkdir()

    with pytest.raises(StoreError, match=r"a\.zarr is an array \(3, 4\), wanted a store"):
        read_patch_features(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"b\.zarr .* it has no tables, but \['features'\]"):
        read_patch_features(tmp_path / "b.zarr")
    with pytest.raises(StoreError, match=r"c\.zarr is no zarr store"):
        read_patch_features(tmp_path / "c.zarr")


def test_a_side_written_as_an_array_is_one(tmp_path):
    path = write_h5(
        tmp_path / "a.h5", features=FEATURES, coords=(COORDS, {"patch_size_level0": [512]})
    )

    assert read_patch_features(path).side == 512
