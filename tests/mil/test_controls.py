import pytest
import torch

from xpath.errors import ShapeError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.controls import capacity_matched, parameter_count, without_names, without_objects
from xpath.mil.object_aware import ObjectAwareMIL


@pytest.mark.parametrize(
    "settings", [{}, {"gated": False}, {"proj": 16}, {"hidden": 8, "dropout": 0.25}]
)
def test_the_control_has_as_many_weights(settings):
    model = ObjectAwareMIL(32, 22, 2, **settings)

    control = capacity_matched(model)

    step = 2 * (model.config.proj or 32) + 3  # at most what one attention feature more costs
    assert abs(parameter_count(control) - parameter_count(model)) <= step / 2
    assert isinstance(control, AttentionMIL)
    assert control.config.hidden > 15 * model.config.hidden
    assert (control.config.gated, control.config.proj, control.config.dropout) == (
        model.config.gated,
        model.config.proj,
        model.config.dropout,
    )


def test_weights_are_counted_by_hand():
    """Gated: 2 (4·3 + 3) for V and U, 3 + 1 for w, 4·2 + 2 for the classifier."""
    model = AttentionMIL(4, 2, hidden=3)

    by_hand = 2 * (4 * 3 + 3) + 3 + 4 * 2 + 2
    assert parameter_count(model) in (by_hand, by_hand + 1)
    model.classifier.weight.requires_grad_(requires_grad=False)
    assert parameter_count(model) in (by_hand - 8, by_hand - 7)


def test_shuffled_names_keep_what_a_patch_holds(object_bags, generator):
    bag = object_bags[0]

    shuffled = without_names(bag, generator)

    for before, after, was, now in zip(
        bag.features, shuffled.features, bag.present, shuffled.present, strict=True
    ):
        old = {(tuple(row.tolist()), bool(there)) for row, there in zip(before, was, strict=True)}
        new = {(tuple(row.tolist()), bool(there)) for row, there in zip(after, now, strict=True)}
        assert old == new
    assert not torch.equal(shuffled.features, bag.features)
    assert (shuffled.label, shuffled.slide_id) == (bag.label, bag.slide_id)


def test_names_move_in_each_patch_anew(generator):
    features = torch.arange(3.0)[None, :, None].expand(200, 3, 1)
    bag = Bag(features, torch.ones(200, 3, dtype=torch.bool))

    first = without_names(bag, generator).features[:, 0, 0]

    counts = torch.bincount(first.long(), minlength=3)
    assert counts.min() > 40


def test_without_objects_every_branch_sees_the_patch(patch_bags):
    model = ObjectAwareMIL(4, 3, 2).double().eval()
    bag = without_objects(patch_bags[0], 3)

    output = model(pack([bag]))

    assert bag.features.shape == (5, 3, 4)
    assert bag.present.all()
    assert output.present.all()
    torch.testing.assert_close(output.instances[:, 0], output.instances[:, 2])


def test_bags_of_the_other_kind_are_refused_by_name(patch_bags, object_bags, generator):
    with pytest.raises(ShapeError, match=r"s5.*no names"):
        without_names(patch_bags[0], generator)
    with pytest.raises(ShapeError, match=r"s5.*patch features"):
        without_objects(object_bags[0], 3)
