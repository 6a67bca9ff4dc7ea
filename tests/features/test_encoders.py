import json
import pickle
import shutil
from hashlib import sha256

import pytest
import timm
import torch
from safetensors.torch import save_file

from xpath.errors import CheckpointError, ConfigError, DataError, ShapeError
from xpath.features.encoders import TimmEncoder, _on_a_grid

SWIN = "swin_tiny_patch4_window7_224"  # answers channels last


@pytest.fixture(scope="module")
def resnet():
    return TimmEncoder("test_resnet", seed=0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("test_resnet", (96, 5, 5)),
        ("test_vit", (64, 10, 10)),
        ("test_convnext", (64, 5, 5)),
        (SWIN, (768, 7, 7)),
    ],
)
def test_every_layout_becomes_a_map_with_positions_where_they_belong(name, shape):
    encoder = TimmEncoder(name, seed=0)
    torch.manual_seed(0)
    plain = torch.randint(100, 150, (1, 3, 32 * shape[1], 32 * shape[2]), dtype=torch.uint8)
    marked = plain.clone()
    marked[:, :, :32, -64:-32] = 255  # first row of the map, last column but one

    before, after = encoder.maps(plain), encoder.maps(marked)

    assert before.shape == (1, *shape)
    assert before.dtype == torch.float32
    assert encoder.dim == shape[0]
    change = (after - before).abs().sum(dim=1)[0]
    assert divmod(int(change.argmax()), shape[2]) == (0, shape[2] - 2)


def test_tokens_lie_row_by_row_without_the_prefix():
    class Model:
        num_prefix_tokens = 1

        class patch_embed:
            grid_size = (2, 3)

    tokens = torch.arange(7.0).view(1, 7, 1)

    grid = _on_a_grid(Model, "vit", tokens)

    assert grid.tolist() == [[[[1, 2, 3], [4, 5, 6]]]]


def test_tokens_that_make_no_grid_and_lists_of_maps_are_refused():
    with pytest.raises(ConfigError, match="7 tokens"):
        _on_a_grid(object(), "odd", torch.zeros(1, 7, 4))
    with pytest.raises(ConfigError, match="list"):
        _on_a_grid(object(), "odd", [torch.zeros(1, 7, 4)])


def test_images_are_normalised_as_the_model_was_trained(resnet):
    import timm

    model = timm.create_model("test_resnet", num_classes=0).eval()
    model.load_state_dict(resnet._model.state_dict())
    settings = timm.data.resolve_model_data_config(model)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    mean = torch.tensor(settings["mean"]).view(3, 1, 1)
    std = torch.tensor(settings["std"]).view(3, 1, 1)

    with torch.inference_mode():
        wanted = model.forward_features((images / 255 - mean) / std)

    torch.testing.assert_close(resnet.maps(images), wanted)


def test_shrinking_is_antialiased(resnet):
    # Fine stripes are grey once they are shrunk; without antialiasing only the white ones are met.
    stripes = torch.zeros(1, 3, 640, 640, dtype=torch.uint8)
    stripes[:, :, :, 1::4] = stripes[:, :, :, 2::4] = 254
    grey = torch.full((1, 3, 160, 160), 127, dtype=torch.uint8)

    inner = (slice(None), slice(None), slice(1, 4), slice(1, 4))

    torch.testing.assert_close(
        resnet.maps(stripes)[inner], resnet.maps(grey)[inner], rtol=0, atol=1e-2
    )


def test_a_map_does_not_depend_on_the_batch(resnet):
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)

    alone = torch.cat([resnet.maps(image[None]) for image in images])

    torch.testing.assert_close(resnet.maps(images), alone, rtol=1e-4, atol=1e-5)


def test_only_bytes_of_rgb_are_taken(resnet):
    with pytest.raises(DataError, match="uint8"):
        resnet.maps(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ShapeError):
        resnet.maps(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_the_source_of_the_weights_must_be_given(tmp_path):
    with pytest.raises(ConfigError, match="pretrained=True"):
        TimmEncoder("test_resnet")
    with pytest.raises(ConfigError, match="pretrained=True"):
        TimmEncoder("test_resnet", seed=0, weights=tmp_path / "a.pth")


def test_unknown_models_are_refused_with_similar_names():
    with pytest.raises(ConfigError, match="resnet50"):
        TimmEncoder("resnet5000", seed=0)


def test_the_digest_depends_on_weights_and_preparation(resnet):
    state = torch.random.get_rng_state()
    again = TimmEncoder("test_resnet", seed=0)

    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.digest == resnet.digest
    assert TimmEncoder("test_resnet", seed=1).digest != resnet.digest
    assert TimmEncoder("test_resnet", seed=0, size=96).digest != resnet.digest


def test_the_size_changes_the_grid_of_convolutions_and_tokens():
    images = torch.zeros(1, 3, 50, 50, dtype=torch.uint8)

    assert TimmEncoder("test_resnet", seed=0, size=96).maps(images).shape == (1, 96, 3, 3)
    assert TimmEncoder("test_vit", seed=0, size=96).maps(images).shape == (1, 64, 6, 6)


def test_maps_never_hang_over_the_image():
    with pytest.raises(ConfigError, match="stride 32"):
        TimmEncoder("test_resnet", seed=0, size=100)
    # trained at 176, which is 5.5 strides
    assert TimmEncoder("resnet10t", seed=0)._size == (192, 192)
    with pytest.raises(ConfigError, match="one size only"):
        TimmEncoder("mixer_s32_224", seed=0, size=96)


def _with_head(encoder):
    """A state dict as it is published, classifier included."""
    state = {key: value.clone() for key, value in encoder._model.state_dict().items()}
    return state | {"fc.weight": torch.zeros(10, 96), "fc.bias": torch.zeros(10)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".wrapped.pth"])
def test_local_weights_give_the_same_encoder(tmp_path, resnet, suffix):
    path = tmp_path / f"weights{suffix}"
    state = _with_head(resnet)
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if "wrapped" in suffix else state, path)

    loaded = TimmEncoder("test_resnet", weights=path)

    assert loaded.digest == resnet.digest


def test_weights_of_another_model_are_refused(tmp_path, resnet):
    path = tmp_path / "weights.pth"
    state = _with_head(resnet)
    first = next(iter(state))
    value = state.pop(first)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=first):
        TimmEncoder("test_resnet", weights=path)

    torch.save({**state, first: value[:1]}, path)
    with pytest.raises(CheckpointError, match="size mismatch"):
        TimmEncoder("test_resnet", weights=path)


class Code:
    def __reduce__(self):
        return print, ("a pickle ran",)


@pytest.mark.parametrize("content", ["missing", "truncated", "code"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unreadable_weights_are_refused_and_no_code_runs(tmp_path, capsys, content, suffix):
    path = tmp_path / f"weights{suffix}"
    if content == "truncated":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:1000])
    elif content == "code":
        path.write_bytes(pickle.dumps(Code(), protocol=2))

    with pytest.raises(CheckpointError, match="cannot be read"):
        TimmEncoder("test_resnet", weights=path)

    assert "ran" not in capsys.readouterr().out


GAMMA = {"init_values": 0.5}
"""Layer scale, which UNI has and timm's model of the same name has not."""


def scaled_vit(classes=0, **options):
    import timm

    torch.manual_seed(3)
    return timm.create_model("test_vit", num_classes=classes, **GAMMA, **options).eval()


def hub_folder(folder, model, **model_args):
    """A model of timm as it lies on the hub: its configuration and its weights."""
    folder.mkdir()
    about = {
        "architecture": "test_vit",
        "num_classes": model.num_classes,
        "model_args": model_args,
        "pretrained_cfg": {
            "num_classes": model.num_classes,
            "input_size": [3, 160, 160],
            "fixed_input_size": True,
            "mean": [0.7, 0.6, 0.5],
            "std": [0.2, 0.3, 0.4],
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(about))
    save_file(model.state_dict(), folder / "model.safetensors")
    return f"local-dir:{folder}"


@pytest.mark.parametrize("classes", [0, 4])
def test_a_folder_from_the_hub_is_built_by_its_configuration(tmp_path, classes):
    model = scaled_vit(classes)
    name = hub_folder(tmp_path / "UNI", model, **GAMMA)

    encoder = TimmEncoder(name, pretrained=True)

    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ([0.7, 0.6, 0.5], [0.2, 0.3, 0.4]))
    with torch.inference_mode():
        tokens = model.forward_features((images / 255 - mean) / std)[:, model.num_prefix_tokens :]
    wanted = tokens.transpose(1, 2).reshape(2, 64, 10, 10)
    torch.testing.assert_close(encoder.maps(images), wanted)
    assert encoder.name == "local-dir:UNI"


def test_the_digest_of_a_folder_is_of_what_is_in_it(tmp_path):
    name = hub_folder(tmp_path / "one", scaled_vit(), **GAMMA)
    first = TimmEncoder(name, pretrained=True).digest

    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert TimmEncoder(f"local-dir:{tmp_path / 'two'}", pretrained=True).digest == first
    about = tmp_path / "two" / "config.json"
    about.write_text(about.read_text().replace("model_args", "no_args").replace("0.7", "0.8"))
    other = TimmEncoder(f"local-dir:{tmp_path / 'two'}", pretrained=True, kwargs=GAMMA)
    assert other.digest != first


@pytest.mark.parametrize("classes", [0, 4])
def test_weights_that_need_an_option_say_so_and_fit_with_it(tmp_path, classes):
    name = hub_folder(tmp_path / "UNI", scaled_vit(classes))
    file = tmp_path / "UNI" / "model.safetensors"

    with pytest.raises(CheckpointError, match=r"ls1\.gamma(.|\n)*init_values"):
        TimmEncoder(name, pretrained=True)
    with pytest.raises(CheckpointError, match=r"0 missing.* unknown .*ls1\.gamma.*init_values"):
        TimmEncoder("test_vit", weights=file)

    there = TimmEncoder(name, pretrained=True, kwargs=GAMMA)
    local = TimmEncoder("test_vit", weights=file, kwargs={**GAMMA, "mean": (0.7, 0.6, 0.5)})
    images = torch.full((1, 3, 160, 160), 179, dtype=torch.uint8)
    assert there.maps(images).shape == local.maps(images).shape == (1, 64, 10, 10)
    assert local._mean.flatten().tolist() == pytest.approx([0.7, 0.6, 0.5])


def test_an_option_too_much_is_detected_in_weights_with_a_classifier_too(tmp_path):
    """Asked for no classifier, timm itself would leave what is missing at random."""
    import timm

    name = hub_folder(tmp_path / "plain", timm.create_model("test_vit", num_classes=4))

    with pytest.raises(CheckpointError, match=r"Missing key.*ls1\.gamma"):
        TimmEncoder(name, pretrained=True, kwargs=GAMMA)


def test_layers_may_be_named():
    swiglu = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU", "num_classes": 0}

    encoder = TimmEncoder("test_vit", seed=0, kwargs=swiglu)

    assert type(encoder._model.blocks[0].mlp).__name__ == "GluMlp"
    assert isinstance(encoder._model.blocks[0].mlp.act, torch.nn.SiLU)
    by_timm = TimmEncoder("test_vit", seed=0, kwargs=swiglu | {"act_layer": "silu"})
    assert isinstance(by_timm._model.blocks[0].mlp.act, torch.nn.SiLU)
    same = swiglu | {"act_layer": torch.nn.SiLU}
    assert TimmEncoder("test_vit", seed=0, kwargs=same).digest == encoder.digest


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"init_value": 1}, "init_value"),
        ({"mlp_layer": "NoSuchLayer"}, "NoSuchLayer"),
        ({"num_classes": 7}, "^test_vit: num_classes cannot be set"),
        ({"features_only": True}, "^test_vit: features_only cannot be set"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TimmEncoder("test_vit", seed=0, kwargs=options)


def test_options_and_precision_enter_the_digest_only_when_given(resnet):
    settings = json.dumps(["test_resnet", [160, 160], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    known = sha256(settings.encode())
    for name, value in sorted(resnet._model.state_dict().items()):
        known.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        known.update(value.contiguous().numpy().tobytes())

    assert resnet.digest == known.hexdigest()
    plain = TimmEncoder("test_resnet", seed=0, kwargs={})
    assert plain.digest == resnet.digest
    digests = {
        TimmEncoder("test_vit", seed=0, **how).digest
        for how in (
            {},
            {"kwargs": {"dynamic_img_size": True}},
            {"kwargs": {"dynamic_img_size": False}},
            {"precision": "bfloat16"},
        )
    }
    assert len(digests) == 4


def test_mixed_precision_is_near_and_answers_in_float32(resnet):
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    mixed = TimmEncoder("test_resnet", seed=0, precision="bfloat16")

    found, wanted = mixed.maps(images), resnet.maps(images)

    assert found.dtype == torch.float32
    difference = (found - wanted).abs().max()
    assert 0 < difference < 0.05 * wanted.abs().max()
    with pytest.raises(ConfigError, match="float64"):
        TimmEncoder("test_resnet", seed=0, precision="float64")


def refused_by_the_hub(monkeypatch, kind):
    from huggingface_hub import errors

    def refuse(*_, **__):
        error = getattr(errors, kind)
        raise error.__new__(error, "no entry")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)


def test_gated_weights_say_what_to_do(monkeypatch):
    refused_by_the_hub(monkeypatch, "GatedRepoError")

    words = r"huggingface\.co/MahmoodLab/UNI and log in with `hf auth login`"
    with pytest.raises(CheckpointError, match=words):
        TimmEncoder("hf-hub:MahmoodLab/UNI@main", pretrained=True, kwargs=GAMMA)


def test_without_a_network_a_folder_is_named_as_the_way_out(monkeypatch):
    refused_by_the_hub(monkeypatch, "LocalEntryNotFoundError")

    with pytest.raises(CheckpointError, match="local-dir:folder"):
        TimmEncoder("hf-hub:MahmoodLab/UNI", pretrained=True)


def test_paths_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"folder must hold config\.json"):
        TimmEncoder(f"local-dir:{tmp_path}", pretrained=True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="architecture"):
        TimmEncoder(f"local-dir:{tmp_path}", pretrained=True)
    with pytest.raises(ConfigError, match="did you mean hf-hub:MahmoodLab/UNI"):
        TimmEncoder("MahmoodLab/UNI", pretrained=True)
    with pytest.raises(ConfigError, match="s3"):
        TimmEncoder("s3:MahmoodLab/UNI", pretrained=True)


def conch_file(path, shift=0.0):
    """A random CONCH: the trunk of timm's ViT-B/16 at 448 px, beside pooling and text."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = timm.create_model("vit_base_patch16_224", img_size=448, num_classes=0)
    state = {f"visual.trunk.{name}": value + shift for name, value in trunk.state_dict().items()}
    state |= {"visual.proj_contrast": torch.zeros(2), "text.cls_emb": torch.zeros(2)}
    torch.save(state | {"logit_scale": torch.zeros(())}, path)
    return trunk.eval()


@pytest.fixture(scope="module")
def conch(tmp_path_factory):
    path = tmp_path_factory.mktemp("conch") / "pytorch_model.bin"
    return path, conch_file(path)


def test_conch_is_its_trunk_with_the_normalisation_of_clip(conch):
    path, trunk = conch
    images = torch.randint(0, 256, (1, 3, 448, 448), dtype=torch.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.inference_mode():
        tokens = trunk.forward_features((images / 255 - mean) / std)[:, 1:]

    encoder = TimmEncoder("conch", weights=path)

    assert (encoder.name, encoder.dim) == ("conch", 768)
    wanted = tokens.transpose(1, 2).reshape(1, 768, 28, 28)
    torch.testing.assert_close(encoder.maps(images), wanted, atol=1e-5, rtol=1e-5)


def test_conch_sees_224_pixels_where_asked(conch):
    small = TimmEncoder("conch", weights=conch[0], size=224)
    assert small.maps(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 768, 14, 14)
    assert small.digest != TimmEncoder("conch", weights=conch[0]).digest


def test_conch_without_a_trunk_or_a_network_is_told(tmp_path, monkeypatch):
    torch.save({"visual.proj": torch.zeros(2)}, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match="150 missing"):
        TimmEncoder("conch", weights=tmp_path / "other.bin")

    def fetch(repository, file):
        raise OSError(f"no network for {repository}/{file}")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    with pytest.raises(CheckpointError, match="accept the conditions"):
        TimmEncoder("conch", pretrained=True)

    def fail(repository, file):
        raise ConnectionResetError  # without a word

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(CheckpointError, match="cannot be fetched: ConnectionResetError"):
        TimmEncoder("conch", pretrained=True)
