from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from xpath.errors import DataError
from xpath.pathseg.sources.pannuke import OBJECT_TYPES, ORGANS, SOURCE


def write_fold(root, fold, organs, rng):
    """A fold as distributed, every type in a corner of its own."""
    count = len(organs)
    images = rng.integers(0, 256, (count, 256, 256, 3)).astype(float)
    masks = np.zeros((count, 256, 256, 6))
    for channel in range(5):
        masks[:, channel * 10 : channel * 10 + 4, :5, channel] = channel + 1
    masks[..., 5] = masks[..., :5].sum(-1) == 0
    save(root, fold, images, masks, organs)
    return images, masks


def save(root, fold, images, masks, organs):
    folders = [
        root / f"Fold {fold}" / object_type / f"fold{fold}" for object_type in ("images", "masks")
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    np.save(folders[0] / "images.npy", images)
    np.save(folders[0] / "types.npy", np.array(organs))
    np.save(folders[1] / "masks.npy", masks)


def test_patches_of_all_folds_with_their_kinds(tmp_path, rng):
    images, _ = write_fold(tmp_path, 1, ["Breast", "HeadNeck"], rng)
    write_fold(tmp_path, 3, ["Bile-duct"], rng)

    found = list(SOURCE.images(tmp_path))

    assert [image.name for image in found] == ["fold1_0000", "fold1_0001", "fold3_0000"]
    assert [image.region for image in found] == ["breast", "head neck", "bile duct"]
    assert {(image.split, image.mpp) for image in found} == {(None, 0.25)}
    annotated = found[1].read()
    assert annotated.image.dtype == np.uint8
    assert np.array_equal(annotated.image, images[1])
    assert [mask.label for mask in annotated.masks] == [
        f"head neck-nuclei-{object_type}" for object_type in OBJECT_TYPES
    ]
    for channel, mask in enumerate(annotated.masks):
        assert mask.mask.sum() == 20
        assert mask.mask[channel * 10, 0]
    assert (annotated.ignore, annotated.absent) == (None, ())


def test_kinds_that_are_not_there_are_absent(tmp_path, rng):
    images, masks = write_fold(tmp_path / "all", 1, ["Colon"], rng)
    masks[..., [0, 3]] = 0
    save(tmp_path / "few", 1, images, masks, ["Colon"])

    (image,) = SOURCE.images(tmp_path / "few")

    assert image.read().absent == ("colon-nuclei-neoplastic", "colon-nuclei-dead")


def test_a_kind_its_organ_never_has_is_ignored(tmp_path, rng):
    write_fold(tmp_path, 2, ["Prostate"], rng)

    (image,) = SOURCE.images(tmp_path)
    annotated = image.read()

    assert "prostate-nuclei-dead" not in SOURCE.info.labels
    assert [mask.label.rpartition("-")[2] for mask in annotated.masks] == [
        "neoplastic",
        "inflammatory",
        "connective",
        "epithelial",
    ]
    assert annotated.ignore.sum() == 20
    assert annotated.ignore[30, 0]


def test_labels_are_all_that_table_5_has_and_their_masks_add_up(shared):
    with (shared / "reference" / "pathseg_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = {
        f"{r['anatomical_region']}-{r['histological_structure']}-{r['object_type']}": int(
            r["masks"]
        )
        for r in rows
    }
    regions = set(ORGANS.values())
    published = {
        label
        for label in counts
        if label.split("-")[0] in regions
        and label.split("-")[1:] in [["nuclei", k] for k in OBJECT_TYPES]
    }

    assert set(SOURCE.info.labels) == published
    assert len(SOURCE.info.labels) == 86
    conic = 19332 - sum(
        counts[f"colon-nuclei-{object_type}"]
        for object_type in ("neutrophil", "lymphocyte", "plasma cells", "eosinophil")
    )  # its epithelial and connective nuclei, which share a label with PanNuke's
    assert sum(counts[label] for label in SOURCE.info.labels) - conic == SOURCE.info.masks


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    """The patches we have, put back into the form they were published in. With their counts."""
    folder = shared / "data"
    with (folder / "images.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "pannuke_exact"]
    with (folder / "labels.csv").open() as file:
        pixels = {
            (row["image"], row["label"]): int(row["pixels"])
            for row in csv.DictReader(file)
            if row["source"] == "pannuke_exact"
        }
    names = {organ.lower().replace("_", "-"): organ for organ in ORGANS}
    images, masks = [], []
    for row in rows:
        images.append(np.asarray(Image.open(folder / row["image"])).astype(float))
        types = np.asarray(Image.open(folder / row["mask"]))
        instances = np.asarray(Image.open(folder / row["instances"])).astype(float)
        channels = [np.where(types == value, instances, 0) for value in range(1, 6)]
        masks.append(np.stack([*channels, types == 0], -1))
    root = tmp_path_factory.mktemp("PanNuke")
    organs = [names[row["region"]] for row in rows]
    save(root, 2, np.stack(images), np.stack(masks), organs)
    return root, [row["image"] for row in rows], pixels


def test_real_patches_have_the_pixels_they_had(real):
    root, names, pixels = real
    found = {}
    for name, image in zip(names, SOURCE.images(root), strict=True):
        found |= {(name, mask.label): int(mask.mask.sum()) for mask in image.read().masks}

    assert found == pixels
    assert {label for _, label in found} <= set(SOURCE.info.labels)


def test_what_is_missing_is_told(tmp_path, rng):
    assert len(SOURCE.missing(tmp_path)) == 3
    write_fold(tmp_path, 1, ["Breast"], rng)
    (tmp_path / "Fold 1" / "masks" / "fold1" / "masks.npy").unlink()

    gaps = SOURCE.missing(tmp_path)

    assert "Fold 1/masks/fold1/masks.npy" in gaps
    assert "1 of 2656 patches in fold1" in gaps
    assert "Fold 2/images/fold2/types.npy" in gaps


def test_an_unknown_organ_is_refused_after_the_other_folds(tmp_path, rng):
    write_fold(tmp_path, 1, ["Toe"], rng)
    write_fold(tmp_path, 2, ["Skin"], rng)
    seen = []

    with pytest.raises(DataError, match=r"types\.npy names unknown organs \['Toe'\]"):
        seen.extend(image.name for image in SOURCE.images(tmp_path))
    images = SOURCE.images(tmp_path)
    assert next(images).name == "fold2_0000"
    assert any("Toe" in gap for gap in SOURCE.missing(tmp_path))


def test_broken_arrays_are_named(tmp_path, rng):
    write_fold(tmp_path, 1, ["Skin"], rng)
    images, masks = write_fold(tmp_path / "b", 2, ["Skin", "Skin"], rng)
    save(tmp_path / "short", 2, images, masks[:1], ["Skin", "Skin"])
    save(tmp_path / "dark", 3, images - 1, masks, ["Skin", "Skin"])
    path = tmp_path / "Fold 1" / "masks" / "fold1" / "masks.npy"
    path.write_bytes(path.read_bytes()[:1000])

    def read(root):
        return next(iter(SOURCE.images(root))).read()

    with pytest.raises(DataError, match=r"fold1/masks\.npy is truncated"):
        next(image for image in SOURCE.images(tmp_path) if image.name == "fold1_0000").read()
    with pytest.raises(DataError, match=r"fold2/masks\.npy is \(1, 256, 256, 6\), wanted \(2,"):
        read(tmp_path / "short")
    with pytest.raises(DataError, match=r"fold3/images\.npy has values outside"):
        read(tmp_path / "dark")
