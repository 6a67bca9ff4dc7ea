import pytest

from xpath.errors import DataError
from xpath.store.clam_tables import read_clam_dataset, read_clam_split, write_clam_split


def test_dataset(tmp_path):
    path = tmp_path / "tumor.csv"
    path.write_text("case_id,slide_id,label,grade\np1,001,IDC,2\np1,002, ILC,3\np2,003,,1\n")

    slides = read_clam_dataset(path)

    assert slides == [("p1", "001", "IDC"), ("p1", "002", "ILC")]
    assert [slide.label for slide in read_clam_dataset(path, label_column="grade")] == list("231")


def test_split_with_padding(tmp_path):
    path = tmp_path / "splits_0.csv"
    path.write_text(",train,val,test\n0,a,c,d\n1,b,,e\n2,007,,\n")

    assert read_clam_split(path) == {
        "a": "train",
        "b": "train",
        "007": "train",
        "c": "validation",
        "d": "test",
        "e": "test",
    }


def test_split_of_booleans(tmp_path):
    path = tmp_path / "splits_0_bool.csv"
    path.write_text(",train,val,test\na,True,False,False\nb,False,True,False\nc,False,False,True\n")

    assert read_clam_split(path) == {"a": "train", "b": "validation", "c": "test"}


def test_a_split_comes_back_and_pandas_reads_it_as_clam_does(tmp_path):
    import pandas as pd

    parts = {"a": "train", "b": "test", "c": "train", "d": "validation"}
    write_clam_split(tmp_path / "splits_0.csv", parts)

    assert read_clam_split(tmp_path / "splits_0.csv") == parts
    table = pd.read_csv(tmp_path / "splits_0.csv", dtype=str)
    assert table["val"].dropna().tolist() == ["d"]
    assert list(table.columns[1:]) == ["train", "val", "test"]


def test_tables_that_cannot_be_used_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("case_id,slide_id,label\np1,a,IDC\np2,a,ILC\n")
    with pytest.raises(DataError, match=r"twice: \['a'\]"):
        read_clam_dataset(path)
    with pytest.raises(DataError, match="needs the columns"):
        read_clam_dataset(path, label_column="type")
    path.write_text("case_id,slide_id,label\np1,a,\n")
    with pytest.raises(DataError, match="no slide with"):
        read_clam_dataset(path)
    path.write_text(",train,val,test\n0,a,a,\n")
    with pytest.raises(DataError, match=r"twice: \['a'\]"):
        read_clam_split(path)
    path.write_text("slide_id,label\na,b\n")
    with pytest.raises(DataError, match="needs the columns"):
        read_clam_split(path)
    path.write_text(",train,val,test\na,False,False,False\n")
    with pytest.raises(DataError, match="no slide in any part"):
        read_clam_split(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_clam_split(tmp_path / "missing.csv")
