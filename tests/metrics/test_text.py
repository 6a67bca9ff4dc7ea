"""Text scores: by hand, and equal to published implementations on stored pairs."""

from __future__ import annotations

import json
import math
import sys
import types

import pytest

import xpath.metrics.text as text_metrics
from xpath.errors import DataError
from xpath.metrics.text import bleu, meteor, rouge_l, text_scores, treebank_tokens


@pytest.fixture(scope="module")
def golden(shared):
    path = shared / "golden" / "unibiomed" / "text_metrics.json"
    if not path.is_file():
        pytest.skip("the stored text scores are not here")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("which", ["references", "hypotheses"])
def test_tokens_are_those_of_the_penn_treebank(golden, which):
    for text, tokens in zip(golden[which], golden[f"ptb_{which}"], strict=True):
        assert " ".join(treebank_tokens(text)) == tokens


def test_scores_equal_the_stored_ones(golden):
    pairs = golden["hypotheses"], golden["references"]

    assert bleu(*pairs) == pytest.approx(golden["BLEU_1..4_corpus"], rel=1e-9)
    assert rouge_l(*pairs) == pytest.approx(golden["ROUGE_L_mean"], rel=1e-12)
    for number, (hypothesis, reference) in enumerate(zip(*pairs, strict=True)):
        each = [scores[number] for scores in golden["BLEU_each"]]
        assert bleu([hypothesis], [reference]) == pytest.approx(each, rel=1e-9)
        assert rouge_l([hypothesis], [reference]) == pytest.approx(golden["ROUGE_L_each"][number])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Tumour, grade 3.", "tumour grade 3"),
        ("3.5 cm; 1,000 cells: many!", "3.5 cm 1,000 cells many"),
        ("It's \u201chigh-grade\u201d \u2013 isn't it?", "it 's high-grade is n't it"),
        ("12 mitoses/mm2 (few) [sic]", "12 mitoses/mm2 -lrb- few -rrb- -lsb- sic -rsb-"),
        ("We cannot exclude 'atypia' i.e. 10% ...", "we can not exclude atypia i.e. 10 %"),
        (" - ; : ", ""),
    ],
)
def test_tokens(text, tokens):
    assert " ".join(treebank_tokens(text)) == tokens


def test_bleu_by_hand():
    """Of 4 words 3 match ("a" counts once), of 3 pairs 1, of 2 triples none; 4 of 5 words long."""
    one, two, three, _ = bleu(["a a b c"], ["a d b c e"])
    brevity = math.exp(1 - 5 / 4)

    assert one == pytest.approx(brevity * 3 / 4)
    assert two == pytest.approx(brevity * math.sqrt(3 / 4 * 1 / 3))
    assert three < 1e-4
    assert bleu(["a b c d e"], ["a b c d"])[0] == pytest.approx(4 / 5)  # long texts are not cut


def test_bleu_is_of_the_corpus_not_a_mean():
    """4 of 4 and 0 of 2 words: 4 of 6, not a half."""
    assert bleu(["a b c d", "x y"], ["a b c d", "p q"])[0] == pytest.approx(4 / 6)


def test_rouge_by_hand():
    """The common subsequence of "a b c d" and "b x d" is "b d": P 1/2, R 2/3."""
    precision, recall = 1 / 2, 2 / 3
    wanted = 2.44 * precision * recall / (recall + 1.44 * precision)

    assert rouge_l(["a b c d"], ["b x d"]) == pytest.approx(wanted)
    assert rouge_l(["a", "x"], ["a", "y"]) == pytest.approx(0.5)
    assert rouge_l(["d c b a"], ["a b c d"]) == pytest.approx(1 / 4)  # order counts


def test_empty_texts_score_nothing():
    scores = text_scores(["."], ["tumour"])

    assert scores.rouge_l == 0
    assert max(scores.bleu) < 1e-6


def test_meteor_is_none_where_the_real_one_is_not(monkeypatch):
    monkeypatch.setattr(text_metrics, "find_spec", lambda name: None)

    assert meteor(["a"], ["a"]) is None
    assert text_scores(["a"], ["a"]).meteor is None


def test_meteor_asks_the_real_one(monkeypatch):
    asked = []

    class Meteor:
        def compute_score(self, references, hypotheses):
            asked.append((references, hypotheses))
            return 0.25, [0.25]

    monkeypatch.setitem(
        sys.modules, "pycocoevalcap.meteor.meteor", types.SimpleNamespace(Meteor=Meteor)
    )
    monkeypatch.setattr(text_metrics, "find_spec", lambda name: object())
    monkeypatch.setattr(text_metrics.shutil, "which", lambda name: None)
    assert meteor(["A tumour."], ["Tumours"]) is None  # no Java

    monkeypatch.setattr(text_metrics.shutil, "which", lambda name: "/usr/bin/java")
    assert meteor(["A tumour."], ["Tumours"]) == 0.25
    assert asked == [({0: ["tumours"]}, {0: ["a tumour"]})]


@pytest.mark.parametrize("texts", [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_texts_and_references_must_be_pairs(texts):
    for score in (bleu, rouge_l, meteor):
        with pytest.raises(DataError, match="one reference per text"):
            score(*texts)
