"""From sentences back to labels."""

from __future__ import annotations

import json

import pytest

from xpath.errors import DataError, LabelError
from xpath.labels import load_labels
from xpath.pathseg.sentences import guess_label, plain, read_mapping, template_label


def test_every_published_prompt_gives_its_label_back():
    for label in load_labels():
        assert template_label(label.prompt) == label.id
        assert template_label(f"  {label.prompt.upper().rstrip('.')}") == label.id


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("Tissue-level tumour in breast pathology.", "breast-tissue-tumor"),
        ("tissue level tumor in breast pathology", "breast-tissue-tumor"),
        ("nuclei-level  neoplastic in head+neck pathology..", "head neck-nuclei-neoplastic"),
        ("nuclei-level neoplastic in unspecified pathology.", "unspecified-nuclei-neoplastic"),
        ("cell-level goblet in colon pathology", "colon-cell-goblet"),
        (
            "tissue-level blood in blood vessel in lung pathology",
            "lung-tissue-blood in blood vessel",
        ),
        ("neoplastic cells in breast pathology", None),
        ("tissue-level tumor in breast", None),
        ("organ-level tumor in breast pathology.", None),
        ("", None),
    ],
)
def test_only_the_template_is_taken_at_its_word(sentence, label):
    assert template_label(sentence) == label


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("neoplastic cells in breast pathology", "breast-nuclei-neoplastic"),
        ("connective tissue cells in Liver pathology", "liver-nuclei-connective"),
        ("glandular structure in colon pathology image.", "colon-tissue-gland"),
        ("glandular structure in colon histopathology slide", "colon-tissue-gland"),
        ("tissue-level fat in breast pathology.", "breast-tissue-fat"),
        ("neoplastic cells in spleen pathology", None),
        ("liver in abdomen CT", None),
        ("tumor", None),
    ],
)
def test_free_words_are_guessed_or_left_alone(sentence, label):
    assert guess_label(sentence) == label


def test_a_table_may_be_json_or_csv(tmp_path):
    wanted = {"neoplastic cells": "breast-nuclei-neoplastic", "gland x": "colon-tissue-gland"}
    (tmp_path / "a.json").write_text(
        json.dumps({"Neoplastic+Cells.": "breast neoplastic nuclei", "gland_X": "colon gland"})
    )
    (tmp_path / "a.csv").write_text(
        "category,n,label\n neoplastic cells ,3,breast-nuclei-neoplastic\n\ngland x,1,colon gland\n"
    )
    spreadsheet = (
        'category;label\r\n"neoplastic\ncells";breast-nuclei-neoplastic\r\ngland x;colon gland'
    )
    (tmp_path / "c.csv").write_bytes(spreadsheet.encode("utf-16"))
    (tmp_path / "b.csv").write_text("sentence,id\nneoplastic cells,breast-nuclei-neoplastic\n")

    assert read_mapping(tmp_path / "a.json") == wanted
    assert read_mapping(tmp_path / "a.csv") == wanted
    assert read_mapping(tmp_path / "c.csv") == wanted
    assert list(read_mapping(tmp_path / "b.csv")) == ["neoplastic cells"]
    assert plain("A_b+C .") == "a b c"


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("a.json", "[1, 2]", DataError, "no table of labels"),
        ("a.json", "{", DataError, "no table of labels"),
        ("a.csv", "sentence\nx\n", DataError, "no table of labels"),
        ("a.csv", "", DataError, "no table of labels"),
        ("a.csv", "sentence,label\nx,breast-tissue\n", LabelError, "a.csv"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, name, text, error, said):
    (tmp_path / name).write_text(text)

    with pytest.raises(error, match=said):
        read_mapping(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        read_mapping(tmp_path / "none.csv")
