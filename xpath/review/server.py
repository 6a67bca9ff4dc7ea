"""The review page over HTTP, with the standard library alone.

Every answer is made by ``ReviewService``; who may ask is decided by ``Access``. Nothing is fetched
from elsewhere: the page, its script and its style lie beside this module.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from xpath.errors import XPathError
from xpath.review.access import COOKIE, file_of_run
from xpath.review.connections import Connections
from xpath.review.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xpath.review.access import Access
    from xpath.review.service import ReviewService

__all__ = ["Answer", "ReviewServer"]

logger = logging.getLogger(__name__)

LONGEST_BODY = 32_768
"""Bytes of a finding or question that is sent; more is refused."""
DISCARDED = 16 << 20
"""Bytes of a refused request that are read nevertheless, as few clients hear an answer before."""
CONNECTIONS = 256
"""Connections at a time; each takes a thread."""
BACKLOG = 128
"""Connections that may wait to be taken."""
PATIENCE = 30.0
"""Seconds until a request must be complete, and in which an answer must be taken."""
PENALTY = 0.3
"""Seconds a wrong token waits for its answer."""

OWN = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
OWN += " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
FOREIGN = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline';"
FOREIGN += " style-src 'unsafe-inline'; img-src data:"
"""For pages of the run: they may be anybody's, so they can reach neither server nor network."""


class Answer(NamedTuple):
    """A reply to a request."""

    body: bytes
    media_type: str = "application/json"
    policy: str = OWN
    keep: int = 0
    """Seconds the browser may use it again."""
    name: str = ""
    """File name, where it is to be saved."""


class Question(NamedTuple):
    """A request that reached a route."""

    values: Mapping[str, str]
    """Named parts of the path."""
    query: Mapping[str, str]
    body: Mapping[str, Any]


class ReviewServer(ThreadingHTTPServer):
    """Serves one run, with a thread per connection.

    As many tiles are made at once as there are processors, and none for a client that has hung up.
    Everything else is answered at once, so that a click never waits behind tiles.

    Example::

        with ReviewServer(service, Access(host="127.0.0.1"), port=0) as server:
            print(server.url)
            server.serve_forever()
    """

    daemon_threads = False
    allow_reuse_address = os.name == "posix"
    request_queue_size = BACKLOG

    def __init__(self, service: ReviewService, access: Access, *, port: int) -> None:
        """Binds to the address, at a free port for port 0."""
        self.service, self.access = service, access
        self.address_family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        self.painting = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.connections = Connections(CONNECTIONS, PATIENCE)
        super().__init__((access.host, port), _Handler)

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        everywhere = self.access.host in ("0.0.0.0", "::")  # no address to open
        host = socket.gethostname() if everywhere else self.access.host
        host = f"[{host}]" if ":" in host else host
        token = f"?token={self.access.token}" if self.access.token else ""
        return f"http://{host}:{self.server_address[1]}/{token}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection if there is room."""
        if self.connections.enter(request):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        self.connections.leave(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Ends all connections, and waits until nothing is computed any more.

        A thread that is in native code when Python ends would abort the whole process.
        """
        self.connections.end()
        super().server_close()

    def service_actions(self) -> None:
        """Ends slow connections, twice a second."""
        self.connections.end_slow()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A browser that goes away in the middle of an answer is nothing to shout about."""
        logger.debug("connection of %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "xpath", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Reads."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Stores a finding, or answers a question that is sent as JSON."""
        self._answer("POST")

    def do_DELETE(self) -> None:
        """Takes a finding back."""
        self._answer("DELETE")

    def log_message(self, format: str, *_: Any) -> None:
        """Leaves the query out of the log, as it may hold the token."""
        logger.debug("%s: %s", self._asked(), format)

    def _asked(self) -> str:
        """The path, empty where the request was too broken to have one."""
        return str(getattr(self, "path", "")).partition("?")[0]

    def _answer(self, method: str) -> None:
        try:
            self._try(method)
        finally:
            self.server.connections.wait(self.connection)

    def _try(self, method: str) -> None:
        try:
            answer = self._ask(method)
        except Refused as refused:
            self._refuse(refused)
        except XPathError as error:
            logger.warning("%s %s: %s", method, self._asked(), error)
            self._refuse(Refused(500, "a file of the run cannot be used; the log says which"))
        else:
            self._send(200, answer)

    def _ask(self, method: str) -> Answer:
        # an answer before the body is read leaves it in the connection, which then cannot go on
        self.close_connection = self.close_connection or method != "GET"
        try:
            address = urlsplit(self.path)
            path = unquote(address.path, errors="strict")
            query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        except ValueError as error:
            raise Refused(400, "this is no address") from error
        try:
            self.server.access.check(
                dict(self.headers.items()), query.get("token", ""), writes=method != "GET"
            )
        except Refused:
            time.sleep(PENALTY)
            raise
        for wanted, pattern, make in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and wanted == method:
                body = self._body() if method != "GET" else {}
                self.server.connections.answer(self.connection)
                question = Question(match.groupdict(), query, body)
                if make in (_tile, _layer):
                    return self._in_turn(make, question)
                return make(self.server.service, question)
        raise Refused(404, "there is no such page")

    def _in_turn(
        self, make: Callable[[ReviewService, Question], Answer], question: Question
    ) -> Answer:
        """A tile, when a processor is free and if it is still wanted then."""
        with self.server.painting:
            if self._is_gone():
                raise ConnectionAbortedError("nobody waits for this tile any more")
            return make(self.server.service, question)

    def _is_gone(self) -> bool:
        """Whether the client has hung up, as a browser does that needs a tile no longer."""
        self.connection.setblocking(False)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:  # nothing has come, so it waits
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length):
            raise Refused(411, "say how long the request is")
        if int(length) > LONGEST_BODY:
            left = min(int(length), DISCARDED)
            while left and (read := self.rfile.read(min(left, LONGEST_BODY))):
                left -= len(read)
            raise Refused(413, f"a request may have {LONGEST_BODY} bytes")
        body = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "send JSON")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "this is no JSON") from error
        if not isinstance(content, dict):
            raise Refused(400, "send one JSON object")
        return content

    def _refuse(self, refused: Refused) -> None:
        body = json.dumps({"error": refused.reason}).encode()
        self._send(refused.status, Answer(body))

    def _send(self, status: int, answer: Answer) -> None:
        self.send_response(HTTPStatus(status))
        self.send_header("Content-Type", answer.media_type)
        self.send_header("Content-Length", str(len(answer.body)))
        keep = f"private, max-age={answer.keep}" if answer.keep else "no-store"
        self.send_header("Cache-Control", keep)
        self.send_header("Content-Security-Policy", answer.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if answer.name:
            self.send_header("Content-Disposition", f'attachment; filename="{answer.name}"')
        if status == HTTPStatus.OK and self.server.access.token:
            cookie = f"{COOKIE}={self.server.access.token}; HttpOnly; SameSite=Strict; Path=/"
            self.send_header("Set-Cookie", cookie)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value, allow_nan=False).encode())


def _page(name: str, media_type: str) -> Callable[[ReviewService, Question], Answer]:
    def make(_: ReviewService, __: Question) -> Answer:
        return Answer((files("xpath.review") / "page" / name).read_bytes(), media_type)

    return make


def _tile(service: ReviewService, asked: Question) -> Answer:
    body = service.tile(asked.values["slide"], _tile_index(asked))
    return Answer(body, "image/jpeg", keep=3600)


def _layer(service: ReviewService, asked: Question) -> Answer:
    classes = asked.query.get("object_classes", "")
    body = service.layer(asked.values["slide"], asked.values["layer"], _tile_index(asked), classes)
    return Answer(body, "image/png", keep=600)


def _tile_index(asked: Question) -> tuple[int, int, int]:
    values = asked.values
    return int(values["level"]), int(values["column"]), int(values["row"])


def _at(service: ReviewService, asked: Question) -> Answer:
    try:
        x, y = float(asked.query["x"]), float(asked.query["y"])
    except (KeyError, ValueError) as error:
        raise Refused(400, "x and y must be numbers") from error
    return _json(service.at(asked.values["slide"], x, y, asked.query.get("object_classes", "")))


def _remember(service: ReviewService, asked: Question) -> Answer:
    return _json(service.remember(asked.values["slide"], asked.body))


def _take_back(service: ReviewService, asked: Question) -> Answer:
    reviewer = str(asked.body.get("reviewer", ""))
    if not service.findings.remove(asked.values["finding"], reviewer):
        raise Refused(404, "there is no such finding of yours")
    return _json({})


def _geojson(service: ReviewService, asked: Question) -> Answer:
    name = re.sub(r"[^\w.-]", "_", asked.values["slide"]) + ".findings.geojson"
    return Answer(
        service.geojson(asked.values["slide"]).encode(), "application/geo+json", name=name
    )


def _csv(service: ReviewService, _: Question) -> Answer:
    return Answer(service.csv().encode(), "text/csv; charset=utf-8", name="findings.csv")


def _file(service: ReviewService, asked: Question) -> Answer:
    path, media_type = file_of_run(service.study.folder.root, asked.values["file"])
    return Answer(path.read_bytes(), media_type, policy=FOREIGN)


SLIDE = r"(?P<slide>[^/]{1,200})"
TILE_INDEX = r"(?P<level>\d{1,3})/(?P<column>\d{1,7})_(?P<row>\d{1,7})"
ROUTES: tuple[tuple[str, str, Callable[[ReviewService, Question], Answer]], ...] = (
    ("GET", "/", _page("review.html", "text/html; charset=utf-8")),
    ("GET", "/review.css", _page("review.css", "text/css; charset=utf-8")),
    ("GET", "/viewer.js", _page("viewer.js", "text/javascript; charset=utf-8")),
    ("GET", "/ask.js", _page("ask.js", "text/javascript; charset=utf-8")),
    ("GET", "/review.js", _page("review.js", "text/javascript; charset=utf-8")),
    ("GET", "/api/run", lambda service, _: _json(service.run())),
    ("GET", rf"/api/slide/{SLIDE}", lambda service, q: _json(service.slide(q.values["slide"]))),
    ("GET", rf"/api/slide/{SLIDE}/at", _at),
    (
        "GET",
        rf"/api/slide/{SLIDE}/findings",
        lambda service, q: _json(service.findings_on(q.values["slide"])),
    ),
    ("POST", rf"/api/slide/{SLIDE}/findings", _remember),
    ("POST", "/api/reading", lambda service, q: _json(service.questions.read(q.body))),
    (
        "POST",
        rf"/api/slide/{SLIDE}/objects",
        lambda service, q: _json(service.find(q.values["slide"], q.body)),
    ),
    ("DELETE", r"/api/finding/(?P<finding>[0-9a-f-]{36})", _take_back),
    ("GET", rf"/tile/{SLIDE}/{TILE_INDEX}\.jpg", _tile),
    ("GET", rf"/layer/{SLIDE}/(?P<layer>\w{{1,20}})/{TILE_INDEX}\.png", _layer),
    ("GET", rf"/findings/{SLIDE}\.geojson", _geojson),
    ("GET", "/findings.csv", _csv),
    ("GET", r"/run/(?P<file>.{1,400})", _file),
)
"""Method, path and who answers. Tiles have one size, so none can be asked to be large."""
