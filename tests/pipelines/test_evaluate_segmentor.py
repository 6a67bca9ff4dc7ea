"""The pipeline from a folder to tables, with the weights that ship."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

LYMPHOCYTE = "nuclei-level lymphocyte in breast pathology."


@pytest.fixture(scope="module")
def pipeline(load_script):
    return load_script("pipelines/evaluate_segmentor.py")


@pytest.fixture
def quick(pipeline, monkeypatch):
    """Without pictures, which take most of the time."""
    monkeypatch.setattr(pipeline, "write_figures", lambda *_, **__: None)
    for name in ("draw_examples", "draw_panels", "write_answer_figures"):
        monkeypatch.setattr(pipeline, name, lambda *_: None)
    return pipeline


@pytest.fixture
def data(tmp_path, rng):
    """Three images of two sizes, four masks, as BiomedParseData lays them out."""
    folder = tmp_path / "clinic"
    sizes = {"a": (64, 96), "b": (50, 70), "c": (64, 96)}
    asked = [
        ("a", LYMPHOCYTE),
        ("a", "nuclei-level inflammatory in colon pathology."),
        ("b", LYMPHOCYTE),
        ("c", "odd words"),
    ]
    for part in ("test", "test_mask"):
        (folder / part).mkdir(parents=True)
    for name, size in sizes.items():
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "test" / f"{name}.png")
    for number, (name, _) in enumerate(asked):
        mask = np.zeros(sizes[name], np.uint8)
        mask[10:20, 10:30] = 255
        Image.fromarray(mask).save(folder / "test_mask" / f"{number}.png")
    images = [{"id": name, "file_name": f"{name}.png"} for name in sizes]
    annotations = [
        {"image_id": name, "mask_file": f"{number}.png", "sentences": [{"raw": words}]}
        for number, (name, words) in enumerate(asked)
    ]
    index = {"images": images, "annotations": annotations}
    (folder / "test.json").write_text(json.dumps(index))
    return folder


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_from_a_folder_to_tables_figures_and_answers(pipeline, data, tmp_path, capsys):
    out = tmp_path / "out"

    assert pipeline.main(["--data", str(data), "--out", str(out)]) == 0

    rows = table(out / "dice_by_label.csv")
    middle = ["median", "q1", "q3", "median_assd"]
    assert list(rows[0]) == ["label", "n", "dice", "ci_low", "ci_high", *middle]
    assert [(row["label"], row["n"]) for row in rows] == [
        ("breast-nuclei-lymphocyte", "2"),
        ("colon-nuclei-inflammatory", "1"),
        ("odd words", "1"),
        ("overall", "4"),
    ]
    samples = table(out / "samples.csv")
    assert float(rows[-1]["dice"]) == pytest.approx(
        np.mean([float(s["dice"]) for s in samples]), rel=1e-5
    )
    assert {sample["source"] for sample in samples} == {"clinic"}
    assert table(out / "problems.csv") == []
    assert (out / "figures" / "trends.png").is_file()
    answers = {p.stem for p in (out / "answers").iterdir()}
    assert {name for name in answers if not name.startswith("panels")} == {
        "breast-nuclei-lymphocyte", "colon-nuclei-inflammatory", "odd_words"
    }  # fmt: skip
    assert "overall" in capsys.readouterr().out


def test_broken_items_are_named_and_the_exit_code_tells(quick, data, tmp_path, capsys):
    (data / "test_mask" / "0.png").unlink()
    cut = data / "test" / "b.png"
    cut.write_bytes(cut.read_bytes()[:200])
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "test_mask" / "3.png")

    assert quick.main(["--data", str(data), "--out", str(tmp_path / "out")]) == 1

    rows = table(tmp_path / "out" / "dice_by_label.csv")
    assert [row["label"] for row in rows] == ["colon-nuclei-inflammatory", "overall"]
    told = capsys.readouterr().err
    for name in ("0.png", "b.png", "3.png"):
        assert any(name in line for line in told.splitlines() if line.startswith("left out"))
    assert len(table(tmp_path / "out" / "problems.csv")) == 3


def test_a_mapping_gives_words_a_label(quick, data, tmp_path):
    words = tmp_path / "words.csv"
    words.write_text("sentence,label,ignore\nodd words,breast-tissue-tumor,255\n")

    code = quick.main([
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--mapping",
        str(words),
    ])

    assert code == 0
    labels = [row["label"] for row in table(tmp_path / "out" / "dice_by_label.csv")]
    assert labels == ["breast-nuclei-lymphocyte", "colon-nuclei-inflammatory", "overall"]
    samples = {row["label"]: row for row in table(tmp_path / "out" / "samples.csv")}
    tumor = samples["breast-tissue-tumor"]  # its whole mask is 255: nothing known is left
    assert (tumor["prompt"], tumor["present"]) == (
        "tissue-level tumor in breast pathology.", "False"
    )  # fmt: skip


def test_the_first_images_only_and_again_against_itself(quick, data, tmp_path):
    out = tmp_path / "out"
    common = ["--data", str(data), "--out", str(out), "--limit", "1"]
    assert quick.main(common) == 0
    assert len(table(out / "samples.csv")) == 2

    before = tmp_path / "before.csv"
    before.write_bytes((out / "samples.csv").read_bytes())

    assert quick.main([*common, "--against", f"Twin={before}", "--absent"]) == 0

    rows = table(out / "compare_by_label.csv")
    assert {row["difference"] for row in rows} == {"0.0", ""}
    assert rows[-1]["p"] == "0.5"
    assert (out / "figures" / "bars_by_source.png").is_file()


def test_masks_of_another_tool_are_scored_beside_ours(quick, data, tmp_path, capsys):
    """Its masks are the truth itself but for one of another size, which is named."""
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in (data / "test_mask").iterdir():
        (masks / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "3.png")

    code = quick.main([
        *("--data", str(data), "--out", str(tmp_path / "out"), "--name", "Ours"),
        *("--predictions", f"Oracle={masks}"),
    ])

    assert code == 1
    assert "3.png is 9 x 9 px" in capsys.readouterr().err
    overall = table(tmp_path / "out" / "compare_by_source.csv")[-1]
    assert (overall["n"], overall["Oracle"], overall["best"]) == ("3", "1.0", "Oracle")
    assert float(overall["p"]) > 0.5
    assert len(table(tmp_path / "out" / "models" / "Oracle" / "samples.csv")) == 3


def test_another_tool_may_know_a_label_that_our_weights_do_not(quick, data, tmp_path):
    """Ours are asked by the nearest label too, and its masks are not."""
    words = "connective in kidney"
    index = (data / "test.json").read_text().replace("lymphocyte in breast", words)
    (data / "test.json").write_text(index)
    out = tmp_path / "out"
    common = ["--data", str(data), "--out", str(out)]

    assert quick.main([*common, "--predictions", f"Oracle={data / 'test_mask'}"]) == 0

    assert any(row["nearest"].endswith("connective") for row in table(out / "samples.csv"))
    assert {row["dice"] for row in table(out / "models" / "Oracle" / "samples.csv")} == {"1.0"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--against", "A=none.csv"), "none.csv does not exist"),
        (("--predictions", "A=nowhere"), "no folder: ['nowhere']"),
        (("--name", "A", "--model", "A=otsu"), "two models are called A"),
        (("--detector", "A=dino"), "NAME=DINO,WEIGHTS"),
    ],
)
def test_other_models_are_looked_at_before_ours_is_asked(
    quick, data, tmp_path, capsys, options, said
):
    common = ["--data", str(data), "--out", str(tmp_path / "out")]

    assert quick.main([*common, *options]) == 1

    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_boxes_of_all_models_are_what_stays(quick, data, tmp_path, monkeypatch):
    """Both figures have one name, so that of all models is drawn last."""
    drawn = []
    for name in ("write_answer_figures", "write_comparison_figures"):
        monkeypatch.setattr(quick, name, lambda *_, name=name: drawn.append(name))
    oracle = f"Oracle={data / 'test_mask'}"

    quick.main(["--data", str(data), "--out", str(tmp_path / "out"), "--predictions", oracle])

    assert drawn == ["write_answer_figures", "write_comparison_figures"]


def test_a_folder_that_is_none_is_named(pipeline, tmp_path, capsys):
    assert pipeline.main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1

    assert "test.json" in capsys.readouterr().err


RESOLUTIONS = {"fine": 0.0625, "usual": 0.25, "coarse": 0.38}


@pytest.fixture
def sources(tmp_path, rng):
    """Three sources with the same pixels and masks, each of another resolution."""
    side = 160
    rows, columns = np.mgrid[:side, :side] % 40 - 20  # nuclei in rows
    nuclei = rows**2 + columns**2 < 12**2
    pixels = np.where(nuclei[..., None], (80, 50, 140), (235, 190, 215))
    pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    mask = nuclei.astype(np.uint8) * 255
    for name, mpp in RESOLUTIONS.items():
        folder = tmp_path / name
        for part, content in (("test", pixels), ("test_mask", mask)):
            (folder / part).mkdir(parents=True)
            Image.fromarray(content).save(folder / part / "a.png")
        entry = {"image_id": 0, "mask_file": "a.png", "sentences": [{"raw": LYMPHOCYTE}]}
        images = [{"id": 0, "file_name": "a.png", "mpp": mpp}]
        index = {"images": images, "annotations": [entry]}
        (folder / "test.json").write_text(json.dumps(index))
    return tmp_path


def test_a_run_over_several_resolutions_equals_the_separate_runs(quick, sources, capsys):
    folders = [str(sources / name) for name in RESOLUTIONS]
    assert quick.main(["--data", *folders, "--out", str(sources / "mixed")]) == 0
    mixed = {row["source"]: row for row in table(sources / "mixed" / "samples.csv")}

    for folder in folders:
        out = sources / "alone" / folder.rsplit("/", 1)[1]
        assert quick.main(["--data", folder, "--out", str(out)]) == 0
        (row,) = table(out / "samples.csv")
        assert row == mixed[row["source"]]
    scores = {row["presence"] for row in mixed.values()}
    assert len(scores) == 3  # so the resolution was looked at
