"""When is an output done? When its seal, its key and its bytes agree.

Beside ``masks.zarr`` lies ``masks.zarr.done.json``: a key over the settings and inputs it was made
from, and size and SHA-256 of every file. Nothing else counts as done: no file by its name alone, no
file of other settings, no file that was cut short.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from xpath.store.schema import atomic, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["forget", "is_done", "key_of", "mark_done", "read_key"]


def key_of(*parts: object) -> str:
    """One key for settings and inputs: SHA-256 of their JSON.

    Args:
        parts: Anything JSON knows.
    """
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def mark_done(output: Path, key: str) -> None:
    """Seals an output that is complete; a file or a folder."""
    content = {"key": key, "files": _inventory(output)}
    with atomic(_seal(output)) as draft:
        draft.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def is_done(output: Path, key: str) -> bool:
    """True if an output was sealed with this key and is still, byte for byte, what was sealed."""
    try:
        sealed = json.loads(_seal(output).read_text())
        wanted: dict[str, list[object]] = sealed["files"]
        if sealed["key"] != key:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    sizes = {name: path.stat().st_size for name, path in _files(output).items()}
    if sizes != {name: size for name, (size, _) in wanted.items()}:
        return False  # cheap, and catches all that was cut short
    return _inventory(output) == wanted


def read_key(output: Path) -> str:
    """The key an output was sealed with; empty if it was not."""
    try:
        return str(json.loads(_seal(output).read_text())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def forget(output: Path) -> None:
    """Breaks the seal, so that the output will be made again."""
    _seal(output).unlink(missing_ok=True)


def _seal(output: Path) -> Path:
    return output.with_name(output.name + ".done.json")


def _files(output: Path) -> dict[str, Path]:
    if output.is_dir():
        found = sorted(path for path in output.rglob("*") if path.is_file())
        return {path.relative_to(output).as_posix(): path for path in found}
    return {output.name: output} if output.is_file() else {}


def _inventory(output: Path) -> dict[str, list[object]]:
    return {
        name: [path.stat().st_size, sha256_of(path)] for name, path in _files(output).items()
    }
