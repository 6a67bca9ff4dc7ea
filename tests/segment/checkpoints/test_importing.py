"""Published weights become a checkpoint folder: bit for bit, asked and shown images as trained."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from xpath.cli.main import main
from xpath.errors import CheckpointError, ConfigError
from xpath.pathseg.prompts import sentences
from xpath.segment.checkpoints.biomedparse_names import rename_biomedparse
from xpath.segment.checkpoints.checkpoint import load_segmentor, read_config
from xpath.segment.checkpoints.importing import BIOMEDPARSE_TEMPLATE, ImportConfig, import_weights
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import tiny_config
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.store.masks import open_masks
from xpath.testing.slides import write_slide

MANIFEST = runpy.run_path(str(Path(__file__).with_name("biomedparse_manifest.py")))
CONFIG = replace(tiny_config(700), context=40, text_width=64, text_heads=1, dim=64, heads=8)
TUMOR = "tissue-level tumor in breast pathology."


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A random BiomedParse of tiny sizes and a tokenizer."""
    folder = tmp_path_factory.mktemp("published")
    fit_tokenizer(sentences(), vocabulary=700).save(folder / "tokenizer.json")
    generator = torch.Generator().manual_seed(0)
    shapes = MANIFEST["shapes_of"](CONFIG) | MANIFEST["spatial_shapes_of"](CONFIG)
    state = {n: 0.1 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    save_file(state, folder / "biomedparse_v1.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "W"
    code = main([
        *("weights", "import", str(files / "biomedparse_v1.safetensors"), "--out", str(out)),
        *("--tokenizer", str(files / "tokenizer.json")),
    ])
    assert code == 0
    return out


def test_it_round_trips_bit_for_bit(files, folder):
    theirs = rename_biomedparse(load_file(files / "biomedparse_v1.safetensors"))

    model, tokenizer, info = load_segmentor(folder)

    state = model.state_dict()
    assert state.keys() == theirs.keys()
    assert all(torch.equal(state[name], theirs[name]) for name in theirs)
    given = fit_tokenizer(sentences(), vocabulary=700)
    assert torch.equal(tokenizer([TUMOR]).ids, given([TUMOR]).ids)
    assert (info.name, info.template, info.square, info.image_size) == (
        "biomedparse_v1", BIOMEDPARSE_TEMPLATE, True, 1024
    )  # fmt: skip


def predictor_of(folder, **changes):
    model, tokenizer, info = load_segmentor(folder)
    return SegmentPredictor(model, tokenizer, replace(info, image_size=64, **changes))


def test_it_is_asked_in_the_words_it_was_trained_with(folder):
    """A label's sentence is put into BiomedParse's, any other words are left alone."""
    biomedparse = predictor_of(folder)
    plain = predictor_of(folder, template="{structure}-level {object} in {region} pathology.")

    theirs = biomedparse.text([TUMOR, "odd words"]).sentence
    same = plain.text(["tumor in breast pathology", "odd words"]).sentence

    assert torch.equal(theirs, same)
    assert not torch.equal(theirs[0], plain.text([TUMOR]).sentence[0])


def test_images_are_shown_as_squares_whatever_their_resolution(folder, rng):
    """Against torch's own padding and resizing, done by hand."""
    predictor = predictor_of(folder)
    image = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    padded = np.zeros((40, 40, 3), np.uint8)
    padded[:, 5:35] = image
    square = functional.interpolate(
        torch.from_numpy(padded).permute(2, 0, 1)[None].float(),
        size=(64, 64), mode="bicubic", antialias=True,
    ).round().clamp(0, 255)  # fmt: skip
    plain = predictor_of(folder, square=False)
    wanted = plain.logits(plain.encode(square[0].permute(1, 2, 0).byte().numpy()), [TUMOR])
    fine = functional.interpolate(wanted, scale_factor=4, mode="bilinear")
    whole = functional.interpolate(fine, size=(40, 40), mode="bilinear", antialias=True)

    embedding = predictor.encode(image, mpp=0.5)
    answer = predictor.masks(embedding, [TUMOR])

    assert answer.masks.shape == (1, 1, 40, 30)
    assert embedding.model_size == (64, 64)
    assert np.array_equal(answer.masks[0, 0], (whole[0, 0, :, 5:35] > 0).numpy())
    assert 0 < answer.masks.mean() < 1
    logits = predictor.logits(embedding, [TUMOR])
    assert logits.shape == (1, 1, 10, 8)
    shrunk = functional.interpolate(whole[..., 5:35], size=(10, 8), mode="bilinear", antialias=True)
    assert torch.allclose(logits, shrunk, atol=1e-5)


def test_a_bert_takes_the_place_of_the_text_encoder(files, tmp_path):
    from transformers import BertConfig, BertModel

    sizes = BertConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64,
    )  # fmt: skip
    bert = BertModel(sizes, add_pooling_layer=True)
    bert.save_pretrained(tmp_path / "bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tissue", "-", "level", "tumor", "in"]
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join([*words, "breast", "pathology"]))
    path = files / "biomedparse_v1.safetensors"
    config = ImportConfig(bert=tmp_path / "bert", template="{object} of {region}")

    import_weights(path, tmp_path / "W", config)

    model, tokenizer, info = load_segmentor(tmp_path / "W")
    theirs = rename_biomedparse(load_file(path))
    assert torch.equal(model.image_encoder.norms[0].weight, theirs["image_encoder.norms.0.weight"])
    ours = model.text_encoder.bert.state_dict()
    for name, value in bert.state_dict().items():
        if not name.startswith("pooler"):
            assert torch.equal(ours[name], value), name
    assert tokenizer(["breast tumor"]).ids.tolist() == [[2, 10, 8, 3]]
    assert SegmentPredictor(model, tokenizer, info).text([TUMOR]).sentence.isfinite().all()


def test_faults_are_named(files, folder, tmp_path):
    path = files / "biomedparse_v1.safetensors"
    with pytest.raises(CheckpointError, match="no tokenizer"):
        import_weights(path, tmp_path / "W", ImportConfig(tokenizer=path))
    big = tmp_path / "big.json"
    fit_tokenizer([f"word{n} other{n * 7}" for n in range(900)], vocabulary=1200).save(big)
    with pytest.raises(CheckpointError, match=r"token ids.*knows 700"):
        import_weights(path, tmp_path / "W", ImportConfig(tokenizer=big))
    with pytest.raises(CheckpointError, match="no BERT"):
        import_weights(path, tmp_path / "W", ImportConfig(bert=tmp_path))
    for template in ("{organ}", "{region}"):
        with pytest.raises(ConfigError, match="object"):
            ImportConfig(template=template)
    assert not (tmp_path / "W").exists()
    assert read_config(folder)[1].labels == ()


def test_it_answers_through_xpath_segment(folder, tmp_path, rng):
    tissue = rng.integers(90, 170, (512, 512, 3), dtype=np.uint8)
    write_slide(tmp_path / "a.tiff", tissue, mpp=0.25, lossless=True)
    objects = "breast-tissue-tumor,breast-tissue-necrosis or debris"
    grid = ["--set", "grid.patch_um=64", "--set", "grid.mpp=0.25"]

    code = main([
        *("segment", str(tmp_path / "a.tiff"), "--out", str(tmp_path / "run")),
        *("--objects", objects, "--set", f"objects.segmentor={folder}", *grid),
    ])

    assert code == 0
    masks = open_masks(tmp_path / "run" / "slides" / "a" / "masks.zarr")
    assert masks.provenance["segmentor"] == "biomedparse_v1"
    area = np.array(masks.area)
    assert area.shape[1] == 2
    assert 0 < area.sum() < area.size * 256 * 256
