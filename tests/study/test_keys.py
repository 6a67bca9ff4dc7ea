"""What makes an output be made again, and what does not."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from xpath.batch.ledger import LedgerEntry
from xpath.batch.slides import SlideEntry
from xpath.config import load_config
from xpath.errors import StoreError
from xpath.study.chain import run_chain
from xpath.study.config import StudyConfig
from xpath.study.folder import RunFolder
from xpath.study.keys import (
    STAGE_SETTINGS,
    STAGE_VERSIONS,
    changed_settings,
    settings_that_differ,
    stage_key,
)
from xpath.study.study import Study, new_study, open_study
from xpath.testing.slides import write_slide
from xpath.wsi.tissue import TissueConfig

ELSEWHERE = {
    "objects.labels": "their prompts are inputs",
    "objects.parents": "the prompts that are asked, and what they answer for, are inputs",
    "objects.segmentor": "the digest of its weights is an input",
    "objects.encoder": "its digest is an input, as of the next four",
    "objects.encoder_weights": "",
    "objects.encoder_options": "",
    "objects.encoder_size": "",
    "objects.encoder_precision": "",
    "objects.precision": "what it comes to is an input of the masks",
    "objects.compile": "changes no result",
    "objects.channels_last": "changes no result",
    "objects.batch": "changes no result",
    "objects.device": "changes no result",
    "explain.evidence_seeds": "of tables over all slides, which have no key",
    "split.train": "the split of every slide is an input, as of the next five",
    "split.validation": "",
    "split.seed": "",
    "split.folds": "",
    "split.by": "",
    "split.table": "",
    "classifier.models": "chooses classifiers",
    "classifier.seeds": "the seed of each model is an input",
    "classifier.calibrate": "of tables over all slides, which have no key",
    "explain.labels": "an input",
    "explain.splits": "chooses slides",
    "explain.resamples": "of tables over all slides, which have no key",
    "default_mpp": "the resolution of a slide is an input",
    "memory_gb": "changes no result",
}

DEFAULTS = {
    "tissue.mpp": 8.0,
    "tissue.downsample": 32.0,
    "tissue.min_saturation": 10,
    "tissue.max_saturation": 20,
    "tissue.ink": 40,
    "tissue.close_um": 40.0,
    "tissue.min_area_um2": 40_000.0,
    "tissue.max_hole_um2": 40_000.0,
    "tissue.exclude_pen": False,
    "tissue.exclude_glass": False,
    "grid.patch_um": 128.0,
    "grid.mpp": 0.5,
    "grid.patch_px": 0,
    "grid.overlap": 0.0,
    "grid.min_tissue": 0.3,
    "objects.overlap": 32,
    "objects.reduce": 1,
    "objects.competition": "exclusive",
    "objects.rim_um": 2.0,
    "objects.min_coverage": 0.01,
    "counting.min_area_um2": 4.0,
    "counting.separate": True,
    "counting.waist_um": 0.1,
    "counting.smoothing_um": 0.5,
    "counting.max_hole_um2": 1.0,
    "classifier.attention.hidden": 128,
    "classifier.attention.gated": True,
    "classifier.attention.proj": 256,
    "classifier.attention.dropout": 0.25,
    "classifier.object_aware.hidden": 64,
    "classifier.object_aware.gated": True,
    "classifier.object_aware.proj": None,
    "classifier.object_aware.dropout": 0.0,
    "classifier.object_aware.average": "all",
    "classifier.mean.proj": None,
    "classifier.mean.dropout": 0.0,
    "classifier.max.proj": None,
    "classifier.max.dropout": 0.0,
    "classifier.object_fractions.c": 1.0,
    "classifier.object_fractions.class_weight": "balanced",
    "classifier.other": False,
    "classifier.train.lr": 1e-3,
    "classifier.train.weight_decay": 1e-5,
    "classifier.train.epochs": 100,
    "classifier.train.min_steps": 300,
    "classifier.train.patience": 15,
    "classifier.train.monitor": "loss",
    "classifier.train.averaged": 0.0,
    "classifier.train.bags_per_step": 4,
    "classifier.train.class_weight": "balanced",
    "classifier.train.sampling": "shuffled",
    "classifier.train.precision": "float32",
    "classifier.train.scale": True,
    "classifier.train.seed": 0,
    "explain.methods": (),
    "explain.hide": "blur",
    "explain.sigma_um": 8.0,
    "explain.feather_um": 2.0,
    "explain.null": "off_object",
    "explain.null_draws": 2,
    "explain.seed": 0,
    "drawn": False,
}
"""Of the settings in keys. Change one only together with the numbers of its stages."""


def flat(settings, path=""):
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{name}.")
        else:
            yield path + name, value


def stages_of(name):
    return [
        stage
        for stage, chosen in STAGE_SETTINGS.items()
        if any(f"{name}.".startswith(f"{each}.") for each in chosen)
    ]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of a slide that stores its resolution and one that does not; loads no weights."""
    monkeypatch.setattr(Study, "segmentor", SimpleNamespace(name="w", labels=(), digest="0" * 64))
    pixels = np.full((64, 64, 3), 240, np.uint8)
    write_slide(tmp_path / "stored.tiff", pixels, mpp=0.25)
    write_slide(tmp_path / "bare.tiff", pixels, mpp=None)
    slides = [SlideEntry(slide_id=n, path=tmp_path / f"{n}.tiff") for n in ("stored", "bare")]
    return Study(RunFolder(tmp_path / "run"), StudyConfig(), tuple(slides))


def test_every_setting_is_in_a_key_or_is_known_not_to_be():
    names = [name for name, _ in flat(asdict(StudyConfig()))]
    assert {name for name in names if not stages_of(name)} == set(ELSEWHERE)
    assert set(STAGE_SETTINGS) == set(STAGE_VERSIONS)


def test_a_default_does_not_change_unnoticed():
    """Outputs made with the old default would count as made with the new one."""
    now = {name: value for name, value in flat(asdict(StudyConfig())) if stages_of(name)}
    assert now == DEFAULTS, "raise STAGE_VERSIONS of the stages that read it"


def test_only_settings_that_differ_are_in_a_key():
    config = load_config(StudyConfig, None, ["tissue.ink=30", "objects.overlap=32", "drawn=true"])

    assert changed_settings(config, "masks") == {"tissue.ink": 30, "drawn": True}
    assert changed_settings(config, "export") == {"drawn": True}
    assert changed_settings(config, "features") == {}


def test_a_stages_number_changes_its_key_alone(monkeypatch):
    before = {stage: stage_key(stage, StudyConfig(), "input") for stage in STAGE_VERSIONS}
    assert len(set(before.values())) == len(before)
    monkeypatch.setitem(STAGE_VERSIONS, "masks", STAGE_VERSIONS["masks"] + 1)
    after = {stage: stage_key(stage, StudyConfig(), "input") for stage in STAGE_VERSIONS}
    assert [stage for stage in before if before[stage] != after[stage]] == ["masks"]


def keys(study, **change):
    study = replace(study, config=replace(study.config, **change))
    return {entry.slide_id: study.masks_key(entry) for entry in study.slides}


def test_a_resolution_given_later_is_for_the_slides_that_store_none(study):
    before, after = keys(study), keys(study, default_mpp=0.5)

    assert after["stored"] == before["stored"]
    assert after["bare"] != before["bare"]
    assert keys(study, default_mpp=0.4)["bare"] != after["bare"]


def test_masks_depend_on_what_the_precision_comes_to(study):
    """On the device a run was begun for; speed alone is in no key."""
    before = keys(study)

    def made(*settings):
        chosen = load_config(StudyConfig, None, [f"objects.{each}" for each in settings])
        return keys(study, objects=chosen.objects)

    assert made("precision=fp32") == before == made("compile=true", "channels_last=true")
    half = made("precision=bf16")
    assert half == made("device=cuda") == made("device=cuda:1", "compile=true")
    assert made("precision=fp32", "device=cuda") == before
    tf32 = made("precision=tf32", "device=cuda")
    assert len({key["stored"] for key in (before, half, tf32)}) == 3


@pytest.mark.parametrize(
    ("settings", "different"),
    [
        (["precision=fp32"], {}),
        (["compile=true", "channels_last=true"], {}),
        (["precision=bf16"], {"objects.precision": ("fp32", "bf16")}),
        (["device=cuda"], {"objects.precision": ("fp32", "bf16")}),
        (["device=cuda", "precision=fp32"], {}),
    ],
)
def test_another_device_that_means_another_precision_is_told(settings, different):
    after = load_config(StudyConfig, None, [f"objects.{each}" for each in settings])
    assert settings_that_differ(StudyConfig(), after) == different


def test_the_settings_reach_the_segmentor_and_the_run(tmp_path):
    overrides = ["objects.precision=bf16", "objects.channels_last=true"]
    new_study(tmp_path / "run", load_config(StudyConfig, None, overrides), [])

    study = open_study(tmp_path / "run")

    assert study.config.objects.precision == "bf16"
    settings = study.predictor.config
    assert (settings.precision, settings.channels_last, settings.compile) == ("bf16", True, False)


def test_the_same_resolution_gives_the_same_key_wherever_it_comes_from(study):
    bare = study.slides[1]
    of_its_own = replace(bare, mpp=0.5)

    assert (
        keys(replace(study, slides=(of_its_own,)))["bare"] == (keys(study, default_mpp=0.5)["bare"])
    )
    with replace(study, config=StudyConfig(default_mpp=0.5)).open_slide(bare) as slide:
        assert slide.mpp == 0.5
    with replace(study, config=StudyConfig(default_mpp=0.5)).open_slide(study.slides[0]) as slide:
        assert slide.mpp == pytest.approx(0.25)


def test_a_slide_that_cannot_be_read_has_a_key(study, tmp_path):
    (tmp_path / "bare.tiff").write_bytes(b"no slide")
    assert len(keys(study, default_mpp=0.5)) == 2


def test_another_slide_of_equal_name_and_size_has_another_key(study, tmp_path):
    before = keys(study)
    path = tmp_path / "bare.tiff"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, (0, 0))

    assert keys(study)["bare"] != before["bare"]
    assert keys(study)["stored"] == before["stored"]


def test_a_slide_behind_a_link_keeps_its_key(study, tmp_path):
    (tmp_path / "linked.tiff").symlink_to(tmp_path / "stored.tiff")
    linked = SlideEntry(slide_id="linked", path=tmp_path / "linked.tiff")
    run = new_study(tmp_path / "run", study.config, [linked])

    assert keys(open_study(tmp_path / "run")) == keys(run)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewerTissue(TissueConfig):
    """As a later version may define it."""

    method: str = "otsu"


@dataclass(frozen=True, kw_only=True, slots=True)
class NewerStudy(StudyConfig):
    """As a later version may define it."""

    tissue: NewerTissue = field(default_factory=NewerTissue)


@dataclass(kw_only=True, slots=True)
class NewerEntry(LedgerEntry):
    """As a later version may define it."""

    host: str = "here"


def contents(root):
    """All files but the notes on when others were compared with their seals."""
    return {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".checked")
    }


@pytest.mark.integration
def test_new_settings_and_columns_leave_a_finished_run_as_it_is(
    finished, slides, small, tmp_path, monkeypatch
):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    before = contents(root)
    made = {path: path.stat().st_mtime_ns for path in root.glob("slides/*/masks.zarr")}
    monkeypatch.setattr("xpath.study.study.StudyConfig", NewerStudy)
    monkeypatch.setattr("xpath.batch.ledger.LedgerEntry", NewerEntry)
    values = asdict(small)
    newer = NewerStudy(
        **{name: getattr(small, name) for name in values if name != "tissue"},
        tissue=NewerTissue(**values["tissue"]),
    )

    assert open_study(root).config == newer
    assert run_chain(new_study(root, newer, slides), title="six slides")

    assert contents(root) == before
    assert {path: path.stat().st_mtime_ns for path in made} == made

    other = replace(newer, tissue=replace(newer.tissue, method="hsv"))
    study = new_study(root, other, slides)
    assert study.with_features() == []
    with pytest.raises(StoreError, match="other settings"):
        study.require(study.folder.masks(slides[0].slide_id), study.masks_key(slides[0]), "segment")


def test_a_run_of_the_first_version_is_refused_with_what_to_run(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": "xpath.run/1", "config": {}, "slides": []}')
    with pytest.raises(StoreError, match="start again with `xpath segment SLIDES --out"):
        open_study(tmp_path)


@pytest.mark.parametrize(
    ("config", "slide", "name"),
    [
        ('"tissue": {"method": "otsu"}', "", "tissue.method"),
        ("", '"stain": "H&E", ', r"slides\[0\].stain"),
    ],
)
def test_settings_of_a_newer_version_are_named(tmp_path, config, slide, name):
    row = f'{{{slide}"slide_id": "a", "path": "/a.svs"}}'
    (tmp_path / "run.json").write_text(
        f'{{"schema": "xpath.run/2", "config": {{{config}}}, "slides": [{row}]}}'
    )
    with pytest.raises(StoreError, match=f"no setting {name}; .* newer version"):
        open_study(tmp_path)
