"""The folder that ships: all of it or nothing, and nothing else is lost for it."""

import stat
import sys

import pytest

from xpath.errors import CheckpointError
from xpath.pathseg.collection import Collected
from xpath.segment.checkpoints.checkpoint import SegmentorInfo, read_config, save_segmentor
from xpath.segment.evaluation.validation import Sample, read_samples, write_samples
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config

LABEL = "colon-tissue-gland"
SAMPLES = [Sample("glas", str(n), str(n), LABEL, True, 0.5, 0.8, 9, True) for n in range(10)]
SAMPLES.append(Sample("glas", "11", "11", LABEL, False, 1.0, 0.0, 0, False))


@pytest.fixture
def pipeline(load_script, monkeypatch):
    """Without images: what is answered is known, and nothing is learnt."""
    module = load_script("pipelines/card_segmentor.py")
    monkeypatch.setattr(module, "collect", lambda *_: Collected([], []))
    monkeypatch.setattr(module, "blank_answers", lambda _: "Nothing on bare glass")
    monkeypatch.setattr(module.scoring, "validate", lambda *_, **__: SAMPLES)
    return module


@pytest.fixture
def run(tmp_path):
    """A training's folder, closed to others."""
    tokenizer = fit_tokenizer(["tissue-level gland in colon pathology."], vocabulary=300)
    config = tiny_config(tokenizer.vocabulary)
    info = SegmentorInfo(
        name="tiny", mpp=0.5, image_size=64, labels=(LABEL,), licence="CC0", synthetic_only=True
    )
    folder = tmp_path / "run"
    weights = folder / "weights"
    save_segmentor(weights, build_segmentor(config), config, tokenizer, info, card="# before")
    (folder / "log.csv").write_text("step,bce\n20,0.5\n")
    for path in (*weights.iterdir(), folder / "log.csv"):
        path.chmod(0o600)
    weights.chmod(0o700)
    return folder


@pytest.fixture
def make(pipeline, run, monkeypatch):
    def call(out, *more):
        words = ["card", "--run", run, "--data", "data", "--out", out, *more]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        pipeline.main()

    return call


def test_the_folder_holds_weights_card_and_scores_for_everyone_to_read(make, tmp_path):
    out, others = tmp_path / "new" / "mini", tmp_path / "otsu.csv"
    write_samples(others, [sample._replace(dice=0.25) for sample in SAMPLES])

    make(out, "--against", f"otsu={others}")

    assert {path.relative_to(out).as_posix() for path in out.rglob("*")} == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "log.csv",
        "scores", "scores/samples.csv", "scores/otsu.csv",
    }  # fmt: skip
    assert read_samples(out / "scores" / "samples.csv") == SAMPLES
    card = (out / "README.md").read_text()
    assert "**0.500**" in card
    assert "| otsu | tissue-gland | 10 | 0.500 | 0.250 |" in card
    for path in (out, *out.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_an_earlier_card_is_replaced_also_by_what_it_holds(make, tmp_path):
    out = tmp_path / "mini"
    make(out)
    (out / "scores" / "old.csv").write_text((out / "scores" / "samples.csv").read_text())

    make(out, "--against", f"otsu={out / 'scores' / 'old.csv'}")

    assert sorted(path.name for path in (out / "scores").iterdir()) == ["otsu.csv", "samples.csv"]


def test_a_failure_leaves_the_earlier_card_and_no_half_one(make, pipeline, monkeypatch, tmp_path):
    out = tmp_path / "mini"
    make(out)
    before = (out / "README.md").read_text()
    monkeypatch.setattr(pipeline.card, "presence_table", lambda _: 1 / 0)

    for folder in (out, tmp_path / "fresh"):
        with pytest.raises(ZeroDivisionError):
            make(folder)

    assert (out / "README.md").read_text() == before
    assert read_config(out)[1].name == "tiny"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mini", "run"]


@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
def test_a_folder_of_other_files_is_refused(make, tmp_path, name):
    out = tmp_path / "results"
    out.mkdir()
    (out / name).write_text("{}")

    with pytest.raises(CheckpointError, match=r"results would be replaced.*choose another folder"):
        make(out)

    assert (out / name).read_text() == "{}"


def test_a_strangers_file_among_ours_and_a_file_are_refused(make, tmp_path):
    out, file = tmp_path / "mini", tmp_path / "file"
    make(out)
    (out / "thesis.tex").touch()
    file.touch()

    with pytest.raises(CheckpointError, match=r"thesis\.tex"):
        make(out)
    with pytest.raises(CheckpointError, match="file"):
        make(file)
