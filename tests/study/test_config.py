"""Settings that no study can have are refused before any work is done."""

import pytest

from xpath.batch.slides import SlideEntry
from xpath.config import load_config
from xpath.errors import CheckpointError, ConfigError, LabelError, StoreError, XPathError
from xpath.study.chain import explain_stage, segment_stage
from xpath.study.config import StudyConfig
from xpath.study.study import new_study


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["split.train=0.8", "split.validation=0.2"],
            "leave a share for the test, got 0.8 and 0.2",
        ),
        (["split.validation=0"], "above 0"),
        (["split.train=nan"], "above 0"),
        (
            ["classifier.object_aware.average=presnt"],
            "classifier.object_aware.average must be one of 'all', 'present'",
        ),
        (["default_mpp=-1"], "microns per pixel"),
        (["default_mpp=nan"], "microns per pixel"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(StudyConfig, None, overrides)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ('objects.labels=["lymfocyte"]', LabelError),
        ('objects.labels=["breast stroma", "breast-tissue-stroma"]', LabelError),
        ("objects.segmentor=nowhere", CheckpointError),
        ("objects.device=gpu", ConfigError),
        ("objects.batch=0", ConfigError),
    ],
)
def test_what_is_no_fault_of_a_slide_stops_the_stage(tmp_path, override, error):
    config = load_config(StudyConfig, None, [override])
    slide = SlideEntry(slide_id="a", path=tmp_path / "a.svs")
    study = new_study(tmp_path / "run", config, [slide])

    with pytest.raises(XPathError) as caught:
        segment_stage(study)

    assert caught.type is error
    assert not study.folder.ledger.exists()


def test_explaining_before_training_names_what_to_run(tmp_path):
    with pytest.raises(StoreError, match=r"run `xpath train LABELS.csv --out .*` first"):
        explain_stage(new_study(tmp_path / "run", StudyConfig(), []))


def test_weights_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    config = load_config(StudyConfig, None, ["objects.encoder_weights=weights/own.pt"])

    assert config.objects.encoder_weights == str(tmp_path / "weights" / "own.pt")
