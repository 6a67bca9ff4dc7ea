from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from xpath.errors import ConfigError, DataError
from xpath.pathseg import composition, dataset
from xpath.pathseg.augmentation import AugmentConfig
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.packed import pack
from xpath.pathseg.prompts import PromptConfig
from xpath.pathseg.record import Annotated, LabelMask

PLAIN = CropConfig(
    blank=0,
    augment=AugmentConfig(stain=0, background=0, tint=0, gamma=0, grey=0, blur=0, noise=0, jpeg=0),
    words=PromptConfig(other_region=0, no_region=0, synonym=0, phrase=0, cell=0),
)
NAMES = ("colon-nuclei-inflammatory", "colon-nuclei-epithelial", "colon-nuclei-dead")


@pytest.fixture
def image(rng):
    """Two of the three object types. Each is where a colour channel is dark."""
    masks = [np.kron(rng.random((8, 8)) < 0.3, np.ones((16, 16))).astype(bool) for _ in range(2)]
    blue = np.full((128, 128), 230)
    channels = [np.where(mask, 10, 240) for mask in masks]
    picture = np.stack([*channels, blue], axis=-1).astype(np.uint8)
    labels = tuple(LabelMask(n, m) for n, m in zip(NAMES, masks, strict=False))
    return pack(Annotated(picture, labels, None, NAMES[2:]), 0.25)


def test_a_crop_depends_on_its_number_alone(image):
    one = PromptedCrops({"a": [image]}, CropConfig(), total=100, seed=4)
    two = PromptedCrops({"a": [image]}, CropConfig(), total=100, seed=4)
    for number in (50, 3, 3, 99):
        first, second = one[(number, 64)], two[(number, 64)]
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.target, second.target)
        assert first.prompts == second.prompts
        _ = two[(number + 1, 64)]


def test_targets_are_where_the_image_says(image):
    crops = PromptedCrops({"a": [image]}, PLAIN, total=100, seed=0)
    for number in range(30):
        crop = crops[(number, 64)]
        for label, prompt, target in zip(crop.labels, crop.prompts, crop.target, strict=True):
            object_type = label.split("-")[2]
            assert prompt == f"nuclei-level {object_type} in colon pathology."
            dark = (
                crop.image[..., NAMES.index(label)] < 128
                if label != NAMES[2]
                else np.zeros((64, 64), bool)
            )
            assert ((target == 1) == dark).mean() > 0.9


def test_what_is_absent_is_asked_as_well(image):
    crops = PromptedCrops({"a": [image]}, PLAIN, total=400, seed=0)
    asked = [label for number in range(200) for label in crops[(number, 32)].labels]

    assert 0.1 < asked.count(NAMES[2]) / len(asked) < 0.35


def test_rare_sources_and_labels_are_met_more_often_than_their_share(image):
    """One image against 99: at lambda 1/2, 1 / (1 + sqrt 99) = 9 % of the crops."""
    other = pack(
        Annotated(
            image.levels[0], (LabelMask("lung-nuclei-dead", np.ones((128, 128), bool)),), None
        ),
        0.25,
    )
    crops = PromptedCrops({"a": [image] * 99, "b": [other]}, PLAIN, total=4000, seed=0)
    share = np.mean([crops[(n, 32)].labels[0] == "lung-nuclei-dead" for n in range(900)])

    assert share == pytest.approx(0.091, abs=0.03)


def test_bare_glass_is_answered_with_nothing(image):
    crops = PromptedCrops({"a": [image]}, replace(PLAIN, blank=1.0), total=10, seed=0)

    assert not crops[(0, 64)].target.any()
    assert crops[(0, 64)].image.min() > 150


def test_nothing_to_learn_is_refused(image):
    bare = pack(Annotated(image.levels[0], (), None), 0.25)

    with pytest.raises(DataError, match="no image holds any label"):
        PromptedCrops({"a": [bare], "b": []}, PLAIN, total=10, seed=0)


def test_a_source_can_be_seen_more_often(image, rng):
    other = pack(
        Annotated(image.levels[0], (LabelMask("any-tissue-x", np.ones((128, 128), bool)),), None),
        0.25,
    )
    sources = {"a": [image], "b": [other]}

    def share_of_b(**emphasis):
        config = replace(PLAIN, emphasis=emphasis)
        crops = PromptedCrops(sources, config, total=400, seed=0)
        middle = range(100, 300)  # where the exponent is 1
        return sum("any-tissue-x" in crops[(number, 32)].labels for number in middle) / 200

    assert share_of_b() == pytest.approx(1 / 2, abs=0.1)
    assert share_of_b(b=4.0) == pytest.approx(4 / 5, abs=0.08)


def test_emphasis_on_nothing_is_refused(image):
    config = CropConfig(emphasis={"galas": 2.0})
    with pytest.raises(ConfigError, match=r"no source is called \['galas'\]; there are \['glas'\]"):
        PromptedCrops({"glas": [image]}, config, total=4, seed=0)


def test_too_few_labels_are_asked_for_again_where_they_are(image):
    config = replace(PLAIN, prompts=6, absent=0.2)
    crops = PromptedCrops({"a": [image]}, config, total=400, seed=0)
    asked = Counter(label for number in range(100) for label in crops[(number, 16)].labels)

    assert asked[NAMES[2]] == 100  # once in a crop, though four questions are to spare
    assert min(asked[name] for name in NAMES[:2]) > 200


def test_no_label_is_asked_more_often_where_it_is_absent(image, rng):
    """Dead cells are in one image of ten, and known to be absent from the others."""
    dead = pack(
        Annotated(
            image.levels[0], (LabelMask(NAMES[2], rng.random((128, 128)) < 0.1),), None, NAMES[:2]
        ),
        0.25,
    )

    def asked(*, balance):
        config = replace(PLAIN, absent=0.5, balance=balance)
        crops = PromptedCrops({"a": [image] * 9, "b": [dead]}, config, total=2000, seed=0)
        questions = [crops._questions_of(number, crops._kept) for number in range(2000)]
        return tuple(
            Counter(label for one in questions for label in one[part]) for part in range(2)
        )

    present, absent = asked(balance=False)
    assert absent[NAMES[2]] > 1.5 * present[NAMES[2]]
    present, absent = asked(balance=True)
    for name in NAMES:
        assert absent[name] <= 1.1 * present[name], name
    assert absent[NAMES[2]] > 0.8 * present[NAMES[2]]


def test_a_share_holds_whatever_the_sizes(image):
    other = pack(
        Annotated(image.levels[0], (LabelMask("any-tissue-x", np.ones((128, 128), bool)),), None),
        0.25,
    )
    config = replace(PLAIN, shares={"b": 0.12})
    crops = PromptedCrops({"a": [image] * 50, "b": [other]}, config, total=2000, seed=0)
    for part in (range(500), range(500, 1000)):  # the exponent is 1/2, then 1
        share = np.mean(["any-tissue-x" in crops[(number, 8)].labels for number in part])
        assert share == pytest.approx(0.12, abs=0.045)


def test_unions_are_asked_for_as_seldom_as_wanted(rng):
    """Every epithelial cell is a neoplastic or another one: asking for it teaches little."""
    names = ("colon-nuclei-neoplastic", "colon-cell-epithelial", "colon-nuclei-connective")
    masks = tuple(LabelMask(name, rng.random((64, 64)) < 0.5) for name in names)
    image = pack(Annotated(np.full((64, 64, 3), 200, np.uint8), masks, None), 0.25)

    def asked(unions):
        config = replace(PLAIN, prompts=3, unions=unions)
        crops = PromptedCrops({"a": [image]}, config, total=1000, seed=0)
        drawn = [crops._questions_of(number, {}).present for number in range(1000)]
        return Counter(label for labels in drawn for label in labels)

    assert asked(1.0)[names[1]] == 1000  # one of three, each in every crop
    assert asked(0.0)[names[1]] == 0
    drawn = 0.25 / 2.25  # it is the label that the crop is for in so many
    assert asked(0.25)[names[1]] == pytest.approx(1000 * (drawn + (1 - drawn) * 0.25), abs=150)


def test_a_union_is_asked_for_if_there_is_nothing_else(rng):
    mask = LabelMask("colon-cell-epithelial", rng.random((64, 64)) < 0.5)
    image = pack(Annotated(np.full((64, 64, 3), 200, np.uint8), (mask,), None), 0.25)
    crops = PromptedCrops({"a": [image]}, replace(PLAIN, unions=0.0), total=4, seed=0)

    assert set(crops[(0, 16)].labels) == {"colon-cell-epithelial"}


@pytest.fixture
def red_and_blue():
    """Fat is red all over, stroma blue. Of the blue image it is known that there is no fat."""
    images = []
    for colour, label, absent in (((200, 0, 0), "fat", ()), ((0, 0, 200), "stroma", ("fat",))):
        pixels = np.full((96, 96, 3), colour, np.uint8)
        mask = LabelMask(f"breast-tissue-{label}", np.ones((96, 96), bool))
        absent = tuple(f"breast-tissue-{name}" for name in absent)
        images.append(pack(Annotated(pixels, (mask,), None, absent), 0.5))
    return images


def test_tissue_is_set_into_other_tissue_and_its_border_is_unknown(red_and_blue):
    config = replace(PLAIN, compose=1.0)
    crops = PromptedCrops(
        {"red": red_and_blue[:1], "blue": red_and_blue[1:]}, config, total=100, seed=0
    )
    mixed = 0
    for number in range(40):
        crop = crops[(number, 64)]
        red, blue = crop.image[..., 0] > 190, crop.image[..., 2] > 190
        target = dict(zip(crop.labels, crop.target, strict=True))
        fat, stroma = (target[f"breast-tissue-{name}"] for name in ("fat", "stroma"))
        assert (fat[red] == 1).all()
        assert (fat[blue] == 0).all()
        assert (stroma[blue] == 1).all()
        assert (stroma[red] == 255).all()  # whether stroma is among the fat nobody said
        between = (crop.image[..., 0] > 70) & (crop.image[..., 2] > 70)
        assert (fat[between] == 255).all()
        mixed += red.mean() > 0.2 and blue.mean() > 0.2
    assert mixed > 30


def test_rare_nuclei_are_set_among_others_with_little_around_them(rng):
    dead = np.zeros((128, 128), bool)
    dead[60:70, 60:70] = True
    black = np.where(dead[..., None], 0, 100).repeat(3, axis=2).astype(np.uint8)
    rare = pack(Annotated(black, (LabelMask(NAMES[2], dead),), None), 0.25)
    white = np.full((128, 128, 3), 250, np.uint8)
    mask = LabelMask(NAMES[0], np.ones((128, 128), bool))
    plenty = pack(Annotated(white, (mask,), None, NAMES[2:]), 0.25)
    config = replace(PLAIN, compose=1.0, fine=(0.25, 0.25))
    crops = PromptedCrops({"rare": [rare], "plenty": [plenty]}, config, total=100, seed=0)

    shown = 0
    for number in range(30):
        crop = crops[(number, 64)]
        if NAMES[2] not in crop.labels:
            continue
        target = crop.target[crop.labels.index(NAMES[2])]
        if (target == 1).sum() > 60 and (crop.image > 240).any():
            shown += 1
            assert (crop.image[target == 1] < 60).mean() > 0.7
            assert (crop.image[..., 0] > 240).mean() > 0.8
            assert (target[crop.image[..., 0] > 240] == 0).all()
    assert shown > 5


def test_a_composed_crop_depends_on_its_number_alone(red_and_blue):
    config = CropConfig(compose=1.0, balance=True)
    sources = {"red": red_and_blue[:1], "blue": red_and_blue[1:]}
    one, two = (PromptedCrops(sources, config, total=50, seed=3) for _ in range(2))
    _ = two[(7, 48)]
    for number in (9, 4):
        for first, second in zip(one[(number, 48)][:2], two[(number, 48)][:2], strict=True):
            np.testing.assert_array_equal(first, second)


def test_both_images_of_a_crop_are_shown_at_one_resolution(monkeypatch, red_and_blue):
    """That of the smaller one, where it is not shown beyond its borders."""
    shown = []

    def cut_known(image, view, size, names):
        shown.append(view.scale * image.mpp)
        return composition.cut_known(image, view, size, names)

    monkeypatch.setattr(dataset, "cut_known", cut_known)
    red, blue = red_and_blue[0], replace(red_and_blue[1], mpp=0.25)
    config = replace(PLAIN, compose=1.0)
    crops = PromptedCrops({"red": [red], "blue": [blue]}, config, total=100, seed=0)
    for number in range(10):
        _ = crops[(number, 64)]

    assert len(shown) == 20
    assert shown[::2] == pytest.approx(shown[1::2])
    assert max(shown) <= 1.5 * 96 / 64 * 0.25 + 1e-9
