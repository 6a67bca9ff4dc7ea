"""Write docs/api.md from the front doors: the `__init__.pyi` of every package.

python docs/make_api.py
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "xpath"
HEAD = """# Public names

Made by `python docs/make_api.py` from the front door of every package, its `__init__.pyi`. What is
named here is meant to be used and keeps its name, or the changelog says so; everything else is
private to the library. Each name is imported from its package (`from xpath.wsi import Slide`) and
nothing is loaded before it is asked for.
"""


def front_doors() -> dict[str, list[str]]:
    """Public names by package, the root first."""
    stubs = sorted(PACKAGE.rglob("__init__.pyi"), key=lambda path: len(path.parts))
    return {_package(stub): _names(stub) for stub in stubs}


def page() -> str:
    """The text of docs/api.md."""
    sections = [HEAD]
    for package, names in front_doors().items():
        module = import_module(package)
        rows = [f"| `{name}` | {_summary(getattr(module, name))} |" for name in names]
        table = "\n".join(["| name | |", "|---|---|", *rows])
        sections.append(f"## {package}\n\n{inspect.getdoc(module)}\n\n{table}\n")
    return "\n".join(sections)


def _package(stub: Path) -> str:
    return ".".join(("xpath", *stub.parent.relative_to(PACKAGE).parts))


def _names(stub: Path) -> list[str]:
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return sorted(alias.name for node in imports for alias in node.names)


def _summary(thing: object) -> str:
    """First sentence of a docstring; of a constant, its type."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return f"a constant, `{type(thing).__name__}`"
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split()).replace("|", r"\|")


if __name__ == "__main__":
    (HERE / "api.md").write_text(page(), encoding="utf-8")
