"""Every benchmark and example runs, at its smallest size, on data drawn here."""

from __future__ import annotations

import csv
import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

SMALLEST = {
    "benchmarks/bookkeeping.py": ["--slides 4 8"],
    "benchmarks/attention_pool.py": ["--patches=20 --dim=8 --forwards=1 --repeats=1"],
    "benchmarks/geojson_export.py": ["--objects=20 --touching=0.5"],
    "benchmarks/mil_defaults.py": [
        "--rows digits musk --bags=12 --ratios=1 --folds=2 --positives=7 --plain-epochs=1"
        " --set=epochs=1"
    ],
    "benchmarks/null_bias.py": ["--slides=2 --patches=2 --draws=1 --shares 0.5"],
    "benchmarks/ome_tiff_export.py": ["--size=300 --map=score", "--size=300 --map=colour"],
    "benchmarks/packed_training.py": ["--bags=4 --median=3 --dim=4 --step=2 --repeats=1"],
    "benchmarks/planted_paintings.py": ["--seeds=1 --permutations=1 --slides=8"],
    "benchmarks/presence.py": ["--data={data} --split={data}/split.csv --bag=2 --bags=1"],
    "benchmarks/recognise.py": ["--size=64 --labels=3 --repeats=1"],
    "benchmarks/segment_prompts.py": [
        "--model=tiny --size=64 --prompts 1 --repeats=1",
        "--model=mini --size=64 --prompts 1 --flops-only",
    ],
    "benchmarks/throughput.py": ["--sides 4096 --islands=1 --labels=1 --repeats=1"],
    "benchmarks/training_batches.py": ["--batch=1x32 --fields=1 --steps=1"],
    "benchmarks/training_step.py": ["--variants narrow --steps=1 --crops=1 --prompts=1"],
    "examples/glas_bags.py": ["--epochs=1 --folds=2 --reduce=4"],
    "examples/object_aware_mil.py": [""],
    "examples/segment_with_words.py": ["--out=overlay.png"],
}
"""Script to the smallest arguments for it."""
PROMISES = {
    "examples/glas_bags.py": "object-aware minus gland area",
    "examples/object_aware_mil.py": "right: 10 of 10",
    "examples/segment_with_words.py": "wrote overlay.png",
}
"""Example to what it prints; a benchmark prints JSON last."""
ELSEWHERE = {
    f"benchmarks/{name}.py"
    for name in (
        "gpu/segmentor",
        "gpu/suite",
        "language",
        "object_counts",
        "parity_seem",
        "planted_truth",
        "readers",
        "review_server",
        "segment_slide",
    )
}
"""Run by a test of their own, which makes or finds what they read: ``test_language`` and so on."""


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    """Two drawn images each of four patients in both layouts the scripts read."""
    root = tmp_path_factory.mktemp("shared")
    data, rng = root / "data", np.random.default_rng(0)
    data.mkdir()
    images, labels, split = [], [], []
    for number in range(8):
        name, group = f"glas_{number}", f"patient {number // 2}"
        mask = np.zeros((128, 128), np.uint8)
        mask[16:48, 16:48] = mask[64:112, 40:104] = 1
        pixels = np.where(mask[..., None] > 0, (90, 40, 120), (230, 200, 220))
        pixels = np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(data / f"{name}.png")
        Image.fromarray(mask).save(data / f"{name}_mask.png")
        source = {"source": "glas", "image": f"{name}.png", "mask": f"{name}_mask.png"}
        images.append({**source, "region": "colon", "group": group, "mpp": 0.5})
        grade = "malignant" if number % 4 > 1 else "benign"
        label = "unspecified-nuclei-nuclei"
        labels.append({**source, "value": 1, "label": label, "original": f"{grade} gland"})
        held = "test" if number < 2 else "train"
        split.append({"source": "glas", "image": name, "group": group, "split": held})
    for name, rows in (("images", images), ("labels", labels), ("split", split)):
        with (data / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return root


def test_every_script_is_run(repository):
    scripts = {
        path.relative_to(repository).as_posix()
        for folder in ("benchmarks", "examples")
        for path in (repository / folder).rglob("*.py")
    }
    assert scripts == set(SMALLEST) | ELSEWHERE


@pytest.mark.parametrize(
    ("script", "arguments"), [(name, line) for name, lines in SMALLEST.items() for line in lines]
)
def test_it_runs(repository, shared_folder, tmp_path, monkeypatch, capsys, script, arguments):
    words = arguments.format(data=shared_folder / "data").split()
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.setattr(sys, "path", [*sys.path])  # one of them puts the checkout first
    monkeypatch.setenv("XPATH_SHARED", str(shared_folder))
    monkeypatch.chdir(tmp_path)

    runpy.run_path(str(repository / script), run_name="__main__")

    printed = capsys.readouterr().out
    if script in PROMISES:
        assert PROMISES[script] in printed
        return
    facts = json.loads(printed.splitlines()[-1])
    assert facts
    assert "error" not in str(facts)
    if script == "benchmarks/segment_prompts.py" and "--flops-only" not in arguments:
        assert facts["naive_mib"] is not None, "the fresh process failed"


def test_without_its_images_an_example_says_so(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["glas_bags.py"])
    monkeypatch.setenv("XPATH_SHARED", str(tmp_path))

    runpy.run_path(str(repository / "examples" / "glas_bags.py"), run_name="__main__")

    assert "skipped: no GlaS images" in capsys.readouterr().out
