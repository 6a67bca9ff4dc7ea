"""Requests of every sort: the server answers or refuses each, and is there for the next."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

GOOD = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /slides.json?token=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"POST /api/findings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 40\r\n\r\n"
    + json.dumps({"slide": "one", "x": 1, "y": 2, "verdict": "?"}).encode().ljust(40),
)


def damaged(rng):
    data = bytearray(GOOD[int(rng.integers(len(GOOD)))])
    for _ in range(int(rng.integers(0, 5))):
        at = int(rng.integers(len(data)))
        match int(rng.integers(3)):
            case 0:
                data[at] = int(rng.integers(256))
            case 1:
                del data[at : at + int(rng.integers(1, 9))]
            case 2:
                data[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 40)), np.uint8))
    return bytes(data)


def status_of(address, request):
    """Code of the answer, 0 where the connection was closed without one."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    head = answer.split(b" ", 2)
    return int(head[1]) if len(head) > 1 and head[1].isdigit() else 0


def ask_often(address, count, seed):
    rng = np.random.default_rng(seed)
    codes = [status_of(address, damaged(rng)) for _ in range(count)]
    assert set(codes) <= {*range(500), 501, 505}, sorted(set(codes))  # unknown verb or version
    assert status_of(address, GOOD[0]) in (200, 401, 403)


def test_a_few_damaged_requests(client):
    ask_often(("127.0.0.1", client.port), 60, seed=3)


@pytest.fixture(autouse=True)
def no_penalty(monkeypatch):
    monkeypatch.setattr("xpath.review.server.PENALTY", 0.0)


@pytest.mark.slow
def test_two_thousand_damaged_requests(client):
    ask_often(("127.0.0.1", client.port), 2000, seed=1)
