"""Playing lines to a syslog listener, as a hospital's forwarder would: over a plain blocking socket.

TCP framing is RFC 6587: octet-counted (3.4.1, `LENGTH SP MSG`) or a line feed after each (3.4.2). Syslog over TCP has
no acknowledgement; the nearest is to close the sending half and wait until the listener has closed its own, which it
does after reading everything. UDP (RFC 5426) is one datagram a line, and nothing tells whether it arrived.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from tocsin.exercise_scenario import ExerciseError

Transport: TypeAlias = Literal["tcp", "udp"]
Framing: TypeAlias = Literal["octet-counted", "newline"]

CONNECT_SECONDS: Final = 5.0
SEND_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 5.0
MAX_DATAGRAM: Final = 65_507


class PlayError(ExerciseError):
    """Lines could not be sent; the message names the listener and the cause."""


@dataclass(frozen=True, slots=True)
class TimedLine:
    """One line to send.

    Attributes:
        at: Time of the event; the line says the same.
        stage: Id of the stage it belongs to, or None for ordinary life.
        host: Short name of the host that logged it.
        line: The line without transport framing.
        flaw: What was made wrong on purpose, or None.
    """

    at: datetime
    stage: str | None
    host: str
    line: bytes
    flaw: str | None = None


@dataclass(frozen=True, slots=True)
class PlayReport:
    """What was sent: lines, bytes on the wire, and seconds it took."""

    lines: int
    bytes: int
    seconds: float


def play(
    lines: Iterable[TimedLine],
    host: str,
    port: int,
    *,
    transport: Transport = "tcp",
    framing: Framing = "octet-counted",
    rate: float | None = None,
    progress: Callable[[int], object] = lambda _sent: None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> PlayReport:
    """Send lines in their order.

    Args:
        lines: As `exercise.render` gives them; only their order counts, not their times.
        host: Name or address of the listener.
        port: Its port.
        transport: UDP tells nothing of lines that are lost.
        framing: Of TCP.
        rate: Lines a second, or None for as fast as the listener reads.
        progress: Told the number of lines sent, after each.
        sleep: Waits for some seconds.
        clock: Seconds that only go forward.

    Raises:
        PlayError: Nobody listens, the connection broke, or a line does not fit the framing.
        ValueError: The rate is not positive.
    """
    if rate is not None and not rate > 0:
        raise ValueError(f"a rate of {rate} lines a second is not positive")
    begun = clock()
    sent = size = 0
    place = f"{host}:{port} ({transport})"
    with _connection(host, port, transport, place) as connection:
        for item in lines:
            if rate is not None:
                ahead = begun + sent / rate - clock()
                if ahead > 0:
                    sleep(ahead)
            frame = _frame(item.line, transport, framing)
            try:
                connection.sendall(frame)
            except OSError as error:
                raise PlayError(f"{place}: the connection broke after {sent} lines: {_cause(error)}") from error
            sent += 1
            size += len(frame)
            progress(sent)
        if transport == "tcp":
            _await_close(connection)
    return PlayReport(sent, size, clock() - begun)


def _connection(host: str, port: int, transport: Transport, place: str) -> socket.socket:
    try:
        if transport == "tcp":
            connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        else:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            connection = socket.socket(family, kind, protocol)
            connection.connect(address)
    except OSError as error:
        raise PlayError(f"nobody listens on {place}: {_cause(error)}; start Tocsin first") from error
    connection.settimeout(SEND_SECONDS)
    return connection


def _frame(line: bytes, transport: Transport, framing: Framing) -> bytes:
    if transport == "udp":
        if len(line) > MAX_DATAGRAM:
            raise PlayError(f"a line of {len(line)} bytes does not fit a datagram of {MAX_DATAGRAM}")
        return line
    if framing == "octet-counted":
        return b"%d %b" % (len(line), line)
    if b"\n" in line:
        raise PlayError("a line that holds a line feed cannot be framed by line feeds; use octet-counted")
    return line + b"\n"


def _await_close(connection: socket.socket) -> None:
    """Close our half and let the listener read the rest; one that keeps its half open is no fault."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(CLOSE_SECONDS)
        while connection.recv(4096):
            pass


def _cause(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
