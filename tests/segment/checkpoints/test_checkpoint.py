import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xpath.errors import CheckpointError, ConfigError
from xpath.segment.checkpoints.checkpoint import (
    DEFAULT_WEIGHTS,
    load_segmentor,
    locate,
    save_segmentor,
    text_digest,
)
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config
from xpath.segment.predict.predictor import SegmentPredictor


@pytest.fixture
def folder(tmp_path, model, config, tokenizer, info):
    folder = tmp_path / "weights"
    save_segmentor(folder, model, config, tokenizer, info, card="# tiny", half=False)
    return folder


def test_round_trip_gives_the_same_masks(folder, predictor, image):
    again = SegmentPredictor.from_pretrained(folder)
    prompt = ["tissue-level tumor in breast pathology."]

    found = again.masks(again.encode(image), prompt, probability=True)

    wanted = predictor.masks(predictor.encode(image), prompt, probability=True)
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


def test_what_was_not_learnt_can_be_refused_and_taken_back(info):
    taught = {"a-tissue-b": 3, "a-tissue-c": 1}
    info = replace(info, labels=tuple(taught), drawn=("a-tissue-d",), taught=taught)

    refusing = info.refusing(["a-tissue-c"])

    assert (refusing.labels, refusing.drawn) == (("a-tissue-b",), ("a-tissue-c", "a-tissue-d"))
    assert refusing.taught == taught
    assert set(refusing.refusing([]).labels) == set(taught)
    assert replace(info, taught={}).refusing([]) == replace(info, taught={})
    with pytest.raises(ConfigError, match=r"'a-tissue-x'.*no labels of tiny"):
        info.refusing(["a-tissue-x"])


def test_another_schema_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["schema"] = "xpath.segmentor/99"
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(CheckpointError, match=r"xpath\.segmentor/99"):
        load_segmentor(folder)


def test_folders_of_before_the_later_settings_are_read(folder, model):
    """Weights in use have a config.json without them."""
    config = json.loads((folder / "config.json").read_text())
    later = ("text_encoder", "focal_windows", "mlp_ratio", "pixel_dim", "mask_dim")
    for name in (*later, "pixel_mean", "pixel_std"):
        del config["architecture"][name]
    del config["info"]["mpp_range"]
    (folder / "config.json").write_text(json.dumps(config))

    loaded, _, info = load_segmentor(folder)

    assert torch.equal(loaded.pixel_mean, model.pixel_mean)
    assert info.mpp_range is None


def test_every_kind_of_number_survives_the_json(tmp_path, tokenizer, info):
    config = replace(
        tiny_config(tokenizer.vocabulary),
        text_encoder="bert",
        focal_levels=(1, 2, 1, 2),
        focal_windows=(3, 5, 3, 3),
        pixel_dim=64,
        mask_dim=16,
        pixel_mean=(1.0, 2.0, 3.0),
    )
    model = build_segmentor(config)
    info = replace(info, mpp_range=(0.25, 1.0))
    save_segmentor(tmp_path / "x", model, config, tokenizer, info, card="#", half=False)

    loaded, _, about = load_segmentor(tmp_path / "x")

    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    tokens = tokenizer(["tissue-level tumor in breast pathology."])
    with torch.no_grad():
        found, wanted = loaded.encode_text(*tokens), model.eval().encode_text(*tokens)
    torch.testing.assert_close(found.tokens, wanted.tokens)
    assert loaded.pixel_mean.flatten().tolist() == [1, 2, 3]
    assert about.mpp_range == (0.25, 1.0)
    assert isinstance(about.mpp_range, tuple)


def test_the_weights_that_ship_are_readable():
    """And reading them draws no random numbers, so what follows is the same with and without."""
    before = torch.get_rng_state()
    model, tokenizer, info = load_segmentor()

    assert torch.equal(torch.get_rng_state(), before)

    assert not info.synthetic_only
    assert info.licence == "CC BY-NC-SA 4.0"
    assert tokenizer.vocabulary <= model.text_encoder.token_embedding.num_embeddings


def test_a_tokenizer_with_more_words_than_the_model_is_refused(folder):
    fit_tokenizer(["more words than before"] * 2, vocabulary=400).save(folder / "tokenizer.json")
    config = json.loads((folder / "config.json").read_text())
    known = config["architecture"]["vocabulary"]
    extra = fit_tokenizer([f"word{n} again" for n in range(200)], vocabulary=known + 50)
    extra.save(folder / "tokenizer.json")

    with pytest.raises(CheckpointError, match=f"the model knows {known}"):
        load_segmentor(folder)


def test_a_place_is_a_folder_a_hub_id_or_nothing(folder, monkeypatch, tmp_path):
    asked = {}

    def download(name, **how):
        asked.update(how, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    assert locate(None) == DEFAULT_WEIGHTS
    assert locate(str(folder)) == folder
    assert not asked
    assert locate("somebody/segmentor") == folder
    assert asked["name"] == "somebody/segmentor"
    assert not any(pattern.endswith((".pt", ".bin", "*")) for pattern in asked["allow_patterns"])
    assert load_segmentor("somebody/segmentor")[2].name == "tiny"


@pytest.mark.parametrize("path", ["nowhere", "/no/such/folder", "a/b/c"])
def test_what_is_neither_is_refused(path):
    with pytest.raises(CheckpointError, match="no folder; pass a checkpoint folder or a hub id"):
        locate(path)


def test_without_a_network_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(CheckpointError, match="without a network, pass the folder"):
        locate("xpath-tests/there-is-no-such-model")


def test_a_name_the_hub_cannot_have_is_refused():
    with pytest.raises(CheckpointError, match="could not be fetched"):
        locate("some body/..")


def test_the_text_digest_knows_the_text_encoder_and_nothing_else(model, tokenizer):
    before = text_digest(model, tokenizer)
    with torch.no_grad():
        model.decoder.norm.weight.add_(1)
        model.logit_scale.add_(1)

    assert text_digest(model, tokenizer) == before
    assert len(before) == 64
    other = fit_tokenizer(["quite other words"], vocabulary=tokenizer.vocabulary)
    assert text_digest(model, other) != before
    with torch.no_grad():
        model.text_encoder.projection[0, 0] += 1e-6
    assert text_digest(model, tokenizer) != before
    assert text_digest(model.bfloat16(), tokenizer) != before
