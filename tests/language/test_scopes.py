"""Which words are denied, doubted, dated back or left out."""

from __future__ import annotations

import re

import pytest

from xpath.language.scopes import scopes, status

ABSENT = r"""
No x.|No evidence of x.|There is no x.|There is no definite evidence of x.|Negative for x.
Free of x.|x is not seen.|x not identified.|x: absent|x: none.|x: No|x: not identified|x: Negative
x - not present|x (not identified)|x is absent.|x are not present in these sections.
x could not be demonstrated.|x cannot be identified.|x was not found.|x has not been identified.
Sections do not show x.|Sections show no x.|We did not find any x.|The specimen lacks x.
Absence of x.|Without x.|Devoid of x.|Neither cyst nor x is present.
Neither x nor cyst is present.|No cyst or x.|No cyst, scar or x.|No cyst, x, or scar.
No x, scar, or cyst is identified.|No cyst and no x.|x is ruled out.|x excluded.
x has been excluded.|Failed to reveal x.|x isn't seen.|There are no foci of x.|Rules out x.
Argues against x.|There was never any x.|x is entirely absent.|The margins are clear of x.
Skin intact, no x|Scar present, no x|x nil|* x: nil|x is no longer present.|Not x.|This is not x.
No focus suspicious for x.|The features are not diagnostic of x.
Insufficient for a diagnosis of x.|0 x.|Zero x per 10 fields.|x 0/10 fields.|x: 0 per 10 fields
x-negative.|x (-)|x (0)|Scar+, x-.|x-free margins.|non-x tissue|Cyst, scar and x are not seen.
x, scar, and cyst are absent.|No scar (cyst) or x.|Loss of x.|Scar without cyst or x.
The tissue has no scar, no cyst, no x.|x are not a feature.|No\nx identified.
"""
PRESENT = r"""
x is present.|x: present|Not all x are normal.
Focal x.|Not only scar but also x.|No scar but x is present.
No cyst; x noted.|No scar, x present.|No scar. x.|Although no scar is seen, there is x.
x, no scar.|x without scar.|x with no scar.|Scar is absent but x is present.
Scar absent, x frequent.|x without doubt.|There is no doubt about x.|Negative for ER, x in stroma.
x is not extensive.|x is not uncommon.|x: 3 foci|x in 2 of 5 blocks.|x at 0.5 mm.|x (5%).
x is ER negative.|No special type x.|No scar is seen in this x.|No scar and numerous x.
No scar and x are frequent.|No cyst, however x.|No scar except x.|No scar with x.|No scar, only x.
No scar (x is present).|with or without x|Scar (not seen) and x.|x is present and scar is absent.
The tumour shows no scar: x.|1. No scar\n2. x|No scar\nX
"""
UNCERTAIN = r"""
No scar and possibly x.
Cannot exclude x.|x cannot be excluded.|x cannot be completely ruled out.|Suspicious for x.
Possible x.|x is suspected.|May represent x.|Concerning for x.|Findings suggestive of x.
x is not excluded.|Raises the possibility of x.|Rule out x.|? x|x (possible).|x: equivocal
Equivocal for x.|x is questionable.|No scar, but possible x.|Differential diagnosis: x.|Favour x.
Unable to exclude x.|x, probably.
"""
HISTORICAL = r"""
History of x.|Previous x.|Previously diagnosed x.|Status post excision for x.
Patient with known x.|Past medical history: x.|Clinical history: scar, x, left.
x was diagnosed in 2016.|Prior biopsy: x.|A previous biopsy showed x.|x five years ago.
Personal history of x (2012).|Family history of x.|x was removed in 2010.|Sister had x.
x previously resected; no recurrence.|x seen in the previous biopsy.
CLINICAL HISTORY\nx in 2017.\n\nDIAGNOSIS\nScar.
"""
EXCLUDED = r"""
All but x.|Leave out x.|Leave out the scar, cyst and x.|Everything except the scar and the x.
Ignore x|not the x|I don't want x.|the scar without x|scar, not x|Do not show me x
Scar rather than x.|No x please
"""
REQUESTED = r"""
Don't forget x.|Show nothing but x.|I do not want the scar, show x.|Not only the scar, x too.
Leave the scar out. Show x.|Find x but not the scar.
"""


def found(text, *, request=False):
    """Status of the word x."""
    x = re.search(r"\b[xX]\b", text)
    return status(scopes(text, request=request), *x.span())


def lines(block):
    """Texts of a block; a real line break is written out in it."""
    texts = block.strip().replace("\n", "|").split("|")
    return [text.replace("\\n", "\n") for text in texts]


@pytest.mark.parametrize("text", lines(ABSENT))
def test_denied(text):
    assert found(text) == "absent"


@pytest.mark.parametrize("text", lines(PRESENT))
def test_not_denied(text):
    assert found(text) == "present"


@pytest.mark.parametrize("text", lines(UNCERTAIN))
def test_doubted(text):
    assert found(text) == "uncertain"


@pytest.mark.parametrize("text", lines(HISTORICAL))
def test_of_the_past(text):
    assert found(text) == "historical"


@pytest.mark.parametrize("text", lines(EXCLUDED))
def test_left_out_of_a_request(text):
    assert found(text, request=True) == "excluded"


@pytest.mark.parametrize("text", lines(REQUESTED))
def test_asked_for(text):
    assert found(text, request=True) == "present"


def test_a_history_ends_at_the_next_heading():
    text = "Clinical history: scar.\nTreated for cyst.\nMicroscopy: x."

    assert found(text) == "present"
    assert status(scopes(text), text.index("cyst"), text.index("cyst") + 4) == "historical"


def test_the_gravest_scope_counts():
    assert found("No history of x.") == "historical"
    assert found("No evidence suspicious for x.") == "absent"


def test_a_scope_is_the_words_it_governs():
    text = "Scar. No cyst, scar or x; pus."
    (scope,) = scopes(text)

    assert text[scope.start : scope.end] == " cyst, scar or x;"
