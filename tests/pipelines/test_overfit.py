"""The whole path from file to gradient is right: a tiny model learns eight real images by heart."""

import numpy as np
import pytest
import torch

from xpath.metrics.overlap import dice
from xpath.pathseg.annotated import read_annotated
from xpath.pathseg.dataset import Crop
from xpath.pathseg.packed import View, cut, pack
from xpath.segment.checkpoints.checkpoint import SegmentorInfo
from xpath.segment.evaluation.validation import prompt_of
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.training.batches import collate
from xpath.segment.training.trainer import TrainConfig, Trainer

SIDE = 128
STEPS = 700


@pytest.mark.slow
def test_eight_real_images_are_learnt(shared):
    items = [item for item in read_annotated(shared / "data") if item.source == "glas"][:80:10]
    crops = []
    for item in items:
        packed = pack(item.read(), item.mpp)
        height, width = packed.size
        view = View((width / 2, height / 2), min(height, width) / SIDE, 0.0, False)
        image, target = cut(packed, view, SIDE, packed.labels)
        crops.append(Crop(image, target, tuple(map(prompt_of, packed.labels)), packed.labels))
    tokenizer = fit_tokenizer([prompt for crop in crops for prompt in crop.prompts], vocabulary=300)
    config = tiny_config(tokenizer.vocabulary)
    torch.manual_seed(0)
    trainer = Trainer(
        build_segmentor(config, layer_scale=1.0),
        TrainConfig(steps=STEPS, lr=3e-3, warmup=20, ema=0.98, weight_decay=0.0),
    )
    batch = collate(crops, tokenizer)

    for _ in range(STEPS):
        trainer(batch)

    trainer.model.load_state_dict(trainer.averaged())
    info = SegmentorInfo(
        name="tiny", mpp=0.5, image_size=SIDE, labels=(), licence="", synthetic_only=False
    )
    predictor = SegmentPredictor(trainer.model, tokenizer, info)
    scores = [
        dice(predictor.masks(predictor.encode(c.image), c.prompts).masks[0, 0], c.target[0] == 1)
        for c in crops
    ]
    assert np.mean(scores) > 0.9, scores
