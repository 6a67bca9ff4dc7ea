"""Settings from TOML and the command line, as frozen dataclasses.

A setting is named by its path: ``grid.patch_um=256``. Unknown names and wrong types are refused.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from dataclasses import asdict, fields, is_dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["digest", "from_dict", "load_config", "to_json"]

T = TypeVar("T")


def load_config(kind: type[T], path: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """A frozen dataclass from a TOML file and ``a.b=value`` overrides.

    Args:
        kind: The dataclass; fields may be dataclasses themselves.
        path: TOML file, or None for the defaults.
        overrides: Later ones win; values are TOML, bare words are strings.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or of the wrong type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    for override in overrides:
        _put(values, override)
    return from_dict(kind, values)


def from_dict(kind: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """A dataclass from nested dictionaries, as ``dataclasses.asdict`` gives them.

    Raises:
        ConfigError: A setting is unknown or of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # kind is a dataclass
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
            raise ConfigError(f"no setting {path}{name}; {hint}")
    return kind(**{k: _convert(hints[k], value, path + k) for k, value in values.items()})


def to_json(config: Any) -> str:
    """A dataclass as JSON, keys sorted."""
    return json.dumps(asdict(config), sort_keys=True, default=str)


def digest(config: Any) -> str:
    """SHA-256 of ``to_json``: equal settings, equal digest."""
    return sha256(to_json(config).encode()).hexdigest()


def _put(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"an override is written a.b=value, got {override!r}")
    *parents, last = name.strip().split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text.strip()


def _convert(hint: Any, value: Any, path: str) -> Any:
    """A value as its field wants it."""
    origin, parts = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, path + ".")  # type: ignore[arg-type]  # a class
    if origin is tuple and isinstance(value, (list, tuple)):
        return _tuple(parts, value, path)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(parts[0], value, path)
    if _is_a(hint, value):
        return float(value) if hint is float else value
    wanted = str(hint) if origin else getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{path} must be {wanted}, got {value!r}")


def _is_a(hint: Any, value: Any) -> bool:
    """True for a value of a plain type; an int is a float, a bool is neither."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    accepted = (int, float) if hint is float else hint
    return isinstance(accepted, (type, tuple)) and isinstance(value, accepted)


def _tuple(parts: tuple[Any, ...], value: Sequence[Any], path: str) -> tuple[Any, ...]:
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_convert(parts[0], item, path) for item in value)
    if len(parts) != len(value):
        raise ConfigError(f"{path} must have {len(parts)} values, got {value!r}")
    return tuple(_convert(part, item, path) for part, item in zip(parts, value, strict=True))
