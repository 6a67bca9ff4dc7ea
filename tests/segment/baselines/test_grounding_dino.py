"""Words to boxes to masks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xpath.errors import CheckpointError
from xpath.metrics.boxes import fill_boxes
from xpath.segment.baselines.grounding_dino import DetectorConfig, DetectorSegmenter

LYMPHOCYTE = "nuclei-level lymphocyte in breast pathology."
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?"]
WORDS += ["lymphocyte", "in", "breast", "pathology", "tumor", "dots"]


class Filler:
    """Takes every box for its mask."""

    encoded = 0

    def encode(self, image):
        self.encoded += 1
        return image.shape[:2]

    def masks(self, size, boxes):
        return np.stack([fill_boxes(box[None], size) for box in boxes])


class Detector(torch.nn.Module):
    """Four boxes, one of them nearly another; it remembers what it was asked."""

    captions = ()

    def forward(self, pixel_values, pixel_mask, input_ids, **_):
        self.captions += (tuple(input_ids[0].tolist()),)
        boxes = torch.tensor([
            [0.25, 0.25, 0.5, 0.5], [0.26, 0.25, 0.5, 0.5], [0.8, 0.8, 0.2, 0.2], [0.5, 0.5, 1, 1]
        ])  # fmt: skip
        logits = torch.full((4, 3), -9.0)
        logits[:, 1] = torch.tensor([2.0, 1.5, 1.0, -2.0])
        return SimpleNamespace(logits=logits[None], pred_boxes=boxes[None])


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    from transformers import BertTokenizer, GroundingDinoImageProcessorPil, GroundingDinoProcessor

    words = tmp_path_factory.mktemp("words") / "vocab.txt"
    words.write_text("\n".join(WORDS) + "\n")
    size = {"shortest_edge": 64, "longest_edge": 96}
    return GroundingDinoProcessor(
        GroundingDinoImageProcessorPil(size=size), BertTokenizer(str(words))
    )


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_the_surest_box_counts(processor, image):
    detector, filler = Detector(), Filler()
    segmenter = DetectorSegmenter(detector, processor, filler)

    answer = segmenter.masks(segmenter.encode(image[None]), [LYMPHOCYTE, "Dots"])

    assert answer.masks.shape == (1, 2, 40, 60)
    assert answer.masks[0, 0, :20, :30].all()  # x 0 to 30, y 0 to 20
    assert answer.masks[0, 0].sum() == 600
    assert answer.presence[0] == pytest.approx([1 / (1 + np.exp(-2))] * 2)
    assert answer.present.all()
    assert filler.encoded == 1
    said = [processor.tokenizer.decode(ids, skip_special_tokens=True) for ids in detector.captions]
    assert said == ["lymphocyte in breast pathology.", "dots."]


def test_all_boxes_but_those_that_overlap_a_surer_one(processor, image):
    segmenter = DetectorSegmenter(Detector(), processor, Filler(), DetectorConfig(most=9))

    boxes, scores = segmenter.boxes(segmenter.encode(image)[0], LYMPHOCYTE)

    assert boxes.tolist() == [[0, 0, 30, 20], [42, 28, 54, 36]]
    assert scores == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))])


def test_without_a_box_the_object_is_absent(processor, image):
    segmenter = DetectorSegmenter(Detector(), processor, Filler(), DetectorConfig(threshold=0.95))

    answer = segmenter.masks(segmenter.encode(image), [LYMPHOCYTE])

    assert not answer.masks.any()
    assert not answer.present.any()
    assert answer.presence[0, 0] == 0


@pytest.fixture
def folder(processor, tmp_path):
    """A Grounding DINO of a few thousand weights, as transformers saves it."""
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        SwinConfig,
    )

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
        window_size=4, out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, num_queries=5,
        decoder_ffn_dim=16,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(tmp_path / "dino")
    processor.save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


def test_both_models_are_read_from_folders(folder, sam, image, tmp_path):
    """The surest box is the one that transformers' own reading of the answer puts first."""
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    sam.save_pretrained(tmp_path / "sam")
    config = DetectorConfig(threshold=0)

    segmenter = DetectorSegmenter.from_pretrained(folder, f"sam:{tmp_path / 'sam'}", config)
    encoded = segmenter.encode(image)
    boxes, scores = segmenter.boxes(encoded[0], LYMPHOCYTE)

    reader = GroundingDinoProcessor.from_pretrained(folder)
    words = reader(images=image, text="lymphocyte in breast pathology.", return_tensors="pt")
    with torch.inference_mode():
        answer = GroundingDinoForObjectDetection.from_pretrained(folder)(**words)
    (read,) = reader.post_process_grounded_object_detection(
        answer, words.input_ids, threshold=0, target_sizes=[(40, 60)]
    )
    best = read["scores"].argmax()
    assert scores == pytest.approx([float(read["scores"][best])])
    inside = boxes[0] - np.array([0, 0, 1, 1])
    assert np.abs(np.clip(read["boxes"][best].numpy(), 0, (60, 40) * 2) - inside).max() <= 1.01
    masks = segmenter.masks(encoded, [LYMPHOCYTE]).masks
    assert (masks[0, 0] == segmenter._segmenter.masks(encoded[0].masks_of, boxes)[0]).all()


def test_another_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no Grounding DINO"):
        DetectorSegmenter.from_pretrained(tmp_path, tmp_path)
