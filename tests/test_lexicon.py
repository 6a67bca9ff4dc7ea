"""Terms are found whatever their number, spelling and order, and lead to labels of the tree."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from xpath.labels import load_labels
from xpath.lexicon import Concept, Lexicon, Region, load_lexicon, singular

LEXICON = load_lexicon()
TREE = load_labels()
TABLE = tomllib.loads(files("xpath").joinpath("lexicon.toml").read_text(encoding="utf-8"))


def concepts(text, **options):
    """Words of objects in a text and the concepts they mean."""
    return [
        (text[term.start : term.end], term.meaning.name)
        for term in LEXICON.terms(text, **options)
        if isinstance(term.meaning, Concept)
    ]


def regions(text):
    return [term.meaning.name for term in LEXICON.terms(text) if isinstance(term.meaning, Region)]


def test_every_object_of_the_table_is_in_the_tree_and_every_label_in_the_table():
    """Otherwise a term would mean nothing, or a label could not be named."""
    names = {f"{label.structure}:{label.object_type}" for label in TREE}
    used = {
        name
        for entry in TABLE["concepts"].values()
        for name in (*entry["objects"], *entry.get("nearest", ()))
    }

    assert used == names


def test_the_regions_of_the_table_are_those_of_the_tree():
    assert set(TABLE["regions"]) == set(TREE.regions)


def test_no_term_stands_twice():
    """The second one would never be found."""
    terms = [
        tuple(LEXICON.stem(word) for word in term.replace("-", " ").split())
        for entry in TABLE["concepts"].values()
        for term in entry["terms"]
    ]

    twice = {term for term in terms if terms.count(term) > 1}
    assert twice == set()


def test_guarded_words_would_otherwise_be_corrected():
    """A word that nothing would correct needs no guard."""
    for word in TABLE["spelled"]["words"]:
        stem = LEXICON.stem(word)
        assert LEXICON.nearest_word(stem) is None
        assert LEXICON._nearest(stem), word


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("Tumours", "tumor"),
        ("nuclei", "nucleus"),
        ("mitoses", "mitosis"),
        ("metastases", "metastasis"),
        ("biopsies", "biopsy"),
        ("carcinomata", "carcinoma"),
        ("haemorrhages", "hemorrhage"),
        ("oesophageal", "esophageal"),
        ("leucocytes", "leukocyte"),
        ("masses", "mass"),
        ("dcis", "dcis"),
        ("thrombus", "thrombus"),
        ("fibres", "fiber"),
    ],
)
def test_singular(word, wanted):
    assert singular(word) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Invasive ductal carcinoma in a fatty stroma", ["carcinoma", "fat"]),
        ("blood, blood vessels, lymph vessels", ["blood", "blood vessel", "lymphatics"]),
        ("sweat-gland and gland", ["skin adnexa", "gland"]),
        ("tumour necrosis", ["necrosis"]),
        ("tumour, necrosis", ["tumor", "necrosis"]),
        ("Red blood cells", ["red blood cell"]),
        ("white blood cells; plasma cells", ["leukocyte", "plasma cell"]),
        ("tumour-infiltrating lymphocytes", ["lymphocytic infiltrate"]),
        ("lymph. Vessel", ["blood vessel"]),
        ("normal prostate glands", ["normal gland"]),
        ("which glands are entirely healthy?", ["normal gland"]),
        ("the lung tissue is normal", ["normal gland"]),
        ("LCIS, not DCIS", ["not in the labels", "dcis"]),
        ("metastatic colorectal adenocarcinoma", ["colon metastasis"]),
    ],
)
def test_the_longest_term_counts_and_ends_at_punctuation(text, wanted):
    assert [name for _, name in concepts(text)] == wanted


def test_spans_are_verbatim():
    text = "Numerous  PLASMA\ncells; Tumour nuclei."

    assert [words for words, _ in concepts(text)] == ["PLASMA\ncells", "Tumour nuclei"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tumour nuclei", ("nuclei", "cell")),
        ("tumor cells", ()),  # a term of its own
        ("tumor tissue", ("tissue",)),
        ("nuclei of the tumour", ("nuclei", "cell")),
        ("cell-level tumor", ("cell",)),
        ("cells in the tumour", ()),
        ("plasma cell nuclei", ("nuclei", "cell")),
        ("tumour; nuclei", ()),
    ],
)
def test_structures_asked_for_beside_a_term(text, wanted):
    term = next(term for term in LEXICON.terms(text) if isinstance(term.meaning, Concept))
    assert term.structures == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("renal and hepatic", ["kidney", "liver"]),
        ("Common bile duct", ["bile duct"]),
        ("oesophagus, Head & Neck: tongue", ["esophagus", "head neck"]),
        ("normal prostate glands", ["prostate"]),
        ("metastatic colon carcinoma in the liver", []),  # one label, not two regions
        ("metastatic colon carcinoma, liver", ["liver"]),
        ("cerebellum", [None]),
    ],
)
def test_regions(text, wanted):
    assert regions(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lymphocites", "lymphocyte"),
        ("inflamatory cells", "inflammation"),
        ("eosinphils", "eosinophil"),
        ("macrohpage", "macrophage"),  # neighbours swapped
        ("lymphosite", "lymphocyte"),  # two letters off, of ten
        ("limphocite", None),  # so is this, but not after the same first three
        ("neutrofills", None),  # three letters off
        ("bland", None),  # "gland", but for the first letter
        ("marked", None),  # "marker" is a word, too
        ("fats", "fat"),
        ("fet", None),  # too short to guess
    ],
)
def test_misspelt_words(text, wanted):
    assert [name for _, name in concepts(text)] == ([wanted] if wanted else [])
    if wanted not in (None, "fat"):
        assert concepts(text, correct=False) != concepts(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("the fat in breast pathology", ("fat", "breast")),
        ("renal", (None, "kidney")),
        ("fat and stroma", (None, None)),
        ("purple fat", (None, None)),
        ("lymphocites", (None, None)),
        ("", (None, None)),
    ],
)
def test_whole_texts(text, wanted):
    term, region = LEXICON.whole(text)
    assert (term.meaning.name if term else None, region) == wanted


def test_a_lexicon_of_ones_own():
    lexicon = Lexicon({
        "words": {"pulp": ["mush"]},
        "structures": {},
        "regions": {"spleen": {"names": ["spleen"], "signs": ["splenic flexure"]}},
        "elsewhere": {"names": []},
        "concepts": {"red pulp": {"terms": ["red pulp"], "objects": ["tissue:red pulp"]}},
        "spelled": {"words": []},
    })

    red, spleen = lexicon.terms("Red mush of the spleen")
    assert red.meaning == Concept("red pulp", ("tissue:red pulp",))
    assert spleen.meaning == Region("spleen")
