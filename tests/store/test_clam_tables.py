import pytest

from xpath.errors import DataError
from xpath.store.clam_tables import read_clam_split, write_clam_split


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

    splits = {"a": "train", "b": "test", "c": "train", "d": "validation"}
    write_clam_split(tmp_path / "splits_0.csv", splits)

    assert read_clam_split(tmp_path / "splits_0.csv") == splits
    table = pd.read_csv(tmp_path / "splits_0.csv", dtype=str)
    assert table["val"].dropna().tolist() == ["d"]
    assert list(table.columns[1:]) == ["train", "val", "test"]


def test_tables_that_cannot_be_used_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(",train,val,test\n0,a,a,\n")
    with pytest.raises(DataError, match=r"twice: \['a'\]"):
        read_clam_split(path)
    path.write_text("slide_id,label\na,b\n")
    with pytest.raises(DataError, match="needs the columns"):
        read_clam_split(path)
    path.write_text(",train,val,test\na,False,False,False\n")
    with pytest.raises(DataError, match="no slide in any split"):
        read_clam_split(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_clam_split(tmp_path / "missing.csv")


def test_names_and_gaps_are_those_of_every_table(tmp_path):
    """As pandas, R and the feature folders of others write them."""
    path = tmp_path / "splits_0.csv"
    path.write_text(
        "\ufeff;train;val;test\n0;a.svs;C:\\x\\c.h5;e.ome.tif\n1;b;NA;\n2;nan;None;<NA>\n"
    )

    assert read_clam_split(path) == {"a": "train", "b": "train", "c": "validation", "e": "test"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",train,Train,val,test\n0,a,b,c,d\n", "several columns named train"),
        (",train,val,test\n0,a.svs,a.h5,\n", r"twice: \['a'\]"),
        ("PK\x03\x04", "workbook of Excel"),
        (",train,val,test\n0,a,b,c,d,e\n", "6 cells"),
    ],
)
def test_wrong_splits_are_refused_as_other_tables_are(tmp_path, text, words):
    path = tmp_path / "splits_0.csv"
    path.write_text(text)

    with pytest.raises(DataError, match=words):
        read_clam_split(path)
