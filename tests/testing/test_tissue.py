"""Painted tissue: exact masks, physical sizes, and the counterfactual without one tissue."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from xpath.errors import ConfigError
from xpath.geometry import Size
from xpath.labels import load_labels
from xpath.testing.tissue import LABELS, TissueRecipe, paint_tissue, random_recipe

TISSUES = [label for label in LABELS if "-tissue-" in label]
NUCLEI = [label for label in LABELS if "-nuclei-" in label]
HOSTS = {
    "breast-nuclei-neoplastic": ["breast-tissue-tumor"],
    "breast-nuclei-fibroblast": ["breast-tissue-stroma"],
    "breast-nuclei-ductal epithelium": ["breast-tissue-normal acinus or duct"],
    "breast-nuclei-lymphocyte": ["breast-tissue-stroma", "breast-tissue-lymphocytic infiltrate"],
}
NECROSIS, INFILTRATE = "breast-tissue-necrosis or debris", "breast-tissue-lymphocytic infiltrate"
STROMA, TUMOUR = "breast-tissue-stroma", "breast-tissue-tumor"


def red_density(tissue):
    """Optical density in red, where haematoxylin absorbs and eosin hardly does."""
    return -np.log((tissue.image[..., 0].astype(float) + 1) / 256)


def green_density(tissue):
    return -np.log((tissue.image[..., 1].astype(float) + 1) / 256)


def background(tissue, label):
    """A tissue without the nuclei in it."""
    return tissue.masks[label] & ~np.any([tissue.masks[name] for name in NUCLEI], axis=0)


def test_labels_are_known():
    tree = load_labels()

    assert [tree[label].id for label in LABELS] == list(LABELS)


def test_the_rich_field_has_everything(rich):
    """Or the tests below say nothing."""
    assert [label for label in LABELS if not rich.masks[label].any()] == []
    assert rich.image.shape == (640, 720, 3)
    assert rich.image.dtype == np.uint8


def test_every_label_has_a_mask_even_where_nothing_is(paint):
    empty = paint(tumour=0, fat=0, necrosis=0, infiltrate=0, ducts=0, vessels=0, lymphocytes=0)

    assert list(empty.masks) == list(LABELS)
    painted = {label for label, mask in empty.masks.items() if mask.any()}
    assert painted == {STROMA, "breast-nuclei-fibroblast"}
    assert {mask.shape for mask in empty.masks.values()} == {(640, 720)}


@pytest.mark.parametrize("seed", range(4))
def test_masks_exclude_each_other_and_nuclei_lie_in_their_tissue(seed):
    rng = np.random.default_rng(seed)
    masks = paint_tissue(Size(400, 360), random_recipe(rng), rng).masks

    for group in (TISSUES, NUCLEI):
        assert np.sum([masks[label] for label in group], axis=0).max() <= 1
    for nuclei, hosts in HOSTS.items():
        assert not (masks[nuclei] & ~np.any([masks[host] for host in hosts], axis=0)).any()


def test_nothing_lies_on_glass(rich):
    tissue = np.any([rich.masks[label] for label in TISSUES], axis=0)

    assert tissue.mean() == pytest.approx(0.8, abs=0.01)  # all but the share of glass
    near = cv2.dilate(tissue.astype(np.uint8), np.ones((9, 9))).astype(bool)  # the blur
    assert rich.image[~near].min() > 225


def test_share_is_of_the_tissue(paint):
    """Necrosis is laid over all that is there before it, so it gets what it asks for."""
    masks = paint(3, necrosis=0.2, infiltrate=0, ducts=0, vessels=0, glass=0.4).masks

    areas = {label: masks[label].sum() for label in TISSUES}
    assert areas[NECROSIS] / sum(areas.values()) == pytest.approx(0.2, abs=0.005)


def test_same_seed_same_field(paint):
    small = Size(200, 180)
    one, two, other = paint(5, small), paint(5, small), paint(6, small)

    np.testing.assert_array_equal(one.image, two.image)
    for label in LABELS:
        np.testing.assert_array_equal(one.masks[label], two.masks[label])
    assert (one.image != other.image).mean() > 0.5


@pytest.mark.parametrize("label", NUCLEI)
def test_nuclei_are_darker_than_stroma(rich, label):
    density = red_density(rich)

    assert density[rich.masks[label]].mean() > 2.5 * density[background(rich, STROMA)].mean()


def test_necrosis_differs_from_stroma_in_colour_and_grain(rich):
    density = green_density(rich)
    fine = density - cv2.GaussianBlur(density, (0, 0), 5)
    necrosis, stroma = background(rich, NECROSIS), background(rich, STROMA)

    assert density[necrosis].mean() > 1.3 * density[stroma].mean()
    assert fine[necrosis].std() > 1.5 * fine[stroma].std()


def test_infiltrate_is_crowded(rich):
    lymphocytes = rich.masks["breast-nuclei-lymphocyte"]

    assert lymphocytes[rich.masks[INFILTRATE]].mean() > 0.4
    assert lymphocytes[rich.masks[STROMA]].mean() < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_most_of_a_single_file_is_thin_and_of_a_nest_is_not(paint, seed):
    """Here and there strands run together, so this looks at three quarters of the area."""

    def depth(growth):
        only = {"fat": 0, "necrosis": 0, "infiltrate": 0, "ducts": 0, "vessels": 0, "glass": 0}
        mask = paint(seed, tumour=0.25, growth=growth, **only).masks[TUMOUR]
        inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
        return np.percentile(inside[mask], 75) * 0.5  # microns from the edge

    assert depth("single_file") < 7  # a strand is 14 microns wide
    assert depth("nests") > 15


@pytest.mark.parametrize("bare", [label for label in TISSUES if label != STROMA])
def test_without_a_tissue_stroma_shows_and_nothing_else_moves(paint, much, rich, bare):
    full, without = rich, paint(2, **much, bare=bare)

    gone = full.masks[bare]
    assert gone.any()
    assert not without.masks[bare].any()
    np.testing.assert_array_equal(without.masks[STROMA], full.masks[STROMA] | gone)
    for label in LABELS:
        if label not in {bare, STROMA}:
            np.testing.assert_array_equal(without.masks[label] & ~gone, full.masks[label] & ~gone)
    near = cv2.dilate(gone.astype(np.uint8), np.ones((13, 13))).astype(bool)  # the blur
    np.testing.assert_array_equal(without.image[~near], full.image[~near])


def test_bare_ground_looks_like_stroma(paint):
    recipe = {"necrosis": 0.3, "glass": 0.0}
    gone = paint(2, **recipe).masks[NECROSIS]
    without = paint(2, **recipe, bare=NECROSIS)
    density = green_density(without)
    stroma = background(without, STROMA)

    inside, outside = density[stroma & gone], density[stroma & ~gone]
    assert inside.mean() == pytest.approx(outside.mean(), rel=0.1)
    nuclei = without.masks["breast-nuclei-fibroblast"]
    assert nuclei[gone].mean() == pytest.approx(nuclei[stroma & ~gone | nuclei].mean(), rel=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"growth": "single file"},
        {"tumour": 1.2},
        {"glass": -0.1},
        {"fat": float("nan")},
        {"ducts": float("inf")},
        {"lymphocytes": -1.0},
        {"bare": STROMA},
        {"bare": "necrosis"},
    ],
)
def test_recipe_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TissueRecipe(**wrong)


def test_random_recipes_cover_both_growths_and_leave_things_out():
    recipes = [random_recipe(np.random.default_rng(seed)) for seed in range(60)]

    assert {recipe.growth for recipe in recipes} == {"nests", "single_file"}
    for name in ("tumour", "fat", "necrosis", "infiltrate", "ducts", "vessels"):
        absent = sum(getattr(recipe, name) == 0 for recipe in recipes)
        assert 3 <= absent <= 45  # both present and absent are met
    assert len({recipe.stain for recipe in recipes}) == 60
