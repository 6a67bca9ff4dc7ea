"""Labels asked for become objects: each taught one once, and it says what it answers for."""

import json
from dataclasses import replace

import pytest

from xpath.batch.fingerprint import fingerprint
from xpath.cli.main import main
from xpath.errors import LabelError
from xpath.export.answers import NEAREST
from xpath.labels import activation_objects, importance_objects, parse_object
from xpath.store.masks import open_masks
from xpath.store.tables import read_table
from xpath.study.asked_objects import asked_objects
from xpath.study.chain import segment_stage
from xpath.study.config import ObjectsConfig, StudyConfig
from xpath.study.folder import RunFolder
from xpath.study.keys import stage_key
from xpath.study.study import Study, new_study, open_study
from xpath.wsi.tissue import TissueConfig

TUMOR, NEOPLASTIC, STROMA = (
    "breast-tissue-tumor", "breast-nuclei-neoplastic", "breast-tissue-stroma",
)  # fmt: skip
INFLAMMATORY, LYMPHOCYTE = "breast-nuclei-inflammatory", "breast-nuclei-lymphocyte"
PLASMA, CANCEROUS = "breast-nuclei-plasma cells", "breast-cell-cancerous"
EPITHELIAL, ANY_EPITHELIAL = "breast-nuclei-epithelial", "unspecified-nuclei-epithelial"
TAUGHT = (TUMOR, NEOPLASTIC, INFLAMMATORY, ANY_EPITHELIAL)


def asked(*labels, parents=True, guesses=True, taught=TAUGHT):
    return asked_objects(
        [parse_object(label) for label in labels], taught, parents=parents, guesses=guesses
    )


def ids(found):
    return [label.id for label in found.labels]


def test_taught_labels_are_the_objects_themselves():
    found = asked(NEOPLASTIC, TUMOR)

    assert found == asked(NEOPLASTIC, TUMOR, parents=False)
    assert found.labels == (parse_object(NEOPLASTIC), parse_object(TUMOR))
    assert (found.answers, found.left_out, found.guesses, found.summary) == (
        {},
        (),
        frozenset(),
        "",
    )


def test_labels_of_one_answer_are_one_object():
    found = asked(LYMPHOCYTE, TUMOR, PLASMA)

    assert ids(found) == [INFLAMMATORY, TUMOR]
    assert found.answers == {INFLAMMATORY: (LYMPHOCYTE, PLASMA)}
    assert found.labels[0].prompt == "nuclei-level inflammatory in breast pathology."
    assert found.guesses == frozenset()


@pytest.mark.parametrize("order", [(LYMPHOCYTE, INFLAMMATORY), (INFLAMMATORY, LYMPHOCYTE)])
def test_a_label_whose_answer_is_asked_for_too_adds_no_object(order):
    found = asked(*order)

    assert ids(found) == [INFLAMMATORY]
    assert found.answers == {INFLAMMATORY: (LYMPHOCYTE,)}


def test_an_answer_may_be_of_any_region_or_several_labels():
    assert asked(EPITHELIAL).answers == {ANY_EPITHELIAL: (EPITHELIAL,)}
    both = asked("breast-cell-epithelial", CANCEROUS)
    assert ids(both) == [NEOPLASTIC, ANY_EPITHELIAL]
    assert both.answers == {
        NEOPLASTIC: ("breast-cell-epithelial", CANCEROUS),
        ANY_EPITHELIAL: ("breast-cell-epithelial",),
    }


def test_what_nothing_answers_for_is_a_guess_or_left_out():
    guessed = asked(TUMOR, STROMA)
    assert (ids(guessed), guessed.guesses) == ([TUMOR, STROMA], {STROMA})
    assert guessed.guess_names == ("stroma (tissue)",)

    left = asked(TUMOR, STROMA, guesses=False)
    assert (ids(left), [label.id for label in left.left_out]) == ([TUMOR], [STROMA])
    assert asked(STROMA, guesses=False).labels == ()


def test_without_parents_every_label_is_asked_itself():
    found = asked(LYMPHOCYTE, INFLAMMATORY, parents=False)

    assert ids(found) == [LYMPHOCYTE, INFLAMMATORY]
    assert (found.answers, found.guesses) == ({}, {LYMPHOCYTE})


def test_of_weights_that_name_no_labels_nothing_is_known():
    found = asked(LYMPHOCYTE, STROMA, taught=())

    assert ids(found) == [LYMPHOCYTE, STROMA]
    assert (found.answers, found.guesses, found.summary) == ({}, frozenset(), "")


def test_words_of_ones_own_are_asked_as_they_are():
    words = f"{LYMPHOCYTE}=nuclei-level lymphocyte in breast pathology."
    assert (ids(asked(words)), asked(words).guesses) == ([LYMPHOCYTE], {LYMPHOCYTE})

    with pytest.raises(LabelError, match=r"words of its own .* for breast-nuclei-lymphocyte"):
        asked(f"{INFLAMMATORY}=small dark nuclei", LYMPHOCYTE)
    with pytest.raises(LabelError, match="each label once"):
        asked(TUMOR, f"{TUMOR}=purple sheets")


def test_importance_is_measured_of_the_objects_that_answer():
    found = asked(CANCEROUS, LYMPHOCYTE, PLASMA, TUMOR)

    assert found.for_labels([PLASMA, TUMOR, LYMPHOCYTE, STROMA]) == (INFLAMMATORY, TUMOR)
    assert found.for_labels([NEOPLASTIC]) == (NEOPLASTIC,)
    assert found.for_labels([EPITHELIAL]) == ()


def test_tables_and_a_line_tell_what_became_of_the_labels():
    found = asked(LYMPHOCYTE, TUMOR, PLASMA, STROMA, EPITHELIAL, guesses=False)

    assert found.columns(INFLAMMATORY) == {
        "taught": True, "answers_for": f"{LYMPHOCYTE}; {PLASMA}",
    }  # fmt: skip
    assert found.columns(TUMOR) == {"taught": True, "answers_for": ""}
    assert asked(STROMA).columns(STROMA)["taught"] is False
    assert found.summary == (
        "of 5 labels 1 segmented as asked, 3 answered by the nearest taught (inflammatory (nuclei)"
        " for lymphocyte, plasma cells; epithelial (nuclei) for epithelial in breast), 1 never"
        " learnt and left out (stroma (tissue))"
    )


def test_the_papers_objects_with_the_weights_that_ship(tmp_path):
    study = Study(RunFolder(tmp_path), StudyConfig(), ())

    assert [label.id for label in study.labels] == [
        ANY_EPITHELIAL, TUMOR, NEOPLASTIC, "breast-nuclei-connective", STROMA,
        "breast-tissue-fat", INFLAMMATORY,
    ]  # fmt: skip
    assert study.asked.answers == {
        ANY_EPITHELIAL: (EPITHELIAL, "breast-nuclei-ductal epithelium"),
        NEOPLASTIC: (CANCEROUS,),
        "breast-nuclei-connective": ("breast-nuclei-fibroblast",),
        INFLAMMATORY: (LYMPHOCYTE, "breast-nuclei-neutrophil", PLASMA),
    }
    assert len(study.asked.left_out) == 8
    assert not study.asked.guesses
    assert study.asked.for_labels(label.id for label in importance_objects()) == (
        ANY_EPITHELIAL, TUMOR, NEOPLASTIC, STROMA, "breast-nuclei-connective",
    )  # fmt: skip
    alone = replace(StudyConfig(), objects=ObjectsConfig(parents=False))
    before = replace(study, config=alone).asked
    taught = set(study.segmentor.labels)
    assert ids(before) == [one.id for one in activation_objects() if one.id in taught]
    assert len(before.left_out) == 15


def key_of_before(study, labels):
    """The key of a slide's masks as it was before labels could have answers."""
    (slide,) = study.slides
    return stage_key(
        "masks",
        study.config,
        [slide.path.name, fingerprint(slide.path), None],
        [parse_object(label).prompt for label in labels],
        [study.segmentor.digest, study._presence_digest],
    )


def test_of_labels_that_are_all_taught_nothing_changes(slides, tmp_path):
    labels, files = (NEOPLASTIC, TUMOR, INFLAMMATORY), []
    for parents in (True, False):
        config = StudyConfig(
            tissue=TissueConfig(min_area_um2=2000.0),
            objects=ObjectsConfig(labels=labels, parents=parents, overlap=0),
        )
        study = new_study(tmp_path / str(parents), config, slides[:1])
        assert segment_stage(study).ok
        assert study.masks_key(slides[0]) == key_of_before(study, labels)
        root = study.folder.masks(slides[0].slide_id)
        files.append({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()})
        assert open_masks(root).area.any()

    assert files[0] == files[1]


def test_a_run_of_before_keeps_its_objects(tmp_path):
    new_study(tmp_path / "run", StudyConfig(), [])
    path = tmp_path / "run" / "run.json"
    content = json.loads(path.read_text())
    assert content["config"]["objects"].pop("parents") is True
    path.write_text(json.dumps(content))

    assert open_study(tmp_path / "run").config.objects.parents is False


def test_masks_depend_on_what_they_answer_for_and_on_siblings_of_other_regions(slides, tmp_path):
    def study(*labels, **settings):
        config = StudyConfig(objects=ObjectsConfig(labels=labels, **settings))
        return Study(RunFolder(tmp_path), config, tuple(slides[:1]))

    def key(*labels, **settings):
        return study(*labels, **settings).masks_key(slides[0])

    def before(*labels, **settings):
        return key_of_before(study(*labels, **settings), labels)

    assert key(INFLAMMATORY) == before(INFLAMMATORY)
    assert len({key(INFLAMMATORY), key(LYMPHOCYTE), key(LYMPHOCYTE, PLASMA)}) == 3
    assert key(LYMPHOCYTE, parents=False) == before(LYMPHOCYTE)
    mixed = (NEOPLASTIC, ANY_EPITHELIAL)
    assert key(*mixed) != before(*mixed)
    alone = {"competition": "independent"}
    assert key(*mixed, **alone) == before(*mixed, **alone)
    assert key(TUMOR, ANY_EPITHELIAL) == before(TUMOR, ANY_EPITHELIAL)


@pytest.fixture(scope="module")
def answered(cohort, tmp_path_factory):
    """A run over drawn slides that asks for two labels of one answer, and one taught."""
    out = tmp_path_factory.mktemp("answered") / "run"
    settings = (
        "tissue.min_area_um2=2000", "objects.overlap=0", "explain.null_draws=1",
        "explain.resamples=100", "explain.evidence_seeds=0",
    )  # fmt: skip
    options = [text for setting in settings for text in ("--set", setting)]
    asked_for = f"{TUMOR},{LYMPHOCYTE},{PLASMA},{CANCEROUS}"
    slides, labels = str(cohort / "slides"), str(cohort / "labels.csv")
    command = ["run", slides, labels, "--out", str(out), "--objects", asked_for, "--epochs", "4"]
    assert main([*command, *options]) == 0
    return out


@pytest.mark.integration
def test_a_run_has_one_object_for_one_answer_and_says_so(answered):
    objects = [TUMOR, INFLAMMATORY, NEOPLASTIC]
    answers = {INFLAMMATORY: [LYMPHOCYTE, PLASMA], NEOPLASTIC: [CANCEROUS]}

    (explained, *_) = sorted(answered.glob("slides/*/explanation.h5"))
    masks = open_masks(explained.parent / "masks.zarr")
    assert list(masks.labels) == objects
    assert json.loads(masks.provenance["answers_for"]) == answers
    assert json.loads(masks.provenance["untaught"]) == []
    for path in (
        answered / "tables" / "labels.csv",
        answered / "tables" / "importance.csv",
        explained.parent / "morphometry.csv",
    ):
        rows = read_table(path)
        name = "object" if "object" in rows[0] else "label"
        said = {row[name]: row["answers_for"] for row in rows}
        assert said == {name: "; ".join(answers.get(name, ())) for name in objects}
    assert json.loads((answered / "run.json").read_text())["config"]["objects"]["parents"] is True


@pytest.mark.integration
def test_pages_and_exports_of_a_run_say_what_answers_for_what(answered):
    (explained, *_) = sorted(answered.glob("slides/*/explanation.h5"))
    export = explained.parent / "export"
    pages = [answered / "index.html", export / "report.html"]
    for path in (*pages, export / "findings.html", export / "findings.txt"):
        text = path.read_text()
        assert f"{NEAREST}: " in text
        assert "inflammatory (nuclei) for lymphocyte, plasma cells" in text
        assert "neoplastic (nuclei) for cancerous (cell)" in text
        assert "guess" not in text.partition("<body>")[2]
    for page in pages:
        assert "answers for lymphocyte, plasma cells</span>" in page.read_text()
    facts = json.loads((export / "findings.json").read_text())["facts"]
    assert {fact["label"]: fact["answers_for"] for fact in facts} == {
        TUMOR: [], INFLAMMATORY: [LYMPHOCYTE, PLASMA], NEOPLASTIC: [CANCEROUS],
    }  # fmt: skip
    shapes = json.loads((export / "objects.geojson").read_text())["features"]
    marked = {
        shape["properties"]["classification"]["name"]: name
        for shape in shapes
        for name in shape["properties"].get("measurements", {})
        if name.startswith(("answers for", "guess"))
    }
    assert marked[NEOPLASTIC] == "answers for cancerous (cell)"
    assert TUMOR not in marked
