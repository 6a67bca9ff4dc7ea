"""A first run decodes a slide once, and writes what two passes write."""

from collections import Counter
from dataclasses import replace

import pytest

from xpath.batch.selection import Selection, Shard
from xpath.errors import DataError
from xpath.segment.predict.patch_features import SegmentorEncoder
from xpath.store.tables import read_table
from xpath.study.chain import Batch, features_stage, run_chain, segment_stage
from xpath.study.study import new_study, open_study
from xpath.wsi.slide import Slide

pytestmark = pytest.mark.integration


@pytest.fixture
def reads(monkeypatch):
    """How often each region of a level, as it is stored, was decoded."""
    read, region = Counter(), Slide._region

    def spy(slide, index, columns, rows):
        read[slide.path.name, index, columns, rows] += 1
        return region(slide, index, columns, rows)

    monkeypatch.setattr(Slide, "_region", spy)
    return read


@pytest.fixture
def opened(monkeypatch):
    """How often each slide was opened."""
    count, open_ = Counter(), Slide.open.__func__

    def spy(cls, path, **options):
        count[path.name] += 1
        return open_(cls, path, **options)

    monkeypatch.setattr(Slide, "open", classmethod(spy))
    return count


def with_objects(config, **changes):
    return replace(config, objects=replace(config.objects, **changes))


CHANGES = {
    "blended": {},
    "patch by patch": {"overlap": 0},
    "as in the paper": {"competition": "independent", "overlap": 0},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_every_region_is_read_once(tmp_path, small, slides, files_of, reads, opened, changes):
    config, some = with_objects(small, **changes), slides[:2]
    once = new_study(tmp_path / "once", config, some)
    assert segment_stage(once, features=True).ok
    assert features_stage(once).ok
    assert set(reads.values()) == {1}
    assert set(opened.values()) == {1}
    assert len(opened) == len(some)

    twice = new_study(tmp_path / "twice", config, some)
    assert segment_stage(twice).ok
    assert features_stage(twice).ok
    assert files_of(once.folder.root) == files_of(twice.folder.root)
    assert {name.rpartition("/")[2] for name in files_of(once.folder.slide(some[0].slide_id))} > {
        "features.h5",
        "objects.h5",
    }
    rows = read_table(once.folder.ledger)
    assert [(row["stage"], row["attempts"]) for row in rows] == [
        (stage, "1") for stage in ("segment", "features") for _ in some
    ]


def test_other_features_read_again(tmp_path, small, slides, reads):
    study = new_study(tmp_path / "run", small, slides[:1])
    assert segment_stage(study, features=True).ok
    masks = study.folder.masks(slides[0].slide_id)
    about = (masks / "zarr.json").stat()

    reads.clear()
    other = new_study(tmp_path / "run", with_objects(small, rim_um=0.0), slides[:1])
    assert segment_stage(other, features=True).ok
    assert features_stage(other).ok
    assert set(reads.values()) == {1}
    assert (masks / "zarr.json").stat() == about


def test_features_that_fail_are_the_slide_s_failure_once(tmp_path, small, slides, monkeypatch):
    study, seen = new_study(tmp_path / "run", small, slides), []
    maps = SegmentorEncoder.maps

    def failing(encoder, images):
        seen.append(len(images))
        if len(seen) == 1:
            raise DataError("these pixels are refused")
        return maps(encoder, images)

    monkeypatch.setattr(SegmentorEncoder, "maps", failing)
    batch = Batch(selection=Selection(shard=Shard(0, 3)))
    assert not run_chain(study, title="two of six slides", batch=batch)

    rows = {(row["slide_id"], row["stage"]): row for row in read_table(study.folder.ledger)}
    failed = rows[slides[0].slide_id, "features"]
    assert (failed["status"], failed["attempts"]) == ("failed", "1")
    assert "these pixels are refused" in failed["reason"]
    assert rows[slides[0].slide_id, "segment"]["status"] == "done"
    assert rows[slides[3].slide_id, "features"]["status"] == "done"
    again = features_stage(open_study(study.folder.root), slides[:1])
    assert again.ok, "the next command tries again"


def test_ctrl_c_in_the_features_keeps_the_masks(
    tmp_path, small, slides, monkeypatch, files_of, reads
):
    some = slides[:1]
    study = new_study(tmp_path / "run", small, some)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SegmentorEncoder, "maps", interrupted)
        segment_stage(study, features=True)
    assert study.ledger.entry(some[0].slide_id, "segment").status == "done"
    about = (study.folder.masks(some[0].slide_id) / "zarr.json").stat()
    reads.clear()

    assert segment_stage(study, features=True).ok
    assert features_stage(study).ok
    assert set(reads.values()) == {1}
    assert (study.folder.masks(some[0].slide_id) / "zarr.json").stat() == about
    undisturbed = new_study(tmp_path / "undisturbed", small, some)
    assert segment_stage(undisturbed, features=True).ok
    assert files_of(study.folder.root) == files_of(undisturbed.folder.root)
