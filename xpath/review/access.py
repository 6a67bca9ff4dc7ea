"""Who may ask, and for which files: the part of the server that says no."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from xpath.errors import ConfigError
from xpath.review.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COOKIE", "Access", "file_of_run", "is_loopback"]

COOKIE = "xpath_review"
SHORTEST = 16
"""Characters of a token that cannot be guessed."""
PATTERNS = ("index.html", "tables/*", "figures/*", "slides/*/export/*")
"""Files of the run folder that can be fetched as they are."""
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".pdf": "application/pdf",
    ".svg": "image/svg+xml",
    ".csv": "text/csv; charset=utf-8",
    ".geojson": "application/geo+json",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """The rules of one server."""

    host: str
    token: str = ""
    """Empty: whoever can reach the server may ask; only on this machine's own address."""

    def __post_init__(self) -> None:
        """Raises ConfigError for no token, or a short one."""
        if not self.token and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host} can be reached from other machines, so a token is needed"
            )
        if self.token and len(self.token) < SHORTEST:
            raise ConfigError(
                f"a token must have at least {SHORTEST} characters, got {len(self.token)}"
            )

    def check(self, headers: Mapping[str, str], query_token: str, *, writes: bool) -> None:
        """Lets a request pass.

        Args:
            headers: Of the request.
            query_token: ``token=`` of the address, empty where there is none.
            writes: Whether it changes anything.

        Raises:
            Refused: Wrong or no token, another host's name, or a page of another site asking.
        """
        host = headers.get("Host", "")
        if not self.token and not is_loopback(_hostname(host)):
            # a foreign name that resolves to this machine: another site's page is asking
            raise Refused(403, "open this page as http://127.0.0.1 or http://localhost")
        if self.token and not self._knows(headers, query_token):
            raise Refused(403, "the token is missing or wrong; use the address the server printed")
        origin = headers.get("Origin", "")
        if writes and origin and origin.partition("://")[2] != host:
            raise Refused(403, "findings can only be stored from the review page itself")

    def _knows(self, headers: Mapping[str, str], query_token: str) -> bool:
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        given = (query_token, bearer, _cookie(headers.get("Cookie", "")))
        wanted = self.token.encode()
        return any(hmac.compare_digest(one.encode(), wanted) for one in given if one)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server of this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def file_of_run(root: Path, asked: str) -> tuple[Path, str]:
    """A file of the run folder that may be fetched, and its media type.

    Links are followed before it is decided, so none leads out.

    Raises:
        Refused: Anything else; it is not said whether such a file exists.
    """
    no = Refused(404, "the run has no such page")
    path = PurePosixPath(asked)
    odd = any(part.startswith(".") for part in path.parts) or any(c in asked for c in "\\\0:")
    fits = len(path.parts) <= 4 and any(_matches(path, pattern) for pattern in PATTERNS)
    if odd or path.is_absolute() or not fits or path.suffix not in MEDIA_TYPES:
        raise no
    home = root.resolve()
    real = (home / path).resolve()
    if not real.is_relative_to(home) or not real.is_file() or real.suffix not in MEDIA_TYPES:
        raise no
    return real, MEDIA_TYPES[path.suffix]


def _matches(path: PurePosixPath, pattern: str) -> bool:
    return len(path.parts) == len(PurePosixPath(pattern).parts) and path.match(pattern)


def _hostname(host: str) -> str:
    """``127.0.0.1`` of ``127.0.0.1:8000``, ``::1`` of ``[::1]:8000``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _cookie(text: str) -> str:
    try:
        morsel = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
