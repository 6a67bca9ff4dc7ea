"""Words that show their objects: the question box of the review page, findings, and answers."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xpath.ask.answer import Asked
from xpath.ask.files import write_answer
from xpath.ask.picture import ask_image
from xpath.explain.explanation import read_explanation
from xpath.explain.maps import object_map, object_shares, patch_map
from xpath.export.overlay import Panels
from xpath.export.report.facts import findings_of
from xpath.geometry import Size
from xpath.language.offline import OfflineReader
from xpath.language.reading import Request
from xpath.protocols import Segmentation
from xpath.review.service import ReviewService
from xpath.store.masks import open_masks
from xpath.store.objects import read_objects
from xpath.study.findings import write_findings
from xpath.wsi.slide import Slide

_spec = importlib.util.spec_from_file_location(
    "run_made_by_hand", Path(__file__).parents[1] / "review" / "conftest.py"
)
_by_hand = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_by_hand)
patched, made, run_folder = _by_hand.patched, _by_hand.made, _by_hand.run_folder


class Halves:
    """A segmentor that finds every object in the left half, and two of them in the right one."""

    info = SimpleNamespace(
        name="halves", digest="0" * 64, mpp=0.5, labels=("breast-nuclei-lymphocyte",)
    )

    def encode(self, image, *, mpp=None):
        return image

    def masks(self, image, prompts):
        height, width = image.shape[:2]
        masks = np.zeros((1, len(prompts), height, width), bool)
        for number, prompt in enumerate(prompts):
            masks[0, number, 20:60, 10 : width // 3] = True
            masks[0, number, 20:60, -60:-20] = "lymphocyte" in prompt
        sure = masks.any(axis=(2, 3)).astype(np.float32)
        return Segmentation(masks, sure, sure, sure > 0, None, (True,) * len(prompts))


@pytest.fixture
def review(run_folder, new_page, monkeypatch):
    monkeypatch.setitem(run_folder.study.__dict__, "predictor", Halves())
    with _by_hand.serving(ReviewService(run_folder.study)) as client:
        page = new_page()
        page.open(f"http://127.0.0.1:{client.port}/")
        page.until("document.querySelector('main').ariaBusy === 'false'")
        yield page


def test_a_question_is_read_and_then_seen_on_the_slide(review):
    page = review
    page.type("#question", "Lymphocytes, possibly DCIS, but no necrosis <script>boom()</script>")
    page.click("#read")
    page.until("!byId('reading').hidden")

    spans = page.run(
        "[...document.querySelectorAll('#reading-words .word')]"
        ".map((w) => [w.textContent, w.className])"
    )
    assert spans == [
        ["Lymphocytes", "word present"],
        ["DCIS", "word uncertain"],
        ["necrosis", "word absent"],
    ]
    assert "a guess" in page.run("byId('reading-labels').children[1].textContent")
    assert "<script>boom()" in page.run("byId('reading-words').textContent")
    assert page.run("viewer.answers.length") == 0  # nothing is segmented before it is asked for

    page.click("#look")
    page.until("viewer.answers.length === 3")
    assert "3 objects" in page.run("byId('looking').textContent")
    page.click("#reading-words .present")
    assert page.run("viewer.answers.length") == 2
    page.click("#reading-words .absent")
    assert page.run("viewer.answers.length") == 0
    page.click("#clear")
    assert page.run("byId('reading').hidden")
    assert page.complaints() == []


@pytest.fixture
def findings(made, tmp_path):
    """The findings page of the first slide."""
    folder = made / "run" / "slides" / "one"
    masks, objects = open_masks(folder / "masks.zarr"), read_objects(folder / "objects.h5")
    explanation = read_explanation(folder / "explanation.h5")
    with Slide.open(made / "slides" / "one.tiff") as slide:
        overview = slide.thumbnail(512)
    size = Size(overview.shape[1], overview.shape[0])
    shares = object_shares(masks, size)
    panels = Panels(
        title="one", overview=overview, um_per_pixel=0.5, objects=masks.labels, shares=shares,
        patch_map=patch_map(explanation.patch.scores, masks.grid, size),
        object_map=object_map(explanation.object.activation[:3], shares),
        contribution=explanation.object.contribution,
        contribution_names=explanation.object.objects, class_name="A",
    )  # fmt: skip
    facts = findings_of(explanation, objects, classes=("A", "B"), probability=0.9)
    write_findings(tmp_path, facts, objects, panels, facts={"slide": "one"}, synthetic=False)
    return tmp_path / "findings.html"


def lit(page):
    """Names of the layers that are seen, and how many outlines are."""
    return page.run(
        "[[...document.querySelectorAll('[data-layer]')].filter((i) => i.style.opacity > 0)"
        ".map((i) => i.alt), document.querySelectorAll('g:not(.off) path').length]"
    )


def test_a_word_of_the_findings_shows_its_objects(findings, new_page):
    page = new_page()
    page.open(findings.as_uri())
    assert len(lit(page)[0]) == 3

    page.click("button.word[data-means='breast-tissue-tumor']")

    assert lit(page) == [["tumor (tissue)"], 2]
    told = page.run("document.getElementById('told').textContent")
    assert "tumor (tissue): 2 objects" in told
    page.click("button.word[data-means='breast-tissue-tumor']")
    assert len(lit(page)[0]) == 3
    # every number says where it is from
    page.run(
        "[...document.querySelectorAll('button.word')]"
        ".find((w) => w.textContent.includes('of the area looked at')).click()"
    )
    assert "objects.h5: label_pixels" in page.run("document.getElementById('told').textContent")
    # and an object says which it is
    page.run("document.querySelector('path').dispatchEvent(new Event('click'))")
    told = page.run("document.getElementById('told').textContent")
    name = told.split(":")[0]
    facts = json.loads(findings.with_name("findings.json").read_text())["facts"]
    assert name in [one for fact in facts for one in fact["ids"]]
    assert page.complaints() == []
    assert [it for it in page.requested() if not it.startswith("data:")] == [findings.as_uri()]


def test_a_report_with_a_script_in_it_stays_text(new_page, tmp_path):
    text = "Lymphocytes.\n<script>document.title='owned'</script><img src=x onerror=boom()>\n"
    text += "No necrosis."
    reading = OfflineReader().read(Request(text, "report", "breast"))
    image = np.full((90, 200, 3), 200, np.uint8)
    answer, _ = ask_image(image, Asked(text, reading), Halves(), name="</title>a", mpp=0.5)
    path, *_ = write_answer(answer, tmp_path)

    page = new_page()
    page.open(path.as_uri())

    assert page.run("document.title") == "</title>a · xpath"
    assert page.run("document.querySelector('#text p').textContent") == text
    assert page.run("document.querySelectorAll('#text script, #text img').length") == 0
    page.click("button.word.present")
    assert lit(page) == [["lymphocyte (nuclei)"], 2]
    page.click("button.word.absent")
    assert lit(page) == [[], 0]
    assert "denied by the text" in page.run("document.getElementById('told').textContent")
    assert page.complaints() == []
