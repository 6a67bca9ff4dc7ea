import io
import json
import os
import re
import shutil
from dataclasses import replace
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xpath.geometry import Mpp, PatchGrid, Size
from xpath.review.service import ReviewService
from xpath.review.slide_view import analysed_rings
from xpath.study.folder import RunFolder
from xpath.testing.slides import write_slide


def grid_of(coords, footprint, size):
    return PatchGrid(
        coords=np.array(coords, np.int64), footprint=footprint, pixels=footprint, mpp=Mpp(0.5),
        overlap=0, slide_size=Size(*size), slide_mpp=0.5,
    )  # fmt: skip


def area(ring):
    (x, y), (u, v) = ring[:-1].T, ring[1:].T
    return float((x * v - u * y).sum() / 2)


def test_the_analysed_area_is_outlined_with_its_holes():
    """Eight patches around one that is left out, and one apart."""
    around = [(64 * c, 64 * r) for r in range(3) for c in range(3) if (c, r) != (1, 1)]
    masks = SimpleNamespace(grid=grid_of([*around, (320, 0)], 64, (400, 300)))

    rings = analysed_rings(masks)

    assert sorted(abs(area(ring)) for ring in rings) == [64**2, 64**2, 192**2]
    assert sum(area(ring) for ring in rings) in (9 * 64**2, -9 * 64**2)  # a hole turns back


def test_uneven_steps_leave_no_seam():
    """At 0.499 mpp patches of 257 pixels begin 256 or 257 pixels apart."""
    starts = np.rint(np.arange(6) * 256.5).astype(int).tolist()
    grid = grid_of([(x, y) for y in starts for x in starts], 257, (2000, 2000))

    (ring,) = analysed_rings(SimpleNamespace(grid=grid))

    assert abs(area(ring)) == pytest.approx((starts[-1] + 257) ** 2, rel=0.05)


def test_a_label_that_was_never_taught_is_a_guess(service):
    view = service._view(service._entry("one"))
    view.masks.facts.taught[1] = False

    names = [one["name"] for one in view.describe()["object_classes"]]

    assert ["guess" in name for name in names] == [False, True, False, False]


def test_a_label_that_answers_for_others_says_so(service):
    view = service._view(service._entry("one"))
    answers = {"breast-nuclei-lymphocyte": ["breast-nuclei-plasma cells", "breast-cell-leukocytes"]}
    view.masks.provenance["answers_for"] = json.dumps(answers)

    said = [one.get("answers_for") for one in view.describe()["object_classes"]]

    assert said == [None, None, "plasma cells, leukocytes (cell)", None]


def test_probabilities_are_calibrated_where_a_temperature_is_known(service):
    view = service._view(service._entry("one"))
    view = replace(view, temperature={"object_aware": 2.0, "attention": 4.0})

    shown = view.describe()["probability"]

    logits = {
        "object-aware model": view.explanation.object.logits / 2,
        "standard model": view.explanation.patch.logits / 4,
    }
    assert list(shown) == list(logits)
    for model, values in logits.items():
        odds = np.exp(values) / np.exp(values).sum()
        assert list(shown[model].values()) == pytest.approx(odds.tolist())


def test_areas_are_of_the_analysed_tissue(service):
    tumor = service.slide("one")["object_classes"][0]

    pixels = 50 * 160 + 10 * 40
    assert tumor["area"] == pixels / (512 * 384)
    assert tumor["mm2"] == pytest.approx(pixels * 0.25 / 1e6)


LAYER = ("one", "object_map", (9, 0, 0), "")
TILE = ("one", (9, 0, 0))


def test_a_slide_that_was_explained_again_is_shown_anew(service, run_folder):
    old, layer = service.slide("one"), service.layer(*LAYER)
    assert service.slide("one") == old
    folder = run_folder.study.folder
    shutil.copy(folder.explanation("two words"), draft := folder.slide("one") / "draft")
    draft.replace(folder.explanation("one"))

    shown, other = service.slide("one"), service.slide("two words")
    assert shown["object_classes"] == other["object_classes"] != old["object_classes"]
    assert shown["stamp"] != old["stamp"]
    assert service.layer(*LAYER) == ReviewService(run_folder.study).layer(*LAYER) != layer


def test_a_slide_file_that_was_replaced_is_read_anew(service, run_folder):
    tile, stamp = service.tile(*TILE), service.slide("one")["stamp"]
    draft = run_folder.slides / "draft.tiff"
    write_slide(draft, np.full((384, 512, 3), 90, np.uint8), mpp=0.5)
    draft.replace(run_folder.slides / "one.tiff")

    assert service.tile(*TILE) != tile
    assert (
        np.abs(np.asarray(Image.open(io.BytesIO(service.tile(*TILE)))).astype(int) - 90).max() < 3
    )
    assert service.slide("one")["stamp"] != stamp


def test_a_browser_can_tell_the_tiles_of_one_run_from_those_of_another(service, run_folder):
    """Both are served at the same address, one after the other, with slides of the same names."""
    shutil.copytree(run_folder.root, run_folder.root.with_name("other"), copy_function=os.link)
    folder = RunFolder(run_folder.root.with_name("other"))
    other = ReviewService(replace(run_folder.study, folder=folder))

    assert other.slide("one") | {"stamp": ""} == service.slide("one") | {"stamp": ""}
    assert other.slide("one")["stamp"] != service.slide("one")["stamp"]
    script = (files("xpath.review") / "page" / "review.js").read_text()
    addresses = re.findall(r"`(?:tile|layer)/.*", script)
    assert len(addresses) == 2
    assert all("?${stamp}" in address for address in addresses)
