import csv
import runpy
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def example(repository):
    return runpy.run_path(str(repository / "examples/glas_bags.py"))


@pytest.fixture
def folder(tmp_path):
    """Ten patients with an image each; glands of the second class are large."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    images, labels = [], []
    for i in range(10):
        mask = np.zeros((130, 260), np.uint8)
        mask[10 : 40 + 60 * (i % 2), 10:100] = 1
        pixels = rng.integers(100, 255, (130, 260, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"train_{i}.png")
        Image.fromarray(mask).save(data / f"mask_{i}.png")
        names = {"source": "glas", "image": f"train_{i}.png", "mask": f"mask_{i}.png"}
        images.append({**names, "group": f"patient {i}"})
        labels.append({**names, "original": f"{('benign', 'malignant')[i % 2]} gland"})
    images.append({"source": "other", "image": "x.png", "mask": "y.png", "group": ""})
    for name, rows in (("images", images), ("labels", labels)):
        with (data / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return tmp_path


def test_tables_are_read(example, folder):
    found = example["pictures"](folder / "data")

    assert [picture.label for picture in found] == [0, 1] * 5
    assert found[3].patient == "patient 3"
    assert found[3].mask == folder / "data" / "mask_3.png"


def test_an_image_becomes_bags(example, folder):
    class Encoder:
        dim = 2

        def maps(self, images):
            rows, columns = images.shape[-2] // 8, images.shape[-1] // 8
            return images[
                :, :2, :: images.shape[-2] // rows, :: images.shape[-1] // columns
            ].float()

    picture = example["pictures"](folder / "data")[0]

    bags = example["bags_of"](picture, Encoder(), 2)

    assert bags.patches.features.shape == (2, 2)  # 130 x 260 px are two patches of 128
    assert bags.objects.features.shape == (2, 2, 2)
    assert bags.objects.present.tolist() == [[True, True], [False, True]]
    assert bags.fractions[0] == pytest.approx(30 * 90 / (128 * 256))


def test_all_of_it_runs(example, folder, monkeypatch, capsys):
    monkeypatch.setenv("XPATH_SHARED", str(folder))
    monkeypatch.setattr(sys, "argv", ["glas_bags.py", "--epochs", "1", "--folds", "2"])

    example["main"]()

    said = capsys.readouterr().out
    assert "10 images of 10 patients, 5 malignant" in said
    line = next(row for row in said.splitlines() if row.startswith("gland area, logistic"))
    assert "1.000 [0.643, 1.000]" in line  # area decides here; of 5 and 5 that is not certain
    assert said.count("object-aware minus") == 2


def test_without_data_it_says_so(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XPATH_SHARED", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["glas_bags.py"])

    example["main"]()

    assert "skipped: no GlaS images" in capsys.readouterr().out


def test_help(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["glas_bags.py", "--help"])

    with pytest.raises(SystemExit):
        example["main"]()

    assert "--reduce" in capsys.readouterr().out
