"""``xpath recognise``: label maps, table and outlines of everything in an image."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from xpath.cli.main import main
from xpath.pathseg.biomedparse_data import PromptedMask
from xpath.pathseg.reading import read_label_map
from xpath.segment.evaluation.predictions import MaskFolder, score_masks
from xpath.segment.evaluation.questions import EvaluationConfig, questions_of
from xpath.store.tables import read_table


@pytest.fixture
def tile(tmp_path, rng):
    """Dark nuclei on pink."""
    rows, columns = np.mgrid[:128, :128] % 32 - 16
    nuclei = rows**2 + columns**2 < 9**2
    pixels = np.where(nuclei[..., None], (80, 50, 140), (235, 190, 215))
    pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    path = tmp_path / "tile.png"
    Image.fromarray(pixels).save(path)
    return path


def test_files_tell_the_same_of_every_pixel(tile, tmp_path, capsys):
    out = tmp_path / "out"

    code = main(["recognise", str(tile), "--region", "breast", "--mpp", "0.25", "--out", str(out)])

    assert code == 0
    rows = read_table(out / "recognised.csv", pixels=int, value=int, score=float, recognised=bool)
    kept = [row for row in rows if row["recognised"]]
    assert {row["label"] for row in kept} == set(capsys.readouterr().out.splitlines()[:-1])
    for structure in {row["structure"] for row in rows}:
        values = read_label_map(out / structure / "tile.png")
        named = {int(r["value"]): r["label"] for r in read_table(out / structure / "labels.csv")}
        for row in (row for row in rows if row["structure"] == structure):
            assert named[row["value"]] == row["label"]
            assert (values == row["value"]).sum() == row["pixels"]
            assert row["recognised"] or not row["pixels"]
    outlines = json.loads((out / "objects.geojson").read_text())
    assert len(outlines["features"]) >= 1
    with Image.open(out / "overlay.png") as overlay:
        assert overlay.size == (128, 128)


def test_its_folder_is_one_of_predictions(tile, tmp_path):
    """What was recognised can be scored as the masks of any other tool."""
    out = tmp_path / "out"
    arguments = ["--region", "breast", "--structure", "nuclei", "--mpp", "0.25", "--out", str(out)]
    assert main(["recognise", str(tile), *arguments]) == 0
    assert not (out / "tissue").exists()
    best = max(read_table(out / "recognised.csv", pixels=int), key=lambda row: row["pixels"])
    values = read_label_map(out / "nuclei" / "tile.png")
    truth = tmp_path / "truth.png"
    Image.fromarray(((values == int(best["value"])) * 255).astype(np.uint8)).save(truth)
    item = PromptedMask(image=tile, mask=truth, prompts=(), label=best["label"], name="t")
    config = EvaluationConfig()

    scored = score_masks(MaskFolder(out / "nuclei"), questions_of([item], config), config)

    assert [sample.dice for sample in scored.samples] == [1.0]


def test_a_region_without_taught_labels_is_told(tile, tmp_path, capsys):
    arguments = ["recognise", str(tile), "--region", "testis", "--structure", "tissue"]
    assert main([*arguments, "--out", str(tmp_path / "o")]) == 1
    assert "--all" in capsys.readouterr().err
