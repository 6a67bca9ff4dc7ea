"""A disc across the seams of a drawn slide, seen by a segmentor that is blind at its borders."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from xpath.errors import ConfigError, DataError, ResolutionError, SlideError
from xpath.explain.maps import object_shares
from xpath.geometry import Box, Size
from xpath.labels import Label, load_labels
from xpath.objects.find import find_objects
from xpath.objects.pool import cover
from xpath.objects.rule import ObjectConfig
from xpath.protocols import Segmentation
from xpath.segment.predict import patch_answers
from xpath.segment.predict.blending import SeamBlender
from xpath.segment.predict.calibration import PresenceCalibration
from xpath.segment.predict.whole_slide import SegmentConfig, segment_slide
from xpath.store.masks import MaskWriter, open_masks
from xpath.testing.masks import grid_at
from xpath.testing.slides import write_slide
from xpath.wsi.slide import Slide

SIDE, PATCH, BLIND = 384, 64, 24
"""Of the slide, of a patch, and of the border where the segmentor sees nothing; pixels."""
INK = np.array([120, 40, 130])


@pytest.fixture(scope="module")
def disc():
    """``(SIDE, SIDE)``. It crosses four seams and misses the outer patches."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    return np.hypot(x - 196, y - 188) < 100


@pytest.fixture(scope="module")
def slide(tmp_path_factory, disc):
    picture = np.where(disc[..., None], INK, 245).astype(np.uint8)
    path = tmp_path_factory.mktemp("slide") / "disc.tiff"
    write_slide(path, picture, mpp=0.5, lossless=True)
    with Slide.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def labels():
    tree = load_labels()
    return [tree.parse("breast-tissue-tumor"), tree.parse("breast-tissue-stroma")]


class DarkImage(NamedTuple):
    """An encoded image of the stand-in."""

    dark: torch.Tensor
    size: tuple[int, int]


class BlindAtBorders:
    """Finds dark pixels, less surely towards the border of what it is shown, and there not at all.

    The second prompt finds all that is not dark. Whatever it is asked, it counts the images.
    """

    info = SimpleNamespace(name="blind", digest="ab" * 32, mpp=0.5, mpp_range=None)

    stride = 4

    def __init__(self, blind=BLIND):
        self.blind, self.images = blind, []

    def encode(self, images):
        self.images += [image.tobytes() for image in images]
        dark = torch.from_numpy((images[..., 1] < 128).astype(np.float32))
        return DarkImage(dark, images.shape[1:3])

    def logits(self, embedding, prompts):
        assert len(prompts) == 2
        shares = functional.avg_pool2d(embedding.dark[:, None], 4)
        logits = torch.cat((shares - 0.5, 0.5 - shares), dim=1) * 12
        height, width = logits.shape[-2:]
        y, x = (4 * torch.arange(side) + 2 for side in (height, width))
        inward = torch.minimum(
            torch.minimum(y, 4 * height - y)[:, None], torch.minimum(x, 4 * width - x)[None, :]
        )
        return logits - 12 * (1 - inward / self.blind).clamp(min=0)

    def masks(self, embedding, prompts):
        fine = functional.interpolate(
            self.logits(embedding, prompts), scale_factor=4, mode="bilinear"
        )
        inside = fine > 0
        area = inside.sum(dim=(2, 3)).clamp(min=1)
        presence = (fine.sigmoid() * inside).sum(dim=(2, 3)) / area
        return Segmentation(
            inside.numpy(), presence.numpy(), presence.numpy(), inside.numpy().any((2, 3))
        )


def make_grid(coords=None, **changes):
    if coords is None:
        coords = [[x, y] for y in range(0, SIDE, PATCH) for x in range(0, SIDE, PATCH)]
    return grid_at(
        coords, **({"footprint": PATCH, "mpp": 0.5, "slide_size": Size(SIDE, SIDE)} | changes)
    )


@pytest.fixture
def segmented(slide, labels, tmp_path):
    """Masks of the drawn slide, opened."""

    def run(grid=None, predictor=None, **config):
        path = tmp_path / "masks.zarr"
        segment_slide(
            slide,
            grid or make_grid(),
            predictor or BlindAtBorders(),
            labels,
            path,
            config=SegmentConfig(**config),
        )
        return open_masks(path)

    return run


def painted(masks, label=0):
    """One label of the whole slide, patch by patch."""
    canvas = np.zeros((SIDE // masks.reduce, SIDE // masks.reduce), bool)
    for (x, y), patch in zip(
        masks.grid.coords // masks.reduce, masks.read(slice(None)), strict=True
    ):
        canvas[y : y + masks.size, x : x + masks.size] |= patch[label]
    return canvas


def test_a_disc_across_seams_is_one_disc(segmented, disc):
    """Seen patch by patch it falls apart with gaps of 24 pixels."""
    apart = painted(segmented(overlap=0))
    whole = painted(segmented(overlap=32))

    assert ndimage.label(apart)[1] >= 4
    assert apart.sum() < 0.7 * disc.sum()
    assert ndimage.label(whole)[1] == 1
    assert ndimage.label(~whole)[1] == 1  # no holes
    assert (whole != disc).sum() < 0.01 * disc.sum()  # the outline, to a position of 4 pixels


def test_all_that_is_no_disc_is_found_up_to_the_border_of_the_slide(segmented, disc):
    whole = painted(segmented(overlap=32), label=1)

    assert (whole != ~disc).sum() < 0.01 * disc.sum()


def test_a_wider_overlap_finds_the_same(segmented, disc):
    for overlap in (40, 96):
        assert (painted(segmented(overlap=overlap)) != disc).sum() < 0.01 * disc.sum()


def test_without_overlap_masks_are_those_of_each_patch_alone(segmented, slide, labels):
    """Bit by bit what ``predictor.masks`` says."""
    found = segmented(overlap=0, batch=5)
    grid, predictor = make_grid(), BlindAtBorders()

    images = np.stack([slide.read(box) for box in grid.boxes()])
    wanted = predictor.masks(predictor.encode(images), [label.prompt for label in labels])
    np.testing.assert_array_equal(found.read(slice(None)), wanted.masks)
    np.testing.assert_allclose(found.presence, wanted.presence, rtol=1e-6)


@pytest.mark.parametrize("overlap", [0, 32])
def test_neither_order_nor_batch_leaves_a_trace(segmented, rng, overlap):
    wanted = segmented(overlap=overlap, batch=8).read(slice(None))
    order = rng.permutation(len(wanted))

    for batch in (1, 100):
        found = segmented(overlap=overlap, batch=batch)
        np.testing.assert_array_equal(found.read(slice(None)), wanted)
    found = segmented(make_grid(make_grid().coords[order]), overlap=overlap)
    np.testing.assert_array_equal(found.read(slice(None)), wanted[order])


@pytest.mark.parametrize("overlap", [0, 32])
def test_every_window_is_segmented_once(segmented, overlap, slide):
    predictor, grid = BlindAtBorders(), make_grid()

    segmented(grid, predictor, overlap=overlap, batch=7)

    assert len(predictor.images) == len(grid)
    side = PATCH + 2 * overlap
    assert {len(image) for image in predictor.images} == {side * side * 3}


def test_gaps_in_the_grid_do_no_harm(segmented, disc):
    """Where no neighbour is, a patch has its own window to trust."""
    kept = [[128, 128], [192, 128], [256, 192], [64, 256], [0, 0]]

    masks = segmented(make_grid(kept), overlap=32)

    for (x, y), (tumor, rest) in zip(kept, masks.read(slice(None)), strict=True):
        truth = disc[y : y + PATCH, x : x + PATCH]
        assert (tumor != truth).mean() < 0.02
        assert (rest == truth).mean() < 0.02


def test_patches_of_any_size_on_the_slide(segmented, disc):
    """Patches of 63 level-0 pixels, read as 96: neither windows nor positions are whole pixels."""
    coords = [[x, y] for y in range(66, 255, 63) for x in range(66, 255, 63)]
    grid = make_grid(coords, footprint=63, pixels=96, mpp=0.5 * 63 / 96)

    masks = segmented(grid, overlap=32).read(slice(None))[:, 0]

    found = masks.reshape(3, 3, 96, 96).transpose(0, 2, 1, 3).reshape(288, 288)
    steps = (66 + (np.arange(288) + 0.5) * 63 / 96).astype(int)
    assert (found != disc[np.ix_(steps, steps)]).mean() < 0.01


@pytest.mark.parametrize(("overlap", "reduce"), [(0, 2), (32, 4)])
def test_reduced_masks_are_full_masks_reduced(segmented, overlap, reduce):
    full = painted(segmented(overlap=overlap))

    found = segmented(overlap=overlap, reduce=reduce)

    side = SIDE // reduce
    shares = full.reshape(side, reduce, side, reduce).mean(axis=(1, 3))
    np.testing.assert_array_equal(painted(found), shares >= 0.5)
    assert (found.reduce, found.size) == (reduce, PATCH // reduce)
    assert found.area.sum() == found.read(slice(None)).sum()


@pytest.mark.parametrize("reduce", [2, 4])
def test_whoever_reads_reduced_masks_finds_things_where_they_are(segmented, reduce):
    """Outlines, maps and areas of a disc of 196, 188 and radius 100. Patches have 96 pixels."""
    coords = [[x, y] for y in range(66, 318, 63) for x in range(66, 318, 63)]
    grid = make_grid(coords, footprint=63, pixels=96, mpp=0.5 * 63 / 96)

    masks = segmented(grid, overlap=32, reduce=reduce)

    table = find_objects(masks, ObjectConfig(min_area_um2=1000, separate=False))
    ring = table.rings(0)[0]
    assert table.counts[masks.labels[0]] == 1
    np.testing.assert_allclose(ring.min(axis=0), [96, 88], atol=3)
    np.testing.assert_allclose(ring.max(axis=0), [296, 288], atol=3)
    area = np.pi * 100**2
    assert table.areas_um2[0] == pytest.approx(area / 4, rel=0.03)
    assert masks.area[:, 0].sum() / masks.size**2 * 63**2 == pytest.approx(area, rel=0.02)
    shares = object_shares(masks, Size(96, 96))[0]  # 4 level-0 pixels each
    assert shares.sum() * 16 == pytest.approx(area, rel=0.02)
    y, x = np.average(np.mgrid[:96, :96] * 4 + 2, axis=(1, 2), weights=np.stack([shares] * 2))
    assert (x, y) == pytest.approx((196, 188), abs=2)
    covered = cover(torch.from_numpy(masks.read(slice(None))), (14, 14))[:, 0].mean(dim=(1, 2))
    np.testing.assert_allclose(covered.numpy(), masks.area[:, 0] / masks.size**2, atol=1e-5)


def test_presence_is_the_mean_probability_under_the_mask(segmented):
    found = segmented(overlap=32)

    empty = found.area == 0
    assert empty.any()
    assert (found.presence[empty] == 0).all()
    assert (found.presence[~empty] > 0.5).all()
    centre = found.presence[2 * 6 + 2, 0]  # all disc, where every window is sure: 1 / (1 + e^-6)
    assert 0.9 < centre <= 1 / (1 + np.exp(-6)) + 1e-6


@pytest.mark.parametrize("overlap", [0, 32])
def test_progress_counts_every_patch(slide, labels, tmp_path, overlap):
    steps = []

    segment_slide(
        slide,
        make_grid(),
        BlindAtBorders(),
        labels,
        tmp_path / "masks.zarr",
        config=SegmentConfig(overlap=overlap, batch=10),
        on_patches=steps.append,
    )

    assert steps == [10, 10, 10, 6]


def test_masks_say_how_they_were_made(segmented, labels):
    facts = segmented(overlap=32).provenance

    assert json.loads(facts["prompts"]) == [label.prompt for label in labels]
    assert (facts["segmentor"], facts["segmentor_sha256"]) == ("blind", "ab" * 32)
    assert facts["overlap"] == "32"


@pytest.mark.parametrize(
    "wrong", [{"overlap": -8}, {"overlap": 6}, {"reduce": 3}, {"reduce": 0}, {"batch": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        SegmentConfig(**wrong)


def test_what_cannot_be_segmented_is_refused_and_leaves_nothing(segmented, tmp_path):
    class Broken(BlindAtBorders):
        def logits(self, embedding, prompts):
            return super().logits(embedding, prompts) * torch.nan

    with pytest.raises(ResolutionError, match="--mpp"):
        segmented(make_grid(mpp=None))
    with pytest.raises(ConfigError, match="reduced by 4"):
        segmented(make_grid(pixels=62), reduce=4)
    with pytest.raises(DataError, match="NaN"):
        segmented(predictor=Broken())
    assert not list(tmp_path.iterdir())


def test_a_slide_that_breaks_half_way_leaves_nothing(labels, slide, tmp_path):
    class Torn:
        def read(self, box, size):
            if box.y > 200:
                raise SlideError("damaged here")
            return slide.read(box, size)

    with pytest.raises(SlideError, match="damaged here"):
        segment_slide(Torn(), make_grid(), BlindAtBorders(), labels, tmp_path / "masks.zarr")
    assert not list(tmp_path.iterdir())


def test_another_resolution_is_said(segmented, caplog):
    segmented(make_grid(mpp=1.0), overlap=0)

    assert "masks will be worse" in caplog.text


def test_a_slide_that_is_enlarged_is_said(segmented, caplog):
    segmented(make_grid(slide_mpp=0.6), overlap=0)
    assert "enlarged" not in caplog.text

    segmented(make_grid(slide_mpp=1.0), overlap=0)
    assert "has 1 microns per pixel and is enlarged to 0.5: masks will be worse" in caplog.text


def test_the_model_itself_agrees_with_its_windows(predictor, slide, labels, tmp_path):
    """One patch alone: the middle of the mask its window has."""
    grid = make_grid([[160, 160]])

    segment_slide(
        slide, grid, predictor, labels, tmp_path / "m.zarr", config=SegmentConfig(overlap=32)
    )

    image = slide.read(make_grid([[128, 128]], footprint=128).box(0))
    wanted = predictor.masks(predictor.encode(image), [label.prompt for label in labels])
    found = open_masks(tmp_path / "m.zarr").read(0)
    assert (found == wanted.masks[0, :, 32:96, 32:96]).mean() > 0.995  # half precision


class AgreeingWithAll(BlindAtBorders):
    """Finds the disc whatever it is asked, surest of the first prompt; is calibrated."""

    def __init__(self, *, threshold=0.0, taught=(), surer=4.0):
        super().__init__(blind=1)
        self.info = SimpleNamespace(**vars(BlindAtBorders.info), labels=taught)
        self.surer = surer
        self.calibration = PresenceCalibration(
            coefficients=(1.0, 0.0, 0.0, 0.0),
            intercept=0.0,
            offsets={},
            threshold=threshold,
            precision=1.0,
            recall=1.0,
            similarity=False,
        )

    def logits(self, embedding, prompts):
        shares = functional.avg_pool2d(embedding.dark[:, None], 4)
        return torch.cat([(shares - 0.5) * (8 - self.surer * i) for i in range(len(prompts))], 1)

    def masks(self, embedding, prompts):
        fine = functional.interpolate(
            self.logits(embedding, prompts), scale_factor=4, mode="bilinear"
        )
        inside = fine > 0
        area = inside.sum(dim=(2, 3)).clamp(min=1)
        presence = ((fine.sigmoid() * inside).sum(dim=(2, 3)) / area).numpy()
        peak = fine.sigmoid().amax(dim=(2, 3)).numpy()
        return Segmentation(inside.numpy(), presence, peak, inside.numpy().any((2, 3)))


@pytest.mark.parametrize("overlap", [0, 16])
@pytest.mark.parametrize("structure", ["tissue", "nuclei"])
def test_by_default_no_pixel_belongs_to_two_siblings(slide, tmp_path, disc, overlap, structure):
    labels = [Label("breast", structure, name) for name in ("one", "two")]
    labels.append(Label("breast", "cell" if structure == "nuclei" else "nuclei", "inside"))
    path = tmp_path / "masks.zarr"
    segment_slide(
        slide, make_grid(), AgreeingWithAll(surer=1.0), labels, path,
        config=SegmentConfig(overlap=overlap),
    )  # fmt: skip
    masks = open_masks(path)
    first, second, nested = (painted(masks, index) for index in range(3))

    assert not (first & second).any()
    np.testing.assert_array_equal(first | second, nested)  # another structure stays
    assert (first != disc).mean() < 0.01
    assert masks.provenance["competition"] == "exclusive"
    before, after = masks.facts.before, masks.facts.after
    assert before[0, 1] == before[0, 0] > 0
    assert after[0, 1] == after[1, 0] == 0
    assert after[0, 2] == after[0, 0] == first.sum()
    assert masks.facts.present.tolist() == [True, second.any(), True]


def test_independent_masks_are_those_of_the_blended_logits_bit_for_bit(
    slide, labels, tmp_path, segmented
):
    masks = segmented(overlap=16, competition="independent")
    grid, predictor = make_grid(), BlindAtBorders()
    blender, expected = SeamBlender(grid, overlap=16), []
    for index in blender.order:
        x, y = blender.windows.coords[index].tolist()
        window = slide.read(Box(x, y, blender.windows.footprint, blender.windows.footprint),
                            Size(blender.windows.pixels, blender.windows.pixels))  # fmt: skip
        blender.add(index, predictor.logits(predictor.encode(window[None]), labels)[0])
        expected += (blender.finished().logits > 0).numpy().tolist()

    np.testing.assert_array_equal(masks.read(slice(None)), expected)
    assert masks.provenance["competition"] == "independent"


@pytest.mark.parametrize("overlap", [0, 16])
def test_a_label_that_is_not_on_the_slide_has_no_mask_and_takes_none_from_others(
    slide, labels, tmp_path, disc, overlap
):
    path = tmp_path / "masks.zarr"
    predictor = AgreeingWithAll(threshold=0.9, taught=("breast-tissue-tumor",), surer=6.0)
    segment_slide(
        slide, make_grid(), predictor, labels, path, config=SegmentConfig(overlap=overlap)
    )
    masks = open_masks(path)

    assert masks.facts.present.tolist() == [True, False]
    assert masks.facts.taught.tolist() == [True, False]
    assert json.loads(masks.provenance["untaught"]) == ["breast-tissue-stroma"]
    assert not masks.area[:, 1].any()
    assert (painted(masks) != disc).mean() < 0.01
    assert 0 < masks.facts.probability[1] < 0.9 < masks.facts.probability[0]


@pytest.mark.parametrize("competition", ["exclusive", "independent"])
@pytest.mark.parametrize("overlap", [0, 32])
def test_every_batch_is_finalised_and_written_packed_once(
    segmented, monkeypatch, competition, overlap
):
    """And nothing is packed, or written unpacked, beside."""
    finalised, written = [], []
    finalise, write = patch_answers.finalise, MaskWriter.write_packed

    def spied_finalise(logits, size, **options):
        finalised.append(len(logits))
        return finalise(logits, size, **options)

    def spied_write(writer, start, packed, presence):
        written.append((start, len(packed)))
        write(writer, start, packed, presence)

    monkeypatch.setattr(patch_answers, "finalise", spied_finalise)
    monkeypatch.setattr(MaskWriter, "write_packed", spied_write)
    monkeypatch.setattr(MaskWriter, "write", lambda *_: pytest.fail("unpacked masks"))
    monkeypatch.setattr(np, "packbits", lambda *_, **__: pytest.fail("packed on the host"))
    segmented(overlap=overlap, batch=7, competition=competition)

    assert len(finalised) == len(written) == 6  # 36 windows in batches of 7
    assert [count for _, count in written] == finalised
    starts = np.cumsum([0, *finalised]).tolist()
    assert [start for start, _ in written] == starts[:-1]
    assert starts[-1] == 36


def test_windows_that_are_held_count_in_the_segmentors_memory(
    predictor, slide, labels, tmp_path, monkeypatch
):
    reserved, reserving = [], predictor.reserving
    monkeypatch.setattr(
        predictor, "reserving", lambda memory: reserved.append(memory) or reserving(memory)
    )
    grid = make_grid([[x, y] for y in (128, 192) for x in (128, 192)])
    segment_slide(slide, grid, predictor, labels, tmp_path / "masks.zarr")

    # four windows of 32 x 32 positions in half precision, four fields of 18 x 18 in single
    assert reserved == [len(labels) * 4 * (32 * 32 * 2 + 18 * 18 * 4)]
    assert predictor._reserved == 0


def test_another_competition_is_refused():
    with pytest.raises(ConfigError, match="exclusive, independent"):
        SegmentConfig(competition="greedy")
