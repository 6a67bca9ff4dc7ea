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
from xpath.segment.kernels.finalisation import finalise, pack, shared_pixels, unpack
from xpath.segment.kernels.finalised import Finalised

HERE = Path(__file__).parent


def smooth(count, height, width):
    """Logits with blobs, as a decoder gives them."""
    noise = torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(1))
    return functional.avg_pool2d(noise, 3, stride=1, padding=1)[None, :, 0] * 6


def by_hand(logits, size, corner=0):
    large = functional.interpolate(logits.float(), scale_factor=4, mode="bilinear")
    return large[:, :, 4 * corner : 4 * corner + size[0], 4 * corner : 4 * corner + size[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("size", "corner"), [((32, 40), 0), ((29, 37), 0), ((1, 9), 0), ((21, 30), 2)]
)
def test_every_part_is_what_numpy_says(dtype, size, corner):
    logits = smooth(3, 8, 10).to(dtype)
    logits[:, 1] = -1
    found = finalise(logits, size, corner=corner, cells=(1, 3))
    value = by_hand(logits, size, corner)
    inside = (value > 0).numpy()

    assert np.array_equal(found.packed.numpy(), np.packbits(inside, axis=-1))
    assert torch.equal(unpack(found.packed, size[1]), torch.from_numpy(inside))
    assert found.area.tolist() == inside.sum(axis=(2, 3)).tolist()
    torch.testing.assert_close(found.coverage, cover(torch.from_numpy(inside), (1, 3)))
    probability = value.sigmoid().numpy().astype(np.float64)
    np.testing.assert_allclose(found.probability_sum, (probability * inside).sum((2, 3)), rtol=1e-5)
    filled = inside.any((2, 3))
    np.testing.assert_allclose(found.peak, probability.max(axis=(2, 3)) * filled, rtol=1e-6)
    means = (probability * inside).sum((2, 3))[filled] / inside.sum((2, 3))[filled]
    np.testing.assert_allclose(found.presence[torch.from_numpy(filled)], means, rtol=1e-5)


def test_one_bright_place_by_hand():
    """Between +1 and -1, 4 px apart, weights are eighths: the sign changes half way."""
    logits = torch.full((1, 1, 1, 3), -1.0)
    logits[..., 1] = 1
    found = finalise(logits, (4, 12), cells=(2, 3))

    assert unpack(found.packed, 12)[0, 0, 0].int().tolist() == [0] * 4 + [1] * 4 + [0] * 4
    assert found.packed[0, 0, 0].tolist() == [0b00001111, 0b00000000]
    assert found.area.tolist() == [[16]]
    assert found.coverage.tolist() == [[[[0, 1, 0], [0, 1, 0]]]]
    # logits 0.25 and 0.75 of the 4 columns, in 4 rows
    wanted = 8 * torch.tensor([0.25, 0.75]).sigmoid().sum()
    torch.testing.assert_close(found.probability_sum, wanted[None, None])
    torch.testing.assert_close(found.presence, wanted[None, None] / 16)
    torch.testing.assert_close(found.peak, torch.tensor([[0.75]]).sigmoid())


def test_a_logit_of_zero_is_outside():
    """As ``probability > 0.5``, the rule of the predictor."""
    assert finalise(torch.zeros(1, 1, 4, 4), (16, 16)).area.tolist() == [[0]]
    assert finalise(torch.full((1, 1, 4, 4), 1e-30), (16, 16)).area.tolist() == [[256]]


def test_no_masks_and_empty_masks():
    none = finalise(torch.zeros(2, 0, 4, 4), (13, 15), cells=(2, 3))
    empty = finalise(torch.full((1, 2, 4, 4), -5.0), (13, 15), cells=(2, 3))

    assert [tuple(part.shape) for part in none] == [
        (2, 0, 13, 2), (2, 0), (2, 0, 2, 3), (2, 0), (2, 0),
    ]  # fmt: skip
    assert [part.dtype for part in none] == [part.dtype for part in empty]
    assert not any(part.any() for part in (*empty, empty.presence))


def test_padding_of_a_row_is_zero():
    found = finalise(torch.ones(1, 1, 4, 4), (16, 13))

    assert set(found.packed[..., 1].flatten().tolist()) == {0b11111000}


@pytest.mark.parametrize("width", [8, 21, 64])
def test_bits_are_packed_as_numpy_packs_them(rng, width):
    masks = rng.random((3, 5, width)) > 0.5
    np.testing.assert_array_equal(pack(torch.from_numpy(masks)), np.packbits(masks, axis=-1))


def test_masks_do_not_depend_on_their_neighbours():
    logits = smooth(4, 8, 8)
    together = finalise(logits, (31, 30))

    for n in range(4):
        alone = finalise(logits[:, n : n + 1], (31, 30))
        assert all(torch.equal(part[:, n : n + 1], one) for part, one in zip(together, alone))  # noqa: B905


def test_sums_do_not_depend_on_threads():
    """A lone plane of this size torch would sum in two halves."""
    logits = smooth(1, 80, 80)
    threads = torch.get_num_threads()
    sums = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums.append(finalise(logits, (320, 320)).probability_sum.item())
    finally:
        torch.set_num_threads(threads)
    assert len(set(sums)) == 1


def test_shared_pixels_are_counted_pair_by_pair(rng):
    masks = rng.random((4, 12, 13)) > 0.5
    masks[2] = False
    counted = shared_pixels(pack(torch.from_numpy(masks)))

    expected = [[int((one & other).sum()) for other in masks] for one in masks]
    np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize(
    ("logits", "size", "options", "error"),
    [
        (torch.zeros(1, 4, 4), (16, 16), {}, ShapeError),
        (torch.zeros(1, 1, 4, 4), (17, 16), {}, ShapeError),
        (torch.zeros(1, 1, 4, 4), (13, 12), {"corner": 1}, ShapeError),
        (torch.zeros(1, 1, 4, 4), (0, 16), {}, ShapeError),
        (torch.zeros(1, 1, 4, 4), (16, 16), {"cells": (17, 1)}, ShapeError),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int32), (16, 16), {}, DataError),
    ],
)
def test_what_does_not_fit_is_refused(logits, size, options, error):
    with pytest.raises(error):
        finalise(logits, size, **options)


# --- the kernel

CASES = [
    # count, h, w, size, corner, cells
    (2, 8, 8, (32, 32), 0, (2, 2)),
    (3, 16, 9, (61, 29), 0, (7, 5)),  # odd width, cells of broken pixels
    (1, 6, 40, (21, 157), 0, (21, 157)),  # two tiles across, cells of one pixel
    (1, 1, 1, (3, 2), 0, (1, 1)),
    (2, 9, 33, (36, 132), 0, (5, 1)),
    (2, 10, 12, (24, 35), 2, (1, 1)),  # a field of the blender
]


def agree(kernel: Finalised, reference: Finalised, value, width):
    """Same answer. Pixels within rounding of 0 may fall on either side."""
    differ = unpack(kernel.packed, width) != unpack(reference.packed, width)
    assert not (differ & (value.abs() > 1e-5)).any()
    ties = int(differ.sum())
    assert (kernel.area - reference.area).abs().sum() <= ties
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


def test_the_kernel_compiles_for_a_gpu_within_its_registers(tmp_path):
    """For Hopper (sm_90), without one at hand: 128 registers let four programs share a processor,
    and what does not fit into registers would spill to memory."""
    triton = pytest.importorskip("triton")
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not reader.exists():
        pytest.skip(f"no {reader.name} came with triton to read what was compiled")

    rows = [line.split() for line in in_a_process("compile.py", tmp_path).splitlines()]

    assert [row[:2] for row in rows] == [["fp32", "0"], ["bf16", "0"], ["bf16", "2"]]
    for _, _, registers, stack in rows:
        assert int(registers) <= 128
        assert int(stack) == 0


def test_a_machine_without_triton_takes_the_reference(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)

    assert finalise(torch.ones(1, 1, 2, 2), (8, 8)).area.tolist() == [[64]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", [*CASES, (22, 260, 260, (1024, 1021), 2, (64, 64))])
def test_cuda_answers_as_the_reference_does(case, dtype):
    count, h, w, size, corner, cells = case
    logits = smooth(count, h, w).to(dtype)
    found = finalise(logits.cuda(), size, corner=corner, cells=cells)

    assert found.packed.is_cuda
    agree(
        Finalised(*(part.cpu() for part in found)),
        finalise(logits, size, corner=corner, cells=cells),
        by_hand(logits, size, corner),
        size[1],
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_area_beyond_what_a_float_counts():
    """Above 2^24 a float32 no longer counts one by one."""
    side = 10_240
    logits = torch.ones(1, 1, side // STRIDE, side // STRIDE, device="cuda")
    found = finalise(logits, (side, side - 1), cells=(3, 7))

    assert found.area.item() == side * (side - 1)
    assert found.coverage.unique().tolist() == [1.0]
