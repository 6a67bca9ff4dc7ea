"""What is asked for follows from mentions alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

import xpath.language
from xpath.errors import DataError
from xpath.labels import Label, load_labels
from xpath.language import Mention, Reading, Request

TREE = load_labels()
FAT, TUMOR, NECROSIS = (
    TREE[f"breast-tissue-{name}"] for name in ("fat", "tumor", "necrosis or debris")
)


def reading(*mentions):
    return Reading(tuple(Mention(*mention) for mention in mentions), "report", "breast")


def test_present_and_uncertain_labels_are_asked_for_once_in_the_order_of_the_tree():
    found = reading(
        (TUMOR, 0, 5, "present"),
        (FAT, 6, 9, "uncertain"),
        (TUMOR, 10, 15, "uncertain"),
        (NECROSIS, 16, 20, "absent"),
    )

    assert found.labels == (FAT, TUMOR)
    assert found.prompts == (
        "tissue-level fat in breast pathology.",
        "tissue-level tumor in breast pathology.",
    )


@pytest.mark.parametrize("status", ["absent", "historical", "excluded"])
def test_what_is_denied_is_not_asked_for_unless_it_is_also_there(status):
    assert reading((FAT, 0, 3, status)).labels == ()
    assert reading((FAT, 0, 3, status), (FAT, 5, 8, "present")).labels == (FAT,)


def test_labels_outside_the_published_tree_come_last():
    cartilage = Label("breast", "tissue", "cartilage")

    assert reading((cartilage, 0, 1, "present"), (FAT, 2, 3, "present")).labels == (FAT, cartilage)


def test_a_case_that_is_none_is_refused():
    with pytest.raises(DataError, match="report, targeted, exploratory, got 'poem'"):
        Request("text", "poem")


def test_the_front_door():
    for name in xpath.language.__all__:
        assert getattr(xpath.language, name).__name__ == name
    assert set(xpath.language.__all__) <= set(dir(xpath.language))


def test_reading_needs_no_torch():
    code = (
        "import sys; from xpath.language import OfflineReader, Request; "
        "OfflineReader().read(Request('lymphocites', 'targeted', 'breast')); "
        "import xpath.language.endpoint; "
        "print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout == "set()\n"
