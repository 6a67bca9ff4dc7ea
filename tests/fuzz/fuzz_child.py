"""A child that feeds damaged files to one reader: ``fuzz_child.py TARGET SEED COUNT FOLDER``.

Prints one line of JSON: how many were read, refused by name, and what else was raised. It has
limits of its own: a case of more than 20 s ends it, and so does more memory than it may have.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import resource
import shutil
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr

from xpath.errors import DataError, XPathError

SECONDS = 20
ADDRESS_SPACE = 12 * 2**30
"""Torch alone takes some; what is really used is measured, and must stay below 2 GiB."""
WORDS = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
]
ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 1e308, -1e-308, float("nan"), float("inf"),
    "", "x", "NaN", "Infinity", "../../etc/passwd", "\0", "é" * 50, [], {}, [[]], [None], {"": {}},
    [[[0, 0], [1, 1]]], "9" * 400, "[" * 50,
]  # fmt: skip


def damaged_bytes(content, rng):
    """Flipped, cut, repeated or overwritten bytes, mostly at the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(int(rng.integers(0, 4))):  # none at all must be read
        if not data:
            return b""
        reach = len(data) if rng.random() < 0.3 else min(len(data), 1024)
        at = int(rng.integers(reach))
        match int(rng.choice(5, p=[0.3, 0.3, 0.3, 0.05, 0.05])):
            case 0:
                data[at] = int(rng.integers(256))
            case 1:
                data[at] ^= 1 << int(rng.integers(8))
            case 2:
                width = int(rng.choice([2, 4, 8]))
                word = int(WORDS[rng.integers(len(WORDS))]) % (1 << 8 * width)
                data[at : at + width] = word.to_bytes(width, "little")
            case 3:
                del data[at : at + int(rng.integers(1, 64))]
            case 4:
                data[at:at] = data[: int(rng.integers(1, 64))]
    return bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.1 else data)


def damaged_json(content, rng):
    """A tree with some of its values replaced, removed or moved."""
    tree = copy.deepcopy(content)
    for _ in range(int(rng.integers(0, 4))):
        holders = list(_holders(tree))
        holder = holders[int(rng.integers(len(holders)))]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = keys[int(rng.integers(len(keys)))]
        match int(rng.integers(4)):
            case 0:
                del holder[key]
            case 1:
                holder[key] = copy.deepcopy(holders[int(rng.integers(len(holders)))])
            case _:
                holder[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    return json.dumps(tree).encode()


def _holders(tree):
    if isinstance(tree, dict | list):
        yield tree
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _holders(each)


def slides(folder, rng):
    from xpath.wsi.probe import probe
    from xpath.wsi.slide import Slide

    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    good = folder / "good.tiff"
    about = "Aperio Image Library\r\n256x256|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(good) as file:
        for step in (1, 2):
            part = pixels[::step, ::step]
            file.write(part, tile=(64, 64), photometric="rgb", description=about)
    content, path = good.read_bytes(), folder / "a.svs"

    def case():
        path.write_bytes(damaged_bytes(content, rng))
        probe(path)
        with Slide.open(path) as slide:
            slide.thumbnail(64)

    return case


def hdf5(folder, rng):
    from xpath.store.foreign_features import read_patch_features

    contents = []
    for name in ("features", "feats"):
        with h5py.File(folder / "good.h5", "w") as file:
            values = np.ones((5, 4), np.float32)
            file.create_dataset(name, data=values, chunks=(5, 4), compression="gzip")
            coords = file.create_dataset("coords", data=np.arange(10).reshape(5, 2))
            coords.attrs["patch_size_level0"] = 256
            file.attrs["unit"] = "um"
            file.attrs["schema"] = "xpath.features/1"
        contents.append((folder / "good.h5").read_bytes())
    path = folder / "a.h5"

    def case():
        path.write_bytes(damaged_bytes(contents[int(rng.integers(2))], rng))
        read_patch_features(path)

    return case


def zarr_metadata(folder, rng):
    from xpath.store.foreign_features import read_patch_features
    from xpath.store.masks import open_masks

    root = zarr.open_group(folder / "good.zarr", mode="w")
    root.attrs["tile_spec"] = {"tiles": {"height": 256, "base_downsample": 4.0}}
    table = root.create_group("tables").create_group("uni_tiles")
    table.attrs["region"] = "tiles"
    table.create_array("X", data=np.ones((5, 4), np.float32))
    metadata = sorted((folder / "good.zarr").rglob("zarr.json"))
    path = folder / "a.zarr"

    def case():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(folder / "good.zarr", path)
        chosen = metadata[int(rng.integers(len(metadata)))]
        known = json.loads(chosen.read_text())
        if rng.random() < 0.8:
            content = damaged_json(known, rng)
        else:
            content = damaged_bytes(chosen.read_bytes(), rng)
        (path / chosen.relative_to(folder / "good.zarr")).write_bytes(content)
        with suppress(XPathError):
            open_masks(path)
        read_patch_features(path)

    return case


def safetensors(folder, rng):
    from xpath import AttentionMIL, load_classifier

    AttentionMIL(4, ("a", "b"), hidden=2).save_pretrained(folder / "good")
    path = folder / "model"

    def case():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(folder / "good", path)
        name = "model.safetensors" if rng.random() < 0.7 else "config.json"
        (path / name).write_bytes(damaged_bytes((path / name).read_bytes(), rng))
        load_classifier(path)

    return case


def geojson(folder, rng):
    from xpath.pathseg.rasterise import read_geojson
    from xpath.store.geojson import read_areas, union_area

    ring = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    polygon = {"type": "Polygon", "coordinates": [ring, [[2, 2], [2, 4], [4, 4], [2, 2]]]}
    leaf = {
        "type": "Feature", "id": "x", "geometry": polygon, "nucleusGeometry": polygon,
        "properties": {
            "objectType": "cell", "classification": {"names": ["A", "B"], "color": [1, 2, 3]},
            "measurements": {"a": 1, "b": "Infinity"}, "name": "n",
        },
    }  # fmt: skip
    parts = {"type": "GeometryCollection", "geometries": [polygon, {"type": "Point"}]}
    top = {"type": "Feature", "geometry": parts, "properties": {"childObjects": [leaf]}}
    tree = {"type": "FeatureCollection", "features": [top, leaf]}
    path = folder / "a.geojson"

    def case():
        text = json.dumps(tree).encode()
        path.write_bytes(
            damaged_json(tree, rng) if rng.random() < 0.8 else damaged_bytes(text, rng)
        )
        with suppress(XPathError):
            read_geojson(path)
        union_area(read_areas(path))

    return case


def tables(folder, rng):
    from xpath.batch.slides import read_labels
    from xpath.store.clam_tables import read_clam_split
    from xpath.store.tables import read_table

    text = (
        b"slide_id,label,case_id,site,mpp,train,val,test\r\n"
        b'a.svs,IDC,p1,s,0.25,a,b,c\r\nb,NA,,t,"0,5",d,,\r\n\'=c,ILC,p3,s,1,e,,\r\n'
    )
    path = folder / "a.csv"

    def case():
        path.write_bytes(damaged_bytes(text, rng))
        for read in (read_clam_split, read_table):
            with suppress(XPathError):
                read(path)
        read_labels(path)

    return case


def pictures(folder, rng):
    from PIL import Image

    from xpath.pathseg.image_files import image_size
    from xpath.pathseg.reading import read_image
    from xpath.store.pixel_types import is_picture

    pixels = np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)
    turned = Image.Exif()
    turned[274] = 6
    for name in ("a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.jp2"):
        Image.fromarray(pixels).save(folder / name, **({"exif": turned} if "jpg" in name else {}))
    deep = pixels.astype(np.uint16) * 257
    tifffile.imwrite(folder / "b.tif", deep, photometric="rgb", compression="zlib")
    tifffile.imwrite(folder / "c.tif", np.stack([pixels, pixels]), photometric="rgb")
    contents = [path.read_bytes() for path in sorted(folder.glob("[abc].*"))]
    path = folder / "picture"

    def case():
        path.write_bytes(damaged_bytes(contents[int(rng.integers(len(contents)))], rng))
        is_picture(path)
        with suppress(XPathError):
            image_size(path)
        read_image(path)

    return case


def dicom(folder, rng):
    from xpath.batch.slides import find_slides

    head = bytes(128) + b"DICM\2\0\x10\0UI\4\0" + b"1.2\0" + b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff"
    item = b"\xfe\xff\0\xe0\xff\xff\xff\xff\x20\0\x0e\0UI\2\x009\0\xfe\xff\x0d\xe0\0\0\0\0"
    end = b"\xfe\xff\xdd\xe0\0\0\0\0\x20\0\x0e\0UI\4\x001.3\0"
    (folder / "a.dcm").write_bytes(head + item + end)

    def case():
        (folder / "b.dcm").write_bytes(damaged_bytes(head + item + end, rng))
        if len(find_slides(folder)) == 2:
            raise DataError("another series")

    return case


def run_json(folder, rng):
    from xpath.batch.slides import SlideEntry
    from xpath.study.config import StudyConfig
    from xpath.study.study import new_study, open_study

    new_study(folder / "run", StudyConfig(), [SlideEntry(slide_id="a", path=folder / "a.svs")])
    path = folder / "run" / "run.json"
    text = path.read_bytes()
    tree = json.loads(text)

    def case():
        path.write_bytes(
            damaged_json(tree, rng) if rng.random() < 0.8 else damaged_bytes(text, rng)
        )
        open_study(folder / "run")

    return case


TARGETS = {
    "slides": slides,
    "hdf5": hdf5,
    "zarr": zarr_metadata,
    "safetensors": safetensors,
    "geojson": geojson,
    "tables": tables,
    "run.json": run_json,
    "pictures": pictures,
    "dicom": dicom,
}


def main(target, seed, count, folder):
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    rng = np.random.default_rng(seed)
    case = TARGETS[target](folder, rng)
    outcome, raw = Counter(), []
    for number in range(count):
        sys.stderr.write(f"{target}, seed {seed}, case {number}\n")  # the last one, if it ends us
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            case()
            outcome["read"] += 1
        except XPathError:
            outcome["refused"] += 1
        except Exception as error:  # noqa: BLE001 - what it is here for
            raw.append(f"case {number}: {type(error).__name__}: {str(error)[:300]}")
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps({**outcome, "raw": raw, "memory": most_memory()}) + "\n")


def most_memory():
    """Bytes this process has held at most. Its ``ru_maxrss`` begins with that of its parent."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
