"""Questions in words over a slide, as the server answers them."""

from types import SimpleNamespace

import numpy as np
import pytest

from xpath.protocols import Segmentation
from xpath.review.questions import Questions

TUMOR = "breast-tissue-tumor"


class Frame:
    """Finds every object 10 pixels within the border of the image, and remembers its size."""

    info = SimpleNamespace(name="frame", digest="0" * 64, mpp=0.5, labels=(TUMOR,))
    shapes: tuple = ()

    def encode(self, image, *, mpp=None):
        assert mpp is None  # pixels are those of the run's patches
        self.shapes = (*self.shapes, image.shape)
        return image

    def masks(self, image, prompts):
        masks = np.zeros((1, len(prompts), *image.shape[:2]), bool)
        masks[:, :, 10:-10, 10:-10] = True
        sure = np.ones((1, len(prompts)), np.float32)
        return Segmentation(masks, sure, sure, sure > 0, None, (True,) * len(prompts))


@pytest.fixture
def frame(run_folder):
    run_folder.study.__dict__["predictor"] = segmentor = Frame()
    return segmentor


def view(**changes):
    return {"labels": [TUMOR], "x": 0, "y": 0, "width": 512, "height": 384} | changes


def test_a_question_is_read_before_anything_is_segmented(client, frame):
    question = {"text": "tumour, no glial cells", "region": "breast"}

    status, said = client.json("/api/reading", "POST", question)

    assert status == 200
    assert [(each["label"], each["guess"]) for each in said["asked"]] == [(TUMOR, False)]
    assert [(each["text"], each["status"]) for each in said["words"] if each["labels"]] == [
        ("tumour", "present"), ("glial cells", "absent"),
    ]  # fmt: skip
    assert frame.shapes == ()


def test_objects_in_view_lie_on_the_slide(client, frame):
    _, said = client.json("/api/slide/one/objects", "POST", view(x=100, y=50, width=200, height=90))

    assert said["box"] == [100, 50, 200, 90]
    assert said["whole"] and said["counts"] == {TUMOR: 1}
    (tumor,) = said["objects"]
    corners = np.array(tumor["rings"][0])
    assert corners.min(axis=0).tolist() == [110, 60]
    assert corners.max(axis=0).tolist() == [290, 130]
    assert tumor["numbers"]["area um2"] == 180 * 70 * 0.25
    assert frame.shapes == ((90, 200, 3),)


def test_of_a_large_view_the_middle_is_looked_at(client, frame, monkeypatch):
    monkeypatch.setattr("xpath.review.questions.SIDE", 100)

    _, said = client.json("/api/slide/one/objects", "POST", view(x=-500, width=2000, height=2000))

    assert said["box"] == [206, 142, 100, 100]
    assert not said["whole"]
    assert frame.shapes == ((100, 100, 3),)


def test_the_largest_objects_are_sent_and_all_are_counted(client, frame, monkeypatch):
    monkeypatch.setattr("xpath.review.questions.MOST_OBJECTS", 1)
    labels = [TUMOR, "breast-tissue-stroma"]

    _, said = client.json("/api/slide/one/objects", "POST", view(labels=labels))

    assert said["shown"] == len(said["objects"]) == 1
    assert said["counts"] == dict.fromkeys(labels, 1)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/reading", {"text": " "}, 400),
        ("/api/reading", {"text": ["tumor"]}, 400),
        ("/api/reading", {"text": "tumor", "region": 3}, 400),
        ("/api/reading", {"text": "tumor " * 4000}, 413),
        ("/api/slide/one/objects", view(labels=[]), 413),
        ("/api/slide/one/objects", view(labels="tumor"), 400),
        ("/api/slide/one/objects", view(labels=["breast-tissue-unicorn"]), 404),
        ("/api/slide/one/objects", view(x="left"), 400),
        ("/api/slide/one/objects", view(x=float("1e300")), 400),
        ("/api/slide/one/objects", view(x=9000), 400),
        ("/api/slide/none/objects", view(), 404),
    ],
)
def test_what_cannot_be_answered_is_refused(client, frame, path, body, status):
    assert client.json(path, "POST", body)[0] == status
    assert frame.shapes == ()


def test_a_slide_that_was_moved_away_is_said(client, frame, run_folder):
    (run_folder.slides / "one.tiff").unlink()

    assert client.json("/api/slide/one/objects", "POST", view())[0] == 410


def test_a_busy_segmentor_is_said(client, service, frame, monkeypatch):
    monkeypatch.setattr("xpath.review.questions.PATIENCE", 0.05)

    with service.questions._segmentor:
        assert client.json("/api/slide/one/objects", "POST", view())[0] == 503
    assert client.json("/api/slide/one/objects", "POST", view())[0] == 200


def test_regions_of_the_run_come_first(run_folder, service):
    regions = Questions(run_folder.study, service._pixels).regions

    assert regions[0] == "breast"
    assert len(regions) == len(set(regions)) == 20
