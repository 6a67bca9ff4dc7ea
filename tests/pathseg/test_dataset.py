from dataclasses import replace

import numpy as np
import pytest

from xpath.errors import ConfigError, DataError
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
    from dataclasses import replace

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
