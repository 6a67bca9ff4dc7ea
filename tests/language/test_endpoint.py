"""A real server on this machine that answers right, wrong, or not at all."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xpath.errors import ConfigError, ReaderError
from xpath.labels import load_labels
from xpath.language import EndpointReader, Request
from xpath.language.evidence import EvidenceFinder
from xpath.language.instructions import instructions, response_schema

TEXT = "Invasive carcinoma with fat.  No NECROSIS\nin the tumour; no necrosis elsewhere."


class Server:
    """Answers with what ``answers`` holds, one after the other, and keeps what it was sent."""

    def __init__(self):
        self.answers, self.requests, self.release = [], [], threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                outer.requests.append((self.path, dict(self.headers), body))
                outer.answers.pop(0)(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.release.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def raw(content, code=200, **headers):
    """An answer as it goes over the wire."""

    def answer(handler):
        data = content.encode()
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def chat(content):
    """An answer whose message is this text."""
    return raw(json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}))


def reading(*mentions, region="breast", unknown=()):
    """An answer by the schema."""
    names = ("label", "evidence", "status")
    entries = [dict(zip(names, mention, strict=True)) for mention in mentions]
    return chat(json.dumps({"region": region, "mentions": entries, "unknown": list(unknown)}))


TUMOR = ("breast-tissue-tumor", "Invasive carcinoma", "present")


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def reader(server):
    return EndpointReader(server.url, "tiny", timeout=5)


def spans(found):
    return [(m.label.id, found_text(m), m.status) for m in found.mentions]


def found_text(mention):
    return TEXT[mention.start : mention.end]


def test_a_right_answer(server, reader):
    server.answers = [reading(TUMOR, ("breast-tissue-necrosis or debris", "NECROSIS", "absent"))]

    found = reader.read(Request(TEXT, "report", "breast"))

    assert spans(found) == [
        TUMOR,
        ("breast-tissue-necrosis or debris", "NECROSIS", "absent"),
    ]
    assert [label.id for label in found.labels] == ["breast-tissue-tumor"]
    assert (found.region, found.case, found.unknown, found.dropped) == ("breast", "report", (), 0)
    assert found.reader == "endpoint tiny"


def test_what_is_sent(server):
    server.answers = [reading(TUMOR)]

    EndpointReader(server.url, "tiny", key="secret", max_tokens=77).read(
        Request(TEXT, "report", "breast")
    )

    (path, headers, body), *others = server.requests
    assert not others
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 77)
    assert body["response_format"]["json_schema"]["strict"] is True
    labels = body["response_format"]["json_schema"]["schema"]["properties"]["mentions"]["items"]
    enum = labels["properties"]["label"]["enum"]
    assert enum == [label.id for label in load_labels().children("breast")]
    system, user = body["messages"]
    assert "lung" not in system["content"].partition("Labels (")[2]
    assert TEXT in user["content"]
    assert "Region of the slide: breast" in user["content"]


def test_all_labels_are_offered_where_the_region_is_not_known():
    tree = load_labels()
    schema = response_schema(tree)

    enum = schema["properties"]["mentions"]["items"]["properties"]["label"]["enum"]
    assert enum == [label.id for label in tree]
    told = instructions(tree).partition("Labels (")[2]
    assert all(label.object_type in told and label.region in told for label in tree)


def test_an_invented_label_cannot_be_asked_for(server, reader):
    server.answers = [
        reading(
            ("breast-tissue-unicorn", "Invasive carcinoma", "present"),
            ("lung-nuclei-neoplastic", "Invasive carcinoma", "present"),  # not of this region
            unknown=["elsewhere"],
        )
    ]

    found = reader.read(Request(TEXT, "report", "breast"))

    assert found.labels == ()
    assert found.unknown == ("elsewhere", "breast-tissue-unicorn", "lung-nuclei-neoplastic")


def test_evidence_that_is_not_in_the_text_is_dropped_and_counted(server, reader):
    server.answers = [
        reading(
            TUMOR,
            ("breast-tissue-stroma", "dense stroma", "present"),
            ("breast-tissue-fat", "", "present"),
        )
    ]

    found = reader.read(Request(TEXT, "report", "breast"))

    assert spans(found) == [TUMOR]
    assert found.dropped == 2


def test_an_open_question_needs_no_evidence(server, reader):
    server.answers = [reading(("breast-tissue-fat", "", "present"))]

    found = reader.read(Request("What is here?", "exploratory", "breast"))

    assert [label.id for label in found.labels] == ["breast-tissue-fat"]
    assert (found.mentions[0].start, found.mentions[0].end) == (0, 0)


def test_evidence_is_found_but_for_case_and_blanks_and_place_by_place(server, reader):
    necrosis = "breast-tissue-necrosis or debris"
    server.answers = [
        reading(
            (necrosis, "no  necrosis in the", "absent"),
            (necrosis, "necrosis", "absent"),
            ("breast-tissue-fat", "FAT", "present"),
        )
    ]

    found = reader.read(Request(TEXT, "report", "breast"))

    assert [found_text(mention) for mention in found.mentions] == [
        "fat",
        "No NECROSIS\nin the",
        "necrosis",
    ]


def test_a_quotation_used_again_is_its_next_occurrence():
    finder = EvidenceFinder("fat, fat and FAT; a  nerve")

    assert [finder.find("fat") for _ in range(3)] == [(0, 3), (5, 8), (5, 8)]
    assert finder.find("A nerve") == (18, 26)
    assert finder.find("bone") is None
    assert finder.find(" ") is None


@pytest.mark.parametrize(
    "wrong",
    [
        '{"region": "breast", "mentions": [{"label": "breast-ti',
        "The tumour is present.",
        "[]",
        '{"region": "breast", "mentions": []}',
        '{"region": "breast", "mentions": [], "unknown": [], "note": ""}',
        '{"region": 3, "mentions": [], "unknown": []}',
        '{"region": null, "mentions": {}, "unknown": []}',
        '{"region": null, "mentions": [], "unknown": [1]}',
        '{"region": null, "mentions": ["breast-tissue-fat"], "unknown": []}',
        '{"region": null,"unknown": [],"mentions": [{"label": "", "evidence": "", "status": 1}]}',
        '{"region": null,"unknown": [],"mentions": [{"label": "", "evidence": "", "status": "a"}]}',
        None,
    ],
)
def test_an_answer_off_the_schema_is_asked_for_once_more(server, reader, wrong):
    server.answers = [chat(wrong), reading(TUMOR)]

    found = reader.read(Request(TEXT, "report", "breast"))

    assert spans(found) == [TUMOR]
    repeated = server.requests[1][2]["messages"]
    assert [message["role"] for message in repeated] == ["system", "user", "assistant", "user"]
    assert "not the schema" in repeated[-1]["content"]


def test_twice_off_the_schema_raises(server, reader):
    server.answers = [chat('{"region": "bre'), chat('{"region": "bre')]

    with pytest.raises(
        ReaderError, match="twice answered something else than the schema: not JSON"
    ):
        reader.read(Request(TEXT, "report", "breast"))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (raw("out of memory", 500), "answered 500 .*: out of memory"),
        (raw("<html>"), "did not answer JSON"),
        (raw("{}"), "is no chat interface"),
        (raw('{"choices": []}'), "is no chat interface"),
        (raw("", 302, Location="http://example.org/v1"), "answered 302"),
    ],
)
def test_a_server_that_fails_raises_and_is_not_replaced(server, reader, answer, message):
    server.answers = [answer]

    with pytest.raises(ReaderError, match=message):
        reader.read(Request("No necrosis.", "report", "breast"))
    assert len(server.requests) == 1


def test_a_hang_ends_in_time(server):
    server.answers = [lambda handler: server.release.wait(10)]

    with pytest.raises(ReaderError, match=r"did not answer within 0\.2 seconds"):
        EndpointReader(server.url, "tiny", timeout=0.2).read(Request("Tumour.", "report"))


def test_an_answer_that_only_trickles_in_ends_in_time(server):
    def trickle(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not server.release.wait(0.05):
            handler.wfile.write(b" ")

    server.answers = [trickle]

    with pytest.raises(ReaderError, match=r"did not answer within 0\.3 seconds"):
        EndpointReader(server.url, "tiny", timeout=0.3).read(Request("Tumour.", "report"))


def test_nobody_there(server):
    url = server.url
    server.close()

    with pytest.raises(ReaderError, match="cannot be reached"):
        EndpointReader(url, "tiny").read(Request("Tumour.", "report"))


def test_a_proxy_is_not_used_on_the_way_to_this_machine(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server.answers = [reading(TUMOR)]

    found = EndpointReader(server.url, "tiny", timeout=5).read(Request(TEXT, "report", "breast"))

    assert spans(found) == [TUMOR]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/v1",
        "http://192.0.2.7:8000/v1",
        "http://localhost.example.org/v1",
        "http://localhost@example.org/v1",
        "http://10.0.0.1/v1",
        "ftp://localhost/v1",
        "file:///etc/passwd",
        "localhost:8000",
        "",
    ],
)
def test_texts_do_not_go_anywhere_else(url):
    with pytest.raises(ConfigError, match="https"):
        EndpointReader(url, "tiny")


@pytest.mark.parametrize(
    "url",
    ["http://localhost:1/v1", "http://[::1]:1/v1", "http://127.1.2.3/v1", "https://example.org"],
)
def test_these_urls_are_allowed(url):
    EndpointReader(url, "tiny")


def test_limits_are_checked():
    with pytest.raises(ConfigError, match="timeout must be positive"):
        EndpointReader("http://localhost/v1", "tiny", timeout=0)
    with pytest.raises(ConfigError, match="max_tokens"):
        EndpointReader("http://localhost/v1", "tiny", max_tokens=0)


def test_a_region_without_labels_is_not_even_asked_about(server, reader):
    found = reader.read(Request("Tumour.", "report", "brain"))

    assert (found.mentions, found.unknown) == ((), ("brain",))
    assert server.requests == []
