import json
import logging
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xpath.errors import CheckpointError, ConfigError
from xpath.segment.checkpoints.biomedparse import config_from_reference, load_biomedparse
from xpath.segment.checkpoints.biomedparse_names import rename_biomedparse
from xpath.segment.checkpoints.biomedparse_sizes import config_from_state
from xpath.segment.model.variants import (
    SegmentorConfig,
    build_segmentor,
    large_config,
    tiny_config,
)

MANIFEST = runpy.run_path(str(Path(__file__).with_name("biomedparse_manifest.py")))
HEAD = "sem_seg_head.predictor."
ODD = SegmentorConfig(
    width=8,
    depths=(1, 2, 1, 1),
    focal_levels=(1, 3, 2, 2),
    focal_windows=(3, 5, 3, 7),
    dim=48,
    pixel_dim=32,
    mask_dim=16,
    heads=4,
    hidden=40,
    pixel_depth=2,
    queries=7,
    decoder_depth=5,
    vocabulary=60,
    context=11,
    text_width=24,
    text_depth=3,
    text_heads=3,
    pixel_mean=(10.0, 20.0, 30.0),
    pixel_std=(40.0, 50.0, 60.0),
)
"""Everything differs from everything."""


def published(config, *, prefix=""):
    """Random numbers under BiomedParse's names, those for point prompts included."""
    generator = torch.Generator().manual_seed(0)
    shapes = MANIFEST["shapes_of"](config) | MANIFEST["spatial_shapes_of"](config)
    return {
        prefix + name: 0.1 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def with_bert(state, *, vocabulary):
    """The same with the BERT in it that the published class always builds."""
    config = replace(ODD, text_encoder="bert", text_heads=2, vocabulary=vocabulary)
    bert = build_segmentor(config).text_encoder.bert.state_dict()
    text = HEAD + "lang_encoder.biomed_encoder."
    return (
        state
        | {text + name: value for name, value in bert.items()}
        | {
            text + "pooler.dense.bias": torch.zeros(24),
            text + "embeddings.position_ids": torch.arange(512)[None],
        }
    )


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "biomedparse.safetensors"
    save_file(published(ODD), path)
    return path


@pytest.mark.parametrize("config", [large_config(text="clip"), tiny_config(300), ODD])
def test_every_name_is_one_of_ours_and_none_of_ours_is_left(config):
    """On the meta device: names and shapes only."""
    names = MANIFEST["shapes_of"](config)
    theirs = {name: torch.empty(shape, device="meta") for name, shape in names.items()}
    with torch.device("meta"):
        ours = build_segmentor(config).state_dict()

    renamed = rename_biomedparse(theirs)

    assert len(renamed) == len(theirs)
    assert {name: value.shape for name, value in renamed.items()} == {
        name: value.shape for name, value in ours.items()
    }


def test_the_manifest_is_that_of_the_published_model(shared):
    """925 names for text prompts, 6 more for points."""
    keys = json.loads((shared / "reference" / "biomedparse_v1_keys.json").read_text())
    config = large_config(text="clip")

    for part, ours in (("text_grounding", "shapes_of"), ("spatial_only", "spatial_shapes_of")):
        wanted = {name: tuple(shape) for name, shape in keys[part].items()}
        wanted.pop("dilation_kernel", None)
        assert MANIFEST[ours](config) == wanted


def test_a_tensor_goes_where_it_belongs():
    """Values, not shapes: a swap of two maps of one shape would show."""
    state = published(ODD)

    renamed = rename_biomedparse(state)

    def check(ours, theirs):
        assert torch.equal(renamed[ours].flatten(), state[theirs].flatten())

    pixel = "sem_seg_head.pixel_decoder."
    check(
        "image_encoder.trunk.layers.2.downsample.proj.bias",
        "backbone.layers.1.downsample.proj.bias",
    )
    check("image_encoder.trunk.layers.1.blocks.1.ls2.gamma", "backbone.layers.1.blocks.1.gamma_2")
    check("pixel_decoder.outputs.0.conv.weight", pixel + "layer_3.weight")
    check("pixel_decoder.outputs.2.norm.bias", pixel + "layer_1.norm.bias")
    check("pixel_decoder.coarsest.conv.weight", pixel + "layer_4.weight")
    check("decoder.mask_projector.2.bias", HEAD + "mask_embed.layers.1.bias")
    check("decoder.query_position.weight", HEAD + "query_embed.weight")
    check("decoder.projections.2.weight", HEAD + "input_proj.2.weight")


def test_sizes_are_read_off_the_tensors(weights):
    model, config = load_biomedparse(weights, heads=4, text_heads=3)

    assert config == replace(ODD, pixel_mean=config.pixel_mean, pixel_std=config.pixel_std)
    assert not model.training
    wanted = load_file(weights)["sem_seg_head.predictor.query_feat.weight"]
    assert torch.equal(model.decoder.query_content.weight, wanted)


def test_the_published_sizes_are_read_off_the_published_names():
    names = MANIFEST["shapes_of"](large_config(text="clip"))
    theirs = {name: torch.empty(shape, device="meta") for name, shape in names.items()}

    found = config_from_state(rename_biomedparse(theirs))

    assert found == replace(
        large_config(text="clip"), focal_levels=(4, 4, 4, 4), focal_windows=(3, 3, 3, 3)
    )


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
@pytest.mark.parametrize("inside", [None, "module", "model"])
def test_files_of_torch_are_read_in_every_wrapping(tmp_path, prefix, inside):
    path = tmp_path / "model_state_dict.pt"
    state = published(ODD, prefix=prefix)
    torch.save({inside: state, "epoch": 3} if inside else state, path)

    model, _ = load_biomedparse(path, config=ODD)

    assert torch.equal(model.logit_scale, state[f"{prefix}{HEAD}lang_encoder.logit_scale"])


def test_half_precision_becomes_float32(tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({name: value.half() for name, value in published(ODD).items()}, path)

    assert load_biomedparse(path, config=ODD).model.logit_scale.dtype == torch.float32


def test_what_is_not_needed_is_named_once(tmp_path, caplog):
    path = tmp_path / "both.safetensors"
    save_file(with_bert(published(ODD), vocabulary=70), path)

    with caplog.at_level(logging.INFO, logger="xpath.segment.checkpoints.biomedparse"):
        _, config = load_biomedparse(path, heads=4, text_heads=3)

    assert config.text_encoder == "causal"
    (line,) = caplog.messages
    for part in ("pn_indicator", "spatial_featured", "mask_sptial_embed.* (3)", "biomed_encoder.*"):
        assert part in line


def test_bert_is_read_where_the_model_calls_it(tmp_path):
    """The causal encoder then stands there unused, built for BERT's vocabulary."""
    path = tmp_path / "bert.safetensors"
    state = with_bert(published(ODD), vocabulary=60)
    save_file(state, path)
    words = HEAD + "lang_encoder.biomed_encoder.embeddings.word_embeddings.weight"

    model, config = load_biomedparse(path, heads=4, text_heads=2)

    assert (config.text_encoder, config.text_depth, config.context) == ("bert", 3, 256)
    assert torch.equal(model.text_encoder.bert.embeddings.word_embeddings.weight, state[words])
    assert load_biomedparse(path, config=config).config == config


def test_every_misfit_is_named(tmp_path):
    path = tmp_path / "bad.safetensors"
    state = published(ODD)
    del state[HEAD + "class_embed"]
    state["backbone.norm1.bias"] = torch.zeros(5)
    state[HEAD + "transformer_ffn_layers.9.norm.bias"] = torch.zeros(48)
    save_file(state, path)

    with pytest.raises(CheckpointError) as caught:
        load_biomedparse(path, config=ODD)

    message = str(caught.value)
    assert "bad.safetensors" in message
    assert "missing decoder.class_projector" in message
    assert "image_encoder.norms.1.bias is (5,), wanted (16,)" in message
    assert "unknown decoder.layers.9.ffn_norm.bias" in message


def test_strangers_are_all_named(tmp_path):
    path = tmp_path / "strange.safetensors"
    save_file(published(ODD) | {"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, path)

    with pytest.raises(CheckpointError, match=r"fc\.bias is no parameter.*fc\.weight is no"):
        load_biomedparse(path)


def test_of_another_model_the_first_names_are_enough(tmp_path):
    path = tmp_path / "strange.safetensors"
    save_file({f"fc{number}.weight": torch.zeros(2) for number in range(9)}, path)

    with pytest.raises(CheckpointError, match=r"fc4\.weight is no .*; and 4 more$"):
        load_biomedparse(path)


def test_one_parameter_twice_is_refused():
    value = torch.zeros(48, 48)

    with pytest.raises(CheckpointError, match="class_projector is there twice"):
        rename_biomedparse({HEAD + "class_embed": value, "model." + HEAD + "class_embed": value})


def test_a_missing_size_is_named(tmp_path):
    path = tmp_path / "part.safetensors"
    state = published(ODD)
    del state[HEAD + "query_feat.weight"]
    save_file(state, path)

    with pytest.raises(CheckpointError, match=r"missing 'decoder\.query_content\.weight'"):
        load_biomedparse(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "no file of tensors alone"),
        (b"", "no file of tensors alone"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "model.pt"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        load_biomedparse(path)


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"weights": Path("anything that is no tensor")}, path)

    with pytest.raises(CheckpointError, match="could run code"):
        load_biomedparse(path)


def test_a_missing_file_and_one_of_numbers_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        load_biomedparse(tmp_path / "gone.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_biomedparse(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with pytest.raises(CheckpointError, match="no tensors: epoch"):
        load_biomedparse(tmp_path / "epoch.pt")


def test_a_reference_configuration_gives_every_size():
    found = config_from_reference(MANIFEST["reference_of"](ODD))

    assert found == ODD


def test_the_whole_yaml_will_do_and_the_rest_is_clip_and_imagenet():
    reference = MANIFEST["reference_of"](tiny_config(300))

    found = config_from_reference({"MODEL": reference["config"]})

    levels = {"focal_levels": (2, 2, 2, 2), "focal_windows": (3, 3, 3, 3)}
    assert found == replace(tiny_config(49408), **levels)


def test_enforced_projections_are_kept():
    reference = MANIFEST["reference_of"](tiny_config(300))
    reference["config"]["DECODER"]["ENFORCE_INPUT_PROJ"] = True

    assert config_from_reference(reference).pixel_dim == 32


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("DECODER", "PRE_NORM", True, "DECODER.PRE_NORM is True, only False"),
        ("ENCODER", "NAME", "transformer_encoder_deform", r"ENCODER\.NAME"),
        ("TEXT", "TOKENIZER", "t5", r"TEXT\.TOKENIZER is 't5'"),
        ("DECODER", "HIDDEN_DIM", 64, "DIM_PROJ 32 must equal"),
    ],
)
def test_another_kind_of_model_is_refused(part, name, value, message):
    reference = MANIFEST["reference_of"](tiny_config(300))
    reference["config"][part][name] = value

    with pytest.raises(ConfigError, match=message):
        config_from_reference(reference)


def test_a_missing_field_is_named():
    reference = MANIFEST["reference_of"](tiny_config(300))
    del reference["config"]["DECODER"]["NHEADS"]

    with pytest.raises(ConfigError, match="NHEADS"):
        config_from_reference(reference)


def test_the_bert_of_the_training_yaml_is_base():
    reference = MANIFEST["reference_of"](tiny_config(30522))
    reference["config"]["TEXT"] |= {"TOKENIZER": "biomed-clip", "WIDTH": 768}

    found = config_from_reference(reference)

    sizes = (found.text_encoder, found.text_width, found.text_depth, found.text_heads)
    assert sizes == ("bert", 768, 12, 12)
