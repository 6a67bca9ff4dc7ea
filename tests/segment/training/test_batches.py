"""Batches, and a training split over two processes."""

import os

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from xpath.errors import ConfigError
from xpath.pathseg.dataset import CropConfig, PromptedCrops
from xpath.pathseg.packed import pack
from xpath.pathseg.prompts import sentences
from xpath.pathseg.record import Annotated, LabelMask
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config
from xpath.segment.training.batches import BatchConfig, Batches, batch_shapes, stream
from xpath.segment.training.trainer import TrainConfig, Trainer

STEPS = 4


def make_crops():
    rng = np.random.default_rng(0)
    packed = []
    for _ in range(3):
        mask = np.kron(rng.random((6, 6)) < 0.4, np.ones((16, 16))).astype(bool)
        image = np.where(mask[..., None], 60, 220).repeat(3, axis=2).astype(np.uint8)
        packed.append(pack(Annotated(image, (LabelMask("colon-tissue-gland", mask),), None), 0.5))
    return PromptedCrops({"a": packed}, CropConfig(prompts=2), total=STEPS * 4, seed=0)


def losses(part):
    """Loss of every step of a small training. A process' part of it, averaged over processes."""
    tokenizer = fit_tokenizer(sentences())
    config = BatchConfig(shapes=((4, 64),), part=part)
    torch.manual_seed(0)
    model = build_segmentor(tiny_config(tokenizer.vocabulary), layer_scale=1.0)
    trainer = Trainer(model, TrainConfig(steps=STEPS, lr=1e-3, warmup=1))
    found = []
    batches = Batches(make_crops(), tokenizer, config)
    for batch in stream(batches, config, start=0, steps=STEPS):
        value = trainer(batch).loss.total
        if part[1] > 1:
            torch.distributed.all_reduce(value)
        found.append(float(value) / part[1])
    return found


def one_of_two(rank, port, out):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    found = losses((rank, 2))
    if rank == 0:
        np.save(out, found)
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path, free_port):
    mp.spawn(one_of_two, (free_port, tmp_path / "losses.npy"), nprocs=2)

    np.testing.assert_allclose(np.load(tmp_path / "losses.npy"), losses((0, 1)), rtol=1e-4)


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_stream_can_begin_anywhere(tokenizer):
    config = BatchConfig(shapes=((2, 64), (1, 96)))
    batches = Batches(make_crops(), tokenizer, config)

    whole = list(stream(batches, config, start=0, steps=STEPS))
    rest = list(stream(batches, config, start=2, steps=STEPS))

    assert len(whole) == STEPS
    for one, two in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_shapes_of_a_batch(tokenizer):
    batches = Batches(make_crops(), tokenizer, BatchConfig(shapes=((4, 48),)))
    batch = batches[0]

    assert batch.images.shape == (4, 3, 48, 48)
    assert batch.target.shape == (4, 2, 48, 48)
    assert batch.ids.shape == batch.mask.shape
    assert batch.ids.shape[:2] == (4, 2)
    assert batch.images.dtype == batch.target.dtype == torch.uint8


def test_shapes_are_read_from_text():
    assert batch_shapes("8x256,4x384") == ((8, 256), (4, 384))
    for wrong in ("", "8", "8x", "8x256;4x384"):
        with pytest.raises(ConfigError, match="8x256,4x384"):
            batch_shapes(wrong)
