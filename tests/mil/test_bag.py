import numpy as np
import pytest
import torch

from xpath.errors import DataError, ShapeError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, chunks, pack, pack_padded
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.pooling_mil import PoolingMIL


def test_bags_lie_end_to_end():
    first = Bag(torch.tensor([[1.0], [2.0]]), label=1, slide_id="a")
    second = Bag(torch.tensor([[3.0]]), slide_id="b")

    packed = pack([first, second])

    assert packed.features.flatten().tolist() == [1, 2, 3]
    assert packed.index.tolist() == [0, 0, 1]
    assert packed.sizes.tolist() == [2, 1]
    assert packed.labels.tolist() == [1, -1]
    assert packed.present is None
    assert packed.bags == 2


def test_presence_travels_with_the_objects():
    bags = [Bag(torch.zeros(n, 2, 3), torch.eye(2, dtype=torch.bool)[:n]) for n in (1, 2)]

    assert pack(bags).present.tolist() == [[True, False], [True, False], [False, True]]


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_for_the_disk(stored, wanted):
    assert pack([Bag(torch.ones(2, 3, dtype=stored))]).features.dtype == wanted


def test_like_brings_features_to_the_models_type():
    packed = pack([Bag(torch.ones(2, 1, 3), torch.ones(2, 1) > 0)])

    moved = packed.like(torch.zeros(1, dtype=torch.float64))

    assert moved.features.dtype == torch.float64
    assert moved.present.dtype == torch.bool
    assert moved.index.dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_refused_by_name(value):
    features = torch.zeros(3, 2)
    features[1, 1] = value
    with pytest.raises(DataError, match=r"slide-7.*NaN or infinity"):
        Bag(features, slide_id="slide-7")


def test_overflow_of_half_precision_is_refused():
    with pytest.raises(DataError, match="infinity"):
        Bag(torch.full((1, 2), 1e5).half())


@pytest.mark.parametrize("shape", [(0, 4), (0, 2, 4)])
def test_empty_bags_are_refused_by_name(shape):
    with pytest.raises(DataError, match=r"slide-7.*no patches"):
        Bag(torch.zeros(shape), slide_id="slide-7")


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5)])
def test_other_axes_are_refused_by_name(shape):
    with pytest.raises(ShapeError, match="slide-7"):
        Bag(torch.zeros(shape), slide_id="slide-7")


def test_presence_goes_with_objects_and_only_with_them():
    with pytest.raises(ShapeError, match="go without"):
        Bag(torch.zeros(2, 3), torch.ones(2, 1) > 0)
    with pytest.raises(ShapeError, match="need `present`"):
        Bag(torch.zeros(2, 3, 4))
    with pytest.raises(ShapeError, match="present must be"):
        Bag(torch.zeros(2, 3, 4), torch.ones(2, 4) > 0)
    with pytest.raises(DataError, match=r"boolean.*coverage > 0"):
        Bag(torch.zeros(2, 3, 4), torch.ones(2, 3))


def test_integers_and_negative_labels_are_refused():
    with pytest.raises(DataError, match="floating"):
        Bag(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(DataError, match="label"):
        Bag(torch.zeros(2, 3), label=-1)


def test_bags_that_do_not_fit_together_are_refused_by_name():
    with pytest.raises(ShapeError, match=r"'a'.*'b'"):
        pack([Bag(torch.zeros(2, 3), slide_id="a"), Bag(torch.zeros(2, 4), slide_id="b")])
    with pytest.raises(DataError, match="no bags"):
        pack([])


def test_padding_is_taken_out_whatever_stands_in_it():
    features = torch.full((2, 3, 2), float("nan"))
    features[0, :2] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    features[1, 2] = 5.0
    mask = torch.tensor([[True, True, False], [False, False, True]])

    packed = pack_padded(features, mask, labels=torch.tensor([1, 0]))

    assert packed.features.tolist() == [[1, 2], [3, 4], [5, 5]]
    assert packed.sizes.tolist() == [2, 1]
    assert packed.index.tolist() == [0, 0, 1]
    assert packed.labels.tolist() == [1, 0]


def test_padded_objects_keep_their_presence():
    present = torch.tensor([[[True, False], [True, True]]])

    packed = pack_padded(torch.ones(1, 2, 2, 3), torch.tensor([[False, True]]), present=present)

    assert packed.present.tolist() == [[True, True]]
    assert packed.labels.tolist() == [-1]


def test_padded_batches_that_cannot_be_are_refused():
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ShapeError, match="padded features"):
        pack_padded(torch.ones(2, 3), mask)
    with pytest.raises(ShapeError, match="mask"):
        pack_padded(torch.ones(1, 3, 4), mask)
    with pytest.raises(ShapeError, match="need `present`"):
        pack_padded(torch.ones(1, 2, 3, 4), mask)
    with pytest.raises(DataError, match="boolean"):
        pack_padded(torch.ones(1, 2, 4), mask.int())
    with pytest.raises(DataError, match="0 bags"):
        pack_padded(torch.ones(0, 2, 4), mask[:0])
    with pytest.raises(DataError, match="NaN"):
        pack_padded(torch.full((1, 2, 4), float("nan")), mask)


@pytest.mark.parametrize(
    ("features", "present", "label", "message"),
    [
        (
            np.zeros((3, 2)),
            None,
            None,
            r"features must be a tensor, got ndarray; torch\.from_numpy",
        ),
        (
            torch.zeros(3, 2, 4),
            np.ones((3, 2), bool),
            None,
            "present must be a tensor, got ndarray",
        ),
        (torch.zeros(3, 2), None, "ILC", "label must be 0, 1, .* got 'ILC'"),
        (torch.zeros(3, 2), None, 1.0, "label must be 0, 1, .* got 1.0"),
        (torch.zeros(3, 2), None, torch.tensor(1), "label must be 0, 1"),
    ],
)
def test_arrays_and_names_are_no_tensors_and_classes(features, present, label, message):
    with pytest.raises(DataError, match=message):
        Bag(features, present, label)


def test_numbers_of_numpy_are_labels():
    assert pack([Bag(torch.zeros(3, 2), label=np.int64(1))]).labels.tolist() == [1]


@pytest.mark.parametrize("kind", [AttentionMIL, PoolingMIL, ObjectAwareMIL])
def test_a_model_wants_packed_bags_of_its_precision(kind):
    aware = kind is ObjectAwareMIL
    model = kind(4, 2, 2) if aware else kind(4, 2)
    features = torch.zeros(3, 2, 4) if aware else torch.zeros(3, 4)
    present = torch.ones(3, 2, dtype=torch.bool) if aware else None

    with pytest.raises(DataError, match=r"packed bags, got Bag; pass pack"):
        model(Bag(features, present))
    double = pack([Bag(features.double(), present)])
    with pytest.raises(DataError, match=r"float64.*\.like\("):
        model(double)
    assert model(double.like(model.classifier.weight)).logits.shape == (1, 2)


def test_chunks_hold_what_fits_in_order(monkeypatch):
    bags = [Bag(torch.ones(n, 2), slide_id=str(n)) for n in (3, 2, 1, 9, 1, 1, 1)]
    monkeypatch.setattr("xpath.mil.bag.AT_ONCE", 10)

    def found(**settings):
        return [[len(bag.features) for bag in chunk] for chunk in chunks(bags, **settings)]

    assert found() == [[3, 2], [1], [9], [1, 1, 1]]
    assert found(most=2) == [[3, 2], [1], [9], [1, 1], [1]]
    assert list(chunks([])) == []
