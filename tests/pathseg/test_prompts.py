import numpy as np
import pytest

from xpath.labels import load_labels
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
