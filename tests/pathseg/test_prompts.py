from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from xpath.labels import load_labels
from xpath.pathseg.parents import classes_of
from xpath.pathseg.prompts import PromptConfig, say, sentences

PLAIN = PromptConfig(other_region=0, no_region=0, synonym=0, phrase=0, cell=0)


def test_the_papers_template_when_nothing_is_varied(rng):
    for label in load_labels():
        assert say(label.id, PLAIN, rng) == label.prompt


def test_tissue_keeps_its_organ_or_names_none(rng):
    said = {say("colon-tissue-gland", PromptConfig(synonym=0, phrase=0), rng) for _ in range(200)}

    assert said == {
        "tissue-level gland in colon pathology.",
        "tissue-level gland in unspecified pathology.",
    }


def test_nuclei_are_asked_for_in_any_organ():
    rng = np.random.default_rng(0)
    config = PromptConfig(other_region=1, synonym=0, phrase=0, cell=0)
    said = [say("liver-nuclei-dead", config, rng) for _ in range(400)]

    regions = {sentence.split(" in ")[1].removesuffix(" pathology.") for sentence in said}
    assert regions == set(load_labels().regions)


@pytest.mark.parametrize("name", ["colon-nuclei-neoplastic", "lung-tissue-normal tissue"])
def test_the_same_seed_says_the_same(name):
    one, two = (say(name, PromptConfig(), np.random.default_rng(5)) for _ in range(2))

    assert one == two


def test_a_tokenizer_learns_from_every_label():
    assert {label.prompt for label in load_labels()} <= set(sentences())


def asked(label, times=600, **chances):
    """Structure and object type of the sentences for a label."""
    rng = np.random.default_rng(0)
    config = replace(PLAIN, **chances)
    said = (say(label, config, rng).removesuffix(" pathology.") for _ in range(times))
    return Counter(tuple(s.split(" in ")[0].split("-level ")) for s in said)


def test_half_of_the_questions_use_another_name():
    said = asked("breast-nuclei-inflammatory", synonym=0.5)

    assert said["nuclei", "inflammatory"] / 600 == pytest.approx(0.5, abs=0.06)
    for word in (("nuclei", "lymphocyte"), ("cell", "macrophage"), ("cell", "lymphocyte")):
        assert said[word] > 5


@pytest.mark.parametrize("label", [f"colon-nuclei-{name}" for name in
    ("neoplastic", "epithelial", "inflammatory", "connective", "dead", "nuclei")])  # fmt: skip
def test_no_word_is_taught_for_two_classes(label):
    """What the table says another class answers, or several together, is never said."""
    own = (tuple(label.split("-")[1:]),)
    for word in asked(label, synonym=0.7, cell=0.5):
        assert classes_of(*word) in ((), own)


def test_every_epithelial_cell_is_asked_for_as_cells_only():
    said = asked("colon-cell-epithelial", synonym=0.5, cell=0.5)

    assert ("nuclei", "epithelial") not in said
    assert said["cell", "epithelial"] > 200
    assert ("cell", "epithelial") not in asked("colon-nuclei-epithelial", synonym=0.5, cell=0.5)


def test_nuclei_are_asked_for_as_cells_in_a_third():
    said = asked("colon-nuclei-nuclei", cell=1 / 3)

    assert said["cell", "nuclei"] / 600 == pytest.approx(1 / 3, abs=0.05)


def test_fat_is_asked_for_in_any_organ():
    rng = np.random.default_rng(0)
    config = replace(PLAIN, other_region=1)
    fat = {say("breast-tissue-fat", config, rng) for _ in range(400)}
    gland = {say("colon-tissue-gland", config, rng) for _ in range(50)}

    assert len(fat) == len(load_labels().regions)
    assert gland == {"tissue-level gland in colon pathology."}


@pytest.mark.parametrize(
    ("label", "alone"),
    [
        ("colon-nuclei-epithelial", False),  # cell-level epithelial is more
        ("colon-cell-epithelial", False),
        ("breast-tissue-tumor", False),  # nuclei-level tumor is nuclei
        ("breast-nuclei-inflammatory", True),
        ("colon-tissue-gland", True),
    ],
)
def test_what_means_several_things_is_never_said_without_its_structure(label, alone):
    rng = np.random.default_rng(0)
    config = replace(PLAIN, phrase=1)
    said = {say(label, config, rng) for _ in range(100)}

    assert any("-level" not in sentence for sentence in said) == alone
