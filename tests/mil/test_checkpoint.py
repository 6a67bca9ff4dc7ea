import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from xpath.errors import CheckpointError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.classifier import load_classifier
from xpath.mil.object_aware import ObjectAwareMIL


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = ObjectAwareMIL(
        4, ["tumor", "stroma"], ["IDC", "ILC"], hidden=3, proj=5, average="present", dropout=0.5
    )
    model.metadata = {"encoder": "sha256:abc", "patch_um": 256.0}
    with torch.no_grad():
        model.scaler.mean.normal_()
        model.scaler.std.uniform_(0.5, 2)
    return model


@pytest.fixture
def folder(tmp_path, model):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def packed(generator):
    return pack([Bag(torch.randn(6, 2, 4, generator=generator), torch.ones(6, 2) > 0)])


def test_round_trip_gives_the_same_bits(folder, model, packed):
    again = ObjectAwareMIL.from_pretrained(folder)

    assert torch.equal(again(packed).logits, model.eval()(packed).logits)
    assert again.config == model.config
    assert again.objects == ("tumor", "stroma")
    assert again.classes == ("IDC", "ILC")
    assert again.metadata == {"encoder": "sha256:abc", "patch_um": 256.0}
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_precision_is_kept(tmp_path, model, packed):
    model.double().eval().save_pretrained(tmp_path / "model")

    again = ObjectAwareMIL.from_pretrained(tmp_path / "model")

    packed = packed.like(model.classifier.weight)
    assert torch.equal(again(packed).logits, model(packed).logits)
    assert again.classifier.weight.dtype == torch.float64


def test_any_kind_can_be_loaded(folder, tmp_path):
    AttentionMIL(4, 2).save_pretrained(str(tmp_path / "other"))

    assert isinstance(load_classifier(folder), ObjectAwareMIL)
    assert isinstance(load_classifier(str(tmp_path / "other")), AttentionMIL)


def test_another_kind_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"object_aware.*attention"):
        AttentionMIL.from_pretrained(folder)


def test_an_unknown_kind_is_refused(folder):
    edit(folder, kind="transformer")
    with pytest.raises(CheckpointError, match="transformer"):
        load_classifier(folder)


def edit(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))


def test_every_misfit_is_named(folder):
    state = load_file(folder / "model.safetensors")
    del state["scaler.mean"]
    state["stranger"] = torch.zeros(1)
    state["classifier.weight"] = state["classifier.weight"][:, :2].clone()
    state["classifier.bias"][0] = torch.nan
    save_file(state, folder / "model.safetensors")

    with pytest.raises(CheckpointError) as caught:
        load_classifier(folder)

    message = str(caught.value)
    assert "missing scaler.mean" in message
    assert "unknown stranger" in message
    assert "classifier.weight is (2, 2), wanted (2, 5)" in message
    assert "classifier.bias holds values" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [None, 0, 40])
def test_missing_and_truncated_files_are_refused_by_name(folder, name, keep):
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(content[:keep])

    with pytest.raises(CheckpointError, match=name):
        load_classifier(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "xpath.classifier/99"},
        {"config": {"dim": 4}},
        {"config": {"dim": "4", "objects": 2, "classes": 2}},
        {"config": {"dim": 4, "objects": 2, "classes": 2, "depth": 3}},
        {"config": 7},
    ],
)
def test_other_configs_are_refused_by_name(folder, changes):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ObjectAwareMIL.from_pretrained(folder)


def test_nowhere_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        load_classifier(tmp_path / "nowhere")


def test_the_card_names_classes_and_objects_or_is_ours(folder, model):
    assert "ILC" in (folder / "README.md").read_text()
    assert "stroma" in (folder / "README.md").read_text()

    model.save_pretrained(folder, card="# Mine")

    assert (folder / "README.md").read_text() == "# Mine"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]


@pytest.mark.parametrize("files", [["README.md"], ["config.json", "thesis.docx"], ["thesis.docx"]])
def test_folders_with_other_files_are_not_replaced(tmp_path, model, files):
    for name in files:
        (tmp_path / name).write_text("precious")

    with pytest.raises(CheckpointError, match="another folder"):
        model.save_pretrained(tmp_path)

    assert all((tmp_path / name).read_text() == "precious" for name in files)


def test_a_stranger_in_our_own_folder_is_not_lost(folder, model):
    (folder / "notes.txt").write_text("precious")

    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        model.save_pretrained(folder)

    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize("value", [{1, 2}, float("nan")])
def test_metadata_must_be_json(tmp_path, model, value):
    model.metadata = {"odd": value}

    with pytest.raises(CheckpointError, match="JSON"):
        model.save_pretrained(tmp_path / "model")

    assert not (tmp_path / "model").exists()
