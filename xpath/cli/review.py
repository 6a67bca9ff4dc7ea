"""``xpath review``: look at a run with a pathologist's eyes, and write down what they see."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from xpath.cli.command import Command

if TYPE_CHECKING:
    import argparse

    from xpath.review.service import ReviewService

__all__ = ["COMMAND"]

DESCRIPTION = """\
Serves a finished run as a page for the browser: the slides at full resolution, objects and maps
over them, what each object adds and what the model would say without it. Reviewers agree or
disagree object by object and say what it is instead; their findings are kept in
RUN/review/findings.sqlite and can be fetched as a table, data, text, a page or for QuPath. Only
this machine can reach the page, unless --host says otherwise.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="the run folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument(
        "--token", default="", help="what reviewers must know; made up if --host needs one"
    )
    parser.add_argument(
        "--export", metavar="FOLDER", type=Path, help="write the findings there and stop"
    )


def run(args: argparse.Namespace) -> int:
    """Serves until it is interrupted."""
    from xpath.review.service import ReviewService
    from xpath.study.study import open_study

    service = ReviewService(open_study(args.run_folder))
    if args.export:
        for path in service.write_findings(args.export):
            print(path)
        return 0
    return _serve(service, args.host, args.port, args.token)


def _serve(service: ReviewService, host: str, port: int, token: str) -> int:
    from xpath.errors import ConfigError
    from xpath.review.access import Access, is_loopback
    from xpath.review.server import ReviewServer

    if not token and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    access = Access(host=host, token=token)
    try:
        server = ReviewServer(service, access, port=port)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({error}); choose another --port, 0 for any"
        ) from error
    with server:
        print(f"open {server.url}\nstop with Ctrl+C")
        if not is_loopback(host):
            print("others can reach it; the line is not encrypted, so use it in your own network")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped; findings are in", service.findings.path)
    return 0


COMMAND = Command(
    name="review",
    help="look at a run in the browser and note findings",
    description=DESCRIPTION,
    arguments=add_arguments,
    run=run,
)
