import json
import runpy
from dataclasses import replace

import numpy as np
import pytest
import torch

from xpath.cli.demo_run import demo_config
from xpath.explain.cohort import BenefitRow
from xpath.explain.contributions import ContributionRow
from xpath.testing.tissue import LABELS

OBJECTS = ("breast-tissue-tumor", "breast-tissue-stroma", "breast-tissue-necrosis or debris")
PLANTED, STROMA, FAT = "breast-tissue-necrosis or debris", "breast-tissue-stroma", "fat"


@pytest.fixture(scope="module")
def benchmark(repository):
    return runpy.run_path(str(repository / "benchmarks/planted_truth.py"))


def small(labels):
    """Settings with which slides of 256 pixels have tissue, and a training takes a moment."""
    assert labels == LABELS  # decoys are all that is drawn, found or not
    config = demo_config(labels)
    training = replace(config.classifier.train, epochs=3, patience=3, min_steps=0)
    return replace(
        config,
        tissue=replace(config.tissue, min_area_um2=2000.0),
        objects=replace(config.objects, labels=OBJECTS),
        classifier=replace(config.classifier, train=training),
        explain=replace(config.explain, labels=OBJECTS, null_draws=1),
    )


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_no_classifier_changes_is_done_once(benchmark, tmp_path, monkeypatch, capsys):
    names = benchmark["main"].__globals__
    monkeypatch.setitem(names, "demo_config", small)
    words = ["--work", str(tmp_path), "--slides", "8", "--side", "256", "--seeds", "2"]
    words += ["--cohorts", "1", "--permutations", "1", "--checks", "1"]

    first = benchmark["main"](words)
    monkeypatch.setitem(names, "hidden_objects", None)
    again = benchmark["main"](words)

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == again
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert (first["seeds"], first["cohorts"], first["permutations"]) == (2, 1, 1)
    assert first["decoys"] == 2 * (len(OBJECTS) - 1)


def benefit(name, q=0.5):
    return BenefitRow(object=name, rank=1, slides=9, benefit=1.0, p=q / 2, q=q, least_q=0.001)


def contribution(name, difference):
    return ContributionRow(
        class_name="B", rank=1, object=name, slides=9, difference=difference, low=0.0, high=1.0,
        p=0.1, q=0.1, least_q=0.001,
    )  # fmt: skip


def test_the_last_line_counts_what_it_says(benchmark):
    trained = benchmark["Trained"]
    rows = [benefit(PLANTED), benefit(STROMA), benefit(FAT)]
    good = trained(
        1.0, rows, {PLANTED}, [contribution(PLANTED, 6), contribution(FAT, -2)],
        {PLANTED: "supported", FAT: "suggestive"},
    )  # fmt: skip
    other = trained(
        0.5, rows, {PLANTED, STROMA}, [contribution(PLANTED, 4), contribution(FAT, 1)], {}
    )
    wrong = trained(0.0, rows, {FAT}, [contribution(FAT, 4), contribution(PLANTED, 2)], {})
    nonsense = [trained(0.5, [benefit(FAT, 0.01), benefit(STROMA)], {FAT}, [], {})]

    said = benchmark["summary"](PLANTED, [good, other, wrong], nonsense)

    assert (said["planted_first"], said["planted_proven"], said["met"]) == (2, 2, False)
    assert said["each_times_largest_decoy"] == [3, 4, 0.5]
    assert said["times_largest_decoy"] == 2.5
    assert (said["decoys"], said["gives_way_called"]) == (6, 1)
    assert said["decoys_called"] == pytest.approx(2 / 6, abs=1e-4)
    assert said["permuted_called"] == said["permuted_q_below_level"] == 0.5
    assert said["permutations_with_a_call"] == 1
    assert said["accuracy"] == 0.5
    assert said["verdicts"] == {"planted": {"supported": 1}, "others": {"suggestive": 1}}
    assert benchmark["summary"](PLANTED, [good], [])["met"]
    assert not benchmark["summary"](PLANTED, [good], nonsense)["met"]


def test_labels_are_permuted_within_each_split(benchmark):
    from xpath.mil.bag import Bag
    from xpath.mil.splits import Split

    labels = np.array([0, 1] * 10)
    bags = tuple(
        Bag(torch.zeros(1, 2), None, int(label), f"s{i}") for i, label in enumerate(labels)
    )

    class Small:
        def __init__(self):
            self.bags = {"patches": bags}

        def _replace(self, bags):
            return bags

    split = Split(np.arange(10), np.arange(10, 14), np.arange(14, 20))
    one = benchmark["Prepared"](Small(), None, split, {})

    changed = [benchmark["permuted"](one, number)["patches"] for number in range(5)]

    for those in changed:
        for part in split:
            assert sum(those[i].label for i in part) == labels[part].sum()
    assert any([bag.label for bag in those] != labels.tolist() for those in changed)
