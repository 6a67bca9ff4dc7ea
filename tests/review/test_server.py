import io
import json
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from xpath.errors import ConfigError
from xpath.review.access import Access
from xpath.wsi.slide import Slide

TUMOR = {
    "x": 100,
    "y": 50,
    "object_class": 0,
    "verdict": "agree",
    "reviewer": "R. V.",
    "comment": "",
}
TOKEN = "a-token-that-nobody-guesses"


def image_of(body):
    return np.asarray(Image.open(io.BytesIO(body)))


def test_the_page_and_all_it_names_are_there(readers):
    status, headers, page = readers.ask("/")

    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name in ("review.css", "viewer.js", "review.js"):
        assert name.encode() in page
        assert readers.ask(f"/{name}")[0] == 200
    assert b"http://" not in page and b"https://" not in page


def test_the_run_lists_its_slides(readers):
    _, run = readers.json("/api/run")

    assert [(s["id"], s["explained"]) for s in run["slides"]] == [
        ("one", True), ("two words", True), ("third", False),
    ]  # fmt: skip


def test_a_slide_with_a_blank_in_its_name(readers):
    status, slide = readers.json("/api/slide/two%20words")

    assert (status, slide["width"], slide["last"], slide["missing"]) == (200, 512, 9, "")
    assert readers.ask("/tile/two%20words/9/0_0.jpg")[0] == 200


def test_a_slide_that_was_not_explained_says_what_to_do(readers):
    status, said = readers.json("/api/slide/third")

    assert status == 409
    assert "xpath explain" in said["error"]


def test_tiles_are_the_slide_at_full_resolution(readers, made):
    _, headers, body = readers.ask("/tile/one/9/1_0.jpg")

    tile = image_of(body).astype(float)
    with Slide.open(made / "slides" / "one.tiff") as slide:
        wanted = slide.read_level(0)[:256, 256:512].astype(float)
    assert headers["Content-Type"] == "image/jpeg"
    assert tile.shape == (256, 256, 3)
    assert np.abs(tile - wanted).max() < 12  # JPEG


@pytest.mark.parametrize("layer", ["objects", "patch_map", "object_map", "local_map"])
def test_layers_are_drawn_on_demand(readers, layer):
    status, _, body = readers.ask(f"/layer/one/{layer}/9/0_0.png?object_classes=0")

    picture = image_of(body)
    assert (status, picture.shape) == (200, (256, 256, 4))
    assert picture[60, 80, 3] > 0  # in the tumour
    if layer != "patch_map":
        assert picture[20, 30, 3] == 0


@pytest.mark.parametrize(
    "path",
    [
        "/tile/one/99/0_0.jpg",
        "/tile/one/9/4_0.jpg",
        "/tile/one/9/9999999_0.jpg",
        "/tile/one/9/99999999999999999999_0.jpg",
        "/tile/one/9/-1_0.jpg",
        "/tile/one/9/0_0.jpg.png",
        "/tile/none/9/0_0.jpg",
        "/layer/one/objects/30/0_0.png",
        "/layer/one/nothing/9/0_0.png",
        "/layer/one/objects/9/0_0.png?object_classes=3",
        "/api/slide/one/at?x=1",
        "/api/slide/one/at?x=nan&y=1",
        "/api/slide/one/at?x=1&y=1e999",
        "/layer/one/objects/9/0_0.png?object_classes=" + "1," * 5000,
        "/%ff",
        "//[",
    ],
)
def test_what_is_not_there_or_too_large_is_refused(readers, path):
    status, said = readers.json(path)

    assert status in (400, 404)
    assert said["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.csv",
        "/run/../outside.csv",
        "/run/%2e%2e/outside.csv",
        "/run/tables/%2e%2e/%2e%2e/outside.csv",
        "/run/tables/..%2f..%2foutside.csv",
        "/run/tables/..%5c..%5coutside.csv",
        "/run//etc/passwd",
        "/run/%2fetc%2fpasswd",
        "/run/tables/link.csv",
        "/run/tables/folder/outside.csv",
        "/run/figures/outside.csv",
        "/run/run.json",
        "/run/review/findings.sqlite",
        "/run/tables/findings.csv%00",
        "/run/tables/.hidden.csv",
        "/run/tables/notes.txt",
        "/run/slides/one/masks.zarr/zarr.json",
        "/api/slide/..%2f..%2foutside",
        "/findings/..%2foutside.geojson",
    ],
)
def test_nothing_outside_the_run_can_be_read(client, run_folder, path):
    secret = b"a secret of this machine"
    outside = run_folder.root.parent / "outside.csv"
    outside.write_bytes(secret)
    tables = run_folder.root / "tables"
    tables.mkdir()
    (tables / ".hidden.csv").write_bytes(secret)
    (tables / "notes.txt").write_bytes(secret)
    (tables / "link.csv").symlink_to(outside)
    (tables / "folder").symlink_to(run_folder.root.parent)
    (run_folder.root / "figures").symlink_to(run_folder.root.parent)

    status, _, body = client.ask(path)

    assert status == 404
    assert secret not in body
    assert b"root:" not in body


def test_tables_and_reports_of_the_run_can_be_read_but_not_act(client, run_folder):
    page = run_folder.root / "slides" / "one" / "export" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<script>fetch('/api/run')</script>")

    status, headers, body = client.ask("/run/slides/one/export/report.html")

    assert (status, body) == (200, page.read_bytes())
    assert headers["Content-Security-Policy"].startswith(
        "sandbox allow-scripts; default-src 'none'"
    )


def test_a_wrong_token_is_refused_everywhere(guarded):
    for path in ("/", "/api/run", "/tile/one/9/0_0.jpg", "/findings.csv", "/nowhere"):
        assert guarded.ask(path)[0] == 403
        assert guarded.ask(f"{path}?token={TOKEN[:-1]}")[0] == 403
        assert guarded.ask(path, Authorization="Bearer \xff")[0] == 403
    assert guarded.ask("/api/slide/one/findings", "POST", TUMOR)[0] == 403


def test_the_token_of_the_address_is_remembered_in_a_cookie(guarded):
    status, headers, _ = guarded.ask(f"/?token={TOKEN}")

    cookie = headers["Set-Cookie"].split(";")[0]
    assert status == 200
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]
    assert guarded.ask("/api/run", Cookie=cookie)[0] == 200
    assert guarded.ask("/api/run", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_no_open_server_without_a_token():
    with pytest.raises(ConfigError, match="token is needed"):
        Access(host="0.0.0.0")
    with pytest.raises(ConfigError, match="at least 16"):
        Access(host="0.0.0.0", token="short")
    Access(host="::1")
    Access(host="0.0.0.0", token=TOKEN)


def test_pages_of_other_sites_can_neither_read_nor_write(readers):
    """A name that resolves to this machine, and a form on another site."""
    assert readers.ask("/api/run", Host="evil.example:80")[0] == 403
    assert (
        readers.ask("/api/slide/one/findings", "POST", TUMOR, Origin="http://evil.example")[0]
        == 403
    )
    plain = json.dumps(TUMOR).encode()
    path = "/api/slide/one/findings"
    assert readers.ask(path, "POST", plain, Content_Type="text/plain")[0] == 415
    assert readers.json(path)[1] == []


def test_a_finding_is_stored_and_found_again(client):
    status, stored = client.json(
        "/api/slide/one/findings", "POST", TUMOR | {"comment": "<b>yes</b>"}
    )

    assert status == 200
    assert client.json("/api/slide/one/findings")[1] == [stored]
    assert client.json("/api/slide/two%20words/findings")[1] == []
    assert (stored["label"], stored["comment"]) == ("breast-tissue-tumor", "<b>yes</b>")
    assert b"<b>yes</b>" in client.ask("/findings.csv")[2]


def test_a_reviewer_can_take_back_only_what_is_theirs(client):
    _, stored = client.json("/api/slide/one/findings", "POST", TUMOR)
    path = f"/api/finding/{stored['id']}"

    assert client.ask(path, "DELETE", {"reviewer": "somebody else"})[0] == 404
    assert client.ask(path, "DELETE", {"reviewer": "R. V."})[0] == 200
    assert client.json("/api/slide/one/findings")[1] == []


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"verdict": "maybe"}, 400),
        ({"verdict": ["agree"]}, 400),
        ({"reviewer": "  "}, 400),
        ({"comment": "x" * 5000}, 400),
        ({"x": "left"}, 400),
        ({"x": None}, 400),
        ({"object_class": 17}, 404),
        ({"object_class": -1}, 400),
        ({"x": 5, "y": 5}, 404),  # nothing there
        ({"x": 1e300}, 404),
        ({"x": float("nan")}, 404),
        ({"comment": "x" * 40_000}, 413),
    ],
)
def test_findings_that_make_no_sense_are_refused(readers, said, status):
    assert readers.ask("/api/slide/one/findings", "POST", TUMOR | said)[0] == status
    assert readers.json("/api/slide/one/findings")[1] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 30_000, b"\xff\xfe"])
def test_bodies_that_are_no_json_object_are_refused(readers, body):
    headers = {"Content_Type": "application/json"}

    assert readers.ask("/api/slide/one/findings", "POST", body, **headers)[0] in (400, 411)


def test_other_methods_and_broken_requests_do_not_hurt(readers):
    for raw in (
        b"PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"GET\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", readers.port), timeout=20) as line:
            line.sendall(raw)
            assert line.recv(4000)[:13] != b"HTTP/1.1 200 "
    with socket.create_connection(("127.0.0.1", readers.port), timeout=20) as line:
        line.sendall(b"GET / HTTP/1.1\r\n")  # and goes away

    assert readers.ask("/")[0] == 200


def test_two_reviewers_at_once(client):
    """Each stores 20 findings while the other does, and none is lost."""
    refused = []

    def review(name):
        for number in range(20):
            said = TUMOR | {"reviewer": f"{name} {number}", "comment": str(number)}
            status, _ = client.json("/api/slide/one/findings", "POST", said)
            refused.extend([status] if status != 200 else [])

    threads = [threading.Thread(target=review, args=(name,)) for name in ("Ann", "Bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    _, findings = client.json("/api/slide/one/findings")
    assert not refused
    assert {f["reviewer"] for f in findings} == {
        f"{n} {k}" for n in ("Ann", "Bob") for k in range(20)
    }


def test_a_slide_that_was_moved_away(client, run_folder):
    """It is said what happened; objects, maps and findings go on."""
    assert client.ask("/tile/one/9/0_0.jpg")[0] == 200
    (run_folder.slides / "one.tiff").rename(run_folder.slides / "elsewhere.tiff")

    _, slide = client.json("/api/slide/one")
    status, said = client.json("/tile/one/9/0_0.jpg")

    assert "one.tiff is not where it was" in slide["missing"]
    assert (status, said["error"]) == (410, slide["missing"])
    assert str(run_folder.root.parent) not in said["error"]
    assert client.ask("/layer/one/objects/9/0_0.png")[0] == 200
    assert client.json("/api/slide/one/at?x=100&y=50")[1]["objects"]
    assert client.ask("/api/slide/one/findings", "POST", TUMOR)[0] == 200
    assert client.ask("/tile/two%20words/9/0_0.jpg")[0] == 200
    (run_folder.slides / "elsewhere.tiff").rename(run_folder.slides / "one.tiff")
    assert client.ask("/tile/one/9/1_0.jpg")[0] == 200


def test_a_slide_file_that_is_no_slide(client, run_folder):
    (run_folder.slides / "one.tiff").write_bytes(b"no slide")

    assert client.json("/tile/one/9/0_0.jpg")[0] == 422
    assert client.json("/api/slide/one")[0] == 200


def test_damaged_files_of_the_run_are_said_and_the_rest_goes_on(client, run_folder):
    run_folder.study.folder.explanation("one").write_bytes(b"cut")

    assert client.json("/api/slide/one")[0] == 409
    assert client.json("/api/slide/two%20words")[0] == 200
