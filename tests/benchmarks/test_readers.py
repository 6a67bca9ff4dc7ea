import json


def test_one_line_per_slide_with_equal_pixels(load_script, tmp_path, capsys, monkeypatch, rng):
    module = load_script("benchmarks/readers.py")
    monkeypatch.setattr(module, "SIDE", 64)
    path = tmp_path / "a.tiff"
    module.write_slide(path, rng.integers(0, 256, (300, 400, 3), dtype="uint8"), mpp=0.5)
    monkeypatch.setattr("sys.argv", ["readers.py", str(path), "--reads", "2"])

    module.main()

    line = json.loads(capsys.readouterr().out)
    assert (line["slide"], line["equal"]) == ("a.tiff", True)
    assert min(line["on_tiles_openslide"], line["beside_tiles_fast"]) > 0
