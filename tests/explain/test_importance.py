import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from xpath.errors import ConfigError, DataError, ResolutionError, ShapeError
from xpath.explain.head import log_odds
from xpath.explain.hiding import SegmentedSlide
from xpath.explain.importance import (
    ObjectImportance,
    log_loss,
    loss_ratio,
    object_importance,
)
from xpath.explain.perturbation import Blur, Fill, PerturbationConfig, feather, perturbed
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.objects.extract import extract_objects
from xpath.store.masks import MaskWriter, open_masks
from xpath.testing.slides import write_slide
from xpath.wsi.slide import Slide

SIDE = 32
HARD = PerturbationConfig(feather_um=0.0, null_draws=3)


class Redness:
    """How much redder than green every position is. Counts the images it encodes."""

    def __init__(self):
        self.images = 0

    def maps(self, images):
        self.images += len(images)
        red = functional.relu(images[:, :1].float() - images[:, 1:2].float()) / 255
        return functional.avg_pool2d(red, 4)


class Encoder(Redness):
    """With all that a file must say."""

    name, digest, dim = "redness", "ab" * 32, 1


class Sharpness:
    """Differences between neighbours: knows nothing of objects."""

    def maps(self, images):
        return (images[:, :1, :, 1:].float() - images[:, :1, :, :-1].float()).abs() / 255


class Black:
    def replacement(self, image, mpp):
        return np.zeros(image.shape, np.float32)


def mean_redness(features):
    """Two logits, the second for red."""
    mean = 40 * features.mean()
    return torch.stack([torch.zeros_like(mean), mean])


def segmented_slide(slide, masks, encoder):
    images = torch.from_numpy(slide.patches).permute(0, 3, 1, 2)
    features = encoder.maps(images).mean(dim=(2, 3)).numpy()
    return SegmentedSlide(slide_id="a", slide=slide, masks=masks, features=features)


@pytest.fixture
def coloured(make_slide):
    """Red discs in patches 0 and 1, a green square in 2, stroma all over 3, nothing in 4."""
    rng = np.random.default_rng(0)
    patches = np.full((5, SIDE, SIDE, 3), 200, np.uint8)
    masks = np.zeros((5, 4, SIDE, SIDE), bool)
    masks[:2, 0, 6:18, 9:20] = True
    masks[2, 1, 4:20, 4:20] = True
    masks[3, 2] = True
    patches[masks[:, 0]] = 220, 40, 60
    patches[masks[:, 1]] = 40, 200, 60
    patches[3] = np.repeat(rng.integers(100, 200, (SIDE, SIDE, 1)), 3, axis=2)
    return make_slide(patches, ["red", "green", "stroma", "absent"], masks)


NAMES = ("red", "green", "stroma", "absent")


@pytest.mark.parametrize("perturbation", [Blur(3.0), Fill()])
@pytest.mark.parametrize("feather_um", [0.0, 1.0])
def test_the_object_the_model_looks_at_comes_first(coloured, perturbation, feather_um):
    config = PerturbationConfig(feather_um=feather_um, null_draws=4)

    result = object_importance(
        mean_redness,
        Redness(),
        segmented_slide(*coloured, Redness()),
        objects=NAMES,
        target=1,
        perturbation=perturbation,
        config=config,
    )

    assert result.excess.argmax() == 0
    assert result.effect[0] > 0.5
    assert result.excess[0] > 0.2
    assert result.imp[0] > 1.3
    assert result.hidden_probability[0] < result.probability
    np.testing.assert_allclose(result.effect[1:], 0, atol=1e-6)
    np.testing.assert_allclose(result.excess[[1, 3]], 0, atol=1e-6)
    assert abs(result.excess[2]) > 0.01, "stroma fills its patch: others are hidden, red or green"
    np.testing.assert_allclose(result.imp[1:], 1, atol=1e-6)
    assert result.patches.tolist() == [2, 1, 1, 0]
    np.testing.assert_allclose(
        result.area, np.array([2 * 132, 256, SIDE**2, 0]) / SIDE**2 / 5, rtol=1e-6
    )


def test_the_other_class_sees_it_the_other_way_round(coloured):
    def ask(target):
        return object_importance(
            mean_redness,
            Redness(),
            segmented_slide(*coloured, Redness()),
            objects=["red"],
            target=target,
            perturbation=Fill(),
        )

    np.testing.assert_allclose(ask(0).effect, -ask(1).effect, rtol=1e-6)
    assert ask(0).imp[0] < 1 < ask(1).imp[0]


def test_by_hand(make_slide):
    patch = np.full((1, 4, 4, 3), (200, 0, 0), np.uint8)
    mask = np.zeros((1, 1, 4, 4), bool)
    mask[0, 0, 0] = True  # a quarter of the patch
    slide, masks = make_slide(patch, ["red"], mask)

    result = object_importance(
        lambda features: torch.stack([features[0, 0] * 0, features[0, 0]]) * 255 / 100,
        Redness(),
        segmented_slide(slide, masks, Redness()),
        objects=["red"],
        target=1,
        perturbation=Black(),
        config=HARD,
    )

    # redness 200 / 255 is a margin of 2; without a quarter of it 1.5, wherever the quarter lies
    assert result.probability == pytest.approx(1 / (1 + math.exp(-2)))
    assert result.hidden_probability[0] == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert result.effect[0] == pytest.approx(0.5, abs=1e-6)
    assert result.null[0] == pytest.approx(0.5, abs=1e-6)
    assert result.excess[0] == pytest.approx(0, abs=1e-6)
    assert result.imp[0] == pytest.approx(
        math.log1p(math.exp(-1.5)) / math.log1p(math.exp(-2)), rel=1e-5
    )
    assert result.area[0] == 0.25


def test_an_absent_object_changes_exactly_nothing(coloured):
    result = object_importance(
        # three times 0.1, divided by three, is not 0.1
        lambda features: torch.tensor([0.0, 0.1], dtype=torch.float64),
        Redness(),
        segmented_slide(*coloured, Redness()),
        objects=["absent"],
        target=1,
        perturbation=Fill(),
        config=HARD,
    )

    assert result.effect[0] == 0
    assert result.null[0] == 0
    assert result.imp[0] == 1
    assert result.hidden_probability[0] == result.probability


def test_hiding_everywhere_by_hand_gives_the_same(coloured):
    slide, masks = coloured
    torch.manual_seed(0)
    model = AttentionMIL(1, 2).eval()

    def predict(features):
        with torch.inference_mode():
            return 100 * model(pack([Bag(features)])).logits[0]

    blur, hidden = Blur(3.0), slide.patches.copy()
    for i, image in enumerate(slide.patches):
        weight = feather(masks.read(i)[0], 2.0, 0.5)
        hidden[i] = perturbed(image, blur.replacement(image, 0.5), weight)
    after = segmented_slide(SimpleNamespace(patches=hidden), masks, Redness())

    segmented = segmented_slide(slide, masks, Redness())
    result = object_importance(
        predict, Redness(), segmented, objects=["red"], target=1, perturbation=blur
    )

    wanted = [
        log_odds(predict(torch.from_numpy(s.features)).double().numpy(), 1)
        for s in (segmented, after)
    ]
    assert result.effect[0] == pytest.approx(wanted[0] - wanted[1], rel=1e-3)
    assert abs(result.effect[0]) > 0.01


def test_only_patches_with_the_object_are_read_and_encoded(coloured):
    slide, masks = coloured
    segmented, encoder = segmented_slide(slide, masks, Redness()), Redness()

    object_importance(
        mean_redness,
        encoder,
        segmented,
        objects=["red", "green", "absent"],
        target=1,
        perturbation=Fill(),
        config=HARD,
    )

    assert sorted(slide.read_patches) == [0, 1, 2]
    assert encoder.images == 3 * (1 + HARD.null_draws)


def test_an_object_does_not_depend_on_which_others_are_asked(coloured):
    segmented = segmented_slide(*coloured, Redness())

    def ask(objects, batch):
        config = PerturbationConfig(batch=batch)
        return object_importance(
            mean_redness,
            Redness(),
            segmented,
            objects=objects,
            target=1,
            perturbation=Fill(),
            config=config,
        )

    alone, together = ask(["red"], 1), ask(["stroma", "green", "red"], 16)

    assert alone.effect[0] == together.effect[2]
    assert alone.null[0] == together.null[2]
    assert alone.imp[0] == together.imp[2]


def test_a_model_that_knows_no_objects_gives_area_and_the_null_takes_it_away(make_slide):
    rng = np.random.default_rng(1)
    patches = rng.integers(0, 256, (12, SIDE, SIDE, 3), dtype=np.uint8)
    sides = (7, 14, 20)  # 5, 19 and 39 % of the patch
    masks = np.zeros((12, 3, SIDE, SIDE), bool)
    for j, side in enumerate(sides):
        for i in range(12):
            y, x = rng.integers(0, SIDE - side, 2)
            masks[i, j, y : y + side, x : x + side] = True
    slide, result = make_slide(patches, ["small", "middle", "large"], masks)

    result = object_importance(
        mean_redness,
        Sharpness(),
        segmented_slide(slide, result, Sharpness()),
        objects=["small", "middle", "large"],
        target=1,
        perturbation=Blur(4.0),
        config=PerturbationConfig(feather_um=0.0, null_draws=8),
    )

    assert result.effect[0] < result.effect[1] < result.effect[2]
    assert result.effect[2] > 2
    assert (np.abs(result.excess) < 0.1 * result.effect).all()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_null_of_a_decisive_object_holds_nothing_of_it(make_slide, share):
    """Shifted masks hold as much of it as it covers of the patch, which is what went wrong."""
    patches = np.full((1, SIDE, SIDE, 3), (0, 0, 90), np.uint8)
    masks = np.zeros((1, 1, SIDE, SIDE), bool)
    masks[0, 0, : round(share * SIDE)] = True
    patches[masks[:, 0]] = 200, 0, 0
    segmented = segmented_slide(*make_slide(patches, ["red"], masks), Redness())

    off, anywhere = (
        object_importance(
            mean_redness,
            Redness(),
            segmented,
            objects=["red"],
            target=1,
            perturbation=Black(),
            config=PerturbationConfig(feather_um=0.0, null_draws=40, null=null),
        )
        for null in ("off_object", "shifted")
    )

    effect = 40 * share * 200 / 255
    assert off.effect[0] == pytest.approx(effect, rel=1e-5)
    assert np.abs(off.random).max() < 1e-5
    assert anywhere.null[0] == pytest.approx(share * effect, rel=0.15)
    assert off.random.shape == (2, 1, 40)
    np.testing.assert_allclose(off.effects[0], -off.effects[1])
    assert off.cover[0] == pytest.approx(share)


def test_a_slide_by_itself_by_hand():
    """Two of four random masks do as much as the second object, none as much as the first."""
    random = np.array([[[0.1, 0.2, 0.3, 0.4], [1.0, 0.2, 3.0, 0.4], [0.0] * 4]])
    result = ObjectImportance(
        slide_id="a",
        target=0,
        objects=("a", "b", "absent"),
        probability=0.5,
        hidden_probability=np.zeros(3),
        imp=np.ones(3),
        effects=np.array([[0.5, 1.0, 0.0]]),
        random=random,
        patches=np.array([2, 1, 0]),
        area=np.array([0.25, 0.125, 0]),
        slide_patches=4,
    )

    np.testing.assert_allclose(result.p, [1 / 5, 3 / 5, 1])
    np.testing.assert_allclose(result.null, [0.25, 1.15, 0])
    np.testing.assert_allclose(result.excess, [0.25, -0.15, 0])
    np.testing.assert_allclose(result.cover, [0.5, 0.5, np.nan])


@pytest.mark.parametrize("share", [0.25, 0.75, 0.875, 1.0])
@pytest.mark.parametrize("feather_um", [0.0, 2.0])
def test_a_random_mask_that_is_smaller_stands_for_one_as_large(make_slide, share, feather_um):
    """On tissue that is all alike nothing is special, however little of it is left."""
    patches = np.full((2, SIDE, SIDE, 3), (200, 0, 0), np.uint8)
    masks = np.zeros((2, 1, SIDE, SIDE), bool)
    masks[0, 0, : round(share * SIDE)] = True

    result = object_importance(
        mean_redness,
        Redness(),
        segmented_slide(*make_slide(patches, ["red"], masks), Redness()),
        objects=["red"],
        target=1,
        perturbation=Black(),
        config=PerturbationConfig(feather_um=feather_um),
    )

    assert result.effect[0] > 3
    np.testing.assert_allclose(result.random[1, 0], result.effect[0], rtol=0.02)


def test_masks_of_another_size_are_laid_on_the_patch(make_slide, make_masks):
    patch = np.full((1, 8, 8, 3), (200, 0, 0), np.uint8)
    mask = np.zeros((1, 1, 4, 4), bool)
    mask[0, 0, 0, :2] = True
    slide, fine = make_slide(patch, ["red"], mask.repeat(2, 2).repeat(2, 3))
    coarse = make_masks(fine.grid, ["red"], mask)

    results = [
        object_importance(
            mean_redness,
            Redness(),
            segmented_slide(slide, masks, Redness()),
            objects=["red"],
            target=1,
            perturbation=Black(),
        )
        for masks in (fine, coarse)
    ]

    assert results[0].effect == results[1].effect
    assert results[0].area == results[1].area
    assert results[0].effect[0] > 0


@pytest.mark.integration
def test_slides_and_masks_on_disk_give_the_same(coloured, make_masks, tmp_path):
    slide, masks = coloured
    labels = [f"breast-tissue-{name}" for name in NAMES]
    arrays = masks.read(slice(None))
    write_slide(tmp_path / "a.tiff", np.concatenate(slide.patches, axis=1), mpp=0.5, lossless=True)
    with MaskWriter(
        tmp_path / "masks.zarr", grid=masks.grid, labels=labels, size=SIDE, provenance={}
    ) as writer:
        writer.write(0, arrays, np.ones((5, 4), np.float32))

    def ask(segmented):
        return object_importance(
            mean_redness, Redness(), segmented, objects=labels, target=1, perturbation=Blur(3.0)
        )

    with Slide.open(tmp_path / "a.tiff") as opened:
        stored = open_masks(tmp_path / "masks.zarr")
        features = extract_objects(opened, stored, Encoder(), slide_id="a").features
        result = ask(SegmentedSlide(slide_id="a", slide=opened, masks=stored, features=features))

    wanted = ask(segmented_slide(slide, make_masks(masks.grid, labels, arrays), Redness()))
    np.testing.assert_allclose(result.effect, wanted.effect, atol=1e-6)
    np.testing.assert_allclose(result.null, wanted.null, atol=1e-6)
    np.testing.assert_array_equal(result.area, wanted.area)
    assert wanted.effect[0] > 0.5


# the numbers


def test_log_odds_by_hand_and_by_softmax():
    logits = np.array([[1.0, 3.0], [0.0, -2.0]])
    np.testing.assert_allclose(log_odds(logits, 1), [2.0, -2.0])

    many = np.random.default_rng(0).normal(size=(5, 4)) * 3
    p = np.exp(many)[:, 2] / np.exp(many).sum(axis=1)
    np.testing.assert_allclose(log_odds(many, 2), np.log(p / (1 - p)))
    np.testing.assert_allclose(log_loss(many, 2), -np.log(p))


def test_the_loss_stays_finite_and_falls_up_to_large_margins():
    margins = np.arange(0, 51, dtype=np.float32)
    logits = torch.stack([torch.zeros(51), torch.from_numpy(margins)], dim=1)
    assert functional.cross_entropy(logits[20:21], torch.tensor([1])) == 0  # why this is needed

    loss = log_loss(logits.double().numpy(), 1)

    assert np.isfinite(loss).all()
    assert (loss > 0).all()
    assert (np.diff(loss) < 0).all()
    np.testing.assert_allclose(loss, [math.log1p(math.exp(-m)) for m in margins])


@pytest.mark.parametrize("margin", [-30.0, 0.0, 16.0, 39.5, 50.0, 800.0])
def test_the_ratio_is_right_at_any_margin(margin):
    before, after = np.array([0.0, margin]), np.array([0.0, margin - 1])

    ratio = loss_ratio(after, before, 1)

    if margin < 100:
        wanted = math.log1p(math.exp(1 - margin)) / math.log1p(math.exp(-margin))
    else:
        wanted = math.e
    assert ratio == pytest.approx(wanted, rel=1e-9)


def test_even_an_absurd_ratio_is_a_number():
    sure, wrong = np.array([0.0, 5000.0]), np.array([5000.0, 0.0])

    assert 1e300 < loss_ratio(wrong, sure, 1) < np.inf
    assert 0 < loss_ratio(sure, wrong, 1) < 1e-300


# what is refused


def ask(segmented, **changes):
    given = {"objects": ["red"], "target": 1, "perturbation": Fill(), "predict": mean_redness}
    given |= changes
    return object_importance(given.pop("predict"), Redness(), segmented, **given)


def test_objects_and_classes_must_exist(coloured):
    segmented = segmented_slide(*coloured, Redness())

    with pytest.raises(DataError, match="fat"):
        ask(segmented, objects=["fat"])
    with pytest.raises(DataError, match="two classes"):
        ask(segmented, target=2)
    with pytest.raises(DataError, match="two classes"):
        ask(segmented, target=0, predict=lambda features: features.mean()[None])
    with pytest.raises(ShapeError, match="logits"):
        ask(segmented, predict=lambda features: features.mean())
    with pytest.raises(DataError, match="nan"):
        ask(segmented, predict=lambda features: torch.full((2,), torch.nan))


def test_features_must_be_of_the_same_patches(coloured):
    slide, masks = coloured
    segmented = SegmentedSlide(
        slide_id="a", slide=slide, masks=masks, features=np.zeros((3, 1), np.float32)
    )

    with pytest.raises(DataError, match="3 features for 5 patches"):
        ask(segmented)


def test_widths_need_a_resolution(make_slide):
    slide, masks = make_slide(
        np.zeros((1, 8, 8, 3), np.uint8), ["red"], np.ones((1, 1, 8, 8)), mpp=None
    )

    with pytest.raises(ResolutionError, match="--mpp"):
        ask(segmented_slide(slide, masks, Redness()))


def test_there_is_always_a_null():
    with pytest.raises(ConfigError, match="null_draws"):
        PerturbationConfig(null_draws=0)
    with pytest.raises(ConfigError, match="off_object"):
        PerturbationConfig(null="elsewhere")
