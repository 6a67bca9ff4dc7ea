"""Cohorts of feature files: one bad file is left out by name, and tables mean what they say."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import zarr

from xpath.errors import DataError
from xpath.mil.classifier import ClassifierConfig
from xpath.mil.cohort import CohortConfig, find_slides, not_in_cohort, read_cohort, split_cohort
from xpath.mil.cohort_training import ModelTask, is_trained, train_model
from xpath.mil.splits import SplitConfig
from xpath.mil.training import TrainConfig


@pytest.fixture
def labels(tmp_path):
    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def features(tmp_path):
    """A folder of ``a.pt`` to ``h.pt`` with 3 patches of 4 features."""
    folder = tmp_path / "features"
    folder.mkdir()
    for name in "abcdefgh":
        torch.save(torch.ones(3, 4), folder / f"{name}.pt")
    return folder


TWO = CohortConfig(classifier=ClassifierConfig(models=("attention",)))
TABLE = "slide_id,label\n" + "".join(f"{name},{'xy'[i % 2]}\n" for i, name in enumerate("abcdefgh"))


def read(folder, table):
    return read_cohort(find_slides(folder, table)[0], TWO)


def damage_empty(folder):
    (folder / "b.pt").write_bytes(b"")


def damage_sparse(folder):
    torch.save(torch.ones(3, 4).to_sparse(), folder / "b.pt")


def damage_link(folder):
    (folder / "b.pt").unlink()
    with h5py.File(folder / "b.h5", "w") as file:
        file["features"] = h5py.ExternalLink("gone.h5", "/x")


def damage_width(folder):
    torch.save(torch.ones(3, 5), folder / "b.pt")


def damage_nan(folder):
    torch.save(torch.full((3, 4), torch.nan), folder / "b.pt")


@pytest.mark.parametrize(
    "damage", [damage_empty, damage_sparse, damage_link, damage_width, damage_nan]
)
def test_what_one_file_raises_is_its_own_failure(features, labels, damage):
    damage(features)

    cohort = read(features, labels(TABLE))

    assert [slide.slide_id for slide in cohort.slides] == list("acdefgh")
    assert len(cohort.left_out) == 1
    assert cohort.left_out[0].startswith("b: ")


def test_big_endian_files_are_read(features, labels):
    (features / "b.pt").unlink()
    with h5py.File(features / "b.h5", "w") as file:
        file["features"] = np.ones((3, 4), ">f4")

    assert len(read(features, labels(TABLE)).slides) == 8


def test_two_halves_of_other_widths_are_refused_with_their_slides(features, labels):
    for name in "efgh":
        torch.save(torch.ones(3, 5), features / f"{name}.pt")

    with pytest.raises(DataError, match=r"4 of .* 4 features, such as a; 4 of .* 5 features.* e;"):
        read(features, labels(TABLE))


def test_names_with_suffixes_and_gaps(features, labels):
    table = labels("slide_id,label,patient\na.svs,x,NA\nb.h5,y,NA\nc,NA,p\nd,nan,p\n1.0,x,p\n")

    slides, lost = find_slides(features, table)

    assert [(slide.slide_id, slide.label, slide.patient) for slide in slides] == [
        ("a", "x", "a"),
        ("b", "y", "b"),
    ]
    assert len(lost) == 1 and lost[0].startswith("1.0: no feature file")


def test_sites_come_from_their_column(features, labels):
    rows = [f"{name},{'xy'[i % 2]},{'rst'[i // 2 % 3]}\n" for i, name in enumerate("abcdefgh")]
    cohort = read(features, labels("slide_id,label,site\n" + "".join(rows)))

    splits = split_cohort(cohort, SplitConfig(folds=3, by="site"))

    for split in splits:
        tested = {cohort.slides[i].site for i in split.test}
        trained = {cohort.slides[i].site for i in split.train}
        assert tested and not tested & trained


def test_a_split_that_names_what_is_not_there_says_which(features, labels, tmp_path):
    cohort = read(features, labels(TABLE))
    table = tmp_path / "splits_0.csv"
    table.write_text(",train,val,test\n0,a.svs,c,e.h5\n1,b,d,zz\n2,NA,,f\n")
    config = SplitConfig(table=str(table))

    (split,) = split_cohort(cohort, config)

    assert [part.tolist() for part in split] == [[0, 1], [2, 3], [4, 5]]
    (absent,) = not_in_cohort(cohort, config)
    assert absent.startswith("zz: named by")


def test_a_rare_class_is_named_as_the_table_names_it(features, labels):
    table = labels("slide_id,label\na,IDC\nb,IDC\nc,IDC\nd,ILC\ne,ILC\nf,ILC\ng,rare\n")

    with pytest.raises(DataError, match=r"'rare': 1.*leave out the classes \['rare'\]"):
        split_cohort(read(features, table), SplitConfig())


def test_names_that_are_nearly_those_of_files_are_told(features, labels, tmp_path):
    slides, lost = find_slides(features, labels("slide_id,label\nA,x\nb,y\nc,x\nzz,y\n"))

    assert [slide.slide_id for slide in slides] == ["b", "c"]
    assert lost[0].endswith("nearly the same are 'A' and 'a': spell them alike if they are one")
    assert "nearly the same" not in lost[1]
    with pytest.raises(DataError, match=r"no labelled slide.*nearly the same are 'A' and 'a', 'B'"):
        find_slides(features, labels("slide_id,label\nA,x\nB,y\n"))
    table = tmp_path / "splits_0.csv"
    table.write_text(",train,val,test\n0,A,c,e\n1,b,d,zz\n")
    cohort = read(features, labels(TABLE))

    first, second = not_in_cohort(cohort, SplitConfig(table=str(table)))

    assert "nearly the same are 'A' and 'a'" in first and "nearly the same" not in second


def test_slides_without_a_patient_are_each_their_own_in_the_split(features, labels):
    """Not one patient called NA: of 40 slides 8 are tested."""
    names = [f"s{number:02}" for number in range(40)]
    for name in names:
        torch.save(torch.ones(3, 4), features / f"{name}.pt")
    rows = "".join(
        f"{name},{'xy'[i % 2]},{'NA' if i % 4 < 2 else f'p{i}'}\n" for i, name in enumerate(names)
    )

    (split,) = split_cohort(
        read(features, labels(f"slide_id,label,patient\n{rows}")), SplitConfig()
    )

    assert len(split.test) == 8


def test_a_class_that_would_not_be_trained_is_named(features, labels):
    table = "slide_id,label,patient\na,IDC,p\nb,IDC,q\nc,IDC,r\nd,IDC,s\ne,rare,t\nf,rare,t\n"

    with pytest.raises(DataError, match="class rare would be missing"):
        split_cohort(read(features, labels(table)), SplitConfig(folds=4))


@pytest.mark.parametrize(("rows", "told"), [(1, True), (3, False)])
def test_features_of_slides_are_told_from_those_of_patches(features, labels, caplog, rows, told):
    for name in "abcdefgh":
        torch.save(torch.ones(rows, 4), features / f"{name}.pt")

    read(features, labels(TABLE))

    assert ("8 of 8 slides have a single patch" in caplog.text) == told


def test_feature_files_without_a_label_are_told(features, labels, caplog):
    slides, lost = find_slides(features, labels("slide_id,label\na,x\nb,y\nc,\n"))

    assert ([slide.slide_id for slide in slides], lost) == (["a", "b"], [])
    assert "1 of 3 slides have no label" in caplog.text
    assert "6 of 8 feature files are of slides without a label: c, d, e, f, g, h" in caplog.text


def test_another_table_of_the_same_stores_trains_other_models(tmp_path, labels):
    for name in "abcdefgh":
        root = zarr.create_group(tmp_path / "stores" / f"{name}.zarr")
        root.attrs["tile_spec"] = {"tiles": {"height": 256, "width": 256, "base_downsample": 1.0}}
        for number, table in enumerate(("uni_tiles", "gigapath_tiles")):
            group = root.create_group(f"tables/{table}")
            group.attrs["region"] = "tiles"
            group.create_array("X", data=np.full((3, 4), number + ord(name) / 100, np.float32))
    slides, _ = find_slides(tmp_path / "stores", labels(TABLE))
    one = replace(
        TWO,
        table="uni_tiles",
        classifier=ClassifierConfig(models=("attention",), train=TrainConfig(epochs=1)),
    )
    task = ModelTask("attention", 0, 0, tmp_path / "models" / "attention")
    trained = []
    for config in (one, one, replace(one, table="gigapath_tiles")):
        cohort = read_cohort(slides, config)
        (split,) = split_cohort(cohort, config.split)
        trained.append(is_trained(cohort, task, split, config))
        train_model(cohort, task, split, config)

    assert trained == [False, True, False]
