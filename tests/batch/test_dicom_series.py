"""A DICOM slide is one slide, although it is a folder of files."""

from __future__ import annotations

import struct

import pytest

from xpath.batch.slides import find_slides


def element(group, number, kind, value=b"", length=None):
    long = kind in (b"SQ", b"OB", b"UT")
    head = struct.pack("<HH2s", group, number, kind)
    size = len(value) if length is None else length
    return head + (struct.pack("<HI", 0, size) if long else struct.pack("<H", size)) + value


def nested(series):
    """A sequence of marked length that holds an item of marked length, with a series of its own."""
    inner = element(0x0020, 0x000E, b"UI", series)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return element(0x0008, 0x1115, b"SQ", item + ends, length=0xFFFFFFFF)


def write(path, series, between=b""):
    meta = element(0x0002, 0x0001, b"OB", b"\0\1") + element(0x0002, 0x0010, b"UI", b"1.2.840\0")
    body = element(0x0008, 0x0060, b"CS", b"SM") + between
    path.write_bytes(
        bytes(128) + b"DICM" + meta + body + element(0x0020, 0x000D, b"UI", b"9.9\0")
        + element(0x0020, 0x000E, b"UI", series) + element(0x0028, 0x0010, b"US", b"\0\1")
    )  # fmt: skip


def test_the_files_of_a_series_are_one_slide(tmp_path, caplog):
    (tmp_path / "other").mkdir()
    write(tmp_path / "a.dcm", b"1.2.3\0")
    write(tmp_path / "b.DCM", b"1.2.3\0", nested(b"7.7.7\0"))
    write(tmp_path / "c.dcm", b"1.2.4\0", nested(b"1.2.3\0"))
    write(tmp_path / "other" / "d.dcm", b"1.2.3\0")  # OpenSlide looks in one folder
    (tmp_path / "e.svs").touch()

    assert [slide.slide_id for slide in find_slides(tmp_path)] == ["a", "c", "e", "d"]
    assert "1 more files of its DICOM series are the same slide, named a: b.DCM" in caplog.text
    assert [slide.slide_id for slide in find_slides(tmp_path / "b.DCM")] == ["b"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + bytes(50),
        bytes(128) + b"DICM" + nested(b"1\0")[:30],
        bytes(128) + b"DICM" + (nested(b"1\0")[:20]) * 4000,
        b"no DICOM" * 99,
    ],
)
def test_what_cannot_be_told_is_a_slide_of_its_own(tmp_path, content):
    for name in "ab":
        (tmp_path / f"{name}.dcm").write_bytes(content)

    assert [slide.slide_id for slide in find_slides(tmp_path)] == ["a", "b"]
