"""Outputs appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal

import pytest

from xpath.errors import StoreError
from xpath.store.schema import atomic, check_schema, damage_refused, sha256_of


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a.txt"

    with atomic(path) as draft:
        draft.write_text("whole")
        assert draft.parent == path.parent
        assert not path.exists()

    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(ZeroDivisionError), atomic(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", ["file", "folder", "none"])
def test_a_folder_replaces_whatever_was_there(tmp_path, old):
    path = tmp_path / "masks.zarr"
    if old == "file":
        path.write_text("x")
    elif old == "folder":
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "stale").write_text("x")

    with atomic(path) as draft:
        (draft / "deep").mkdir(parents=True)
        (draft / "deep" / "fresh").write_text("y")

    assert [p.name for p in path.rglob("*")] == ["deep", "fresh"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_move_brings_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("x")
    replace = type(path).replace

    def fails_for_drafts(self, target):
        if self.name.endswith(".part"):
            raise OSError(errno.EIO, "no")
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", fails_for_drafts)
    with pytest.raises(OSError, match="no"), atomic(path) as draft:
        draft.mkdir()

    assert (path / "old").read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_file(tmp_path, number):
    path = tmp_path / "features.h5"

    with pytest.raises(StoreError, match=re.escape(str(path))) as caught, atomic(path) as draft:
        draft.write_text("half")
        raise OSError(number, os.strerror(number))

    assert "free some space" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_system_pass_unchanged(tmp_path):
    with pytest.raises(PermissionError), atomic(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "not yours")


KILLED = """
from pathlib import Path
from xpath.store.schema import atomic
path = Path(sys.argv[1])
real = Path.replace
def replace(self, target):
    if self.suffix == ".part":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
with atomic(path) as draft:
    draft.mkdir()
    (draft / "new").write_text("new")
"""


def test_drafts_of_killed_processes_are_swept(tmp_path, python):
    path = tmp_path / "out"
    done = python(KILLED, path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert left[0].name.startswith(".out.")

    with atomic(path) as draft:
        draft.write_text("mine")

    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_between_the_two_moves_loses_nothing(tmp_path, python):
    """The old folder is out of the way, the new one not in place: the old one comes back."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    python(KILLED, path)  # when the draft is to be moved; the old one has been moved by then
    assert not path.exists()

    with pytest.raises(ZeroDivisionError), atomic(path):
        raise ZeroDivisionError

    assert (path / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_drafts_of_living_processes_and_of_other_files_stay(tmp_path):
    with atomic(tmp_path / "out") as draft:
        draft.write_text("first")
        (tmp_path / ".out.part").write_text("a stranger's")
        with atomic(tmp_path / "out") as other:
            other.write_text("second")
        assert draft.read_text() == "first"

    assert (tmp_path / "out").read_text() == "first"
    assert (tmp_path / ".out.part").exists()


def test_schemas_are_refused_by_name(tmp_path):
    check_schema(tmp_path, "xpath.masks/1", "xpath.masks/1")
    for found, advice in {
        None: "not written by xpath",
        "xpath.masks/2": "version of xpath",
        "xpath.grid/1": "another type of file",
    }.items():
        with pytest.raises(StoreError, match=advice) as caught:
            check_schema(tmp_path, found, "xpath.masks/1")
        assert str(tmp_path) in str(caught.value)


def test_damage_names_the_file_and_keeps_our_own_errors(tmp_path):
    with pytest.raises(StoreError, match="KeyError") as caught, damage_refused(tmp_path / "a.h5"):
        raise KeyError("coords")
    assert "a.h5" in str(caught.value)
    with pytest.raises(StoreError, match=r"^precise$"), damage_refused(tmp_path):
        raise StoreError("precise")


def test_sha256_of_a_file_longer_than_a_block(tmp_path):
    content = os.urandom((1 << 20) + 3)
    (tmp_path / "a").write_bytes(content)

    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_the_modules_import_neither_h5py_nor_zarr(python):
    code = (
        "import xpath.store.schema, xpath.store.features, xpath.store.masks, xpath.batch.runner\n"
        "print({'h5py', 'zarr', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = python(code)

    assert done.stdout.strip() == "set()", done.stderr


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "mine.svs").touch()

    with pytest.raises(StoreError, match="is a folder"), atomic(tmp_path / "slides") as draft:
        draft.write_text("patches")

    assert [path.name for path in tmp_path.rglob("*")] == ["slides", "mine.svs"]


def test_a_path_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()

    with (
        pytest.raises(StoreError, match=r"no folder.*another place"),
        atomic(tmp_path / "file" / "a"),
    ):
        pass


def test_a_draft_that_only_its_owner_may_read_is_opened_as_its_folder_is(tmp_path):
    """As safetensors writes them; a folder of one's own stays one's own."""
    for mode, wanted in ((0o755, 0o644), (0o700, 0o600)):
        home = tmp_path / oct(mode)
        home.mkdir(mode=mode)
        home.chmod(mode)

        with atomic(home / "model.safetensors") as draft:
            draft.write_bytes(b"x")
            draft.chmod(0o600)

        assert (home / "model.safetensors").stat().st_mode & 0o777 == wanted
