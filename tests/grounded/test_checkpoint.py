import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xpath.errors import CheckpointError
from xpath.grounded.checkpoint import GroundedInfo, load_grounded, save_grounded
from xpath.grounded.interpreter import GroundedInterpreter
from xpath.store.schema import sha256_of


@pytest.fixture(scope="module")
def saved(interpreter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    model = interpreter.model
    info = GroundedInfo(name="tiny", licence="CC0-1.0")
    save_grounded(folder, model.state_dict(), model.config, interpreter.tokenizer, info, card="Ok.")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_weights_come_back_as_they_were(interpreter, saved, image):
    again = GroundedInterpreter.from_pretrained(saved, config=interpreter.config)

    state = interpreter.model.state_dict()
    assert all(torch.equal(state[name], it) for name, it in again.model.state_dict().items())
    assert not any(it.is_meta for it in [*again.model.buffers(), *again.model.parameters()])
    assert again.info.digest == sha256_of(saved / "model.safetensors")
    wanted = interpreter.masks(interpreter.encode(image), ["gland"])
    found = again.masks(again.encode(image), ["gland"])
    assert np.array_equal(found.masks, wanted.masks)


def test_the_licence_of_the_model_card_is_shown(saved, folder, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_grounded(saved).info.licence == "CC0-1.0"
        (folder / "README.md").write_text("# A card without front matter\nlicense: none\n")
        assert load_grounded(folder).info.licence is None
    assert "tiny: licence of these weights, by their model card: CC0-1.0" in caplog.text
    assert "by their model card: not stated" in caplog.text


def test_every_mismatch_is_named(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    del state["mlp1.0.bias"]
    state["text_hidden_fcs.0.bias"] = torch.zeros(5)
    state["vision_model.encoder.layers.9.ls1"] = torch.zeros(16)
    save_file(state, path)

    with pytest.raises(CheckpointError) as caught:
        load_grounded(folder)
    text = str(caught.value)
    assert "missing internvl.model.multi_modal_projector.layer_norm.bias" in text
    assert "projection.0.bias is (5,), wanted (32,)" in text
    assert "unknown internvl.model.vision_tower.encoder.layer.9.lambda_1" in text

    state["strange"] = torch.zeros(1)
    save_file(state, path)
    with pytest.raises(CheckpointError, match="strange is no parameter of UniBiomed"):
        load_grounded(folder)


def test_shards_are_read_as_one(saved, folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: state[name] for name in part}, folder / f"model-{number}-of-2.safetensors")

    again = load_grounded(folder)

    state = load_grounded(saved).model.state_dict()
    assert all(torch.equal(state[name], it) for name, it in again.model.state_dict().items())
    assert len(again.info.digest) == 64


def test_without_our_config_the_sizes_are_the_published_ones(folder):
    (folder / "config.json").write_text('{"model_type": "something else"}')

    with pytest.raises(CheckpointError, match=r"missing internvl\.model\.vision_tower\.encoder"):
        load_grounded(folder)


def test_folders_that_are_none(folder, tmp_path):
    with pytest.raises(CheckpointError, match="no folder"):
        load_grounded(tmp_path / "nowhere")
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        load_grounded(folder)
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_grounded(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no"):
        load_grounded(folder)


def test_a_tokenizer_must_know_the_marks(folder):
    path = folder / "tokenizer.json"
    text = path.read_text()
    path.write_text(text.replace("[SEG]", "[CUT]").replace("<vp>", "<x>"))
    with pytest.raises(CheckpointError, match=r"lacks \[SEG\], <vp>"):
        load_grounded(folder)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_grounded(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        load_grounded(folder)


def test_older_tokenizer_files_are_read_and_code_beside_them_is_not_run(interpreter, folder):
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit")

    read = load_grounded(folder).tokenizer

    text = "<|user|>\n<img><IMG_CONTEXT></img>Please segment gland.<|end|>\n[SEG]. <p>x</p>"
    assert read.ids(text) == interpreter.tokenizer.ids(text)
    assert read.text(read.ids(text)) == text
    assert (read.seg, read.stop, read.pad) == (
        interpreter.tokenizer.seg,
        interpreter.tokenizer.stop,
        interpreter.tokenizer.pad,
    )
