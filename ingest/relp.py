"""RELP, the server's side: bytes of a session in, lines and replies out. No I/O here.

RELP (Reliable Event Logging Protocol, described by rsyslog's authors; librelp is its reference) numbers what a
client sends, and the server answers each number once it has taken responsibility for it:

    frame = txnr SP command SP datalen [SP data] LF
    txnr: 1 to 999999999, each larger than the last, then over again
    client: open (offers, one a line)    syslog (a line)    close
    server: rsp ("200 OK" or "500 why")  with the client's number; serverclose, a hint, with number 0

A client keeps what is not answered, and sends it again in its next session. So the answer to a line may go out only
when the line is on disk: whoever uses a session says so with `acknowledge`. Answers leave in the order of the numbers.

Rules that hold for any bytes in any split:
1. Lines, replies and fault depend on the bytes only, never on how the network cut them.
2. Nothing raises. Bytes that are no RELP set `fault`: lines before it stand, nothing after it is read.
3. At most `max_frame` bytes of a line are held; the rest of a longer one is skipped, and the line marked.

A frame that the end of the connection cuts off is not kept (it is counted as `cut`): it was not answered, so a client
that lives sends it again, whole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from ingest.framing import DEFAULT_MAX_FRAME, FramingCounts, Lines, mark_truncated, strip_trailer

FIRST_LINES: Final = 4096
"""So many lines of a session may have been sent before. librelp sends its window again (128 by default; 2,048 in our
bundles), rsyslog its queue's batch (1,024 by default)."""

MAX_WINDOW: Final = 100_000
"""Unanswered frames beyond which a client is no longer read. Clients keep to windows of 128 or so by themselves."""

MAX_OFFERS: Final = 32_768
"""Bytes of data of a command that is not a line. Precedent: librelp takes a frame of 128 KiB."""

FAULT_FRAME: Final = "not a RELP frame"
FAULT_TRAILER: Final = "frame without LF at its end"
FAULT_NUMBER: Final = "transaction number out of order"
FAULT_COMMAND: Final = "unknown command"
FAULT_OPEN: Final = "session not opened, or opened twice"
FAULT_OFFERS: Final = "offers that do not suit: relp_version=0 and commands=syslog are needed"
FAULT_LENGTH: Final = "command too long"

_HEADER: Final = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
_BEGUN: Final = re.compile(rb"[0-9]{1,9}(?: (?:[A-Za-z]{1,32}(?: [0-9]{0,9})?)?)?")
_HEADER_BYTES: Final = 9 + 1 + 32 + 1 + 9 + 1
_LAST_NUMBER: Final = 999_999_999
_NEAR: Final = 1_000_000  # a number may start over only when the last one was that near to the end

_OFFERS: Final = b"200 OK\nrelp_version=0\nrelp_software=tocsin\ncommands=syslog"
_REFUSED: Final = b"500 relp_version=0 and commands=syslog are needed"
SERVER_CLOSE: Final = b"0 serverclose 0\n"


class RelpSession:
    """The RELP of one connection.

    Args:
        max_frame: Longest line kept whole, in bytes.
        counts: Where to count; a new `FramingCounts` if not given.

    Attributes:
        counts: What was framed.
        fault: What was wrong with the protocol; None so far.
        opened: Whether the client has opened the session.
        closed: Whether the client has closed it, and everything is answered.
        unacknowledged: Lines that are not answered.
    """

    def __init__(self, max_frame: int = DEFAULT_MAX_FRAME, counts: FramingCounts | None = None) -> None:
        self.max_frame = max_frame
        self.counts = FramingCounts() if counts is None else counts
        self.fault: str | None = None
        self.opened = self.closed = False
        self.unacknowledged = 0
        self._closing = False
        self._held = bytearray()  # the beginning of a header or of the data, whichever we are in
        self._frame: tuple[int, bytes, int] | None = None  # number, command, length: set while its data comes in
        self._came = 0  # bytes of the data so far
        self._last = 0  # number of the last frame
        self._lines = 0
        self._pending: deque[int | bytes] = deque()  # numbers of lines without an answer, and answers behind them
        self._replies = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a frame was begun that has not ended."""
        return self._frame is not None or bool(self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes kept until the frame they belong to is complete."""
        return len(self._held)

    @property
    def crowded(self) -> bool:
        """Whether so much is unanswered that no more should be read."""
        return len(self._pending) > MAX_WINDOW

    @property
    def ended(self) -> bool:
        """Whether nothing more is read, by the client's wish or for a fault."""
        return self._closing or self.fault is not None

    def receive_lines(self, data: bytes) -> Lines:
        """The lines of the frames completed by `data`; each awaits `acknowledge`."""
        out = Lines(first=self._lines < FIRST_LINES)
        self.counts.bytes += len(data)
        if self._frame is None and self._held:
            data = bytes(self._held) + data
            self._held.clear()
        at, end = 0, len(data)
        while at < end and not self.ended:
            at = self._receive_header(data, at, end, out) if self._frame is None else self._receive_data(data, at, out)
        self._lines += len(out.lines)
        self.counts.frames += len(out.lines)
        return out

    def close_lines(self) -> Lines:
        """The connection has ended: nothing that was answered is left, so there are no lines."""
        if self.unfinished and not self.ended:
            self.counts.cut += 1
        self._held.clear()
        self._frame = None
        return Lines()

    def acknowledge(self, count: int) -> None:
        """The next `count` lines, in the order they came, are on disk."""
        self.unacknowledged -= count
        pending, replies = self._pending, self._replies
        while pending and (count or isinstance(pending[0], bytes)):
            head = pending.popleft()
            if isinstance(head, bytes):
                replies += head
            else:
                replies += b"%d rsp 6 200 OK\n" % head
                count -= 1
        if self._closing and not pending:
            self.closed = True

    def forget(self) -> None:
        """The client is gone: nothing is answered any more, and what was to be answered takes no memory."""
        self._pending.clear()
        self._replies.clear()
        self.unacknowledged = 0

    def take_replies(self) -> bytes:
        """What is to be sent now."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    # -- frames ------------------------------------------------------------------------------------------------

    def _receive_header(self, data: bytes, at: int, end: int, out: Lines) -> int:
        """Read a header, and at once the whole frame if all of it is here; returns where to go on."""
        header = _HEADER.match(data, at)
        if header is None:
            rest = data[at : at + _HEADER_BYTES]
            if not _BEGUN.fullmatch(rest):
                self.fault = FAULT_FRAME
            self._held += rest
            return end
        number, command, length = int(header[1]), header[2], int(header[3])
        if not self._admit(number, command, length):
            return end
        start = header.end()
        if header[4] == b"\n":
            if length:
                self.fault = FAULT_FRAME
            else:
                self._complete(number, command, b"", out)
            return start
        if length <= self._limit(command) and start + length < end:
            if data[start + length] != 0x0A:
                self.fault = FAULT_TRAILER
            else:
                self._complete(number, command, data[start : start + length], out)
            return start + length + 1
        self._frame, self._came = (number, command, length), 0
        return start

    def _admit(self, number: int, command: bytes, length: int) -> bool:
        """Whether a frame with this header may come now."""
        over_again = self._last > _LAST_NUMBER - _NEAR and number <= _NEAR
        if number == 0 or (number <= self._last and not over_again):
            self.fault = FAULT_NUMBER
        elif command not in _COMMANDS:
            self.fault = FAULT_COMMAND
        elif self.opened == (command == b"open"):
            self.fault = FAULT_OPEN
        elif length > MAX_OFFERS and command != b"syslog":
            self.fault = FAULT_LENGTH
        self._last = number
        return self.fault is None

    def _limit(self, command: bytes) -> int:
        return self.max_frame if command == b"syslog" else MAX_OFFERS

    def _receive_data(self, data: bytes, at: int, out: Lines) -> int:
        """Take what belongs to the frame begun earlier; returns where to go on."""
        if self._frame is None:
            return at
        number, command, length = self._frame
        taken = min(len(data) - at, length - self._came)
        kept = max(0, min(taken, self._limit(command) - len(self._held)))
        self._held += data[at : at + kept]
        self._came += taken
        at += taken
        if self._came < length or at == len(data):
            return at
        if data[at] != 0x0A:
            self.fault = FAULT_TRAILER
            return at
        body = bytes(self._held)
        self._held.clear()
        self._frame = None
        skipped = length - len(body)
        if skipped:
            self.counts.truncated += 1
            self.counts.skipped += skipped
            out.marks[len(out.lines)] = mark_truncated(self.max_frame)
        self._complete(number, command, body, out)
        return at + 1

    def _complete(self, number: int, command: bytes, body: bytes, out: Lines) -> None:
        _COMMANDS[command](self, number, body, out)

    # -- commands ----------------------------------------------------------------------------------------------

    def _syslog(self, number: int, body: bytes, out: Lines) -> None:
        line = strip_trailer(body)
        if not line:
            self.counts.empty += 1
            out.marks.pop(len(out.lines), None)
            self._reply(number, b"200 OK")
            return
        out.lines.append(line)
        self._pending.append(number)
        self.unacknowledged += 1

    def _open(self, number: int, body: bytes, _: Lines) -> None:
        offers = dict(line.partition(b"=")[::2] for line in body.split(b"\n"))
        commands = offers.get(b"commands", b"").split(b",")
        if not offers.get(b"relp_version", b"").isdigit() or b"syslog" not in commands:
            self._reply(number, _REFUSED)
            self.fault = FAULT_OFFERS
            return
        self.opened = True
        self._reply(number, _OFFERS)

    def _close(self, number: int, _: bytes, __: Lines) -> None:
        self._closing = True
        self._reply(number, b"", SERVER_CLOSE)

    def _reply(self, number: int, text: bytes, behind: bytes = b"") -> None:
        """Answer in turn: behind the lines that are not answered yet."""
        self._pending.append(
            (b"%d rsp %d %b\n" % (number, len(text), text) if text else b"%d rsp 0\n" % number) + behind
        )
        self.acknowledge(0)


_COMMANDS: Final[Mapping[bytes, Callable[[RelpSession, int, bytes, Lines], None]]] = {
    b"open": RelpSession._open,  # noqa: SLF001 - the table belongs to the class
    b"syslog": RelpSession._syslog,  # noqa: SLF001
    b"close": RelpSession._close,  # noqa: SLF001
}
"""Command of a client -> what it does."""
