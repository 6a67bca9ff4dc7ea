"""Words of a request that nothing is known about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["leftovers"]


def leftovers(text: str, known: Sequence[tuple[int, int]]) -> list[str]:
    """Words of a request that are neither known nor plain English. Neighbours are joined.

    Args:
        text: The request.
        known: Start and end of what has been understood.
    """
    left: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        if match[0].lower() in _PLAIN or any(start <= match.start() < end for start, end in known):
            continue
        if left and not text[left[-1][1] : match.start()].strip(" -"):
            left[-1] = (left[-1][0], match.end())
        else:
            left.append(match.span())
    return [text[start:end] for start, end in left]


_WORD = re.compile(r"[^\W\d_][\w']*")
_PLAIN = frozenset(
    """
    a about all also am an and annotate any anything are area areas around as at background be
    been being belong belongs beside besides between big biopsy blue both but by can case cell
    cells clearly contour could dark delineate detect display do does don't draw each either else
    every everything everywhere except exclude excluding expect explain find first fix for forget
    from get give go had has have healthy help here hide highlight how i i'd i'm identify if
    ignore image in include inside interested into is it its just kind know label large layer
    leave left let like list locate look looking looks main many map mark marked maybe me measure
    more most much my near need next no non not nothing nuclei object objects of omit on one only
    or other our out outline outlines overview pale part parts pathology patient perhaps picture
    pink please point possible possibly present probably purple region regions remove right
    sample section see seen segment segmentation select separately shall shape should show shown
    signs sit skip slide slides small so some something somewhere specimen specimens structure
    structures such surrounding suspicious teach tell than that the their them then there these
    they thing things this those tissue to too touch touches touching trace type types under up
    us very view visible want was we well were what when where which while who whole why will
    with within without would you your
    """.split()  # noqa: SIM905  # a list of two hundred strings reads worse
)
"""English words that ask for nothing."""
