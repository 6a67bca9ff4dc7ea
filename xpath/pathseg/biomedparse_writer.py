"""Writes annotated images in the layout of BiomedParseData, which ``biomedparse_data`` reads.

Two things are added that other readers skip: ``SPLIT_ignore/`` holds masks of what is unknown,
named by ``ignore_file`` of the image, and ``absent`` of the image lists labels known not to be
there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import DataError, LabelError
from xpath.labels import Label, load_labels
from xpath.pathseg.image_files import write_png
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.pathseg.record import Annotated

__all__ = ["Entry", "PromptedImage", "write_biomedparse", "write_image", "write_index"]

Entry = dict[str, Any]
"""Entry of one image in an index: plain JSON, so that it can be kept while a folder is built."""

CATEGORY = {"supercategory": "object", "id": 15, "name": "histology structure"}
"""BiomedParseData's category of all pathology targets."""


class PromptedImage(NamedTuple):
    """An image to write."""

    name: str
    """Unique in the folder, fit for a file name."""
    region: str
    """Anatomical region, for the file name; the sentences follow the labels."""
    annotated: Annotated


def write_biomedparse(
    folder: Path,
    split: str,
    items: Iterable[PromptedImage],
    *,
    info: Mapping[str, object] | None = None,
) -> None:
    """Writes a split: pixels as they come, then the index. Only one image is held at a time.

    Args:
        folder: Gets ``SPLIT/``, ``SPLIT_mask/`` and ``SPLIT.json``; an index there is replaced.
        split: ``train`` or ``test``.
        items: The images with their masks.
        info: Goes into the index, e.g. source and licence.

    Raises:
        DataError: Two images of one name, or a name that is no file name.
        LabelError: A label that cannot be asked for.
        StoreError: The disk is full.
    """
    write_index(folder, split, (write_image(folder, split, item) for item in items), info=info)


def write_image(folder: Path, split: str, item: PromptedImage) -> Entry:
    """Writes an image and its masks, and returns its entry for ``write_index``.

    Raises:
        DataError: A name that is no file name.
        LabelError: A label that cannot be asked for.
        StoreError: The disk is full.
    """
    annotated = item.annotated
    stem = f"{_safe(item.name)}_pathology_{_safe(item.region).replace(' ', '+')}"
    masks = [(_label(label), mask) for label, mask in annotated.masks]
    _make_folders(folder, split)
    height, width = annotated.image.shape[:2]
    entry: Entry = {"file_name": f"{stem}.png", "height": height, "width": width, "masks": []}
    for label, mask in masks:
        name = f"{stem}_{_target(label)}.png"
        write_png(folder / f"{split}_mask" / name, mask)
        entry["masks"].append({
            "label": label.id,
            "mask_file": name,
            "area": int(np.count_nonzero(mask)),
            "bbox": _box(mask),
        })
    if annotated.ignore is not None:
        entry["ignore_file"] = f"{stem}.png"
        (folder / f"{split}_ignore").mkdir(exist_ok=True)
        write_png(folder / f"{split}_ignore" / entry["ignore_file"], annotated.ignore)
    if annotated.absent:
        entry["absent"] = list(annotated.absent)
    write_png(folder / split / entry["file_name"], annotated.image)
    return entry


def write_index(
    folder: Path, split: str, entries: Iterable[Entry], *, info: Mapping[str, object] | None = None
) -> int:
    """Writes ``SPLIT.json``, whole or not at all, and returns the number of its annotations.

    Raises:
        DataError: Two images of one file name.
    """
    _make_folders(folder, split)
    images, annotations = list[Entry](), list[Entry]()
    seen = set[str]()
    for entry in entries:
        if entry["file_name"] in seen:
            raise DataError(
                f"two images would be {folder / split / entry['file_name']}; rename one"
            )
        seen.add(entry["file_name"])
        images.append({key: entry[key] for key in entry if key != "masks"} | {"id": len(images)})
        annotations.extend(_annotations(entry, split, len(images) - 1, len(annotations)))
    index = {
        "info": dict(info or {}),
        "licenses": [],
        "images": images,
        "categories": [CATEGORY],
        "annotations": annotations,
    }
    with atomic(folder / f"{split}.json") as draft, draft.open("w", encoding="utf-8") as file:
        json.dump(index, file, indent=0, ensure_ascii=False)
    return len(annotations)


def _make_folders(folder: Path, split: str) -> None:
    for part in (split, f"{split}_mask"):
        (folder / part).mkdir(parents=True, exist_ok=True)


def _annotations(entry: Entry, split: str, image: int, first: int) -> Iterator[Entry]:
    for number, mask in enumerate(entry["masks"], start=first):
        prompt = _label(mask["label"]).prompt
        yield {
            "id": number,
            "ann_id": number,
            "ref_id": number,
            "image_id": image,
            "category_id": CATEGORY["id"],
            "iscrowd": 0,
            "file_name": entry["file_name"],
            "split": split,
            "mask_file": mask["mask_file"],
            "area": mask["area"],
            "bbox": mask["bbox"],
            "sentences": [{"raw": prompt, "sent": prompt.lower(), "sent_id": number}],
            "sent_ids": [number],
        }


def _label(label_id: str) -> Label:
    """A label, published or not."""
    label = load_labels().parse(label_id, allow_new=True)
    if label.id != label_id or set("_/\\+") & set(label_id):
        raise LabelError(f"{label_id!r} is no label id; write it as `xpath labels` does")
    return label


def _target(label: Label) -> str:
    """``tissue-level+tumor``: with site and modality of the name it makes the paper's sentence."""
    return f"{label.structure}-level {label.object_type}".replace(" ", "+")


def _box(mask: NDArray[np.bool_]) -> list[int]:
    """Row, column, height, width of a mask's box, in BiomedParseData's order, not COCO's."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return [0, 0, 0, 0]
    top, left = int(rows[0]), int(columns[0])
    return [top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1]


def _safe(name: str) -> str:
    if not name or set('/\\:*?"<>|\0') & set(name) or name.startswith("."):
        raise DataError(f"{name!r} is no file name; leave out slashes, colons and leading dots")
    return name
