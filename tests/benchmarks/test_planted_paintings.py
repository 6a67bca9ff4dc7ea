import json
import runpy
import sys

import numpy as np
import pytest

from xpath.explain.cohort import BenefitRow, ImportanceRow


@pytest.fixture(scope="module")
def benchmark(repository):
    before = sys.modules.get("planted_paintings")
    found = runpy.run_path(str(repository / "benchmarks/planted_paintings.py"))
    assert sys.modules.get("planted_paintings") is before
    return found


def test_the_planted_object_is_found_and_nonsense_is_not(benchmark, capsys):
    found = benchmark["main"]([
        "--seeds",
        "1",
        "--permutations",
        "3",
        "--slides",
        "64",
        "--hiding",
        "removal",
    ])

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert found["planted_first"] == found["interval_excludes_null"] == 1
    assert found["false_calls"] <= found["allowed"]
    assert found["decoys_called"] <= 1


def row(name, rank, effect, low, class_name="class-B"):
    numbers = dict.fromkeys(
        (
            "imp",
            "effect_low",
            "effect_high",
            "null",
            "excess",
            "excess_high",
            "area",
            "cover",
            "need",
            "need_low",
            "need_high",
            "imp_low",
            "imp_high",
            "median",
        ),
        0.0,
    )
    return ImportanceRow(
        class_name=class_name, rank=rank, object=name, slides=9, effect=effect, excess_low=low,
        **numbers,
    )  # fmt: skip


def benefit(name, q):
    return BenefitRow(object=name, rank=1, slides=9, benefit=1.0, p=q / 2, q=q, least_q=0.001)


def test_the_last_line_counts_what_it_says(benchmark):
    found, planted = benchmark["Found"], benchmark["PLANTED"]
    stroma, fat = benchmark["GIVES_WAY"], "breast-tissue-fat"
    good = found(1.0, [row(planted, 1, 2.0, 0.5), row(fat, 2, 1.0, 0.1)], [benefit(planted, 0.01)])
    larger = found(0.5, [row(planted, 1, 2.0, 0.5), row(fat, 2, 3.0, 0.1)], [benefit(fat, 0.05)])
    beaten = found(0.0, [row(fat, 1, 2.0, 0.5), row(planted, 2, 1.0, -0.1)], [benefit(stroma, 0.0)])
    nonsense = [found(0.5, [], [benefit(fat, q), benefit(stroma, q)]) for q in (0.04, 0.06, 0.5)]

    said = benchmark["summary"]([good, larger, beaten], nonsense)

    assert said["planted_first"] == 1
    assert said["interval_excludes_null"] == 2
    assert (said["planted_called"], said["decoys_called"], said["gives_way_called"]) == (1, 1, 1)
    assert (said["false_calls"], said["permutations"], said["allowed"]) == (1, 3, 1)
    assert said["p_below_level"] == pytest.approx(4 / 6, abs=1e-3)
    assert said["accuracy"] == 0.5


def test_the_held_out_half_has_both_classes(benchmark):
    cohort = benchmark["Cohort"]([None] * 8, np.arange(8) % 2, None)

    assert cohort.held_out.tolist() == [False, False, True, True] * 2
    assert set(cohort.labels[cohort.held_out]) == {0, 1}
