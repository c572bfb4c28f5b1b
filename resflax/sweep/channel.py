"""Messages between a launcher and its workers, which may carry open files with them."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_DESCRIPTORS = 8  # of one message


class Channel:
    """One end of a connection that messages pass through. Each is a JSON object on a line.

    Args:
      connection: a stream socket that is connected to the other end.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._descriptors: list[int] = []
        self.closed = False
        """Whether the other end is closed and everything that it sent was received."""

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Sends a message and copies of open files. Raises `OSError` if the other end is closed."""
        text = json.dumps(message).encode() + b"\n"
        sent = socket.send_fds(self._connection, [text], descriptors)
        self._connection.sendall(text[sent:])

    def receive(self, *, wait: bool) -> dict[str, Any] | None:
        """Returns the next message.

        Returns None if there is none: with `wait` only after the other end was closed.
        """
        while b"\n" not in self._received:
            if self.closed or not self._read(wait):
                return None
        line, _, self._received = self._received.partition(b"\n")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def take_descriptors(self, count: int) -> list[int]:
        """Returns the descriptors of the files that came with the last message."""
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return taken

    def _read(self, wait: bool) -> bool:
        """Reads what has come; returns False if nothing has."""
        self._connection.setblocking(wait)  # Python's recv_fds passes no flags on
        try:
            data, descriptors, _, _ = socket.recv_fds(self._connection, 2**16, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return False
        except ConnectionError:
            data, descriptors = b"", []
        finally:
            self._connection.setblocking(True)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._received += data
        self._descriptors += descriptors
        self.closed = not data
        return True

    def close(self) -> None:
        """Closes this end."""
        self._connection.close()
