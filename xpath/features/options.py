"""Arguments of a model, as a configuration has them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["model_options"]


def model_options(texts: Iterable[str]) -> dict[str, Any]:
    """Arguments of a model from texts such as ``init_values=1e-5``, as a configuration has them.

    Numbers, ``true``, ``false`` and ``none`` become what they mean, ``0.7,0.6,0.7`` a tuple, and
    anything else stays text.

    Raises:
        ConfigError: No ``=``, or a name twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and name.isidentifier() and value) or name in options:
            raise ConfigError(
                f"options of an encoder are name=value, each once, such as init_values=1e-5; got"
                f" {text!r}"
            )
        options[name] = _meant(value)
    return options


def _meant(text: str) -> Any:
    plain = text.title() if text.lower() in {"true", "false", "none"} else text
    try:
        return ast.literal_eval(plain)
    except (SyntaxError, ValueError):
        return text
