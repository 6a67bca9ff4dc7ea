"""The refusal of a request, with a status and a reason for its sender."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """Ends a request.

    Args:
        status: HTTP status, such as 404.
        reason: For the reader of the page; names no path of this machine.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
