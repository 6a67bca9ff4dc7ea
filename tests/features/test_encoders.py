import pickle

import pytest
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
def test_every_layout_becomes_a_map_with_places_where_they_belong(name, shape):
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


def test_it_must_be_said_where_weights_come_from(tmp_path):
    with pytest.raises(ConfigError, match="pretrained=True"):
        TimmEncoder("test_resnet")
    with pytest.raises(ConfigError, match="pretrained=True"):
        TimmEncoder("test_resnet", seed=0, weights=tmp_path / "a.pth")


def test_unknown_models_are_refused_with_similar_names():
    with pytest.raises(ConfigError, match="resnet50"):
        TimmEncoder("resnet5000", seed=0)


def test_the_digest_tells_weights_and_preparation_apart(resnet):
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
