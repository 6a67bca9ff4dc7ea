"""Settings from TOML and the command line, as frozen dataclasses.

A setting is named by its path: ``grid.patch_um=256``. Unknown names and wrong types are refused.
Fields may be numbers, strings, booleans, ``Path``, ``Literal``, ``NewType``, tuples, optional ones
of these, and dataclasses.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from dataclasses import MISSING, asdict, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["as_type", "digest", "from_dict", "load_config", "to_json"]

T = TypeVar("T")

NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    type(None): "nothing",
}


def load_config(
    config_type: type[T],
    path: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    base: T | None = None,
) -> T:
    """A frozen dataclass from a TOML file and ``a.b=value`` overrides.

    Args:
        config_type: The dataclass; fields may be dataclasses themselves.
        path: TOML file, or None for the defaults.
        overrides: Later ones win; values are TOML, anything that is not TOML is a string.
        base: Where overrides begin, instead of the defaults; a TOML file begins with the defaults.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown, missing or of the wrong type.
    """
    values: dict[str, Any] = {} if base is None or path is not None else asdict(base)  # type: ignore[call-overload]  # a dataclass
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # as Notepad writes
        except (OSError, ValueError) as error:  # not TOML, or not even text
            raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    for override in overrides:
        _put(values, override)
    return from_dict(config_type, values)


def from_dict(config_type: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """A dataclass from nested dictionaries, as ``dataclasses.asdict`` gives them.

    Args:
        config_type: The dataclass.
        values: Field name to value; what is left out takes its default.
        path: What to put before the names of settings in messages, e.g. ``"grid."``.

    Raises:
        ConfigError: A setting is unknown, missing or of the wrong type.
    """
    hints = typing.get_type_hints(config_type)
    known = {field.name: field for field in fields(config_type)}  # type: ignore[arg-type]  # a dataclass
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {path}{close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"no setting {path}{name}; {hint}")
    for name, field in known.items():
        if field.default is field.default_factory is MISSING and name not in values:
            raise ConfigError(f"{path}{name} has no default; set it to {_wanted(hints[name])}")
    return config_type(**{k: as_type(hints[k], value, path + k) for k, value in values.items()})


def as_type(hint: Any, value: Any, path: str) -> Any:
    """A value as its field wants it.

    Args:
        hint: Type of the field.
        value: What was given.
        path: Name of the setting, for the message.

    Raises:
        ConfigError: It is of another type.
    """
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    if get_origin(hint) in (types.UnionType, typing.Union):
        return _first_fit(hint, value, path)
    if get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return _tuple(hint, value, path)
    if is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, path + ".")  # type: ignore[arg-type]  # a class
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not _is_a(hint, value):
        raise ConfigError(f"{path} must be {_wanted(hint)}, got {value!r}")
    try:
        return float(value) if hint is float else value
    except OverflowError as error:
        raise ConfigError(f"{path} must be {_wanted(hint)}, got one beyond 1e308") from error


def to_json(config: Any) -> str:
    """A dataclass as canonical JSON: keys sorted, no spaces, paths as strings."""
    return json.dumps(asdict(config), sort_keys=True, separators=(",", ":"), default=str)


def digest(config: Any) -> str:
    """SHA-256 of ``to_json``: equal settings, equal digest."""
    return sha256(to_json(config).encode()).hexdigest()


def _put(values: dict[str, Any], override: str) -> None:
    """Sets the value at the end of a path, making tables on the way."""
    name, equals, text = override.partition("=")
    *parents, last = (part.strip() for part in name.split("."))
    if not equals or not all((*parents, last)):
        raise ConfigError(f"an override is written a.b=value, got {override!r}")
    for depth, parent in enumerate(parents, start=1):
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{override}: {'.'.join(parents[:depth])} is a value, not a table")
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text.strip()


def _first_fit(hint: Any, value: Any, path: str) -> Any:
    """A value as the first member of a union that takes it."""
    error = ConfigError(f"{path} must be {_wanted(hint)}, got {value!r}")
    for part in get_args(hint):
        try:
            return as_type(part, value, path)
        except ConfigError as refused:  # of a table, say which key is wrong
            error = refused if is_dataclass(part) and isinstance(value, dict) else error
    raise error


def _is_a(hint: Any, value: Any) -> bool:
    """True if a value is of a plain type, where an int is a float and a bool is neither."""
    if get_origin(hint) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(hint, type) and isinstance(value, (int, float) if hint is float else hint)


def _tuple(hint: Any, value: Sequence[Any], path: str) -> tuple[Any, ...]:
    parts = get_args(hint)
    if parts[-1:] == (Ellipsis,):
        parts = parts[:1] * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"{path} must be {_wanted(hint)}, got {len(value)}: {value!r}")
    return tuple(
        as_type(part, item, f"{path}[{i}]")
        for i, (part, item) in enumerate(zip(parts, value, strict=True))
    )


def _wanted(hint: Any) -> str:
    """A type in the words of somebody who writes TOML."""
    if hasattr(hint, "__supertype__"):
        return f"{_wanted(hint.__supertype__)} ({hint.__name__})"
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if origin is tuple:
        each = parts[-1:] == (Ellipsis,)
        names = f"each {_wanted(parts[0])}" if each else ", ".join(map(_wanted, parts))
        return f"a list ({names})"
    if parts:
        return " or ".join(map(_wanted, parts))
    return NAMES.get(hint, f"a table ({getattr(hint, '__name__', hint)})")
