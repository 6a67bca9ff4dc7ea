"""Importance as it is computed, beside the slow way: object by object and image by image."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from xpath.explain.hiding import SegmentedSlide
from xpath.explain.importance import object_importance
from xpath.explain.perturbation import Blur, PerturbationConfig, Removal
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.segment.predict.patch_features import SegmentorEncoder
from xpath.segment.predict.predictor import SegmentPredictor

SIDE = 64
NAMES = ("dots", "most", "all", "nowhere")


class SlowEncoder:
    """Every map of the segmentor's encoder, of one image after the other."""

    def __init__(self, predictor):
        self.model = predictor.model

    @torch.inference_mode()
    def maps(self, images):
        both = []
        for image in images:
            maps = self.model.image_encoder(self.model.normalise(image[None].float()))
            coarse = functional.interpolate(maps[2], maps[1].shape[-2:], mode="nearest")
            both.append(torch.cat((maps[1], coarse), dim=1))
        return torch.cat(both)


@pytest.fixture(scope="module")
def predictor():
    return SegmentPredictor.from_pretrained()


@pytest.fixture
def tissue(make_slide):
    """Dots in all patches but one, a half-plane and more in some, one object that fills two."""
    rng = np.random.default_rng(3)
    patches = rng.integers(60, 190, (7, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((7, 4, SIDE, SIDE), bool)
    for y, x in rng.integers(0, SIDE - 6, (9, 2)):
        masks[:6, 0, y : y + 6, x : x + 6] = True
    masks[1:4, 1, :, 20:] = True
    masks[4:6, 2] = True
    patches[masks[:, 0]] = 90, 30, 130
    patches[masks[:, 1]] //= 2
    patches[:2, :9] = 240
    return make_slide(patches, NAMES, masks)


@pytest.mark.parametrize("perturbation", [Blur(4.0), Removal()])
@pytest.mark.parametrize("null", ["off_object", "shifted"])
def test_sharing_and_batching_change_no_number(tissue, predictor, perturbation, null):
    slide, masks = tissue
    slow = SlowEncoder(predictor)
    images = torch.from_numpy(slide.patches).permute(0, 3, 1, 2)
    features = slow.maps(images).mean(dim=(2, 3)).numpy()
    segmented = SegmentedSlide(slide_id="a", slide=slide, masks=masks, features=features)
    torch.manual_seed(0)
    model = AttentionMIL(features.shape[1], 3).eval()

    def predict(rows):
        with torch.inference_mode():
            return 10 * model(pack([Bag(rows)])).logits[0]

    def ask(encoder, objects, batch):
        return object_importance(
            predict,
            encoder,
            segmented,
            objects=objects,
            target=1,
            perturbation=perturbation,
            config=PerturbationConfig(null=null, null_draws=3, batch=batch),
        )

    fast = ask(SegmentorEncoder(predictor), NAMES, 16)
    alone = [ask(slow, [name], 1) for name in NAMES]

    for name in ("effects", "random", "excesses"):
        wanted = np.concatenate([getattr(one, name) for one in alone], axis=1)
        np.testing.assert_allclose(getattr(fast, name), wanted, rtol=1e-3, atol=1e-5)
    assert np.abs(fast.effects[:, :3]).max(axis=0).min() > 1e-3
