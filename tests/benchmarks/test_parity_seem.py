import json
import re
import runpy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from xpath.segment.checkpoints.biomedparse import load_biomedparse
from xpath.segment.model.variants import tiny_config

SCRIPT = "benchmarks/parity_seem.py"


@pytest.fixture(scope="module")
def parity(repository):
    return runpy.run_path(str(repository / SCRIPT))


@pytest.fixture
def files(tmp_path, repository, parity):
    """A reference of other sizes, whose outputs are our own: a change in them must be noticed."""
    manifest = runpy.run_path(str(repository / "tests/segment/checkpoints/biomedparse_manifest.py"))
    config = replace(
        tiny_config(60),
        focal_levels=(1, 3, 2, 2),
        mask_dim=16,
        heads=4,
        context=11,
        pixel_mean=(100.0, 110.0, 120.0),
    )
    generator = torch.Generator().manual_seed(0)
    weights, settings, io = (tmp_path / name for name in ("w.safetensors", "c.json", "io"))
    shapes = manifest["shapes_of"](config) | manifest["spatial_shapes_of"](config)
    state = {
        "model." + name: 0.2 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    save_file(state, weights)
    settings.write_text(json.dumps(manifest["reference_of"](config)))
    inputs = {
        "image": torch.randint(0, 256, (3, 70, 45), generator=generator, dtype=torch.uint8),
        "input_ids": torch.randint(0, 60, (4, 11), generator=generator),
        "attention_mask": (torch.arange(11) < torch.tensor([3, 11, 5, 2])[:, None]).long(),
    }
    model, _ = load_biomedparse(weights, config=config)
    with torch.no_grad():
        outputs = parity["outputs"](model, *inputs.values(), joint=True)
    image_maps = ("res", "ms", "mask_features")
    content = {
        name: value if name.startswith((*image_maps, "token", "class")) else value[0]
        for name, value in outputs.items()
    }
    save_file({name: x.contiguous() for name, x in (inputs | content).items()}, io)
    return weights, settings, io


def changed(io, **tensors):
    """The io file with some tensors replaced."""
    save_file(load_file(io) | {name.replace("__", "."): x for name, x in tensors.items()}, io)


def test_other_sizes_are_read_from_the_configuration(parity, files):
    found = parity["measure"](*files)

    assert found.ok, found
    assert set(found.max_abs_diff) | {f"single{p}.selected_query" for p in range(4)} | {
        "joint.selected_query"
    } == set(load_file(files[2])) - {"image", "input_ids", "attention_mask"}
    assert len(found.max_abs_diff) == 10 + 5 * 4
    assert found.problems == []


def test_alone_and_coupled_are_both_compared(parity, files):
    """Prompts in one call change each other's masks, so the two must not be mixed up."""
    wanted = load_file(files[2])

    assert (wanted["joint.query_class_emb"] - wanted["single0.query_class_emb"]).abs().max() > 0.01


def test_a_small_difference_is_noticed(parity, files):
    wanted = load_file(files[2])
    mask = wanted["single2.all_mask_logits"].clone()
    mask[1, 2, 3] += 0.002
    changed(files[2], single2__all_mask_logits=mask)

    found = parity["measure"](*files)

    assert not found.ok
    assert found.max_abs_diff["single2.all_mask_logits"] == pytest.approx(0.002, rel=0.01)
    assert found.selected_query_equal


def test_another_query_is_noticed(parity, files):
    changed(files[2], joint__selected_query=(load_file(files[2])["joint.selected_query"] + 1) % 4)

    found = parity["measure"](*files)

    assert not found.ok
    assert not found.selected_query_equal


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"res3": torch.zeros(1, 2, 3)}, "res3: wanted"),
        ({"stranger": torch.zeros(1)}, r"stranger: wanted \(1,\), have nothing"),
        ({"single4__similarity": torch.zeros(4, 1)}, "there are 4 prompts"),
        ({"class_emb": torch.full((4, 32), torch.nan)}, "class_emb: not finite"),
    ],
)
def test_what_cannot_be_compared_is_no_success(parity, files, tensors, problem):
    changed(files[2], **tensors)

    found = parity["measure"](*files)

    assert not found.ok
    assert re.search(problem, "; ".join(found.problems))


@pytest.mark.parametrize("broken", [False, True])
def test_the_last_line_is_json_and_the_exit_code_tells(parity, files, broken, monkeypatch, capsys):
    if broken:
        files[0].write_bytes(files[0].read_bytes()[:5000])
    named = zip(("--weights", "--config", "--io"), map(str, files), strict=True)
    monkeypatch.setattr("sys.argv", [SCRIPT, *(word for pair in named for word in pair)])

    with pytest.raises(SystemExit) as ended:
        parity["main"]()

    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code == broken
    assert answer["ok"] is not broken
    assert answer["selected_query_equal"] is not broken
    assert ("w.safetensors" in str(answer.get("problems"))) is broken


def test_parity_with_the_golden_model(parity, shared):
    golden = shared / "golden"

    found = parity["measure"](
        golden / "seem_tiny.weights.safetensors",
        golden / "seem_tiny.json",
        golden / "seem_tiny.io.safetensors",
    )

    assert found.ok, found
    assert max(found.max_abs_diff.values()) < 1e-4
    assert len(found.max_abs_diff) == 26
