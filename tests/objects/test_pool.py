import pytest
import torch
from torch.nn import functional

from xpath.errors import DataError, ShapeError
from xpath.objects.pool import add_other, cover, masked_average_pool, without_rims


def disc(side, radius, center):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def test_areas_by_hand():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()

    shares = cover(mask[None, None], (2, 2))

    assert shares.tolist() == [[[[0.75, 0], [0, 1]]]]


def test_areas_by_hand_where_grids_do_not_divide():
    mask = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 1]]).bool()

    # places are 1.5 pixels wide; a corner pixel is 1 of 2.25
    torch.testing.assert_close(
        cover(mask[None, None], (2, 2))[0, 0], torch.tensor([[1, 0], [0, 1]]) / 2.25
    )
    # a finer map: every place has the value of the pixel it lies in
    assert torch.equal(
        cover(mask[None, None], (6, 6))[0, 0],
        mask.float().repeat_interleave(2, 0).repeat_interleave(2, 1),
    )


@pytest.mark.parametrize("size", [(14, 14), (16, 16), (7, 9), (300, 5)])
def test_no_area_is_lost(size):
    masks = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.7

    shares = cover(masks, size)

    torch.testing.assert_close(shares.mean(dim=(2, 3)), masks.float().mean(dim=(2, 3)))
    assert shares.min() >= 0
    assert shares.max() <= 1 + 1e-6


@pytest.mark.parametrize("places", [14, 28])
def test_a_nucleus_of_six_pixels_does_not_vanish(places):
    nucleus = disc(1024, 3, (500, 333))
    maps = torch.zeros(1, 2, places, places)
    here = (0, slice(None), 500 * places // 1024, 333 * places // 1024)
    maps[here] = torch.tensor([2.0, -1.0])

    pooled = masked_average_pool(maps, cover(nucleus[None, None], (places, places)))

    torch.testing.assert_close(pooled.features[0, 0], torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(pooled.coverage[0, 0], nucleus.float().mean())


def test_other_is_what_no_mask_covers():
    masks = torch.tensor([[[[1, 1, 0, 0]], [[0, 1, 1, 0]]]]).bool()

    assert add_other(masks)[0, 2].tolist() == [[False, False, False, True]]


def test_other_is_found_at_full_resolution():
    # both objects touch every place, yet half of the patch is free
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, ::2, ::2] = masks[0, 1, 1::2, 1::2] = True

    assert torch.equal(cover(add_other(masks), (2, 2))[0, 2], torch.full((2, 2), 0.5))


def test_masks_that_are_no_masks_are_refused():
    for masks in (torch.ones(1, 1, 4, 4), torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)):
        with pytest.raises(DataError, match="boolean"):
            cover(masks, (2, 2))
        with pytest.raises(DataError, match="boolean"):
            add_other(masks)


def test_the_mean_feature_by_hand():
    maps = torch.tensor([[[[1.0, 2.0]], [[10.0, 40.0]]]])  # (1, 2, 1, 2)
    shares = torch.tensor([[[[1.0, 0.5]], [[0.0, 0.25]], [[0.0, 0.0]]]])  # (1, 3, 1, 2)

    pooled = masked_average_pool(maps, shares)

    wanted = torch.tensor([[4 / 3, 20.0], [2.0, 40.0], [0.0, 0.0]])
    torch.testing.assert_close(pooled.features[0], wanted)
    assert pooled.coverage.tolist() == [[0.75, 0.125, 0.0]]


def test_an_absent_object_is_exactly_zero_whatever_the_map():
    maps = torch.randn(1, 4, 3, 3) * 1e20

    pooled = masked_average_pool(maps, torch.zeros(1, 1, 3, 3))

    assert (pooled.features == 0).all()
    assert (pooled.coverage == 0).all()


def test_a_slow_loop_says_the_same():
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 5, 4, 6, generator=generator)
    shares = torch.rand(2, 3, 4, 6, generator=generator)

    pooled = masked_average_pool(maps, shares)

    for b in range(2):
        for j in range(3):
            wanted = (maps[b] * shares[b, j]).sum(dim=(1, 2)) / shares[b, j].sum()
            torch.testing.assert_close(pooled.features[b, j], wanted)


@pytest.mark.parametrize("places", [8, 7])
def test_objects_that_divide_the_patch_add_up_to_its_mean(places):
    generator = torch.Generator().manual_seed(2)
    kind = torch.randint(0, 4, (2, 1, 32, 32), generator=generator)
    masks = kind == torch.arange(3).view(3, 1, 1)  # the fourth kind is left to "other"
    maps = torch.randn(2, 5, places, places, generator=generator)

    features, coverage = masked_average_pool(maps, cover(add_other(masks), (places, places)))

    total = (features * coverage[..., None]).sum(dim=1)
    torch.testing.assert_close(total, maps.mean(dim=(2, 3)))


def test_objects_do_not_see_each_other():
    generator = torch.Generator().manual_seed(3)
    maps, shares = torch.randn(1, 5, 4, 4, generator=generator), torch.rand(1, 3, 4, 4)

    turned = masked_average_pool(maps, shares.flip(1))

    torch.testing.assert_close(turned.features, masked_average_pool(maps, shares).features.flip(1))


def test_maps_and_shares_must_fit():
    with pytest.raises(ShapeError, match="shares"):
        masked_average_pool(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 5))


def test_tissue_loses_its_rim_other_keeps_away_and_nuclei_stay():
    masks = torch.zeros(1, 3, 20, 20, dtype=torch.bool)
    masks[0, 0, :, :10] = True  # tissue that goes on beyond the patch
    masks[0, 1, 5:8, 15:18] = True  # a nucleus
    masks[0, 2, 10:14, 15:19] = True  # a sliver of tissue, no wider than two rims
    tissue = torch.tensor([True, False, True])
    whole = without_rims(masks, tissue, 2)[0]

    assert whole[0].nonzero()[:, 1].unique().tolist() == list(range(8))
    assert whole[0].any(dim=1).all()  # the border of the patch is none of the tissue
    assert torch.equal(whole[1], masks[0, 1])
    assert not whole[2].any()
    assert not whole[3][:, :12].any()
    assert not (whole[3] & masks[0].any(dim=0)).any()
    assert not whole[3][8:16, 13:].any()
    assert whole[3][0, 12:].all()
    assert torch.equal(without_rims(masks, tissue, 0), add_other(masks))


@pytest.mark.parametrize("rim", [1, 4, 40])
def test_rims_as_a_maximum_over_squares_gives_them(rim):
    """Rims wider than the patch too."""
    masks = torch.rand(2, 3, 24, 31, generator=torch.Generator().manual_seed(rim)) > 0.3
    tissue = torch.tensor([True, False, True])

    whole = without_rims(masks, tissue, rim)

    def grown(some):
        padded = functional.pad(some.float(), (rim,) * 4)
        return functional.max_pool2d(padded, 2 * rim + 1, stride=1) > 0

    inside = masks[:, tissue]
    assert torch.equal(whole[:, [0, 2]], ~grown(~inside))
    assert torch.equal(whole[:, 1], masks[:, 1])
    other = ~masks.any(dim=1, keepdim=True) & ~grown(inside.any(dim=1, keepdim=True))
    assert torch.equal(whole[:, 3:], other)
