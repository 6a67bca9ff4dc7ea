"""Findings in measured facts: every number has a source, every name its objects."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from xpath.export.report.facts import (
    Share,
    findings_json,
    findings_of,
    paragraphs,
    said_absent,
    shares_of_evidence,
)
from xpath.export.report.linked import outline_path
from xpath.export.report.records import CohortNeed
from xpath.export.report.words import where_in_words
from xpath.geometry import PatchGrid, Size
from xpath.store.objects import ObjectTable

TUMOR, FAT, STROMA = "breast-tissue-tumor", "breast-tissue-fat", "breast-tissue-stroma"


def grid(across=3, down=3):
    corners = [(x * 100, y * 100) for y in range(down) for x in range(across)]
    return PatchGrid(
        coords=np.array(corners, np.int64), footprint=100, pixels=100, mpp=0.5, overlap=0,
        slide_size=Size(across * 100, down * 100), slide_mpp=0.5,
    )  # fmt: skip


def square(x, y, side):
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]


@pytest.fixture
def objects():
    """Two tumours of 100 and 400 pixels in the first patch, stroma in all; no fat."""
    rings = [square(10, 10, 10), square(40, 40, 20), square(0, 0, 300)]
    label_patch_pixels = np.zeros((9, 3), np.int64)
    label_patch_pixels[0, 0], label_patch_pixels[:, 2] = 500, 10_000
    return ObjectTable(
        labels=(TUMOR, FAT, STROMA), rule="a rule", grid=grid(), origin=(0, 0), scale=1.0,
        label=np.array([0, 0, 2]), pixels=np.array([100, 400, 90_000]),
        boxes=np.array([[10, 10, 20, 20], [40, 40, 60, 60], [0, 0, 300, 300]]),
        centres=np.array([[15, 15], [50, 50], [150, 150]]),
        confidence=np.array([0.5, 1.0, 0.75]), ring_ends=np.array([1, 2, 3]),
        share_ends=np.array([1, 2, 11]), corner_ends=np.array([5, 10, 15]),
        corners=np.concatenate([np.array(ring) for ring in rings]),
        patches=np.array([0, 0, *range(9)]), patch_pixels=np.array([100, 400, *[10_000] * 9]),
        label_pixels=np.array([500, 0, 90_000]), label_patch_pixels=label_patch_pixels,
    )  # fmt: skip


@pytest.fixture
def explanation():
    terms = np.zeros((9, 4))
    terms[0, 0], terms[:, 2], terms[:, 3] = 3.0, -1.0 / 9, 0.0
    return SimpleNamespace(
        slide_id="one", target=1,
        object=SimpleNamespace(
            objects=(TUMOR, FAT, STROMA, "other"), patch_contribution=terms,
            contribution=terms.sum(axis=0), bars=terms.sum(axis=0) - [1.0, 0.25, 0.0, 0.0],
            baseline_logit=0.5, target=1, present=np.array([True, False, True, True]),
        ),
        importance=SimpleNamespace(
            target=0, objects=(TUMOR,), effect=np.array([2.0]), null=np.array([0.5])
        ),
    )  # fmt: skip


@pytest.fixture
def findings(explanation, objects):
    return findings_of(
        explanation, objects, classes=("A", "B"), probability=0.875,
        guesses=frozenset({TUMOR}), needs={
            TUMOR: CohortNeed(0.2, 0.9, 0.1, 0.4, 0.1, 0.4), STROMA: CohortNeed(*[np.nan] * 6),
        },
    )  # fmt: skip


def test_facts_are_what_was_measured(findings):
    tumor, stroma, fat = findings.facts

    assert (tumor.label, tumor.guess, tumor.count, tumor.first, tumor.stop) == (
        TUMOR,
        True,
        2,
        0,
        2,
    )
    assert tumor.ids == (f"{TUMOR}/40,40", f"{TUMOR}/10,10")  # the largest first
    assert tumor.share.value == pytest.approx(2 / 3.25)
    assert tumor.area_fraction == pytest.approx(500 / 90_000)
    assert tumor.area_um2 == 125
    assert tumor.density_mm2 == pytest.approx(2 / (90_000 * 0.25) * 1e6)
    assert tumor.confidence == pytest.approx(0.9)
    assert (tumor.hidden, tumor.random, tumor.patients) == (2.0, 0.5, (0.1, 0.4))
    assert (stroma.where, stroma.share.value) == ("throughout", pytest.approx(-1 / 3.25))
    assert (stroma.first, stroma.stop, stroma.patients, stroma.hidden) == (2, 3, None, None)
    assert (fat.count, fat.where, fat.confidence) == (0, "", None)


def test_sentences_hold_the_facts_and_their_sources(findings):
    lines = paragraphs(findings)

    sentences = ["".join(words.text for words in line) for line in lines]
    assert sentences[0] == "The object-aware model predicts B (87.5 %)."
    assert sentences[2].startswith(
        "Tumor (tissue) does not surely speak for or against B, with +62 %"
    )
    assert "2 objects on 0.6 % of the area looked at (0.000125 mm²), 89 per mm²" in sentences[2]
    assert sentences[2].endswith(
        "mostly in the upper left. Hidden, the standard model's log-odds of A fall by +2.000"
        " (random tissue: +0.500), over patients by +0.100 to +0.400 more than random tissue."
    )
    assert "average training slide, whose log-odds for B are +0.500" in sentences[1]
    absent = sentences[-1]
    assert absent.startswith("Looked for, and not there: Fat (tissue) (\N{MINUS SIGN}8 % [")
    linked = [words for line in lines for words in line if words.labels or words.source]
    assert all(words.source for words in linked)
    digits = [words for line in lines for words in line if any(map(str.isdigit, words.text))]
    assert all(words.is_fact for words in digits)


@pytest.mark.parametrize(
    ("share", "verb"),
    [
        (Share(0.5, 0.2, 0.8), "speaks for B, with +50 % ["),
        (Share(-0.5, -0.8, -0.2), "speaks against B, with"),
        (Share(0.5, -0.1, 0.8), "does not surely speak for or against B, with"),
    ],
)
def test_a_side_is_taken_where_the_interval_leaves_out_0(findings, share, verb):
    tumor = replace(findings.facts[0], share=share, contribution=share.value)

    sentence = paragraphs(replace(findings, facts=(tumor,)))[2]

    assert "".join(words.text for words in sentence).startswith(f"Tumor (tissue) {verb}")


def test_an_object_too_small_for_the_classifier_is_not_said_to_speak_itself(explanation, objects):
    """Fat is on the slide, but no patch has enough of it: what counts is its absence."""
    pixels, by_patch = objects.label_pixels.copy(), objects.label_patch_pixels.copy()
    pixels[1], by_patch[8, 1] = 90, 90
    small = replace(objects, label_pixels=pixels, label_patch_pixels=by_patch)

    found = findings_of(explanation, small, classes=("A", "B"), probability=0.875)

    lines = ["".join(words.text for words in line) for line in paragraphs(found)]
    (said,) = [line for line in lines if line.startswith("Fat")]
    assert said.startswith("Fat (tissue), too little to be read, ")
    assert "0 objects on 0.1 % of the area looked at" in said
    (count,) = [w for line in paragraphs(found) for w in line if w.text == "0 objects"]
    assert count.source == "slides/one/objects.h5: label"  # there are no rows to name
    tumor = next(line for line in lines if line.startswith("Tumor"))
    assert "too little" not in tumor


def test_a_label_taken_as_absent_is_looked_for_and_not_there(explanation, objects):
    """Without competition it keeps masks that nothing else of the page speaks of."""
    found = said_absent(
        findings_of(explanation, objects, classes=("A", "B"), probability=0.875), [STROMA]
    )

    lines = ["".join(words.text for words in line) for line in paragraphs(found)]

    assert not any(line.startswith("Stroma") for line in lines)
    assert "Stroma (tissue) (\N{MINUS SIGN}31 %" in lines[-1]
    assert "(its masks, on 100.0 % of the area looked at, are not believed)" in lines[-1]
    assert [fact.present for fact in found.facts if fact.label == STROMA] == [False]


def test_the_file_is_json_without_nan(findings):
    content = findings_json(findings, paragraphs(findings))

    text = json.dumps(content, allow_nan=False)
    assert json.loads(text)["schema"] == "xpath.findings/1"
    assert content["facts"][0]["share"]["value"] == pytest.approx(2 / 3.25)
    assert content["sentences"][2]["words"][0]["labels"] == [TUMOR]


def test_intervals_hold_the_share_and_widen_with_few_patches():
    rng = np.random.default_rng(0)
    few = rng.normal([2.0, -1.0], 1.0, (20, 2))
    many, none = np.tile(few, (50, 1)), np.zeros(2)

    wide, narrow = shares_of_evidence(few, none), shares_of_evidence(many, none)

    for one, other in zip(wide, narrow, strict=True):
        assert one.low < one.value < one.high
        assert other.value == pytest.approx(one.value)
        assert other.high - other.low < 0.3 * (one.high - one.low)
    assert sum(abs(share.value) for share in wide) == pytest.approx(1)
    assert shares_of_evidence(few, none) == wide
    assert shares_of_evidence(np.zeros((3, 2)), none)[0] == (0, 0, 0)


def test_a_single_patch_is_no_evidence_of_others():
    one, other, nothing = shares_of_evidence(np.array([[3.0, -1.0, 0.0]]), np.zeros(3))

    assert (one, other, nothing) == ((0.75, -1, 1), (-0.25, -1, 1), (0, 0, 0))


@pytest.mark.parametrize(
    ("filled", "words"),
    [
        ([8], "mostly in the lower right"),
        ([4, 4, 3], "mostly in the centre"),
        (range(9), "throughout"),
        ([1, 1, 3, 7, 5], "the largest part in the upper middle"),  # 2 of 5 are not most
        ([0, 8], "in several places"),  # half each
        ([], ""),
    ],
)
def test_where_an_object_lies(filled, words):
    pixels = np.bincount(list(filled), minlength=9)
    if words.startswith("the largest part"):
        pixels[[0, 2]] = 0
        assert np.count_nonzero(pixels) < 4.5

    assert where_in_words(pixels, grid()) == words


def test_an_outline_is_drawn_in_pixels_of_the_overview():
    ring = np.array(square(100, 200, 40), float)

    assert outline_path([ring], (100, 200), 0.25) == "M0 0L10 0L10 10L0 10Z"
    assert outline_path([ring], (0, 0), 0.0001).count("L") == 0
