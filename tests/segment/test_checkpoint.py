import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from xpath.errors import CheckpointError
from xpath.segment.biomedparse import rename_biomedparse
from xpath.segment.checkpoint import load_segmentor, save_segmentor
from xpath.segment.predictor import SegmentPredictor


@pytest.fixture
def folder(tmp_path, model, config, tokenizer, info):
    folder = tmp_path / "weights"
    save_segmentor(folder, model, config, tokenizer, info, card="# tiny", half=False)
    return folder


def test_round_trip_gives_the_same_masks(folder, predictor, image):
    again = SegmentPredictor.from_pretrained(folder)
    prompt = ["tissue-level tumor in breast pathology."]

    found = again.masks(again.encode(image), prompt)

    wanted = predictor.masks(predictor.encode(image), prompt)
    np.testing.assert_array_equal(found.probability, wanted.probability)
    assert again.info.name == "tiny"
    assert len(again.info.digest) == 64


def test_the_digest_changes_with_the_weights(folder):
    _, _, before = load_segmentor(folder)
    state = load_file(folder / "model.safetensors")
    state["logit_scale"] += 1
    save_file(state, folder / "model.safetensors")

    _, _, after = load_segmentor(folder)

    assert after.digest != before.digest


def test_every_misfit_is_named(folder):
    state = load_file(folder / "model.safetensors")
    del state["logit_scale"]
    state["decoder.norm.weight"] = state["decoder.norm.weight"][:5].clone()
    state["stranger"] = state["decoder.norm.bias"].clone()
    save_file(state, folder / "model.safetensors")

    with pytest.raises(CheckpointError) as caught:
        load_segmentor(folder)

    message = str(caught.value)
    assert "missing logit_scale" in message
    assert "unknown stranger" in message
    assert "decoder.norm.weight is (5,), wanted (32,)" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_truncated_files_are_refused_by_name(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(CheckpointError, match=name):
        load_segmentor(folder)


def test_another_schema_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["schema"] = "xpath.segmentor/99"
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(CheckpointError, match=r"xpath\.segmentor/99"):
        load_segmentor(folder)


def test_a_stranger_is_no_biomedparse_parameter():
    with pytest.raises(CheckpointError, match=r"fc\.weight"):
        rename_biomedparse({"fc.weight": None})
