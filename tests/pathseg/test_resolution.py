"""Resolutions that data sets tell, and those given for data sets that do not."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from xpath.errors import ConfigError, DataError
from xpath.pathseg.biomedparse_data import read_biomedparse
from xpath.pathseg.biomedparse_writer import PromptedImage, write_biomedparse
from xpath.pathseg.collection import collect
from xpath.pathseg.record import Annotated, LabelMask
from xpath.pathseg.resolution import Resolutions

TUMOR = "breast-tissue-tumor"


@pytest.fixture
def folder(tmp_path, rng):
    """Two images, the first at 0.38 microns per pixel, the second without a resolution."""
    mask = LabelMask(TUMOR, np.ones((6, 8), bool))
    image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    item = Annotated(image, (mask,), None)
    items = [PromptedImage("a", "breast", item, 0.38), PromptedImage("b", "breast", item)]
    for split in ("train", "test"):
        write_biomedparse(tmp_path / "mine", split, items)
    return tmp_path / "mine"


def changed(folder, **entry):
    """The second image of the test split with another entry in the index."""
    index = json.loads((folder / "test.json").read_text())
    index["images"][1] |= entry
    (folder / "test.json").write_text(json.dumps(index))
    return folder


def test_it_is_written_and_read_back(folder):
    assert [item.mpp for item in read_biomedparse(folder, "test")] == [0.38, None]


def test_a_folder_built_before_has_it_from_the_window(folder):
    """The entry is 6 x 8 px and the window was 3 x 16 px at 40x."""
    items = read_biomedparse(changed(folder, window=[0, 0, 0, 0, 3, 16]), "test")

    assert items[1].mpp == 0.25


@pytest.mark.parametrize("mpp", [0, -1, "0.25", float("nan")])
def test_no_resolution_is_refused_by_name(folder, mpp):
    with pytest.raises(DataError, match="annotation 1: mpp is"):
        read_biomedparse(changed(folder, mpp=mpp), "test")


def test_what_the_data_set_says_goes_before_what_is_given(folder, caplog):
    items = read_biomedparse(folder, "test")

    given = Resolutions.parse(["mine=0.5", "1.0"])

    assert [i.mpp for i in given.fill(items, "mine", otherwise="are lost")] == [0.38, 0.5]
    assert [i.mpp for i in given.fill(items, "yours", otherwise="are lost")] == [0.38, 1.0]
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert [i.mpp for i in Resolutions().fill(items, "mine", otherwise="are lost")] == [
            0.38,
            None,
        ]
    assert "mine: 1 images say nothing of their resolution and are lost" in caplog.text


def test_training_takes_images_at_their_own_resolution(folder):
    known = collect(folder.parent, mpp=Resolutions.parse(["mine=0.5"]))
    unknown = collect(folder.parent)

    assert [image.mpp for image in known.train] == [0.38, 0.5]
    assert [image.mpp for image in unknown.held_out] == [0.38, 0.25]


@pytest.mark.parametrize("text", ["a", "mine=", "mine=0", "-1", "nan"])
def test_words_that_are_no_resolution_are_refused(text):
    with pytest.raises(ConfigError, match="--mpp"):
        Resolutions.parse([text])
