"""The benchmark of object counts runs, at its smallest size."""

import json
import sys


def test_one_annotated_image_is_counted(load_script, shared, monkeypatch, capsys):
    monkeypatch.setenv("XPATH_SHARED", str(shared))
    monkeypatch.setattr(sys, "argv", ["object_counts.py", "--images", "13"])

    load_script("benchmarks/object_counts.py").main()

    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = result["images"]
    assert (row["image"], row["annotated"], row["of_truth"]) == ("13.jpg", 5, 5)
    assert abs(row["objects"] - row["annotated"]) <= 5
    assert "touching nuclei and cells separated" in result["rule"]
