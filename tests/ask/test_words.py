"""A reading as lines, as JSON, and as a text cut at its mentions."""

from xpath.ask.words import linked_words, reading_json, reading_lines
from xpath.labels import load_labels
from xpath.language.offline import OfflineReader
from xpath.language.reading import Mention, Reading, Request

TREE = load_labels()
TUMOR, STROMA = TREE["breast-tissue-tumor"], TREE["breast-tissue-stroma"]


def read(text, case=None, region="breast"):
    return OfflineReader().read(Request(text, case, region))


def test_a_text_is_cut_at_its_mentions_and_stays_whole():
    text = "Invasive carcinoma, possibly DCIS.\nNo necrosis."

    words = linked_words(text, read(text, "report"))

    assert "".join(each.text for each in words) == text
    assert [(each.text, each.labels, each.status) for each in words if each.labels] == [
        ("Invasive carcinoma", ("breast-tissue-tumor",), "present"),
        ("DCIS", ("breast-tissue-dcis",), "uncertain"),
        ("necrosis", ("breast-tissue-necrosis or debris",), "absent"),
    ]


def test_mentions_that_share_words_are_one_stretch():
    mentions = (
        Mention(TUMOR, 0, 5, "present"),
        Mention(STROMA, 0, 5, "present"),
        Mention(STROMA, 3, 8, "present"),
        Mention(TUMOR, 0, 0, "present"),
    )

    words = linked_words("tumor stroma", Reading(mentions, "targeted", "breast"))

    assert [(each.text, each.labels) for each in words] == [
        ("tumor", (TUMOR.id, STROMA.id)), (" stroma", ()),
    ]  # fmt: skip


def test_what_the_weights_never_learnt_is_a_guess():
    text = "glial cells and stroma, no necrosis; xyzzy"

    said = reading_json(text, read(text, "targeted"), ("breast-tissue-stroma",))

    assert said["schema"] == "xpath.reading/1"
    assert {each["label"]: each["guess"] for each in said["asked"]} == {
        "breast-cell-glial": True, "breast-tissue-stroma": False,
    }  # fmt: skip
    assert all(each["evidence"] == text[each["start"] : each["end"]] for each in said["mentions"])
    lines = reading_lines(text, read(text, "targeted"), ("breast-tissue-stroma",))
    assert ["guess" in line for line in lines[:3]] == [True, False, False]
    assert lines[2].startswith("excluded   breast-tissue-necrosis or debris")
    assert lines[-1] == "2 to look for; region breast; read by offline"


def test_a_guess_names_the_nearest_label_that_was_taught():
    text, taught = "glial cells and lymphocytes", ("breast-nuclei-inflammatory",)

    said = reading_json(text, read(text, "targeted"), taught)
    lines = reading_lines(text, read(text, "targeted"), taught)

    assert [each["nearest"] for each in said["asked"]] == [[], list(taught)]
    assert "never learnt it, the nearest is breast-nuclei-inflammatory)" in lines[1]
    assert lines[0].endswith("never learnt it)")


def test_a_region_that_is_not_known_is_asked_for():
    lines = reading_lines("glands", read("glands", "targeted", None), ())

    assert any(line.startswith("ambiguous") and "--region" in line for line in lines)
