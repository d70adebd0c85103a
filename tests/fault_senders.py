"""Senders of the fault runs: RELP, which knows what was taken, and plain TCP and UDP, which do not.

A RELP sender keeps a window of lines without an answer. When a session breaks it opens another one and sends these
again, in order, before any new line, as librelp does. So what is answered is always the first lines of all: a number
says it.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from fault_lines import EVERY, Script

ANSWER_SECONDS: Final = 90.0
"""A session without an answer for this long is given up: rsyslog's own default for RELP."""

BURST: Final = 250
_ANSWER: Final = re.compile(rb"(\d+) rsp 6 200 OK\n")


class RelpSender(threading.Thread):
    """Sends a script at a pace until it is told to finish, and then until all is answered.

    Args:
        script: What it says.
        address: Its own address.
        port: Of the collector's listener.
        pace: Lines a second, at most.
        window: Most lines without an answer.
        closing: Lines at the very end that let event time pass.

    Attributes:
        acknowledged: How many lines were answered, of the first on.
        sessions: Sessions opened.
        again: Lines sent once more.
        longest_wait: Longest time, in seconds, without an answer while lines waited for one.
    """

    def __init__(self, script: Script, address: str, port: int, pace: float, window: int, closing: int = 0) -> None:
        super().__init__(name=f"relp {script.name}", daemon=True)
        self.script = script
        self.acknowledged = self.sessions = self.again = 0
        self.longest_wait = 0.0
        self.fault: BaseException | None = None
        self.finishing = threading.Event()
        self._address, self._port = address, port
        self._pace, self._window, self._closing = pace, window, closing
        self._ends: int | None = None  # number of lines, once that is known
        self._sent = 0  # lines begun, of the first on
        self._begun = self._answered = time.monotonic()

    @property
    def lines(self) -> int:
        """Lines begun, without those of the end."""
        return self._sent if self._ends is None else min(self._sent, self._ends)

    def run(self) -> None:
        try:
            while not self.is_through():
                with suppress(OSError):
                    self._session()
                time.sleep(0.1)
        except BaseException as error:
            self.fault = error
            raise

    def is_through(self) -> bool:
        """Whether the end was reached and all is answered."""
        return self._ends is not None and self.acknowledged == self._ends + self._closing

    def _session(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 5, source_address=(self._address, 0)) as connection:
            connection.settimeout(ANSWER_SECONDS)
            offers = b"relp_version=0\ncommands=syslog"
            connection.sendall(b"1 open %d %b\n" % (len(offers), offers))
            greeting = b""
            while not re.search(rb"commands=\S+\n", greeting):
                if not (data := connection.recv(4096)):
                    return
                greeting += data
            self.sessions += 1
            self.again += self._sent - self.acknowledged
            self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        first = self.acknowledged  # the line of transaction 2
        at, buffer, opened = first, b"", time.monotonic()
        while not self.is_through():
            frames: list[bytes] = []
            limit = min(self._allowed(), self.acknowledged + self._window, at + BURST)
            if self._ends is None and at - self.acknowledged > self._window // 2:
                limit = at  # in bursts, as a relay under load sends
            while at < limit:
                text = self._text(at)
                frames.append(b"%d syslog %d %b\n" % (at - first + 2, len(text), text))
                at += 1
            self._sent = max(self._sent, at)
            if frames:
                connection.sendall(b"".join(frames))
            waits = at > self.acknowledged
            connection.settimeout(0.02 if at < self.acknowledged + self._window or not waits else ANSWER_SECONDS)
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                if waits and time.monotonic() - max(opened, self._answered) > ANSWER_SECONDS:
                    return
                continue
            finally:
                connection.settimeout(ANSWER_SECONDS)
            if not data:
                return
            buffer = self._take(buffer + data, first)

    def _take(self, buffer: bytes, first: int) -> bytes:
        """Take the answers; what is left of the buffer."""
        behind = 0
        for answer in _ANSWER.finditer(buffer):
            assert answer.start() == behind, f"not an answer: {buffer[behind : behind + 80]!r}"
            number = int(answer[1]) - 2 + first
            assert number == self.acknowledged, f"line {number} was answered, {self.acknowledged} was next"
            self.acknowledged += 1
            behind = answer.end()
        if behind:
            now = time.monotonic()
            self.longest_wait = max(self.longest_wait, now - self._answered)
            self._answered = now
        assert len(buffer) - behind < 80 or b"serverclose" in buffer, buffer[behind : behind + 200]
        return buffer[behind:]

    def _text(self, number: int) -> bytes:
        if self._ends is not None and number >= self._ends:
            return self.script.closing(number)
        return self.script.line(number)

    def _allowed(self) -> int:
        """Lines that may be begun by now."""
        if self._ends is not None:
            return self._ends + self._closing
        if self.finishing.is_set():
            self._ends = self._sent
            return self._ends + self._closing
        # What could not be sent in time is not made up for in one burst: the pace is a bound
        now = time.monotonic()
        allowed = (now - self._begun) * self._pace
        if allowed > self._sent + self._pace:
            self._begun = now - (self._sent + self._pace) / self._pace
            allowed = self._sent + self._pace
        return int(allowed)


@dataclass
class Plain:
    """What was sent without an answer to wait for.

    Attributes:
        sent: Lines that the socket took.
        refused: Lines that it did not take, at once: nobody listened.
    """

    sent: int = 0
    refused: int = 0
    numbers: set[int] = field(default_factory=set)


class PlainSender(threading.Thread):
    """Sends numbered lines over plain TCP or UDP, slowly, and never again: to see what these cannot promise."""

    def __init__(self, transport: str, script: Script, address: str, port: int, pace: float) -> None:
        super().__init__(name=f"{transport} {script.name}", daemon=True)
        self.transport, self.script = transport, script
        self.told = Plain()
        self.finishing = threading.Event()
        self._source, self._target, self._pace = (address, 0), ("127.0.0.1", port), pace
        self._connection: socket.socket | None = None

    def run(self) -> None:
        number = 0
        send = self._send_datagram if self.transport == "udp" else self._send_stream
        while not self.finishing.is_set():
            line = number * EVERY + 1  # never one that a rule looks for
            text = self.script.line(line)
            try:
                send(text, number)
                self.told.sent += 1
                self.told.numbers.add(line)
            except OSError:
                self.told.refused += 1
                self._close()
            number += 1
            self.finishing.wait(1 / self._pace)
        self._close()

    def _send_datagram(self, text: bytes, _number: int) -> None:
        if self._connection is None:
            self._connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._connection.bind(self._source)
            self._connection.connect(self._target)
        self._connection.send(text)

    def _send_stream(self, text: bytes, _number: int) -> None:
        if self._connection is None:
            self._connection = socket.create_connection(self._target, 2, source_address=self._source)
        self._connection.sendall(text + b"\n")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.25) -> bool:
    """Whether a condition came true within a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
