import numpy as np
import pytest
import torch

from xpath.errors import DataError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.prediction import evaluate, predict


def test_answers_are_the_models_whatever_the_batch(attention_mil, patch_bags):
    wanted = attention_mil(pack(patch_bags)).logits.detach()

    for batch in (1, 2, 16):
        found = predict(attention_mil, patch_bags, batch=batch)
        np.testing.assert_allclose(found.logits, wanted.numpy(), atol=1e-9)
    np.testing.assert_allclose(found.probability, wanted.softmax(dim=1).numpy(), atol=1e-9)
    assert found.slide_ids == ("s5", "s1", "s8")
    assert found.label.tolist() == [1, 1, 0]


def test_large_bags_are_answered_in_chunks(attention_mil, patch_bags, monkeypatch):
    packed = []
    monkeypatch.setattr("xpath.mil.prediction.pack", lambda bags: packed.append(bags) or pack(bags))
    monkeypatch.setattr("xpath.mil.bag.AT_ONCE", 1)

    predict(attention_mil, patch_bags)

    assert [len(bags) for bags in packed] == [1, 1, 1]


def test_dropout_is_off_and_the_mode_restored():
    model = AttentionMIL(4, 2, proj=8, dropout=0.5).train()
    bags = [Bag(torch.ones(3, 4))]

    first, second = predict(model, bags), predict(model, bags)

    assert model.training
    np.testing.assert_array_equal(first.logits, second.logits)
    assert first.label.tolist() == [-1]


def test_the_mode_is_restored_after_an_error():
    model = AttentionMIL(4, 2).train()
    with pytest.raises(DataError):
        predict(model, [Bag(torch.ones(3, 5))])

    assert model.training


def test_a_single_bag_is_no_list_of_bags():
    with pytest.raises(DataError, match=r"pass \[bag\]"):
        predict(AttentionMIL(4, 2), Bag(torch.ones(3, 4)))


def sure_model():
    """Says class 1 where the mean first feature is positive."""
    model = AttentionMIL(1, 2)
    with torch.no_grad():
        model.attention.score_weight.zero_()
        model.classifier.weight.copy_(torch.tensor([[0.0], [1.0]]))
        model.classifier.bias.zero_()
    return model


def test_scores_by_hand():
    values, labels = [-2.0, 1.0, -1.0, 3.0], [0, 0, 1, 1]
    bags = [Bag(torch.full((2, 1), v), label=y) for v, y in zip(values, labels, strict=True)]

    found = evaluate(sure_model(), bags)

    assert found.auc == 0.75  # pairs: -2<-1, -2<3, 1<3 right, 1<-1 wrong
    assert found.accuracy == 0.5


def test_slides_without_a_label_are_refused_by_name():
    with pytest.raises(DataError, match="slide-7"):
        evaluate(sure_model(), [Bag(torch.ones(1, 1), slide_id="slide-7")])
    with pytest.raises(DataError, match="no bags"):
        predict(sure_model(), [])
    with pytest.raises(DataError, match="batch"):
        predict(sure_model(), [Bag(torch.ones(1, 1))], batch=0)
