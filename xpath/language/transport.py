"""JSON to a server and back, with limits, and to nowhere else."""

from __future__ import annotations

import http.client
import json
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from xpath.errors import ConfigError, ReaderError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Transport"]

LARGEST_ANSWER = 4_000_000
"""Bytes; a reading has a few thousand."""


class Transport:
    """Posts JSON to one URL.

    Redirects are refused, for they would send the text somewhere else; proxies are not used on the
    way to this machine.

    Args:
        url: ``https`` to anywhere, ``http`` to this machine (``localhost``, ``127.0.0.1``,
            ``::1``).
        timeout: Seconds for one answer, all in all.
        key: Bearer token, or None.

    Raises:
        ConfigError: Another URL, or a timeout that is not positive.
    """

    def __init__(self, url: str, *, timeout: float, key: str | None = None) -> None:
        self.url = url
        local = _check(url)
        if not timeout > 0:
            raise ConfigError(f"timeout must be positive seconds, got {timeout}")
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        proxies = [ProxyHandler({})] if local else []
        self._opener = build_opener(_NoRedirect, *proxies)

    def post(self, body: dict[str, Any]) -> Any:
        """The server's answer.

        Raises:
            ReaderError: It cannot be reached, refuses, takes too long, or does not answer JSON.
        """
        data = json.dumps(body).encode()
        request = Request(self.url, data, self._headers, method="POST")
        deadline = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                answer = b"".join(_chunks(response, deadline))
        except HTTPError as error:
            with error:
                reason = error.read(300).decode(errors="replace").strip()
            raise ReaderError(
                f"{self.url} answered {error.code} {error.reason}: {reason}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            cause: object = error.reason if isinstance(error, URLError) else error
            if isinstance(cause, TimeoutError):
                raise self._too_slow() from error
            raise ReaderError(f"{self.url} cannot be reached: {cause}; is it running?") from error
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ReaderError(f"{self.url} did not answer JSON: {error}") from error

    def _too_slow(self) -> ReaderError:
        return ReaderError(
            f"{self.url} did not answer within {self._timeout:g} seconds; raise the timeout or ask "
            "a faster model"
        )


class _NoRedirect(HTTPRedirectHandler):
    """Takes a redirect for the error it is here."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirect becomes an ``HTTPError``."""


def _chunks(response: Any, deadline: float) -> Iterator[bytes]:
    """A body as it comes in.

    Raises:
        TimeoutError: The deadline has passed.
        OSError: It is absurdly long.
    """
    size = 0
    while chunk := response.read1(65536):
        size += len(chunk)
        if size > LARGEST_ANSWER:
            raise OSError(f"the answer has more than {LARGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
        yield chunk


def _check(url: str) -> bool:
    """True for a URL of this machine.

    Raises:
        ConfigError: A text must not go there.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    local = host == "localhost" or _is_loopback(host)
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError(f"a reader's URL begins with https:// or http://localhost, got {url!r}")
    if parts.scheme == "http" and not local:
        raise ConfigError(
            f"{url} would send the text unencrypted to {host}; use https, or http to this machine"
        )
    return local


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
