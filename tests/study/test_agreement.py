"""What a run exported for QuPath, read back: it agrees with the masks it was made from."""

from __future__ import annotations

import csv

import pytest

from xpath.cli.main import main
from xpath.store.masks import open_masks

pytestmark = pytest.mark.integration


def test_a_runs_own_export_agrees_with_its_masks(finished, tmp_path, capsys):
    folder = next(path.parent for path in sorted(finished.glob("slides/*/explanation.h5")))
    exported, out = folder / "export" / "objects.geojson", tmp_path / "out.csv"

    code = main([
        "compare", str(finished), str(exported), "--slide", folder.name, "--out", str(out)
    ])  # fmt: skip

    assert code == 0
    assert "compared wherever there are patches" in capsys.readouterr().out
    with out.open(newline="") as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    masks = open_masks(folder / "masks.zarr")
    assert rows
    for label, row in rows.items():
        # Only specks of less than 4 square microns are not in the export.
        assert float(row["dice"]) > 0.97
        assert float(row["both_area"]) == float(row["corrected_area"])
        assert row["model_objects"] == row["corrected_objects"]
        pixels = masks.area[:, masks.labels.index(label)].sum()
        side = masks.grid.slide_mpp * masks.grid.footprint / masks.size
        assert float(row["model_area"]) == pytest.approx(pixels * side**2, rel=1e-5)


def test_without_a_name_the_slides_are_listed(finished, tmp_path, capsys):
    assert main(["compare", str(finished), str(tmp_path / "any.geojson")]) == 1
    told = capsys.readouterr().err
    assert "choose one of its 6 with --slide: synthetic-000, synthetic-001" in told
