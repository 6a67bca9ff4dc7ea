"""Objects of images, views and slides, and the files written about them."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xpath.ask.answer import Asked
from xpath.ask.files import write_answer, write_masks
from xpath.ask.picture import ask_image, ask_slide, find_labels
from xpath.errors import DataError
from xpath.export.qupath.rules import check_geojson
from xpath.geometry import Box
from xpath.labels import load_labels
from xpath.language.offline import OfflineReader
from xpath.language.reading import Request
from xpath.protocols import Segmentation
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.store.objects import read_objects
from xpath.testing.slides import write_slide
from xpath.wsi.slide import Slide

TUMOR, LYMPHOCYTE = "breast-tissue-tumor", "breast-nuclei-lymphocyte"


class Corner:
    """Finds every object in rows 10 to 30 and columns 20 to 60 of the image."""

    info = SimpleNamespace(name="corner", digest="0" * 64, mpp=0.5, labels=(TUMOR,))

    def encode(self, image, *, mpp=None):
        return image

    def masks(self, image, prompts):
        masks = np.zeros((1, len(prompts), *image.shape[:2]), bool)
        masks[:, :, 10:30, 20:60] = True
        sure = np.full((1, len(prompts)), 0.75, np.float32)
        return Segmentation(masks, sure, sure, sure > 0, None, (True,) * len(prompts))


def asked(text, case="targeted"):
    return Asked(text, OfflineReader().read(Request(text, case, "breast")))


IMAGE = np.full((100, 200, 3), 200, np.uint8)


def test_objects_of_a_view_lie_on_the_slide():
    """The image shows 400 x 200 level-0 pixels at (1000, 500), two of them to a pixel."""
    box = Box(1000, 500, 400, 200)

    found = find_labels(IMAGE, [load_labels()[TUMOR]], Corner(), mpp=None, box=box, level0_mpp=0.25)

    (tumor,) = found.features
    assert np.min(tumor.rings[0], axis=0).tolist() == [1040, 520]
    assert np.max(tumor.rings[0], axis=0).tolist() == [1120, 560]
    assert tumor.measurements == {"area um2": 80 * 40 * 0.25**2, "confidence": 0.75}
    assert tumor.name == f"{TUMOR}/1040,520"


def test_an_image_too_large_for_one_go_is_refused():
    huge = np.broadcast_to(np.zeros(3, np.uint8), (3000, 3000, 3))

    with pytest.raises(DataError, match="ask it as a slide"):
        find_labels(huge, [load_labels()[TUMOR]], Corner(), mpp=1.0)


def test_an_answer_is_written_whole(tmp_path):
    text = "Tumor and lymphocytes, no necrosis."
    answer, masks = ask_image(IMAGE, asked(text), Corner(), name="a", mpp=0.5)

    paths = write_answer(answer, tmp_path)

    assert [path.name for path in paths] == [
        "ask.html", "objects.csv", "overlay.png", "objects.geojson", "reading.json",
    ]  # fmt: skip
    assert answer.guesses == {LYMPHOCYTE}
    with (tmp_path / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["guess"], row["area"], row["unit"]) for row in rows] == [
        (LYMPHOCYTE, "yes", "200.0", "um2"), (TUMOR, "no", "200.0", "um2"),
    ]  # fmt: skip
    assert [(row["x"], row["y"]) for row in rows] == [("40.0", "20.0")] * 2
    assert check_geojson(tmp_path / "objects.geojson") == 2
    assert json.loads((tmp_path / "reading.json").read_text())["text"] == text
    assert np.asarray(Image.open(tmp_path / "overlay.png")).shape == (100, 200, 3)
    page = (tmp_path / "ask.html").read_text()
    assert "The weights never learnt lymphocyte (nuclei)" in page
    for path, mask in zip(write_masks(answer, masks, tmp_path), masks, strict=True):
        assert ((np.asarray(Image.open(path)) == 255) == mask).all()


def test_without_a_resolution_areas_are_pixels(tmp_path):
    answer, _ = ask_image(IMAGE, asked("tumor"), Corner(), name="a")

    assert answer.features[0].measurements["area px"] == 800
    write_answer(answer, tmp_path)
    assert "resolution of the image is not known" in (tmp_path / "ask.html").read_text()


def test_what_the_presence_test_denies_is_said(tmp_path, monkeypatch):
    class Doubting(Corner):
        def masks(self, image, prompts):
            answer = super().masks(image, prompts)
            return answer._replace(present=np.array([["tumor" in each for each in prompts]]))

    answer, _ = ask_image(IMAGE, asked("tumor and lymphocytes"), Doubting(), name="a", mpp=0.5)

    assert answer.doubted == {LYMPHOCYTE}
    write_answer(answer, tmp_path)
    assert "is not there: lymphocyte (nuclei)." in (tmp_path / "ask.html").read_text()


def test_shares_on_the_overview_keep_the_area():
    wide = np.full((150, 2400, 3), 200, np.uint8)

    answer, _ = ask_image(wide, asked("tumor"), Corner(), name="a", mpp=0.5)

    assert answer.overview.shape == (69, 1100, 3)
    pixel = (150 / 69) * (2400 / 1100)
    assert answer.shares.sum() * pixel == pytest.approx(800, rel=1e-4)


def test_what_asks_for_nothing_is_refused():
    with pytest.raises(DataError, match="asks for nothing"):
        ask_image(IMAGE, asked("no necrosis", "report"), Corner(), name="a")


def test_a_slide_is_asked_with_the_weights_that_ship(tmp_path):
    pixels = np.full((1024, 1024, 3), 242, np.uint8)
    pixels[:640, :640] = (200, 120, 170)
    write_slide(tmp_path / "a.tiff", pixels, mpp=0.5)
    predictor = SegmentPredictor.from_pretrained()

    with Slide.open(tmp_path / "a.tiff") as slide:
        answer = ask_slide(slide, asked("stroma"), predictor, tmp_path / "out")

    table = read_objects(tmp_path / "out" / "objects.h5")
    assert table.labels == ("breast-tissue-stroma",)
    assert len(answer.features) == len(table)
    assert answer.shares.shape[0] == 1
    assert answer.bounds == Box(0, 0, 1024, 1024)
    write_answer(answer, tmp_path / "out")
    assert (tmp_path / "out" / "ask.html").exists()
