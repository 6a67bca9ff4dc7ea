"""Words in, labels out: reads reports, requests and open questions.

``OfflineReader`` needs nothing but this package; ``EndpointReader`` asks a language model behind an
OpenAI-compatible server. Neither can ask for what is not in the label tree.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpath.language.endpoint import EndpointReader
    from xpath.language.offline import OfflineReader
    from xpath.language.reading import Mention, Reader, Reading, Request

__all__ = ["EndpointReader", "Mention", "OfflineReader", "Reader", "Reading", "Request"]

_HOMES = {
    "EndpointReader": "xpath.language.endpoint",
    "Mention": "xpath.language.reading",
    "OfflineReader": "xpath.language.offline",
    "Reader": "xpath.language.reading",
    "Reading": "xpath.language.reading",
    "Request": "xpath.language.reading",
}


def __getattr__(name: str) -> Any:
    """Classes, with all they load, only when they are asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What completion offers."""
    return sorted({*globals(), *__all__})
