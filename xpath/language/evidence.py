"""Quotations looked up in a text."""

from __future__ import annotations

import re

__all__ = ["EvidenceFinder"]


class EvidenceFinder:
    """Finds quotations. A repeated one is its next occurrence.

    Args:
        text: The text quoted from.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._asked: dict[str, int] = {}

    def find(self, quotation: str) -> tuple[int, int] | None:
        """Start and end of a quotation, exact or but for case and blanks. None if it is made up.

        Asked for a second time, a quotation is its second occurrence, or again its last one.
        """
        words = quotation.split()
        if not words:
            return None
        loose = r"\s+".join(map(re.escape, words))
        exact = [match.span() for match in re.finditer(re.escape(quotation), self._text)]
        spans = exact or [match.span() for match in re.finditer(loose, self._text, re.IGNORECASE)]
        if not spans:
            return None
        times = self._asked.get(quotation, 0)
        self._asked[quotation] = times + 1
        return spans[min(times, len(spans) - 1)]
