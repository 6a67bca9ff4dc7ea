"""From slides to pages: what a run writes, and that nothing can spoil it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from xpath.batch.slides import SlideEntry
from xpath.errors import DataError, StoreError
from xpath.explain.explanation import read_explanation
from xpath.labels import parse_object
from xpath.mil.bag import pack
from xpath.mil.classifier import load_classifier
from xpath.store.features import read_features
from xpath.store.masks import open_masks
from xpath.store.tables import read_table, write_table
from xpath.study.chain import (
    export_stage,
    features_stage,
    run_chain,
    segment_stage,
)
from xpath.study.cohort import train_classifiers
from xpath.study.evidence import tabulate_importance
from xpath.study.exports import export
from xpath.study.folder import slide_splits
from xpath.study.index_page import export_index
from xpath.study.slides import bags_of
from xpath.study.study import new_study, open_study
from xpath.testing.slides import write_slide
from xpath.wsi.probe import ProbeLimits, probe

pytestmark = pytest.mark.integration


def test_a_run_writes_every_stage(finished, small):
    explained = [path.parent for path in finished.glob("slides/*/explanation.h5")]

    assert explained
    for folder in explained:
        masks, features = open_masks(folder / "masks.zarr"), read_features(folder / "features.h5")
        asked = [parse_object(text) for text in small.objects.labels]
        assert features.objects == (*(label.id for label in asked), "other")
        prompts = json.dumps([label.prompt for label in asked])
        assert masks.provenance["prompts"] == features.provenance["prompts"] == prompts
        page = (folder / "export" / "report.html").read_text(encoding="utf-8")
        assert "large dark nuclei" in page
        assert "nuclei-level neoplastic in breast pathology" not in page
        assert features.provenance["segmentor_sha256"] == masks.provenance["segmentor_sha256"]
        for name in ("explanation.png", "objects.geojson", "report.html", "object_map.png"):
            assert (folder / "export" / name).stat().st_size > 500
    assert {row["status"] for row in read_table(finished / "slides.csv")} == {"done"}
    assert (finished / "index.html").stat().st_size > 10_000


def test_explanations_sum_to_the_logit(finished, small):
    models = [
        load_classifier(finished / "models" / name).eval() for name in ("attention", "object_aware")
    ]
    for path in finished.glob("slides/*/explanation.h5"):
        explanation = read_explanation(path)
        patch, by_object = explanation.patch, explanation.object
        features = read_features(path.parent / "features.h5")
        bags = bags_of(features, None, small.objects.min_coverage, by_object.objects)
        with torch.inference_mode():
            logits = [model(pack([bag])).logits[0] for model, bag in zip(models, bags, strict=True)]

        np.testing.assert_allclose(patch.logits, logits[0], atol=1e-5)
        np.testing.assert_allclose(by_object.logits, logits[1], atol=1e-5)
        assert explanation.target == logits[1].argmax()
        target, other = explanation.target, 1 - explanation.target
        standard, aware = (float(each[target] - each[other]) for each in logits)
        assert patch.scores.sum() + patch.bias == pytest.approx(standard, abs=1e-5)
        difference = patch.class_scores[target] - patch.class_scores[other]
        np.testing.assert_allclose(difference, patch.scores, atol=1e-9)
        assert by_object.objects == tuple(o for o in features.objects if o != "other")
        assert by_object.centred.sum() == pytest.approx(
            by_object.logit - by_object.baseline_logit, abs=1e-5
        )
        assert by_object.contribution.sum() + by_object.bias == pytest.approx(aware, abs=1e-5)
        total = by_object.patch_contribution.sum() + by_object.bias
        assert total == pytest.approx(aware, abs=1e-5)


def test_an_absent_object_contributes_nothing(finished, small):
    checked = 0
    for path in finished.glob("slides/*/explanation.h5"):
        found = read_explanation(path)
        coverage = read_features(path.parent / "features.h5").object_coverage[:, :-1]  # no other
        absent = coverage < small.objects.min_coverage
        assert (found.object.patch_contribution[absent] == 0).all()
        checked += absent.sum()
    assert checked  # otherwise this test says nothing


def test_importance_of_an_object_that_no_patch_holds_is_none(finished):
    checked = 0
    for path in finished.glob("slides/*/explanation.h5"):
        found = read_explanation(path)
        absent = found.importance.patches == 0
        np.testing.assert_array_equal(found.importance.imp[absent], 1)
        np.testing.assert_array_equal(found.importance.effect[absent], 0)
        checked += absent.sum()
    assert checked  # otherwise this test says nothing


def test_a_second_run_changes_nothing(finished, slides, tmp_path, small, files_of):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    before = files_of(root)

    assert run_chain(new_study(root, small, slides), title="six slides")

    assert files_of(root) == before
    assert all(row["attempts"] == "1" for row in read_table(root / "slides.csv"))


@pytest.mark.parametrize(
    "victim",
    [
        "slides/synthetic-000/masks.zarr/masks/c/0/0/0/0",
        "slides/synthetic-001/masks.zarr/zarr.json",
        "slides/synthetic-002/features.h5",
        "slides/synthetic-003/objects.h5",
        "models/object_aware/model.safetensors",
        "models/attention/config.json",
    ],
)
def test_a_truncated_file_is_made_again(finished, slides, tmp_path, victim, small, files_of):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    before = files_of(root)
    content = (root / victim).read_bytes()
    (root / victim).write_bytes(content[: len(content) // 2])

    assert run_chain(new_study(root, small, slides), title="six slides")

    assert files_of(root) == before


def test_classifiers_do_not_depend_on_the_memory(finished, slides, small, tmp_path, monkeypatch):
    files = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(
        "xpath.mil.feature_cache.tempfile.TemporaryFile",
        lambda **at: files.append(at) or make(**at),
    )
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    shutil.rmtree(root / "models")

    train_classifiers(new_study(root, replace(small, memory_gb=0), slides))

    for name in small.classifier.models:
        path = finished / "models" / name / "model.safetensors"
        assert (root / path.relative_to(finished)).read_bytes() == path.read_bytes()
    assert files == [{"dir": root}]
    assert [path.name for path in root.iterdir() if path.name.startswith("tmp")] == []


def test_failing_slides_are_recorded_and_the_others_go_on(slides, tmp_path, small):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"not a slide")
    entries = [SlideEntry(slide_id="broken", path=broken), *slides[:1]]
    study = new_study(tmp_path / "run", small, entries)

    report = segment_stage(study)

    assert report.failed == ("broken",)
    assert report.done == (slides[0].slide_id,)
    line = next(row for row in read_table(study.folder.ledger) if row["slide_id"] == "broken")
    assert line["status"] == "failed"
    assert "no slide OpenSlide can read" in line["reason"]
    assert (study.folder.logs / "broken.segment.log").exists()


def test_slides_that_crash_hang_or_cannot_be_read_never_end_the_run(
    slides, tmp_path, small, monkeypatch, write_bomb, write_named
):
    """Each is named with its reason, the good ones are done; and so again after a restart."""
    brief = partial(probe, limits=ProbeLimits(seconds=5))
    monkeypatch.setattr("xpath.study.slides.probe", brief)
    monkeypatch.setattr("xpath.study.study.probe", brief)  # asks who stores a resolution
    config = replace(small, default_mpp=0.5)
    os.mkfifo(tmp_path / "hang.svs")
    bad = [write_bomb(), write_named("names.svs", b"\xff\xfeNA"), tmp_path / "hang.svs"]
    entries = [*(SlideEntry(slide_id=path.stem, path=path) for path in bad), *slides[:2]]
    root = tmp_path / "run"

    first = segment_stage(new_study(root, config, entries))
    again = segment_stage(open_study(root))

    for report in (first, again):
        assert report.failed == ("bomb", "names", "hang")
        assert report.done == tuple(slide.slide_id for slide in slides[:2])
    lines = {line["slide_id"]: line for line in read_table(root / "slides.csv")}
    assert "ended the process that looked at it (SIGABRT" in lines["bomb"]["reason"]
    assert "properties that cannot be read" in lines["names"]["reason"]
    assert "not opened and sampled within 5 s" in lines["hang"]["reason"]
    assert [lines[name]["attempts"] for name in again.failed] == ["2", "2", "2"]
    assert lines[slides[0].slide_id]["attempts"] == "1", "done once, not again"


def test_a_slide_that_ended_its_process_twice_is_set_aside(slides, tmp_path, small, monkeypatch):
    """As where the system ends a process that takes all memory."""
    root = tmp_path / "run"
    new_study(root, small, slides[:2])
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from xpath.study import chain, slides, study\n"
        "slides.find_tissue = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "chain.segment_stage(study.open_study(Path(sys.argv[1])))\n"
    )
    for _ in range(2):
        command = [sys.executable, "-c", script, str(root)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == -9

    report = segment_stage(open_study(root))

    assert report.failed == (slides[0].slide_id,)
    assert report.done == (slides[1].slide_id,)
    assert "masks.zarr is set aside" in read_table(root / "slides.csv")[0]["reason"]


def test_a_slide_without_resolution_is_refused_with_the_way_out(tmp_path, rng, small):
    image = np.full((512, 512, 3), 240, np.uint8)
    image[100:400, 100:400] = rng.integers(60, 200, (300, 300, 3)) * [1, 0.5, 1]
    write_slide(tmp_path / "bare.tiff", image, mpp=None)
    entry = SlideEntry(slide_id="bare", path=tmp_path / "bare.tiff")
    config = small

    refused = segment_stage(new_study(tmp_path / "run", config, [entry]))
    accepted = segment_stage(new_study(tmp_path / "run", replace(config, default_mpp=0.5), [entry]))

    line = read_table(tmp_path / "run" / "slides.csv")[0]
    assert refused.failed == ("bare",)
    assert accepted.done == ("bare",)
    assert line["attempts"] == "2"


def test_stages_ask_for_the_stage_before(slides, tmp_path, small):
    study = new_study(tmp_path / "run", small, slides[:1])

    report = features_stage(study)

    assert report.failed == (slides[0].slide_id,)
    assert "xpath segment" in read_table(study.folder.ledger)[0]["reason"]
    with pytest.raises(DataError, match="two classes"):
        train_classifiers(study)


def test_a_run_folder_is_opened_as_it_was_saved(finished, small):
    study = open_study(finished)

    assert study.config == small
    assert len(study.slides) == 6


def test_another_folder_is_no_run_folder(tmp_path):
    with pytest.raises(StoreError, match="no run folder"):
        open_study(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"schema": "else"}))
    with pytest.raises(StoreError, match="else"):
        open_study(tmp_path)


def test_tables_tell_what_was_taught_and_the_page_what_was_not_found(
    finished, tmp_path, monkeypatch
):
    root, tumor = tmp_path / "run", "breast-tissue-tumor"
    shutil.copytree(finished, root)
    study = open_study(root)
    first, second = read_table(study.folder.table("labels"))[:2]
    known = tabulate_importance(study)
    guesses = study.asked._replace(guesses=frozenset({tumor}))
    monkeypatch.setitem(vars(study), "asked", guesses)  # in place of the cached one
    guessed = tabulate_importance(study)
    absent = {**first, "present": False, "label": "a-b-c"}
    write_table(study.folder.table("labels"), [absent, {**second, "present": True}])

    export_index(study, guessed, [], title="a")

    assert known and all(row["taught"] for row in known)
    assert {row["object"] for row in guessed if not row["taught"]} == {tumor}
    page = study.folder.index.read_text()
    assert "found on no slide: c (b)." in page
    assert "tumor (tissue) (guess: never learnt)" in page


def test_measures_of_a_slide_tell_what_was_taught(finished):
    paths = list(finished.glob("slides/*/morphometry.csv"))

    assert paths
    for path in paths:
        taught = {row["label"]: row["taught"] for row in read_table(path)}
        assert taught.pop("breast-nuclei-neoplastic") == "False"  # asked with words of its own
        assert set(taught.values()) == {"True"}


def test_pages_ask_no_network(finished):
    for page in (finished / "index.html", *finished.glob("slides/*/export/report.html")):
        text = page.read_text()
        assert "http://" not in text
        assert "https://" not in text
        assert "data:image/png;base64," in text


def test_a_page_follows_the_intervals_it_shows(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    study = open_study(root)
    table = read_table(study.folder.table("importance"))
    entry = next(e for e in study.slides if study.folder.exports(e.slide_id).exists())

    def changed(label, low):
        for row in table:
            if row["class_name"] == label:
                row |= {"excess_low": low, "excess_high": "7.654"}
        write_table(study.folder.table("importance"), table)
        return export(study, entry, slide_splits(study.folder)[entry.slide_id])

    other = next(name for name in study.classes if name != entry.label)
    page = study.folder.exports(entry.slide_id) / "report.html"
    assert not changed(other, "-6.543")
    assert "7.65" not in page.read_text()
    assert changed(entry.label, "-6.543")
    assert "7.65" in page.read_text()
    assert not changed(entry.label, "-6.543")


def test_export_needs_an_explanation(finished, tmp_path, slides):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    path = next(root.glob("slides/*/explanation.h5"))
    path.unlink()

    report = export_stage(open_study(root), title="six slides")

    assert report.failed == (path.parent.name,)
