"""Windows that overlap: one field, whatever the grid, its order and its gaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xpath.errors import ConfigError, DataError, ShapeError
from xpath.geometry import Size
from xpath.segment.predict.blending import SeamBlender, check_overlap, taper, widened
from xpath.testing.masks import grid_at

SIDE, OVERLAP = 32, 16


def make_grid(coords, *, footprint=SIDE, pixels=SIDE):
    mpp = 0.5 * pixels / footprint
    return grid_at(coords, footprint, pixels=pixels, slide_size=Size(4096, 4096), slide_mpp=mpp)


def lattice(columns, rows, step=SIDE):
    return [[x * step, y * step] for y in range(rows) for x in range(columns)]


def centres(windows, index):
    """Level-0 x and y of the positions of a window, as columns and as rows."""
    positions = -(-windows.pixels // 4)
    steps = (np.arange(positions) + 0.5) * 4 * windows.footprint / windows.pixels
    x, y = (torch.from_numpy(steps + corner) for corner in windows.coords[index])
    return x[None, :], y[:, None]


def blended(grid, answer, *, overlap=OVERLAP, order=None):
    """Logits (N, P, H, W) of all patches, and the most windows that were held at once."""
    blender, found, most = SeamBlender(grid, overlap=overlap), {}, 0
    for index in blender.order if order is None else order:
        blender.add(index, answer(blender.windows, index))
        most = max(most, len(blender))
        batch = blender.finished()
        found |= dict(enumerate(batch.logits.numpy(), batch.start))
    assert list(found) == list(range(len(grid)))  # in the order of the grid
    assert not len(blender)
    return np.stack(list(found.values())), most


def constant(windows, index):
    return torch.full((2, -(-windows.pixels // 4), -(-windows.pixels // 4)), 1.5)


def plane(windows, index):
    """The same function of the position on the slide, whichever window it is seen through."""
    x, y = centres(windows, index)
    return ((x - 2 * y) / 64)[None].float()


def fading(windows, index):
    """A constant that is wrong within 8 pixels of the window's border."""
    logits = torch.full((1, -(-windows.pixels // 4), -(-windows.pixels // 4)), -6.0)
    logits[:, 2:-2, 2:-2] = 6.0
    return logits


IRREGULAR = [[0, 0], [32, 0], [96, 0], [32, 32], [300, 300], [51, 77], [83, 77]]


@pytest.mark.parametrize("coords", [lattice(3, 3), IRREGULAR, [[7, 9]]])
@pytest.mark.parametrize("pixels", [32, 40, 30])
def test_weights_sum_to_one(coords, pixels):
    """Also with gaps, with patches that stand alone, and where resolutions do not divide."""
    found, _ = blended(make_grid(coords, pixels=pixels), constant)

    assert found.shape == (len(coords), 2, pixels, pixels)
    np.testing.assert_allclose(found, 1.5, rtol=1e-6)


@pytest.mark.parametrize(("footprint", "pixels"), [(32, 32), (64, 32), (33, 32), (48, 40)])
def test_what_does_not_depend_on_the_window_is_kept(footprint, pixels):
    """A plane, to half precision: it must come out where it was, to a fraction of a pixel."""
    grid = make_grid(lattice(3, 3, footprint), footprint=footprint, pixels=pixels)

    found, _ = blended(grid, plane)

    steps = (np.arange(pixels) + 0.5) * footprint / pixels
    for index, (x, y) in enumerate(grid.coords):
        wanted = (x + steps[None, :] - 2 * (y + steps[:, None])) / 64
        np.testing.assert_allclose(found[index, 0], wanted, atol=4e-3)


def test_the_taper_by_hand():
    """A patch of 32 with 16 on either side: 0, a half above the patch's border, 1 from 32 on."""
    pixels = np.array([0.0, 8.0, 16.0, 32.0, 48.0, 56.0, 64.0])

    found = taper(pixels, 64, 16)

    eighth = np.sin(np.pi / 8) ** 2
    np.testing.assert_allclose(found, [0, eighth, 0.5, 1, 0.5, eighth, 0], atol=1e-12)


def test_tapers_of_neighbours_sum_to_one():
    pixels = np.linspace(0, 32, 99)  # a patch of 32 with neighbours at -32 and 32

    total = sum(taper(pixels + 16 + shift, 64, 16) for shift in (-32, 0, 32))

    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_the_blend_of_two_windows_by_hand():
    """Left says 3, right says -1: above the seam they meet at 1, and at 2 pixels beside it."""

    def answer(windows, index):
        return torch.full((1, 16, 16), 3.0 if index == 0 else -1.0)

    found, _ = blended(make_grid([[0, 0], [32, 0]]), answer)

    row = np.concatenate([found[0, 0, 5], found[1, 0, 5]])
    np.testing.assert_allclose(row[31:33].mean(), 1, atol=1e-6)
    # positions 6 and 2 px before, 2 after
    left = np.sin(np.pi / 2 * np.array([22, 18, 14]) / 32) ** 2
    logits = 3 * left - (1 - left)
    enlarged = logits @ [1 / 16, 14 / 16, 1 / 16]  # halfway between the 3rd and the 2nd pixel
    np.testing.assert_allclose(row[29:31].mean(), enlarged, atol=1e-6)
    np.testing.assert_allclose(row[[0, 8, 55, 63]], [3, 3, -1, -1], atol=1e-6)
    assert (np.diff(row) <= 1e-6).all()
    assert np.abs(np.diff(row)).max() < 0.25  # no step anywhere


def test_neighbours_cut_their_patches_out_of_one_picture(rng):
    """Patches that overlap by half: where they show the same tissue they say the same."""
    answers = torch.from_numpy(rng.normal(0, 3, (9, 1, 16, 16))).float()
    grid = make_grid(lattice(3, 3, step=16))

    found, _ = blended(grid, lambda windows, index: answers[index])

    for first, (x, y) in enumerate(grid.coords):
        for second, (u, v) in enumerate(grid.coords):
            if (u - x, v - y) == (16, 0):
                np.testing.assert_array_equal(found[first, 0, :, 16:], found[second, 0, :, :16])
            if (u - x, v - y) == (0, 16):
                np.testing.assert_array_equal(found[first, 0, 16:], found[second, 0, :16])


def test_wrong_borders_leave_no_trace_between_neighbours():
    """Each window alone is wrong around its border. Together they are right all over."""
    found, _ = blended(make_grid(lattice(3, 3)), fading)

    assert (found > 0).all()


@pytest.mark.parametrize("coords", [lattice(4, 4), IRREGULAR])
def test_the_order_leaves_no_trace(coords, rng):
    """Neither that of the patches nor that of the windows, to the last bit."""
    coords = np.asarray(coords)
    answers = torch.from_numpy(rng.normal(0, 3, (len(coords), 2, 16, 16))).float()
    wanted, _ = blended(make_grid(coords), lambda windows, index: answers[index])

    shuffled = rng.permutation(len(coords))
    found, _ = blended(make_grid(coords[shuffled]), lambda windows, k: answers[shuffled[k]])
    np.testing.assert_array_equal(found, wanted[shuffled])

    order = rng.permutation(len(coords)).tolist()
    found, _ = blended(make_grid(coords), lambda windows, index: answers[index], order=order)
    np.testing.assert_array_equal(found, wanted)


def test_every_window_is_asked_for_once():
    grid = make_grid(IRREGULAR)

    assert sorted(SeamBlender(grid, overlap=OVERLAP).order) == list(range(len(grid)))


@pytest.mark.parametrize("rows", [3, 12])
def test_two_rows_of_windows_are_held_however_tall_the_slide(rows):
    columns = 9

    _, most = blended(make_grid(lattice(columns, rows)), constant)

    assert most <= 2 * columns + 4


def test_a_lone_patch_is_its_own_window(rng):
    """As predictor.masks would: the logits of the window enlarged, the middle cut out."""
    answer = torch.from_numpy(rng.normal(0, 3, (1, 16, 16))).half().float()

    found, _ = blended(make_grid([[500, 700]]), lambda windows, index: answer)

    whole = torch.nn.functional.interpolate(answer[None], scale_factor=4, mode="bilinear")[0]
    np.testing.assert_allclose(found[0], whole[:, 16:48, 16:48], atol=1e-5)


def test_windows_are_patches_with_their_surroundings():
    grid = make_grid([[0, 0], [64, 0]], footprint=64, pixels=32)

    windows = widened(grid, 16)

    assert windows.coords.tolist() == [[-32, -32], [32, -32]]
    assert (windows.footprint, windows.pixels, windows.mpp) == (128, 64, 0.5)


def test_padding_of_the_model_is_left_alone():
    def padded(windows, index):
        logits = torch.full((1, 24, 24), 1e4)
        logits[:, :16, :16] = 1.0
        return logits

    found, _ = blended(make_grid(lattice(2, 2)), padded)

    np.testing.assert_allclose(found, 1, rtol=1e-6)


@pytest.mark.parametrize("overlap", [-4, 4, 7, 10])
def test_impossible_overlaps_are_refused(overlap):
    with pytest.raises(ConfigError, match="multiple of 4"):
        check_overlap(overlap)
    check_overlap(0)
    with pytest.raises(ConfigError, match="nothing to blend"):
        SeamBlender(make_grid([[0, 0]]), overlap=0)


def test_wrong_answers_are_refused():
    blender = SeamBlender(make_grid([[0, 0], [32, 0]]), overlap=OVERLAP)
    logits = torch.zeros(1, 16, 16)

    with pytest.raises(ShapeError, match="window 0"):
        blender.add(0, logits[:, :12])
    blender.add(0, logits)
    with pytest.raises(DataError, match="before"):
        blender.add(0, logits)


def test_what_is_no_number_makes_no_field_a_number():
    """Seen when the fields are on the host: nobody waits for a GPU in between."""
    for wrong in (torch.nan, torch.inf, -torch.inf):
        blender = SeamBlender(make_grid([[0, 0], [256, 0]]), overlap=OVERLAP)
        for index in blender.order:
            logits = torch.zeros(1, 16, 16)
            logits[0, 8, 8] = wrong if index else 0.0
            blender.add(index, logits)

        fields = blender.finished().fields
        assert fields.isfinite().flatten(1).all(dim=1).tolist() == [True, False]


@pytest.mark.parametrize("batch", [1, 5])
def test_the_memory_of_blending_is_known_before(batch):
    grid = make_grid(lattice(6, 5))
    blender = SeamBlender(grid, overlap=OVERLAP, margin=3)
    held, windows = [], blender.windows.pixels // 4
    for start in range(0, len(blender.order), batch):
        for index in blender.order[start : start + batch]:
            blender.add(index, torch.zeros(2, windows, windows))
        alive = len(blender)
        fields = blender.finished().fields
        held.append(alive * 2 * windows**2 * 2 + fields.numel() * 4)

    assert SeamBlender(grid, overlap=OVERLAP, margin=3).most_held(2, batch=batch) == max(held)
