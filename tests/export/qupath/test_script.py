"""The script names its file and measurement safely, and keeps zero in the middle."""

from __future__ import annotations

import pytest

from xpath.errors import DataError
from xpath.export.qupath.script import write_qupath_script


def test_marks_are_filled_and_colours_run_from_against_to_for(tmp_path):
    path = tmp_path / "open_in_qupath.groovy"

    write_qupath_script(path, geojson="objects.geojson", measurement="contribution: LUAD")

    text = path.read_text()
    assert "@" not in text
    assert "def fileName = 'objects.geojson'" in text
    assert "def measurement = 'contribution: LUAD'" in text
    assert "def signed = true" in text
    assert "def red = [0.1294, 0.9686, 0.6980] as double[]" in text  # 33, 247, 178 of 255
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")


def test_names_cannot_end_their_string(tmp_path):
    path = tmp_path / "a.groovy"

    write_qupath_script(
        path, geojson="it's $here.geojson", measurement="a\\'; exit(1) //\n", signed=False
    )

    text = path.read_text()
    assert r"def fileName = 'it\'s $here.geojson'" in text  # single quotes: $ is only a sign
    assert r"def measurement = 'a\\\'; exit(1) // '" in text
    assert "def signed = false" in text


@pytest.mark.parametrize("name", ["", "a/b.geojson", "..\\b.geojson"])
def test_a_folder_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="without its folder"):
        write_qupath_script(tmp_path / "a.groovy", geojson=name)
