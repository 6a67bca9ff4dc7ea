import itertools
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from xpath.geometry import PatchGrid, Size
from xpath.objects import morphometry as module
from xpath.objects.mask_pieces import Piece, objects
from xpath.objects.morphometry import measure_objects, morphometry

SIDE = 16


class Masks:
    """What ``SlideMasks`` offers, of planes (N, L, H, W) at corners (N, 2) x, y in mask pixels."""

    def __init__(self, planes, corners, *, overlap=0, scale=1):
        self.size = planes.shape[-1]
        self.grid = PatchGrid(
            coords=np.asarray(corners, np.int64) * scale,
            footprint=self.size * scale,
            pixels=self.size,
            mpp=0.3,
            overlap=overlap * scale,
            slide_size=Size(10_000, 10_000),
            slide_mpp=0.3,
        )
        self.labels = tuple("abcdef"[: planes.shape[1]])
        self.area = planes.sum(axis=(2, 3))
        self._planes, self.reads = planes, []

    def read(self, patch):
        self.reads.append(patch)
        return self._planes[patch]


def corners_of(across, down, step):
    return [(x * step, y * step) for y in range(down) for x in range(across)]


def points(piece):
    return np.argwhere(piece.pixels) + np.array([piece.top, piece.left])


def by_all_pairs(masks, column):
    """Objects by the definition: any two pieces near a border that share or neighbour a pixel."""
    found, overlap = [], masks.grid.overlap * masks.size // masks.grid.footprint
    corners = masks.grid.coords[:, ::-1] * masks.size // masks.grid.footprint
    for patch, plane in enumerate(masks._planes[:, column]):
        labelled, count = ndimage.label(plane, np.ones((3, 3)))
        for number in range(1, count + 1):
            at = np.argwhere(labelled == number)
            (up, west), (down, east) = at.min(axis=0), at.max(axis=0) + 1
            pixels = labelled[up:down, west:east] == number
            top, left = (corners[patch] + (up, west)).tolist()
            border = min(up, west) <= overlap or max(down, east) >= masks.size - overlap
            found.append((border, Piece(patch, number, top, left, *pixels.shape, pixels)))
    group, places = list(range(len(found))), [points(piece) for _, piece in found]
    for (i, (near, a)), (j, (close, b)) in itertools.combinations(enumerate(found), 2):
        if near and close and a.patch != b.patch:
            apart = np.abs(places[i][:, None] - places[j]).max(axis=2)
            if apart.min() <= 1:
                group = [group[i] if one == group[j] else one for one in group]
    return [
        [p for g, (_, p) in zip(group, found, strict=True) if g == one] for one in unique(group)
    ]


def unique(values):
    return list(dict.fromkeys(values))


def random_masks(seed, *, overlap, scale=1, thick=0.3):
    """Blobs that lie across patches, the patches not agreeing on all of them."""
    rng = np.random.default_rng(seed)
    step = SIDE - overlap
    corners = corners_of(4, 3, step)
    smooth = ndimage.gaussian_filter(
        rng.normal(size=(2, 3 * step + SIDE, 4 * step + SIDE)), (0, 1, 1)
    )
    picture = smooth > thick * smooth.std()
    planes = np.stack([picture[:, y : y + SIDE, x : x + SIDE] for x, y in corners])
    planes ^= rng.random(planes.shape) < 0.02
    planes[5, 0] = planes[6, 1] = False
    return Masks(planes, corners, overlap=overlap, scale=scale)


def random_places(seed):
    """Patches wherever: some apart, some side by side, some deep in each other, two the same."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 50, (10, 2))
    corners[3] = corners[9]
    return Masks(rng.random((10, 2, SIDE, SIDE)) < 0.35, corners)


CASES = {
    "side by side": lambda: random_masks(0, overlap=0),
    "scaled": lambda: random_masks(1, overlap=0, scale=3),
    "overlapping": lambda: random_masks(2, overlap=3),
    "overlapping by half": lambda: random_masks(3, overlap=8, scale=2),
    "sparse": lambda: random_masks(4, overlap=2, thick=1.5),
    "anywhere": lambda: random_places(5),
}


@pytest.mark.parametrize("case", CASES)
def test_objects_are_those_of_all_pairs(case):
    masks = CASES[case]()

    found = {kind: [] for kind in masks.labels}
    for kind, parts in objects(masks, masks.labels):
        found[kind].append([(p.patch, p.number, points(p).tolist()) for p in parts])

    for column, kind in enumerate(masks.labels):
        wanted = by_all_pairs(masks, column)
        assert sorted(found[kind]) == [
            [(p.patch, p.number, points(p).tolist()) for p in parts] for parts in wanted
        ]
        assert max(map(len, wanted)) >= (2 if case == "sparse" else 4)
    assert masks.reads == sorted(set(masks.reads))


@pytest.mark.parametrize(
    ("case", "largest"),
    [("side by side", 1 << 24), ("overlapping", 400), ("sparse", 1 << 24), ("anywhere", 1 << 24)],
)
def test_numbers_are_those_of_all_pairs_to_the_last_digit(case, largest, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", largest)
    masks = CASES[case]()
    step = masks.grid.footprint / masks.size

    rows = morphometry(masks, slide_id="s")

    for column, kind in enumerate(masks.labels):
        groups = by_all_pairs(masks, column)
        measured = [module._shape(kind, parts, 0.3, step) for parts in groups]
        wanted = [one for one in measured if one.area_um2 >= 0.5]
        found = measure_objects(masks, [kind], min_area_um2=0.5)
        assert repr(found) == repr(wanted)
        assert len(found) > 3
        total = sum(one.area_um2 for one in measured)
        assert rows[column].area_um2 == pytest.approx(total, rel=1e-12)


def test_an_object_across_four_patches_by_hand():
    planes = np.zeros((4, 1, SIDE, SIDE), bool)
    planes[0, 0, -2:, -2:] = planes[3, 0, :1, :1] = True  # only their corners touch
    planes[1, 0, -1, 5] = planes[2, 0, 0, -1] = True  # the one alone, the other beside both
    masks = Masks(planes, corners_of(2, 2, SIDE))

    found = [[p.patch for p in parts] for _, parts in objects(masks, "a")]

    assert sorted(found) == [[0, 2, 3], [1]]


def test_what_waits_keeps_its_pixels():
    pixels = np.random.default_rng(0).random((7, 13)) < 0.5
    piece = Piece(0, 1, 2, 3, 7, 13, pixels)

    packed = piece.compressed()

    np.testing.assert_array_equal(packed.pixels, pixels)
    assert isinstance(packed.held, bytes)
    assert (packed.bottom, packed.right) == (9, 16)


def test_tissue_everywhere_takes_little_memory():
    """As bool, the pieces of these masks are 13 MB; 15,000 patches of 512 pixels are 8 GB."""
    planes = np.broadcast_to(np.ones((1, 2, 256, 256), bool), (100, 2, 256, 256))
    masks = Masks(planes, corners_of(10, 10, 256))
    list(objects(Masks(planes[:1], [(0, 0)]), "a"))  # imports

    tracemalloc.start()
    count = sum(len(parts) for _, parts in objects(masks, masks.labels))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 200
    assert peak < 3e6
