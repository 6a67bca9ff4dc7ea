"""What happens between the batches on a GPU, without one: tensors that only claim to be there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.segment.conftest import PROMPTS
from xpath.segment.kernels import finalisation, triton_kernel
from xpath.segment.kernels.finalised import Finalised
from xpath.segment.model.text_encoder import TextFeatures
from xpath.segment.model.variants import build_segmentor
from xpath.segment.predict import blending
from xpath.segment.predict.blending import SeamBlender
from xpath.segment.predict.patch_answers import answered
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.segment.predict.transfers import arrived, on_device
from xpath.testing.masks import grid_at


def kernel(logits, size, *, corner, cells):
    """The shapes of what the Triton kernel returns."""
    shape, (height, width) = logits.shape[:2], size
    return Finalised(
        logits.new_empty(*shape, height, -(-width // 8), dtype=torch.uint8),
        logits.new_empty(shape, dtype=torch.int64),
        logits.new_empty(*shape, *cells, dtype=torch.float32),
        logits.new_empty(shape, dtype=torch.float32),
        logits.new_empty(shape, dtype=torch.float32),
    )


@pytest.fixture
def claimed(config, tokenizer, info, monkeypatch):
    """A predictor on a GPU that is not there: any look at a value raises."""
    pytest.importorskip("triton")
    monkeypatch.setattr(triton_kernel, "finalise_triton", kernel)
    monkeypatch.setattr(
        blending, "on_device", lambda array, device: torch.from_numpy(array).to(device)
    )
    model = build_segmentor(config).requires_grad_(False)
    monkeypatch.setattr(model, "to", lambda *_, **__: model)  # it is there already
    tables = [it for module in model.modules() for it in (module._parameters, module._buffers)]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.device("cuda"):
        for table in tables:
            table.update({name: torch.empty_like(it, device="cuda")
                          for name, it in table.items() if it is not None})  # fmt: skip
        mode.allow_non_fake_inputs = False
        predictor = SegmentPredictor(model, tokenizer, info, device="cuda")
        words = torch.zeros(3, 5, config.dim)
        text = TextFeatures(words, words[..., 0] == 0, words[:, 0])
        monkeypatch.setattr(predictor, "text", lambda prompts: text)
        yield predictor


def test_nothing_waits_for_the_device_from_pixels_to_packed_bits(claimed):
    grid = grid_at([[x, 0] for x in (0, 32, 64)], footprint=32, mpp=0.5)
    blender = SeamBlender(grid, overlap=16, margin=3)
    for index in blender.order:
        image = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
        (logits,) = claimed.logits(claimed.encode(image), PROMPTS)
        blender.add(index, logits)
        answers = answered(blender.finished(), 1, keep_fields=True)

        tensors = [part for part in answers if isinstance(part, torch.Tensor)]
        assert {part.device.type for part in tensors} == {"cuda"}
    assert answers.packed.shape[1:] == (3, 32, 4)
    with pytest.raises(DataDependentOutputException):  # were one to look
        claimed.check_finite(logits)


def test_on_the_cpu_nothing_is_copied():
    device, array = torch.device("cpu"), np.arange(3)
    assert on_device(array, device).data_ptr() == array.ctypes.data
    results = [(torch.ones(2),), (torch.zeros(1),)]
    assert [it[0] is was[0] for it, was in zip(arrived(results, device), results, strict=True)] == [
        True, True,
    ]  # fmt: skip


def test_shared_pixels_are_alike_on_a_gpu(rng):
    """There they are products of zeros and ones."""
    masks = torch.from_numpy(rng.random((5, 24, 13)) > 0.6)
    packed = finalisation.pack(masks)
    assert torch.equal(finalisation.products_of(packed), finalisation.shared_pixels(packed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_come_back_as_they_went():
    from xpath.segment.predict.transfers import uploaded
    from xpath.wsi.patches import PatchBatch

    device, rng = torch.device("cuda"), np.random.default_rng(0)
    batches = [
        PatchBatch(np.arange(k, k + 2), rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
        for k in range(5)
    ]
    results = arrived(((it.images + 1,) for it in uploaded(iter(batches), device)), device)
    for (images,), batch in zip(results, batches, strict=True):
        assert images.is_pinned()
        np.testing.assert_array_equal(images, batch.images + np.uint8(1))
