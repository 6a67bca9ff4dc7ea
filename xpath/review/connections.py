"""The open connections of a server: neither many of them nor slow ones take it from the others."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import OrderedDict

__all__ = ["Connections"]

GRACE = 2.0
"""Seconds in which answers can be taken when the server ends."""
AGAIN = 0.02
"""Seconds until it is looked again whether they are."""


class Connections:
    """Connections that wait for their request to be complete, and those that are being answered.

    A new one that finds no room takes the room of the one that has been waiting longest, so that a
    crowd of silent connections cannot shut others out. One that is being answered is never ended.
    """

    def __init__(self, most: int, patience: float) -> None:
        """Starts empty.

        Args:
            most: Connections at a time.
            patience: Seconds until a request must be complete, however often a byte of it comes.
        """
        self._most, self._patience = most, patience
        self._waiting: OrderedDict[socket.socket, float] = OrderedDict()  # the oldest first
        self._answered: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of open connections."""
        with self._lock:
            return len(self._waiting) + len(self._answered)

    def enter(self, connection: socket.socket) -> bool:
        """Takes a new connection, or returns False if all others are being answered."""
        with self._lock:
            if len(self._waiting) + len(self._answered) >= self._most:
                if not self._waiting:
                    return False
                self._end_oldest()
            self._waiting[connection] = time.monotonic()
            return True

    def answer(self, connection: socket.socket) -> None:
        """Notes that a request is complete."""
        with self._lock:
            if self._waiting.pop(connection, None) is not None:
                self._answered.add(connection)

    def wait(self, connection: socket.socket) -> None:
        """Notes that the next request may come."""
        with self._lock:
            if connection in self._answered:
                self._answered.remove(connection)
                self._waiting[connection] = time.monotonic()

    def leave(self, connection: socket.socket) -> None:
        """Forgets a connection that is closed."""
        with self._lock:
            self._waiting.pop(connection, None)
            self._answered.discard(connection)

    def end_slow(self) -> None:
        """Ends those that have waited too long."""
        with self._lock:
            until = time.monotonic() - self._patience
            while self._waiting and next(iter(self._waiting.values())) < until:
                self._end_oldest()

    def end(self) -> None:
        """Ends all: at once those that wait, others with their answer or after a moment."""
        self._shut(socket.SHUT_RD)  # then no further request comes
        until = time.monotonic() + GRACE
        while len(self) and time.monotonic() < until:
            time.sleep(AGAIN)
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with self._lock:
            for connection in (*self._waiting, *self._answered):
                with contextlib.suppress(OSError):  # it has gone just now
                    connection.shutdown(how)

    def _end_oldest(self) -> None:
        connection, _ = self._waiting.popitem(last=False)
        with contextlib.suppress(OSError):  # its thread reads that it has ended, and closes it
            connection.shutdown(socket.SHUT_RDWR)
