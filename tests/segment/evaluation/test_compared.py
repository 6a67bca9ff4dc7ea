"""Several models on the same questions."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ttest_rel

from xpath.errors import ConfigError, DataError
from xpath.segment.evaluation.compared import (
    compare_by,
    model_trends,
    named_paths,
    read_compared,
    write_comparison,
)
from xpath.segment.evaluation.predictions import MaskFolder
from xpath.segment.evaluation.questions import Question
from xpath.segment.evaluation.trend_lines import TRAITS
from xpath.store.tables import write_table

LABELS = ("colon-tissue-gland", "breast-nuclei-lymphocyte")


def samples(path, dice, *, sources=("GlaS", "NuCLS"), first=0):
    """Two sources by turns, two images to a patient; an absent object at the end."""
    rows = [
        {
            "source": sources[n % 2], "image": f"/any/where/{n}.png", "group": f"p{n // 4}",
            "label": LABELS[n % 2], "present": True, "dice": float(value),
            **{trait.name: 0.1 + 0.8 * n / len(dice) for trait in TRAITS},
        }
        for n, value in enumerate(dice, start=first)
    ]  # fmt: skip
    gone = {**rows[0], "image": "absent.png", "present": False, "dice": 0.0}
    write_table(path, [*rows, gone])
    return path


@pytest.fixture
def dice(rng):
    return {
        "ours": rng.uniform(0.5, 1.0, 40),
        "a": rng.uniform(0.4, 0.9, 40),
        "b": rng.uniform(0.0, 0.5, 40),
    }


@pytest.fixture
def tables(dice, tmp_path):
    return {name: samples(tmp_path / f"{name}.csv", each) for name, each in dice.items()}


def test_means_ranks_and_the_test_are_scipys(tables, dice):
    rows = compare_by(read_compared(tables), "source")

    assert [row["source"] for row in rows] == ["GlaS", "NuCLS", "overall"]
    assert [row["n"] for row in rows] == [20, 20, 40]
    for row, part in zip(rows, (slice(0, None, 2), slice(1, None, 2), slice(None)), strict=True):
        means = {name: each[part].mean() for name, each in dice.items()}
        assert [row[name] for name in means] == pytest.approx(list(means.values()))
        assert (row["best"], row["second"], row["against"]) == ("ours", "a", "a")
        wanted = ttest_rel(dice["ours"][part], dice["a"][part], alternative="greater")
        assert row["p"] == pytest.approx(wanted.pvalue, rel=1e-12)
        assert row["t"] == pytest.approx(wanted.statistic, rel=1e-12)
        assert row["ours low"] < row["ours"] < row["ours high"]


@pytest.mark.parametrize(
    ("level", "names"),
    [
        ("region", ["breast", "colon"]),
        ("structure", ["nuclei", "tissue"]),
        ("object_type", ["gland", "lymphocyte"]),
        ("label", sorted(LABELS)),
    ],
)
def test_every_level_of_the_label_tree(tables, level, names):
    rows = compare_by(read_compared(tables), level)

    assert [row[level] for row in rows] == [*names, "overall"]


def test_a_model_against_its_own_file(tables):
    row = compare_by(read_compared({"ours": tables["ours"], "twin": tables["ours"]}), "source")[-1]

    assert (row["difference"], row["p"], row["best"], row["second"]) == (0, 0.5, "ours", "twin")
    assert (row["ours low"], row["ours high"]) == (row["twin low"], row["twin high"])


def test_a_model_of_one_source_is_compared_there(tables, dice, tmp_path, caplog):
    """It answered the first ten questions only, in both sources; in a row all stand on the same."""
    part = samples(tmp_path / "part.csv", dice["a"][:10])
    with caplog.at_level(logging.WARNING):
        compared = read_compared({"ours": tables["ours"], "part": part})

    overall = compare_by(compared, "source")[-1]

    assert overall["n"] == 10
    assert overall["ours"] == pytest.approx(dice["ours"][:10].mean())
    assert "part answered 10 of 40 questions" in caplog.text


def test_a_source_a_model_never_saw_is_empty_there(tables, dice, tmp_path):
    other = samples(tmp_path / "one.csv", dice["b"][::2], sources=("GlaS", "GlaS"))
    text = other.read_text().splitlines()
    header, body = text[0], [line for line in text[1:] if LABELS[0] in line]
    other.write_text("\n".join([header, *body]) + "\n")

    found = compare_by(read_compared({"ours": tables["ours"], "one": other}), "source")

    nucls = next(row for row in found if row["source"] == "NuCLS")
    assert (nucls["one"], nucls["against"], nucls["p"], nucls["n"]) == (None, "", None, 20)


def test_tables_and_trends_are_written(tables, tmp_path):
    compared = read_compared(tables)

    write_comparison(tmp_path / "out", compared)

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "compare_trends.csv", "compare_by_source.csv", "compare_by_region.csv",
        "compare_by_structure.csv", "compare_by_object_type.csv", "compare_by_label.csv",
        "compare_improvement.csv",
    }  # fmt: skip
    lines = model_trends(compared, "irregularity")
    assert list(lines) == ["ours", "a", "b"]
    assert [len(line.values) for line in lines.values()] == [40, 40, 40]


def test_wrong_files_are_named(tables, dice, tmp_path):
    far = samples(tmp_path / "far.csv", dice["a"], sources=("CRAG", "TNBC"))
    with pytest.raises(DataError, match=r"far: .*far\.csv.*such as GlaS / 0\.png.*CRAG / 0\.png"):
        read_compared({"ours": tables["ours"], "far": far})
    with pytest.raises(DataError, match="does not exist"):
        read_compared({"ours": tables["ours"], "none": tmp_path / "none.csv"})
    twice = tables["a"].read_text().splitlines()
    tables["a"].write_text("\n".join([*twice, twice[1]]) + "\n")
    with pytest.raises(DataError, match="twice"):
        read_compared(tables)
    for words in (["a"], ["=b"], ["a=b", "a=c"]):
        with pytest.raises(ConfigError):
            named_paths(words)


def question(tmp_path, name, label_mask=None):
    from xpath.labels import Label

    label = Label(*name.split("-", 2))
    return Question(
        image=tmp_path / "test" / "a.tif", mask=label_mask, source="s", group="g",
        prompt=label.prompt, label=label, nearest=None, trained=True,
    )  # fmt: skip


def test_label_maps_answer_by_value(tmp_path):
    """Two values of one label are united, a label that is not in the table is nowhere."""
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(np.array([[0, 1, 2], [3, 1, 0]], np.uint8)).save(masks / "a.png")
    (masks / "labels.csv").write_text(f"value,label\n1,{LABELS[0]}\n3,{LABELS[0]}\n")
    folder = MaskFolder(masks)

    gland = folder.mask(question(tmp_path, LABELS[0]), (2, 3))
    other = folder.mask(question(tmp_path, LABELS[1]), (2, 3))

    assert gland.tolist() == [[False, True, False], [True, True, False]]
    assert not other.any()


@pytest.mark.parametrize("value", ["1", "1.0"])
def test_values_of_labels_are_read_as_spreadsheets_write_them(tmp_path, value):
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(f"Value;Label\r\n{value};{LABELS[0]}\r\n")

    mask = MaskFolder(tmp_path).mask(question(tmp_path, LABELS[0]), (1, 2))
    assert mask.tolist() == [[False, True]]


@pytest.mark.parametrize("value", ["x", "", "1.5", "nan"])
def test_a_value_that_is_none_is_named(tmp_path, value):
    (tmp_path / "labels.csv").write_text(f"value,label\n{value},{LABELS[0]}\n")

    with pytest.raises(DataError, match=rf"labels\.csv: the value of .* got '{value}'"):
        MaskFolder(tmp_path)


def test_what_is_absent_needs_no_file_but_what_is_there_does(tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    folder = MaskFolder(masks)

    assert not folder.mask(question(tmp_path, LABELS[0]), (2, 3)).any()
    with pytest.raises(DataError, match=r"a_gland\.png does not exist"):
        folder.mask(question(tmp_path, LABELS[0], tmp_path / "a_gland.png"), (2, 3))
    with pytest.raises(DataError, match="no folder"):
        MaskFolder(tmp_path / "none")
