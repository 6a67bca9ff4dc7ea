"""masks.zarr: exact, sharded, complete or refused."""

from __future__ import annotations

import errno
import json
import shutil
import signal

import numpy as np
import pytest
import zarr

from xpath.errors import ConfigError, DataError, ShapeError, StoreError
from xpath.store import masks as module
from xpath.store.masks import MaskWriter, open_masks
from xpath.store.schema import sha256_of

LABELS = ("tumor", "stroma")
SIZE = 21  # not a multiple of 8


@pytest.fixture(autouse=True)
def _several_files(monkeypatch):
    """35 patches are three files, of 12, 12 and 11."""
    monkeypatch.setattr(module, "MOST_PATCHES", 16)


@pytest.fixture
def masks():
    """(35, 2, 21, 21). The second label is absent in half of the patches."""
    masks = np.random.default_rng(0).random((35, 2, SIZE, SIZE)) > 0.6
    masks[::2, 1] = False
    return masks


@pytest.fixture
def presence():
    return np.random.default_rng(1).random((35, 2)).astype(np.float32)


@pytest.fixture
def write(make_grid, masks, presence):
    def write(path, batch=8):
        facts = {"segmentor": "tiny", "prompts": "[]"}
        grid = make_grid(len(masks))
        with MaskWriter(path, grid=grid, labels=LABELS, size=SIZE, provenance=facts) as writer:
            for start in range(0, len(masks), batch):
                stop = start + batch
                writer.write(start, masks[start:stop], presence[start:stop])
        return path

    return write


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def test_round_trip(tmp_path, write, masks, presence, make_grid):
    opened = open_masks(write(tmp_path / "masks.zarr"))

    np.testing.assert_array_equal(opened.read(slice(None)), masks)
    np.testing.assert_array_equal(opened.presence, presence)
    np.testing.assert_array_equal(opened.area, masks.sum(axis=(2, 3)))
    np.testing.assert_array_equal(opened.grid.coords, make_grid(35).coords)
    assert opened.read(0).dtype == np.bool_
    assert (opened.labels, opened.size, len(opened)) == (LABELS, SIZE, 35)
    assert opened.provenance["segmentor"] == "tiny"


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        slice(3, 20),
        slice(30, 5, -4),
        slice(4, 4),
        np.array([20, 1, 1]),
        np.array([], np.int64),
    ],
)
def test_every_type_of_index_reads_as_numpy_does(tmp_path, write, masks, index):
    np.testing.assert_array_equal(open_masks(write(tmp_path / "m.zarr")).read(index), masks[index])


@pytest.mark.parametrize("index", [35, np.array([3, 99])])
def test_a_patch_that_is_not_there_is_an_index_error(tmp_path, write, index):
    with pytest.raises(IndexError):
        open_masks(write(tmp_path / "m.zarr")).read(index)


def test_layout_on_disk(tmp_path, write):
    """Bit-packed, one mask a chunk, patches in files of like size, zstd without shuffle."""
    path = write(tmp_path / "m.zarr")
    about = json.loads((path / "masks" / "zarr.json").read_text())
    sharding = about["codecs"][0]["configuration"]

    assert about["shape"] == [35, 2, 21, 3]
    assert about["chunk_grid"]["configuration"]["chunk_shape"] == [12, 2, 21, 3]
    assert sharding["chunk_shape"] == [1, 1, 21, 3]
    assert [codec["name"] for codec in sharding["codecs"]] == ["bytes", "zstd"]
    assert sharding["codecs"][1]["configuration"]["level"] == 3
    assert len([file for file in (path / "masks" / "c").rglob("*") if file.is_file()]) == 3
    assert json.loads((path / "zarr.json").read_text())["attributes"]["schema"] == "xpath.masks/1"


@pytest.mark.parametrize(
    ("patches", "size", "wanted"),
    [
        (35, 126, 35),  # a small slide is one file
        (256, 126, 256),
        (257, 126, 129),  # two files of like size
        (15_000, 21 * 256 * 32, 255),  # 59 files
        (15_000, 21 * 512 * 64, 195),  # 77 files of 134 MB at most
        (15_000, 1 << 30, 1),
    ],
)
def test_files_are_few_and_bounded(patches, size, wanted, monkeypatch):
    monkeypatch.setattr(module, "MOST_PATCHES", 256)

    assert module._patches_per_file(patches, size) == wanted
    assert wanted == 1 or wanted * size <= 128 * 2**20


def test_a_file_is_bounded_by_bytes_too(tmp_path, write, masks, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 5 * 2 * 21 * 3 + 1)

    path = write(tmp_path / "m.zarr", batch=8)

    assert len(list((path / "masks" / "c").glob("*/0/0/0"))) == 7
    np.testing.assert_array_equal(open_masks(path).read(slice(None)), masks)


def test_files_of_earlier_versions_are_read_as_they_are(tmp_path, write, masks, monkeypatch):
    """Those held 16 patches, whatever the slide."""
    with monkeypatch.context() as earlier:
        earlier.setattr(module, "_patches_per_file", lambda *_: 16)
        path = write(tmp_path / "m.zarr")
    monkeypatch.setattr(module, "MOST_PATCHES", 256)

    opened = open_masks(path)

    assert sorted(file.name for file in (path / "masks" / "c").iterdir()) == ["0", "1", "2"]
    np.testing.assert_array_equal(opened.read(slice(None)), masks)
    np.testing.assert_array_equal(opened.read(33), masks[33])
    (path / "masks/c/2/0/0/0").unlink()
    with pytest.raises(StoreError, match="lacks masks/c/2"):
        open_masks(path)


def test_the_batch_size_leaves_no_trace(tmp_path, write):
    first = contents(write(tmp_path / "a.zarr", batch=8))

    assert contents(write(tmp_path / "b.zarr", batch=8)) == first
    assert contents(write(tmp_path / "c.zarr", batch=1)) == first
    assert contents(write(tmp_path / "d.zarr", batch=35)) == first


def test_no_shard_is_written_twice(tmp_path, write, monkeypatch):
    from zarr.storage import LocalStore

    written = []
    real = LocalStore.set

    async def watched(self, key, *rest):
        written.append(key)
        return await real(self, key, *rest)

    monkeypatch.setattr(LocalStore, "set", watched)
    write(tmp_path / "m.zarr", batch=5)

    shards = [key for key in written if "masks/c/" in key]
    assert len(shards) == len(set(shards)) == 3


def test_truncation_of_any_file_is_never_accepted(tmp_path, write):
    whole = write(tmp_path / "whole.zarr")
    broken = tmp_path / "broken.zarr"

    for name in contents(whole):
        content = (whole / name).read_bytes()
        for size in sorted({0, len(content) // 2, len(content) - 1}):
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(whole, broken)
            (broken / name).write_bytes(content[:size])
            with pytest.raises(StoreError, match=r"broken\.zarr"):
                open_masks(broken).read(slice(None))


def test_a_file_that_is_gone_is_never_taken_for_empty_masks(tmp_path, write):
    whole = write(tmp_path / "whole.zarr")
    broken = tmp_path / "broken.zarr"

    for name in contents(whole):
        shutil.copytree(whole, broken)
        (broken / name).unlink()
        with pytest.raises(StoreError, match=r"broken\.zarr"):
            open_masks(broken)
        shutil.rmtree(broken)


def test_masks_without_a_single_pixel_are_files_all_the_same(tmp_path, make_grid):
    """Zarr leaves empty chunks out by default, and then an empty one looks like a lost file."""
    path, empty = tmp_path / "m.zarr", np.zeros((17, 1, SIZE, SIZE), np.bool_)
    with MaskWriter(path, grid=make_grid(17), labels="a", size=SIZE, provenance={}) as writer:
        writer.write(0, empty, np.zeros((17, 1), np.float32))

    np.testing.assert_array_equal(open_masks(path).read(slice(None)), empty)


def test_what_a_newer_version_added_is_named(tmp_path, write, caplog):
    path = write(tmp_path / "m.zarr")
    assert len(open_masks(path)) == 35 and not caplog.records
    group = zarr.open_group(path, mode="r+")
    group.create_array("boxes", data=np.zeros(3))
    group.attrs["scanner"] = "x"

    assert len(open_masks(path)) == 35
    assert "m.zarr has boxes, scanner of a newer version" in caplog.text


def test_a_flipped_bit_is_detected(tmp_path, write):
    path = write(tmp_path / "m.zarr")
    shard = path / "masks/c/1/0/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 8
    shard.write_bytes(content)

    opened = open_masks(path)
    opened.read(slice(0, 12))  # the first shard is whole
    with pytest.raises(StoreError, match="damaged"):
        opened.read(slice(12, 24))


def test_exchanged_shards_are_detected(tmp_path, write):
    path = write(tmp_path / "m.zarr")
    shutil.copy(path / "masks/c/0/0/0/0", path / "masks/c/1/0/0/0")

    with pytest.raises(StoreError, match="areas"):
        open_masks(path).read(17)


def test_files_of_other_programs_are_refused(tmp_path, write):
    import zarr

    with pytest.raises(StoreError, match="no folder of masks"):
        open_masks(tmp_path / "nothing.zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w", zarr_format=3)
    with pytest.raises(StoreError, match="not written by xpath"):
        open_masks(tmp_path / "foreign.zarr")
    path = write(tmp_path / "m.zarr")
    about = path / "zarr.json"
    about.write_text(about.read_text().replace("xpath.masks/1", "xpath.masks/7"))
    with pytest.raises(StoreError, match="masks/7"):
        open_masks(path)


def test_an_incomplete_writer_leaves_nothing(tmp_path, make_grid, masks, presence):
    path = tmp_path / "m.zarr"
    settings = {"grid": make_grid(35), "labels": LABELS, "size": SIZE, "provenance": {}}

    with pytest.raises(DataError, match="only 20 of 35"), MaskWriter(path, **settings) as writer:
        writer.write(0, masks[:20], presence[:20])
    with pytest.raises(KeyboardInterrupt), MaskWriter(path, **settings) as writer:
        writer.write(0, masks[:20], presence[:20])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_wrong_input_is_refused(tmp_path, make_grid, masks, presence):
    path = tmp_path / "m.zarr"
    settings = {"grid": make_grid(35), "labels": LABELS, "size": SIZE, "provenance": {}}
    two, score = masks[:2], presence[:2]

    for start, given, scores, error, words in [
        (1, two, score, DataError, "in order, 0 is next"),
        (0, two[:, :, :20], score, ShapeError, "masks"),
        (0, two, score[:1], ShapeError, "presence"),
        (0, two.astype(np.float32), score, DataError, "threshold"),
        (0, two, score * np.nan, DataError, "NaN"),
        (
            0,
            masks[np.arange(36) % 35],
            presence[np.arange(36) % 35],
            DataError,
            "of 35, got 0 to 36",
        ),
    ]:
        with pytest.raises(error, match=words), MaskWriter(path, **settings) as writer:
            writer.write(start, given, scores)
    for changes in [{"grid": make_grid(0)}, {"labels": ()}, {"size": 0}, {"labels": ("a", "a")}]:
        with pytest.raises(DataError):
            MaskWriter(path, **(settings | changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reduce", [2, 4])
def test_reduced_masks_keep_what_is_in_by_half(tmp_path, make_grid, rng, reduce):
    masks = rng.random((20, 2, 24, 24)) > 0.5
    settings = {"grid": make_grid(20), "labels": LABELS, "size": 24, "provenance": {}}
    path = tmp_path / "m.zarr"
    with MaskWriter(path, **settings, reduce=reduce) as writer:
        writer.write(0, masks, np.ones((20, 2), np.float32))

    opened = open_masks(path)

    side = 24 // reduce
    shares = masks.reshape(20, 2, side, reduce, side, reduce).mean(axis=(3, 5))
    assert (shares == 0.5).any()  # a tie is in
    np.testing.assert_array_equal(opened.read(slice(None)), shares >= 0.5)
    np.testing.assert_array_equal(opened.area, (shares >= 0.5).sum(axis=(2, 3)))
    assert (opened.reduce, opened.size) == (reduce, side)
    assert json.loads((path / "zarr.json").read_text())["attributes"]["reduce"] == reduce


@pytest.mark.parametrize(("size", "reduce"), [(SIZE, 2), (24, 3), (24, 0), (24, 8), (30, 4)])
def test_reductions_that_do_not_divide_are_refused(tmp_path, make_grid, size, reduce):
    with pytest.raises(ConfigError, match=f"reduced by {reduce}"):
        MaskWriter(
            tmp_path / "m.zarr",
            grid=make_grid(1),
            labels="a",
            size=size,
            provenance={},
            reduce=reduce,
        )


def test_files_from_before_there_were_reductions_are_full(tmp_path, write, masks):
    path = write(tmp_path / "m.zarr")
    about = json.loads((path / "zarr.json").read_text())
    assert about["attributes"].pop("reduce") == 1
    (path / "zarr.json").write_text(json.dumps(about))

    opened = open_masks(path)

    assert opened.reduce == 1
    np.testing.assert_array_equal(opened.read(slice(None)), masks)


def test_a_reduction_no_one_knows_is_refused(tmp_path, write):
    path = write(tmp_path / "m.zarr")
    about = json.loads((path / "zarr.json").read_text())
    about["attributes"]["reduce"] = 7
    (path / "zarr.json").write_text(json.dumps(about))

    with pytest.raises(StoreError, match="contradicts itself"):
        open_masks(path)


@pytest.mark.parametrize(
    ("full", "words"),
    [
        ("masks/c/1/0/0/0", r"12 of 35 patches were, the rest needs 0\.0 MB at most"),
        ("presence/c/0/0", "35 of 35 patches were"),
    ],
)
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, write, monkeypatch, full, words):
    from zarr.storage import LocalStore

    real = LocalStore.set

    async def set_until_full(self, key, *rest):
        if key == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await real(self, key, *rest)

    monkeypatch.setattr(LocalStore, "set", set_until_full)

    with pytest.raises(StoreError, match=f"disk is full; .*m.zarr was not written: {words}"):
        write(tmp_path / "m.zarr")
    assert not list(tmp_path.iterdir())


def test_another_trouble_of_the_disk_is_not_taken_for_a_full_one(tmp_path, write, monkeypatch):
    from zarr.storage import LocalStore

    async def refuse(self, key, *rest):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(LocalStore, "set", refuse)

    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "m.zarr")
    assert not list(tmp_path.iterdir())


KILLED = """
from pathlib import Path
import numpy as np
from xpath.geometry import PatchGrid, Size
from xpath.store import masks
masks.MOST_PATCHES = 16
grid = PatchGrid(coords=np.zeros((40, 2), np.int64), footprint=8, pixels=8, mpp=0.5, overlap=0,
                 slide_size=Size(8, 8), slide_mpp=0.5)
with masks.MaskWriter(Path(sys.argv[1]), grid=grid, labels=["a"], size=8, provenance={}) as writer:
    for start in range(0, 40, 10):
        writer.write(start, np.ones((10, 1, 8, 8), bool), np.ones((10, 1), np.float32))
        if start == 20:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_is_no_folder_and_is_swept(tmp_path, write, python):
    path = tmp_path / "masks.zarr"
    done = python(KILLED, path)

    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.iterdir()
    assert any(left.rglob("masks/c/0/0/0/0")), "it was killed too early to prove anything"
    with pytest.raises(StoreError):
        open_masks(path)

    write(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [SIZE, 24])
def test_packed_masks_are_written_as_they_are(tmp_path, make_grid, rng, size):
    masks = rng.random((20, 2, size, size)) > 0.5
    settings = {"grid": make_grid(20), "labels": LABELS, "size": size, "provenance": {}}
    with MaskWriter(tmp_path / "m.zarr", **settings) as writer:
        for start in (0, 7):
            stop = min(start + 13, 7 if not start else 20)
            bits = np.packbits(masks[start:stop], axis=-1)
            writer.write_packed(start, bits, np.ones((stop - start, 2), np.float32))

    opened = open_masks(tmp_path / "m.zarr")

    np.testing.assert_array_equal(opened.read(slice(None)), masks)
    np.testing.assert_array_equal(opened.area, masks.sum(axis=(2, 3)))


def test_bits_beyond_the_border_are_refused(tmp_path, make_grid):
    """They would be counted as pixels."""
    settings = {"grid": make_grid(1), "labels": "a", "size": 12, "provenance": {}}
    bits = np.zeros((1, 1, 12, 2), np.uint8)
    for wrong in (bits + np.uint8(8), bits.astype(np.int64)):
        with (
            pytest.raises(DataError, match="zeros beyond the last pixel"),
            MaskWriter(tmp_path / "m.zarr", **settings) as writer,
        ):
            writer.write_packed(0, wrong, np.ones((1, 1), np.float32))
