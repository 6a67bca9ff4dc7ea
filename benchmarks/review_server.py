"""``xpath review`` under load: many clients, a view of 42 tiles with a click, a crowd of lines.

    python benchmarks/review_server.py demo-run
    python benchmarks/review_server.py demo-run --clients 100 --requests 5 --connections 10000

The server runs as a process of its own, new for every part. ``clients`` open explained slides of
the run and ask for tiles, layers, objects and the list, all at once. ``view`` asks for 42 tiles of
the objects of a slide, as the page does with four connections, and meanwhile for an object, as a
click does. ``crowd`` opens connections that send nothing, while one client goes on asking. Seconds
are of the wall, ``cpu_s`` those of the server, ``peak_mib`` its memory (Linux). Last comes JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import platform
import re
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

TILES = 42
AT_ONCE = 4
"""Connections the page uses for tiles."""


class Server:
    """The server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        """Takes a process that listens."""
        self.process, self.port = process, port

    def ask(self, path: str) -> tuple[int, bytes, float]:
        """Status, body and seconds of a request."""
        started = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        return answer.status, body, time.perf_counter() - started

    def json(self, path: str) -> Any:
        """The answer to a request that must succeed."""
        status, body, _ = self.ask(path)
        if status != http.HTTPStatus.OK:
            raise SystemExit(f"{path}: {status} {body.decode()}")
        return json.loads(body)

    def usage(self) -> dict[str, float]:
        """CPU seconds and peak memory, empty where the system does not tell."""
        folder = Path(f"/proc/{self.process.pid}")
        if not folder.exists():
            return {}
        ticks = folder.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
        peak = re.search(r"VmHWM:\s+(\d+)", folder.joinpath("status").read_text())
        return {
            "cpu_s": sum(map(int, ticks)) / 100,
            "peak_mib": int(peak[1]) / 1024 if peak else 0.0,
        }


def main() -> None:
    """From arguments to one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder with explained slides")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--requests", type=int, default=5, help="of each client")
    parser.add_argument("--connections", type=int, default=10_000, help="of the crowd")
    args = parser.parse_args()
    facts: dict[str, Any] = {"benchmark": "review_server", "device": platform.machine()}
    with served(args.run) as server:
        facts["clients"] = many_clients(server, args.clients, args.requests)
    with served(args.run) as server:
        facts["view"] = one_view(server)
    with served(args.run) as server:
        facts["crowd"] = crowd(server, args.connections)
    for name in ("clients", "view", "crowd"):
        print(name, facts[name])
    print(json.dumps(facts))


@contextmanager
def served(run: Path) -> Iterator[Server]:
    """``xpath review`` of a run at a free port."""
    start = "import sys; from xpath.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-u", "-c", start, "review", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            first = process.stdout.readline() if process.stdout else ""
            found = re.search(r":(\d+)/", first)
            if not found:
                raise SystemExit(f"the server did not start: {first}")
            yield Server(process, int(found[1]))
        finally:
            process.terminate()


def explained(server: Server) -> list[dict[str, Any]]:
    """The explained slides of the run."""
    ids = [one["id"] for one in server.json("/api/run")["slides"] if one["explained"]]
    if not ids:
        raise SystemExit("the run has no explained slide; run `xpath explain` first")
    return [server.json(f"/api/slide/{quote(each, safe='')}") for each in ids]


def many_clients(server: Server, clients: int, requests: int) -> dict[str, Any]:
    """All clients at once, each asking one thing after the other."""
    slides = explained(server)
    together = threading.Barrier(clients)

    def client(number: int) -> list[tuple[int, float]]:
        together.wait()
        answers = []
        for turn in range(requests):
            status, _, seconds = server.ask(asked(slides[(number + turn) % len(slides)], turn))
            answers.append((status, seconds))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        answers = [one for each in pool.map(client, range(clients)) for one in each]
    return {
        "requests": len(answers),
        "refused": sum(status != http.HTTPStatus.OK for status, _ in answers),
        **seconds_of([seconds for _, seconds in answers]),
        **server.usage(),
    }


def asked(slide: dict[str, Any], turn: int) -> str:
    """The address of one of the five things a page asks for."""
    name, last = quote(slide["id"], safe=""), slide["last"]
    middle = f"x={slide['width'] // 2}&y={slide['height'] // 2}"
    column, row = (side // 2 // slide["tile"] for side in (slide["width"], slide["height"]))
    return (
        f"/api/slide/{name}",
        f"/tile/{name}/{last}/{column}_{row}.jpg",
        f"/layer/{name}/outlines/{last}/{column}_{row}.png",
        f"/api/slide/{name}/at?{middle}",
        "/api/run",
    )[turn % 5]


def one_view(server: Server) -> dict[str, Any]:
    """A view of new tiles, with a click while they load."""
    slide = explained(server)[0]
    name, before = quote(slide["id"], safe=""), server.usage()
    places = [
        (level, column, row)
        for level in range(slide["last"], 0, -1)
        for row, column in product(
            *(
                range(-(-side // (slide["tile"] << (slide["last"] - level))))
                for side in (slide["height"], slide["width"])
            )
        )
    ][:TILES]
    clicks: list[float] = []
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tiles = [
            pool.submit(server.ask, f"/layer/{name}/objects/{level}/{column}_{row}.png")
            for level, column, row in places
        ]
        while not all(tile.done() for tile in tiles):
            clicks.append(server.ask(asked(slide, 3))[2])
    wall = time.perf_counter() - started
    after = server.usage()
    return {
        "tiles": len(tiles),
        "refused": sum(tile.result()[0] != http.HTTPStatus.OK for tile in tiles),
        "seconds": round(wall, 3),
        "clicks": len(clicks),
        "slowest_click_s": round(max(clicks), 3),
        "cpu_s": round(after.get("cpu_s", 0) - before.get("cpu_s", 0), 2),
    }


def crowd(server: Server, connections: int) -> dict[str, Any]:
    """Connections that send half a request and nothing more, and a client that goes on."""
    with contextlib.suppress(ValueError, OSError):  # as many as may be open
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lines: list[socket.socket] = []
    refused, answers = 0, []
    for number in range(connections):
        try:
            lines.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            lines[-1].sendall(b"GET /api/run HTTP/1.1\r\nHost: loc")
        except OSError:
            refused += 1
        if number % max(1, connections // 20) == 0:
            answers.append(server.ask("/api/run")[::2])
    answers.append(server.ask("/api/run")[::2])
    for line in lines:
        line.close()
    return {
        "connections": connections,
        "not_taken": refused,
        "refused": sum(status != http.HTTPStatus.OK for status, _ in answers),
        **seconds_of([seconds for _, seconds in answers]),
        **server.usage(),
    }


def seconds_of(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    ordered = sorted(values)
    return {
        "median_s": round(statistics.median(ordered), 4),
        "p99_s": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 4),
    }


if __name__ == "__main__":
    main()
