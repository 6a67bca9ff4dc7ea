"""The size of a thought: no file, function or nesting outgrows a reader."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LINES = {"xpath": 400, "pipelines": 150}
"""Folder to the longest a file in it may be."""
BODY, NESTING, ARGUMENTS = 60, 3, 7
EXCEPTIONS = {
    "xpath/features/encoders.py": {"__init__": 8},
    "xpath/mil/object_aware.py": {"__init__": 8},
}
"""Functions that may take more arguments, file by file: a model's own numbers, most with a default,
are easier to read in its constructor than in a second object."""

FILES = [path for folder in LINES for path in sorted((REPOSITORY / folder).rglob("*.py"))]
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCK = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def name_of(path):
    return str(path.relative_to(REPOSITORY))


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTION)]


def body_lines(function):
    """Lines of the body, docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def nesting(node, depth=0):
    """How many blocks lie within each other; ``elif`` is no deeper than ``if``."""
    deepest = depth
    for name, field in ast.iter_fields(node):
        for child in field if isinstance(field, list) else [field]:
            if not isinstance(child, ast.AST) or isinstance(child, FUNCTION):
                continue
            elif_ = isinstance(node, ast.If) and name == "orelse" and isinstance(child, ast.If)
            deeper = isinstance(child, BLOCK) and not elif_
            deepest = max(deepest, nesting(child, depth + deeper))
    return deepest


def arguments(function):
    """Names of what a caller may pass, ``self`` and ``cls`` left out."""
    spec = function.args
    named = [argument.arg for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return named[1:] if named[:1] in (["self"], ["cls"]) else named


def over(path, measure, limit):
    """Functions of a file beyond a limit, by name and line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    sizes = {(node.name, node.lineno): measure(node) for node in functions(tree)}
    return {name: size for name, size in sizes.items() if size > limit}


def with_many_arguments(path):
    """Functions of a file that take more than ``ARGUMENTS``."""
    return over(path, lambda node: len(arguments(node)), ARGUMENTS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_budget(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= LINES[path.relative_to(REPOSITORY).parts[0]]
    assert not over(path, body_lines, BODY)
    assert not over(path, nesting, NESTING)
    many = {name: size for (name, _), size in with_many_arguments(path).items()}
    assert many == EXCEPTIONS.get(name_of(path), {})


def test_the_folders_are_looked_into():
    assert {path.relative_to(REPOSITORY).parts[0] for path in FILES} == set(LINES)


SAMPLE = '''
def outer(self, a, b, *, c):
    """Two
    lines."""
    if a:
        pass
    elif b:
        for _ in c:
            with c:
                x = 1

    return x

def inner(): "only a docstring"
'''


def test_the_rulers_measure_right():
    outer, inner = functions(ast.parse(SAMPLE))

    assert (body_lines(outer), body_lines(inner)) == (8, 0)
    assert nesting(outer) == 3
    assert arguments(outer) == ["a", "b", "c"]
