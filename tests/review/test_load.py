"""Many clients, slow ones, and those that have gone. Scaled down; ``benchmarks/review_server.py``
has the full numbers."""

import json
import socket
import sqlite3
import threading
import time

import pytest

from xpath.review.connections import Connections
from xpath.review.layers import LayerPainter
from xpath.review.pixels import Recent
from xpath.review.server import PATIENCE

GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def crowded(service, by_hand):
    """A server for 8 connections that must be complete in a second."""
    with by_hand(service) as client:
        client.server.connections = Connections(8, 1.0)
        yield client


def line_to(client):
    return socket.create_connection(("127.0.0.1", client.port), timeout=20)


def until(true):
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_silent_connections_shut_nobody_out(crowded):
    lines, before = [], threading.active_count()
    for number in range(100):
        lines.append(line_to(crowded))
        if number % 20 == 0:
            assert crowded.ask("/")[0] == 200
        assert len(crowded.server.connections) <= 8

    assert crowded.ask("/api/run")[0] == 200
    for line in lines:
        line.close()
    until(lambda: len(crowded.server.connections) == 0)
    until(lambda: threading.active_count() < before + 20)


def test_a_request_that_trickles_in_is_ended(crowded):
    """A byte now and then keeps a socket's own timeout from ever coming."""
    with line_to(crowded) as line, pytest.raises(OSError):
        for byte in GET % b"api/run?and=a%20very%20long%20address":
            line.sendall(bytes([byte]))
            time.sleep(0.1)
        raise AssertionError("it was read to the end")
    assert crowded.ask("/")[0] == 200


def test_an_answer_that_takes_long_is_not_ended(crowded, service, monkeypatch):
    monkeypatch.setattr(service, "slide", lambda _: time.sleep(2.5) or {})

    assert crowded.json("/api/slide/one") == (200, {})


def test_five_megabytes_of_broken_json_are_refused(readers):
    headers = {"Content_Type": "application/json"}
    body = b"[" * 5_000_000

    status, _, said = readers.ask("/api/slide/one/findings", "POST", body, **headers)

    assert status == 413
    assert "32768 bytes" in json.loads(said)["error"]
    assert readers.json("/api/slide/one/findings")[1] == []


def test_tiles_nobody_waits_for_are_not_painted(readers, monkeypatch):
    """A layer that is switched off: its tiles do not keep the next one waiting."""
    go, painted = threading.Event(), []

    def paint(self, layer, tile, classes):
        painted.append(tile.box)
        go.wait(60)
        return self._patches(tile)

    monkeypatch.setattr(LayerPainter, "paint", paint)
    readers.json("/api/slide/two%20words")
    lines = []
    for level in range(2, 10):
        line = line_to(readers)
        line.sendall(GET % f"layer/two%20words/patch_map/{level}/0_0.png".encode())
        lines.append(line)
    processors = readers.server.painting._initial_value
    until(lambda: len(painted) == min(processors, len(lines)))
    for line in lines:
        line.close()
    time.sleep(0.1)  # until the server can know
    started = time.monotonic()
    assert readers.json("/api/slide/two%20words/at?x=100&y=50")[1]["objects"]
    assert time.monotonic() - started < 30  # a click does not wait
    go.set()

    assert readers.ask("/layer/two%20words/patch_map/9/1_1.png")[0] == 200
    assert len(painted) == min(processors, len(lines)) + 1


def test_a_server_that_ends_leaves_nothing_running(service, by_hand, monkeypatch):
    """Threads in native code when Python ends would abort the process."""
    before = set(threading.enumerate())
    begun, go, answers = threading.Event(), threading.Event(), []

    def slide(_):
        begun.set()
        go.wait(60)
        return {}

    monkeypatch.setattr(service, "slide", slide)
    monkeypatch.setattr("xpath.review.connections.GRACE", 60.0)
    with by_hand(service) as client, line_to(client) as silent:
        asking = threading.Thread(target=lambda: answers.append(client.json("/api/slide/one")))
        asking.start()
        begun.wait(60)
        until(lambda: len(client.server.connections) == 2)
        client.server.shutdown()
        closing = threading.Thread(target=client.server.server_close)
        closing.start()
        assert silent.recv(1) == b"", "who asks nothing is ended at once"
        closing.join(0.2)
        assert closing.is_alive(), "it waits for the answer"
        go.set()
        closing.join(60)
        asking.join(60)

    assert answers == [(200, {})]
    assert set(threading.enumerate()) <= before


def test_who_takes_no_answer_does_not_keep_a_server_from_its_end(service, by_hand, monkeypatch):
    monkeypatch.setattr("xpath.review.connections.GRACE", 0.2)
    monkeypatch.setattr(service, "run", lambda: {"large": "x" * 50_000_000})
    with by_hand(service) as client, line_to(client) as line:
        line.sendall(GET % b"api/run")
        until(lambda: client.server.connections._answered)
        client.server.shutdown()
        started = time.monotonic()
        client.server.server_close()
        assert time.monotonic() - started < PATIENCE / 2


def test_an_answer_is_made_once_however_many_ask():
    recent, calls, answers = Recent(4), [], []

    def make():
        calls.append(1)
        time.sleep(0.05)
        return len(calls)

    threads = [
        threading.Thread(target=lambda: answers.append(recent.get("a", make))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [1] * 20


def test_an_answer_that_cannot_be_made_is_tried_again():
    recent = Recent(4)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)

    assert recent.get("a", lambda: 2) == 2


def test_a_locked_file_of_findings_blocks_nothing_else(client, service):
    base = sqlite3.connect(service.findings.path, isolation_level=None)
    base.execute("PRAGMA locking_mode=EXCLUSIVE")
    base.execute("BEGIN EXCLUSIVE")
    base.execute("DELETE FROM findings")

    status, run = client.json("/api/run")
    assert (status, len(run["slides"])) == (200, 3)
    assert "another program holds" in run["unread"]
    stuck = threading.Thread(target=client.json, args=("/api/slide/one/findings",))
    stuck.start()
    for path in ("/api/slide/one", "/tile/one/9/0_0.jpg", "/api/slide/one/at?x=100&y=50"):
        assert client.ask(path)[0] == 200
    stuck.join()
    status, said = client.json("/api/slide/one/findings")
    assert (status, "nothing is lost" in said["error"]) == (503, True)
    base.close()
    assert client.json("/api/run")[1]["unread"] == ""


def test_a_hundred_clients(readers):
    """Each opens a slide at once, and asks for a tile, a layer, an object and the run."""
    paths = (
        "/api/slide/one", "/tile/one/9/1_0.jpg", "/layer/one/objects/9/0_0.png",
        "/api/slide/one/at?x=100&y=50", "/api/run",
    )  # fmt: skip
    statuses = []

    def client():
        statuses.extend(readers.ask(path)[0] for path in paths)

    threads = [threading.Thread(target=client) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 500
