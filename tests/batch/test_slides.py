"""Slides from folders and tables, with words for what is wrong."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from xpath.batch.slides import (
    SlideEntry,
    SlideLabel,
    find_slides,
    read_labels,
    with_labels,
)
from xpath.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ["b.svs", "a.NDPI", "deep/c.ome.tif", "note.txt", "._b.svs", ".trash/d.svs"]:
        path = tmp_path / "slides" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "slides" / "c.mrxs").mkdir()  # a folder of that name is no slide
    return tmp_path / "slides"


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv", encoding="utf-8"):
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return write


def test_slides_of_a_folder_by_suffix(folder):
    paths = {slide.slide_id: slide.path for slide in find_slides(folder)}

    assert paths == {
        "a": folder / "a.NDPI",
        "b": folder / "b.svs",
        "c": folder / "deep" / "c.ome.tif",
    }


def test_files_are_taken_whatever_their_suffix_and_once(folder):
    slides = find_slides([folder / "note.txt", folder, folder / "b.svs"])

    assert [slide.slide_id for slide in slides] == ["note", "a", "b", "c"]


def test_links_are_followed_once_and_a_dangling_one_is_a_slide_all_the_same(folder, tmp_path):
    """Folders of links are how others share slides, and a drive may be gone."""
    away = tmp_path / "away"
    away.mkdir()
    (away / "d.svs").touch()
    (away / "back").symlink_to(folder)
    (folder / "linked").symlink_to(away)
    (folder / "e.svs").symlink_to(tmp_path / "gone.svs")
    (folder / "self.svs").symlink_to(folder / "self.svs")
    (folder / "f.svs").mkdir()

    assert {slide.slide_id for slide in find_slides(folder)} == {"a", "b", "c", "d", "e", "self"}


def test_a_folder_nobody_may_read_is_told(folder, caplog, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="no slides found"):
        find_slides(folder)
    assert f"{folder} is not searched for slides: Permission denied" in caplog.text


def test_all_names_that_no_folder_can_have_are_told_at_once(folder):
    for name in ("a?", "CON"):
        (folder / f"{name}.svs").touch()

    with pytest.raises(DataError, match=r"named 'CON'.*named 'a\?'"):
        find_slides(folder)


def test_slides_of_one_name_are_refused(folder):
    (folder / "deep" / "b.tiff").touch()

    with pytest.raises(DataError, match=r"b\.svs and .*b\.tiff are both named 'b'.*rename"):
        find_slides(folder)


def test_no_slides_is_an_error(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no slides found.*\.svs"):
        find_slides([tmp_path / "empty"])
    with pytest.raises(DataError, match="does not exist"):
        find_slides([folder / "typo.svs"])


def test_a_full_table(write, tmp_path):
    path = write(
        "slide_id, path ,label,patient,mpp,other\n"
        "007,slides/b.svs,ILC,P1,0.25,x\n"
        '"x, y",/data/a.ndpi,,,,\n'
    )

    assert read_labels(path) == {
        "007": SlideLabel(label="ILC", patient="P1", site="", mpp=0.25),
        "x, y": SlideLabel(label="", patient="", site="", mpp=None),
    }


def test_a_table_of_clam(write):
    path = write("case_id,slide_id,label\npatient-1,b,tumor\npatient-2,c,normal\n")

    row = read_labels(path)["b"]
    assert (row.patient, row.label) == ("patient-1", "tumor")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(write, encoding, comma):
    path = write("slide_id,label\r\na,Lobulär\r\n".replace(",", comma), encoding=encoding)

    assert read_labels(path)["a"].label == "Lobulär"


def test_names_of_files_and_of_columns_in_capitals_are_understood(write):
    path = write("Slide_ID,Label\nTCGA-A1-DX1.0f3a.svs,IDC\nb.OME.TIF,ILC\nTCGA-A2-DX1.9c,IDC\n")

    assert {name: row.label for name, row in read_labels(path).items()} == {
        "TCGA-A1-DX1.0f3a": "IDC",
        "b": "ILC",
        "TCGA-A2-DX1.9c": "IDC",
    }


def test_labels_without_a_slide_are_named(folder, write, caplog):
    with_labels(find_slides(folder), read_labels(write("slide_id,label\na,x\nb,x\nc,y\nz,y\n")))

    assert "1 of 4 labels are of slides that are not there: z" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,label\na,b\n", "columns slide_id.*slide, label and 1 rows"),
        ("slide_id,label\n", "0 rows"),
        ("", "needs the columns"),
        ("slide_id,label\na,x\na,y\n", r"\['a'\]"),
        ("slide_id,label\na,x\n ,y\n", r"lines \[3\]"),
        ("slide_id,label,mpp\na,x,40x\n", "mpp of a .* got '40x'"),
        ("slide_id,label,mpp\na,x,-1\n", "often 0.25"),
        ("slide_id,label,mpp\na,x,0\n", "often 0.25"),
        ("slide_id,label,mpp\na,x,inf\n", "often 0.25"),
        ("slide_id,label,Label\na,x,y\n", "several columns named label"),
        ("slide_id,label\na,IDC, NOS\n", "3 cells in the row of 'a', but 2 columns"),
        ('slide_id,label\n"a,x\nb,y\n', "cannot be read"),
        ("PATIENT,FILENAME\np,a.h5\n", "name FILENAME slide_id"),
        ("PK\x03\x04", "workbook of Excel"),
        ("slide_id,label,mpp\na,x,0_25\n", "mpp of a .* got '0_25'"),
    ],
)
def test_wrong_tables_are_refused(write, text, words):
    with pytest.raises(DataError, match=words):
        read_labels(write(text))


def test_tables_that_cannot_be_read(write, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "nothing.csv")
    for encoding in ("cp1252", "latin-1", "cp932"):
        with pytest.raises(DataError, match=r"line 2 has letters that are not UTF-8, near.*iconv"):
            read_labels(write("slide_id,label\na,\xb4\n", encoding=encoding))
    with pytest.raises(DataError, match="slide_id, label and"):
        read_labels(write("slide_id\na\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_is_read_in_every_form(write, encoding):
    labels = read_labels(write("slide_id,label\nMüller,Lobulär\n", encoding=encoding))

    assert {name: row.label for name, row in labels.items()} == {"Müller": "Lobulär"}


@pytest.mark.parametrize("text", ["sep=;\nslide_id;label\na;x\n", "slide_id|label\na|x\n"])
def test_cells_are_separated_as_spreadsheets_do(write, text):
    assert read_labels(write(text))["a"].label == "x"


@pytest.mark.parametrize("name", ["0f3a-uuid/a.svs", "C:\\slides\\a.svs", "/data/x/a.h5"])
def test_folders_are_no_part_of_a_name(write, name):
    assert list(read_labels(write(f"slide_id,label\n{name},x\n"))) == ["a"]


def test_two_rows_that_mean_one_slide_are_refused(tmp_path, write):
    labels = read_labels(write("slide_id,label\n108,x\n108.0,y\n"))

    with pytest.raises(DataError, match=r"'108' and '108\.0' both mean '108'"):
        with_labels([SlideEntry(slide_id="108", path=tmp_path / "108.svs")], labels)


def test_labels_are_added_by_name(folder, write):
    labels = read_labels(write("slide_id,label,case_id,mpp\nb,ILC,P1,0.5\nz,IDC,P2,\n"))
    slides = {slide.slide_id: slide for slide in with_labels(find_slides(folder), labels)}

    assert (slides["b"].label, slides["b"].patient, slides["b"].mpp) == ("ILC", "P1", 0.5)
    assert slides["a"].label == ""
    with pytest.raises(DataError, match="none of the 1 slides"):
        with_labels([slides["a"]], labels)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".a",
        "a/b",
        "a\\b",
        "a\n",
        "a.",
        "C:a",
        "x" * 201,
        "a?",
        "a*",
        "a|b",
        'a"',
        "<a>",
        "CON",
        "nul",
        "com1.x",
        "a\udcff",  # of bytes that are no UTF-8
    ],
)
def test_names_that_leave_the_run_folder_are_refused(name):
    with pytest.raises(DataError, match=r"\('a\.svs'\), because .* folder of that name; rename"):
        SlideEntry(slide_id=name, path=Path("a.svs"))


def test_absurd_resolutions_are_refused():
    for mpp in (0.0, -0.25, float("nan"), float("inf")):
        with pytest.raises(DataError, match="mpp"):
            SlideEntry(slide_id="a", path=Path("a.svs"), mpp=mpp)


def test_labels_of_an_earlier_table_are_dropped(folder, write, caplog):
    first = with_labels(
        find_slides(folder), read_labels(write("slide_id,label,patient\na,x,p\nb,x,p\n"))
    )

    second = with_labels(first, read_labels(write("slide_id,label\na,y\nbb,y\n")))

    assert {slide.slide_id: (slide.label, slide.patient) for slide in second} == {
        "a": ("y", ""),
        "b": ("", ""),
        "c": ("", ""),
    }
    assert "2 of 3 slides have no label: b, c" in caplog.text


GAPS = [
    "",
    "NA",
    "N/A",
    "nan",
    "NaN",
    "None",
    "null",
    "-",
    "<NA>",
    "n.a.",
    "#N/A",
    "NULL",
    "\u2013",
    "\u2212",
    "[Not Available]",
    "not reported",
    ".",
    "?",
    "#REF!",
]


@pytest.mark.parametrize("gap", GAPS)
def test_words_for_a_gap_are_no_class_no_patient_and_no_resolution(write, gap, caplog):
    path = write(f"slide_id,label,patient,site,mpp\na,x,p,s,0.5\nb,{gap},{gap},{gap},{gap}\n")

    labels = read_labels(path)

    assert labels["a"] == SlideLabel(label="x", patient="p", site="s", mpp=0.5)
    assert labels["b"] == SlideLabel(label="", patient="", site="", mpp=None)
    assert "1 of 2 slides have no label" in caplog.text
    if gap:
        assert f"1 of 2 slides have no label ({gap} 1 times)" in caplog.text
        assert f"without a patient ({gap} 1 times)" in caplog.text


def test_a_class_may_be_called_na(write):
    labels = read_labels(write("slide_id,label,patient\na,NA,NA\nb,x,\n"), keep_na=True)

    assert [(row.label, row.patient) for row in labels.values()] == [("NA", ""), ("x", "")]


def test_a_decimal_comma_is_read(write):
    assert read_labels(write("slide_id;label;mpp\na;x;0,25\n"))["a"].mpp == 0.25


@pytest.mark.parametrize("suffix", [".svs", ".SVS", ".ome.tif", ".h5", ".pt", ".svs.h5", ".zarr"])
def test_suffixes_of_slides_and_features_are_no_part_of_a_name(write, suffix):
    assert list(read_labels(write(f"slide_id,label\na.b{suffix},x\n"))) == ["a.b"]


def test_numbers_as_pandas_writes_them_are_found_where_unique(tmp_path, write):
    slides = [SlideEntry(slide_id=name, path=tmp_path / name) for name in ("108", "7", "07")]

    labelled = with_labels(slides, read_labels(write("slide_id,label\n108.0,x\n07.0,y\n7,z\n")))

    assert [slide.label for slide in labelled] == ["x", "z", ""]


def test_rows_of_commas_are_blank_rows(write):
    assert list(read_labels(write("slide_id,label\na,x\n,\nb,y\n"))) == ["a", "b"]


def test_a_name_that_leads_elsewhere_is_no_name():
    with pytest.raises(DataError, match="cannot be named"):
        SlideEntry(slide_id="../a", path=Path("a.svs"))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("IDC", "idc", True),
        ("IDC NOS", "IDC  NOS", True),
        ("IDC NOS", "IDCNOS", True),
        ("IDC", "ID\u200bC", True),
        ("1", "1.0", True),
        ("HER2", "HER2+", False),
        ("1", "01", False),
        ("A-B", "A_B", False),
    ],
)
@pytest.mark.parametrize("column", ["label", "patient", "site"])
def test_names_that_are_nearly_the_same_are_told(write, caplog, column, one, other, told):
    cells = {"label": "xy", "patient": "pq", "site": "st"} | {column: (one, other)}
    rows = "".join(f"{i},{','.join(cells[c][i] for c in cells)}\n" for i in range(2))

    labels = read_labels(write(f"slide_id,{','.join(cells)}\n{rows}"))

    assert [getattr(row, column) for row in labels.values()] == [one, other]
    assert (f"column {column} has names that are nearly the same" in caplog.text) == told
    assert (f"{one!r}, {other!r}" in caplog.text) == told


def test_blanks_around_a_class_are_no_part_of_it(write, caplog):
    labels = read_labels(write("slide_id,label\na,IDC \nb,\u00a0IDC\nc,IDC\n"))

    assert {row.label for row in labels.values()} == {"IDC"}
    assert not caplog.records


def test_accents_are_one_name_however_they_are_written(tmp_path, write):
    """macOS writes the vowel and its dots apart in names of files."""
    (tmp_path / "Mu\u0308ller.svs").touch()
    slides = find_slides(tmp_path / "Mu\u0308ller.svs")

    (slide,) = with_labels(slides, read_labels(write("slide_id,label\nM\u00fcller,x\n")))

    assert (slide.slide_id, slide.label) == ("M\u00fcller", "x")
    assert slide.path.exists()


@pytest.mark.parametrize(
    ("named", "slide"),
    [
        ("CASE-1", "case-1"),
        ("case 1", "case_1"),
        ("7", "007"),
        ("1.0E+5", "100000"),
        ("'a'", "a"),
        ("a.svs.gz", "a.SVS.GZ"),
    ],
)
def test_names_that_are_nearly_those_of_slides_are_told(write, tmp_path, caplog, named, slide):
    slides = [SlideEntry(slide_id=name, path=tmp_path / "x.svs") for name in (slide, "other")]
    hint = f"nearly the same are {named!r} and {slide!r}"

    with pytest.raises(DataError, match=re.escape(hint)):
        with_labels(slides, read_labels(write(f"slide_id,label\n{named},x\n")))
    labelled = with_labels(slides, read_labels(write(f"slide_id,label\n{named},x\nother,y\n")))

    assert [one.label for one in labelled] == ["", "y"]
    assert hint in caplog.text


def test_marks_that_are_not_seen_are_no_part_of_a_name(write, tmp_path):
    slides = [SlideEntry(slide_id=name, path=tmp_path / name) for name in "ab"]
    table = write("\ufeff\ufeffslide_id,label\na\u200b,x\n\u202bb,y\n")

    assert [one.label for one in with_labels(slides, read_labels(table))] == ["x", "y"]


def test_slides_whose_folders_are_one_on_other_systems_are_refused(folder):
    (folder / "deep" / "B.tiff").touch()

    with pytest.raises(DataError, match="both named 'B' but for capitals"):
        find_slides(folder)


@pytest.mark.parametrize("suffix", [".czi", ".qptiff", ".QPTIFF", ".mrxs", ".dcm", ".bif"])
def test_slides_of_every_scanner_are_found_in_folders(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()

    assert [slide.slide_id for slide in find_slides(tmp_path)] == ["a"]


def test_a_packed_table_is_to_be_unpacked(tmp_path):
    (tmp_path / "l.csv").write_bytes(gzip.compress(b"slide_id,label\na,x\n"))

    with pytest.raises(DataError, match="packed; unpack it"):
        read_labels(tmp_path / "l.csv")


@pytest.mark.parametrize(
    "text",
    [
        "Slide ID,Label\na,x\n",
        "slideId;LABEL\na;x\n",
        "\r\n,\r\nslide_id,label\r\na,x\r\n",
        '"sep=;"\nslide_id;label\na;x\n',
        'slide_id,label,"grade; stage; margin; nodes"\na,x,1\n',
        '"slide_id";"label";"a,b,c,d"\n"a";"x";""\n',
        "slide_id,label\na,x\n\x1a",
    ],
)
def test_columns_are_found_however_a_spreadsheet_wrote_them(write, text):
    assert {name: row.label for name, row in read_labels(write(text)).items()} == {"a": "x"}


@pytest.mark.parametrize("encoding", ["utf-32", "utf-16", "utf-8-sig"])
def test_tables_of_every_unicode_are_read(tmp_path, encoding):
    (tmp_path / "l.csv").write_bytes("slide_id,label\na,M\u00fc\n".encode(encoding))

    assert read_labels(tmp_path / "l.csv")["a"].label == "M\u00fc"


@pytest.mark.parametrize("column", ["patient_id", "Patient ID", "PatientID", "Case ID", "case_id"])
def test_patients_are_found_by_every_spelling(write, column):
    """Else slides of one patient would train and test, in silence."""
    labels = read_labels(write(f"slide_id,label,{column}\na,x,p1\nb,y,p1\n"))

    assert [row.patient for row in labels.values()] == ["p1", "p1"]


def test_a_column_that_may_name_patients_is_told(write, caplog):
    read_labels(write("slide_id,label,subject_no,patient\na,x,1,p\n"))
    assert not caplog.records

    assert read_labels(write("slide_id,label,subject_no\na,x,1\n"))["a"].patient == ""
    assert "the column subject_no is not read" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"slide_id,label\na,x\nb\0\0\0", "bytes of zero"),
        (b"slide_id,label\n1,a,x\n2,b,y\n", r"row\.names = FALSE"),
        (b"slide_id,label\n1,a,x\nb,y\n", "in quotes"),
        ("slide_id,label\na,M\u00fcller\n".encode("cp1252"), r"line 2 .*near b'a,M\\xfcller'"),
        (b"slide_id,Slide ID,label\na,b,x\n", ""),
        (b"Slide-ID,Slide ID,label\na,b,x\n", "needs the columns slide_id"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path, content, message):
    (tmp_path / "l.csv").write_bytes(content)

    if not message:  # the exact name wins
        assert set(read_labels(tmp_path / "l.csv")) == {"a"}
        return
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "l.csv")
