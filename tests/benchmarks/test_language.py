"""The benchmark of the reader counts right."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def benchmark(load_script):
    return load_script("benchmarks/language.py")


def test_the_score_by_hand(benchmark):
    def case(expected, acceptable=(), negated=()):
        return {"expected": expected, "acceptable": acceptable, "negated": negated}

    cases = [
        case(["a", "b"], ["c"]),  # exact, with an acceptable one
        case(["a"]),  # one missing, one wrong
        case([], negated=["d"]),  # asked for though negated
        case(["e"], negated=["e"]),  # negated here, expected there: fine
    ]

    assert benchmark.score(cases, [{"a", "b", "c"}, {"b"}, {"d"}, {"e"}]) == {
        "n": 4,
        "exact": 2,
        "precision": 0.6,  # 3 right, 2 wrong
        "recall": 0.75,  # 3 of 4
        "asked_though_negated": 1,
    }
    assert benchmark.score(cases[2:3], [set()])["precision"] is None


def test_it_reads_a_file_and_ends_with_json(benchmark, repository, capsys):
    benchmark.main([str(repository / "tests/language/data/sentences.jsonl"), "--verbose"])

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["n"] == 145
    assert last["exact"] >= 140
    assert last["asked_though_negated"] == 0
    assert last["ms_per_sentence"] > 0
