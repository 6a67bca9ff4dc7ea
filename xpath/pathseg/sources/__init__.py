"""The 17 sources of PathSeg, one module each, which defines its source as ``SOURCE``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from xpath.errors import DataError
from xpath.pathseg.record import source_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xpath.pathseg.record import Source

__all__ = ["SOURCES", "load_source"]

MODULES = source_modules()
"""Name of the source to its module, in the order of the paper's Table 1."""


class Sources(Mapping[str, "Source"]):
    """Sources by name. A module is imported when its source is asked for."""

    def __getitem__(self, name: str) -> Source:
        """The source of this exact name."""
        return cast("Source", import_module(f"{__name__}.{MODULES[name]}").SOURCE)

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the paper's Table 1."""
        return iter(MODULES)

    def __len__(self) -> int:
        """Number of sources."""
        return len(MODULES)


SOURCES = Sources()
"""Every source by name."""


def load_source(name: str) -> Source:
    """A source by name, in any case.

    Raises:
        DataError: No such source.
    """
    names = {known.lower(): known for known in MODULES}
    known = names.get(name.lower())
    if known is None:
        close = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f"did you mean {names[close[0]]}?" if close else f"known are {', '.join(MODULES)}"
        raise DataError(f"no source {name!r}; {hint}")
    return SOURCES[known]
