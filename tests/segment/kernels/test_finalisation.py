"""The reference against numpy by hand. The kernel against the reference."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from xpath.errors import DataError, ShapeError
from xpath.objects.pool import cover
from xpath.protocols import STRIDE
from xpath.segment.kernels.finalisation import finalise, unpack
from xpath.segment.kernels.finalised import Finalised

HERE = Path(__file__).parent


def smooth(count, height, width):
    """Logits with blobs, as a decoder gives them."""
    noise = torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(1))
    return functional.avg_pool2d(noise, 3, stride=1, padding=1)[:, 0] * 6


def by_hand(logits, size):
    large = functional.interpolate(logits.float()[None], scale_factor=4, mode="bilinear")[0]
    return large[:, : size[0], : size[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(32, 40), (29, 37), (1, 9)])
def test_every_part_is_what_numpy_says(dtype, size):
    logits = smooth(3, 8, 10).to(dtype)
    logits[1] = -1
    found = finalise(logits, size, cells=(1, 3))
    value = by_hand(logits, size)
    inside = (value > 0).numpy()

    assert np.array_equal(found.packed.numpy(), np.packbits(inside, axis=-1))
    assert torch.equal(unpack(found.packed, size[1]), torch.from_numpy(inside))
    assert found.area.tolist() == inside.sum(axis=(1, 2)).tolist()
    for box, mask in zip(found.box.tolist(), inside, strict=True):
        y, x = np.nonzero(mask)
        wanted = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert box == wanted
    torch.testing.assert_close(found.coverage, cover(torch.from_numpy(inside)[None], (1, 3))[0])
    probability = value.sigmoid().numpy().astype(np.float64)
    np.testing.assert_allclose(found.probability_sum, (probability * inside).sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.peak, probability.max(axis=(1, 2)), rtol=1e-6)


def test_one_bright_place_by_hand():
    """Between +1 and -1, 4 px apart, weights are eighths: the sign changes half way."""
    logits = torch.full((1, 1, 3), -1.0)
    logits[0, 0, 1] = 1
    found = finalise(logits, (4, 12), cells=(2, 3))

    assert unpack(found.packed, 12)[0, 0].int().tolist() == [0] * 4 + [1] * 4 + [0] * 4
    assert found.packed[0, 0].tolist() == [0b00001111, 0b00000000]
    assert found.area.tolist() == [16]
    assert found.box.tolist() == [[4, 0, 8, 4]]
    assert found.coverage.tolist() == [[[0, 1, 0], [0, 1, 0]]]
    # logits 0.25 and 0.75 of the 4 columns, in 4 rows
    wanted = 8 * torch.tensor([0.25, 0.75]).sigmoid().sum()
    torch.testing.assert_close(found.probability_sum, wanted[None])
    torch.testing.assert_close(found.peak, torch.tensor([0.75]).sigmoid())


def test_a_logit_at_the_threshold_is_outside():
    """As ``probability > 0.5``, the rule of the predictor."""
    assert finalise(torch.zeros(1, 4, 4), (16, 16)).area.tolist() == [0]
    assert finalise(torch.ones(1, 4, 4), (16, 16), threshold=1.0).area.tolist() == [0]
    assert finalise(torch.ones(1, 4, 4), (16, 16), threshold=0.99).area.tolist() == [256]


def test_no_masks_and_empty_masks():
    none = finalise(torch.zeros(0, 4, 4), (13, 15), cells=(2, 3))
    empty = finalise(torch.full((2, 4, 4), -5.0), (13, 15), cells=(2, 3))

    assert [tuple(part.shape) for part in none] == [
        (0, 13, 2), (0,), (0, 4), (0, 2, 3), (0,), (0,),
    ]  # fmt: skip
    assert [part.dtype for part in none] == [part.dtype for part in empty]
    assert not any(part.any() for part in empty[:5])
    assert empty.box.tolist() == [[0, 0, 0, 0]] * 2


def test_padding_of_a_row_is_zero():
    found = finalise(torch.ones(1, 4, 4), (16, 13))

    assert set(found.packed[..., 1].flatten().tolist()) == {0b11111000}


def test_masks_do_not_depend_on_their_neighbours():
    logits = smooth(4, 8, 8)
    together = finalise(logits, (31, 30))

    for n, logit in enumerate(logits):
        alone = finalise(logit[None], (31, 30))
        assert all(torch.equal(part[n : n + 1], one) for part, one in zip(together, alone))  # noqa: B905


@pytest.mark.parametrize(
    ("logits", "size", "cells", "error"),
    [
        (torch.zeros(4, 4), (16, 16), (1, 1), ShapeError),
        (torch.zeros(1, 4, 4), (17, 16), (1, 1), ShapeError),
        (torch.zeros(1, 4, 4), (0, 16), (1, 1), ShapeError),
        (torch.zeros(1, 4, 4), (16, 16), (17, 1), ShapeError),
        (torch.zeros(1, 4, 4, dtype=torch.int32), (16, 16), (1, 1), DataError),
    ],
)
def test_what_does_not_fit_is_refused(logits, size, cells, error):
    with pytest.raises(error):
        finalise(logits, size, cells=cells)


# --- the kernel

CASES = [
    # count, h, w, size, cells
    (2, 8, 8, (32, 32), (2, 2)),
    (3, 16, 9, (61, 29), (7, 5)),  # odd width, cells of broken pixels
    (1, 6, 40, (21, 157), (21, 157)),  # two tiles across, cells of one pixel
    (1, 1, 1, (3, 2), (1, 1)),
    (2, 9, 33, (36, 132), (5, 1)),
]


def agree(kernel: Finalised, reference: Finalised, value, width):
    """Same answer. Pixels within rounding of the threshold may fall on either side."""
    differ = unpack(kernel.packed, width) != unpack(reference.packed, width)
    assert not (differ & (value.abs() > 1e-5)).any()
    ties = int(differ.sum())
    assert (kernel.area - reference.area).abs().sum() <= ties
    assert ties or torch.equal(kernel.box, reference.box)
    pixels = value.shape[-2] * value.shape[-1]
    cells = reference.coverage.shape[-2] * reference.coverage.shape[-1]
    torch.testing.assert_close(
        kernel.coverage, reference.coverage, rtol=0, atol=1e-6 + ties * cells / pixels
    )
    torch.testing.assert_close(
        kernel.probability_sum, reference.probability_sum, rtol=1e-5, atol=ties + 1e-5
    )
    torch.testing.assert_close(kernel.peak, reference.peak)
    for ours, theirs in zip(kernel, reference, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)


def in_a_process(script, folder, **variables):
    """Runs a script of this folder: how Triton works is settled when it is first imported."""
    variables |= {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / script)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_kernel_in_the_interpreter(tmp_path):
    pytest.importorskip("triton")

    lines = in_a_process("interpret.py", tmp_path, TRITON_INTERPRET="1").splitlines()

    assert lines == [f"{dtype} {case}" for case in CASES for dtype in ("float32", "bfloat16")]


def test_the_kernel_compiles_for_a_gpu(tmp_path):
    """For Hopper, without one at hand. Registers that do not suffice would spill to memory."""
    pytest.importorskip("triton")

    lines = in_a_process("compile.py", tmp_path).splitlines()

    assert lines == ["fp32 0 spilt", "bf16 0 spilt"]


def test_a_machine_without_triton_takes_the_reference(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)

    assert finalise(torch.ones(1, 2, 2), (8, 8)).area.tolist() == [64]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", [*CASES, (22, 256, 256, (1024, 1021), (64, 64))])
def test_cuda_answers_as_the_reference_does(case, dtype):
    count, h, w, size, cells = case
    logits = smooth(count, h, w).to(dtype)
    found = finalise(logits.cuda(), size, cells=cells)

    assert found.packed.is_cuda
    agree(
        Finalised(*(part.cpu() for part in found)),
        finalise(logits, size, cells=cells),
        by_hand(logits, size),
        size[1],
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_area_beyond_what_a_float_counts():
    """Above 2^24 a float32 no longer counts one by one."""
    side = 10_240
    logits = torch.ones(1, side // STRIDE, side // STRIDE, device="cuda")
    found = finalise(logits, (side, side - 1), cells=(3, 7))

    assert found.area.item() == side * (side - 1)
    assert found.coverage.unique().tolist() == [1.0]
