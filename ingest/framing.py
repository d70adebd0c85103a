"""Syslog framing: bytes of a connection in, frames out (RFC 6587 for TCP, RFC 5426 for UDP). No I/O here.

TCP carries no message borders, and RFC 6587 describes two ways senders draw them:

- Octet counting (section 3.4.1): `MSG-LEN SP SYSLOG-MSG`, MSG-LEN being decimal digits without a leading zero.
- Non-transparent framing (section 3.4.2): each message is followed by a TRAILER, nearly always LF, sometimes NUL or
  CR LF.

A `Framer` serves one connection. It chooses the framing from the first bytes and keeps it: `MSG-LEN SP` means octet
counting, anything else means a trailer, as a syslog line starts with `<`. In trailer framing both LF and NUL end
a frame wherever they stand, as in syslog-ng, and one CR before them is dropped.

Rules that hold for any bytes in any split:
1. The frames depend on the bytes only, never on how the network cut them.
2. Nothing raises. What is wrong is kept and marked; the `MARK_*` texts say what was wrong.
3. At most `max_frame` bytes (and a few more) are held, whatever a peer announces.
4. Only two things are not kept: bytes past `max_frame` (counted in `skipped`), and frames without content (`empty`).

Trap: once an octet count is broken there is no way to find the next one, so the connection falls back to trailers
for good. Guessing at a new count inside the text would let a log line that an attacker wrote forge frames.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

DEFAULT_MAX_FRAME: Final = 256 * 1024
"""Longest frame kept whole, in bytes. Precedents: RFC 5425 asks for 8 KiB, rsyslog takes 8 KiB, syslog-ng 64 KiB; an
audit message with XML inside (DICOM, a Windows event with a long script block) passes 64 KiB, a UDP datagram never."""

MAX_COUNT_DIGITS: Final = 10
"""Most digits an octet count may have. Precedent: rsyslog refuses counts past 200,000,000 (9 digits)."""

MARK_BROKEN: Final = "broken octet count"
MARK_CUT: Final = "cut: connection closed in the middle of a frame"
MARK_UNTERMINATED: Final = "unterminated: no newline before the connection closed"

_TRAILERS: Final = b"\n\r\0"
_TRAILER_RUN: Final = re.compile(rb"[\n\r\0]+")  # at once: a sender of nothing else must not cost a turn for each byte


def mark_truncated(max_frame: int) -> str:
    """The mark of a frame of which only the first `max_frame` bytes were kept."""
    return f"truncated: frame longer than {max_frame} bytes"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message without its transport framing, and what was wrong with it, if anything."""

    line: bytes
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Frames as columns: `Frame` objects cost more than the framing itself at 100,000 lines a second.

    Attributes:
        lines: The frames' bytes, in order.
        marks: Index into `lines` -> mark, for the few frames that have one.
        first: Whether some are among the first of a RELP session, so that they may have been sent before.
    """

    lines: list[bytes] = field(default_factory=list)
    marks: dict[int, str] = field(default_factory=dict)
    first: bool = False

    def frames(self) -> list[Frame]:
        """The same, as one object a frame."""
        return [Frame(line, self.marks.get(index)) for index, line in enumerate(self.lines)]


@dataclass(slots=True)
class FramingCounts:
    """What was framed so far. One object may be shared by all connections of a listener."""

    frames: int = 0
    bytes: int = 0  # received, framing included
    truncated: int = 0
    broken: int = 0
    cut: int = 0
    unterminated: int = 0
    empty: int = 0
    skipped: int = 0  # bytes of over-long frames that were not kept


class _Framing(Enum):
    UNKNOWN = auto()
    OCTET_COUNT = auto()
    OCTET_BODY = auto()
    TRAILER = auto()
    TRAILER_SKIP = auto()  # inside the rest of an over-long frame


class Framer:
    """The framing of one TCP connection.

    Args:
        max_frame: Longest frame kept whole, in bytes.
        counts: Where to count; a new `FramingCounts` if not given.
    """

    def __init__(self, max_frame: int = DEFAULT_MAX_FRAME, counts: FramingCounts | None = None) -> None:
        if max_frame < 1:
            raise ValueError(f"max_frame must be at least 1, not {max_frame}")
        self.max_frame = max_frame
        self.counts = FramingCounts() if counts is None else counts
        self._framing = _Framing.UNKNOWN
        self._held = bytearray()  # the beginning of a count, of a body or of a line, whichever we are in
        self._missing = 0  # OCTET_BODY: bytes of the body still to come
        self._overlong = False  # OCTET_BODY: the frame was handed on truncated, the rest is skipped
        self._fault: str | None = None  # mark for the next frame

    def receive(self, data: bytes) -> list[Frame]:
        """Frames completed by `data`."""
        return self.receive_lines(data).frames()

    def close(self) -> list[Frame]:
        """The frame that the end of the connection left unfinished, if any. The framer is then spent."""
        return self.close_lines().frames()

    @property
    def held_bytes(self) -> int:
        """Bytes kept until the frame they belong to is complete."""
        return len(self._held)

    @property
    def unfinished(self) -> bool:
        """Whether a frame was begun that has not ended."""
        return bool(self._held) or self._framing in (_Framing.OCTET_BODY, _Framing.TRAILER_SKIP)

    def receive_lines(self, data: bytes) -> Lines:
        """Frames completed by `data`, as columns."""
        out = Lines()
        self.counts.bytes += len(data)
        if self._framing is _Framing.UNKNOWN:
            data = self._choose(data)
        if self._framing in (_Framing.OCTET_COUNT, _Framing.OCTET_BODY):
            data = self._receive_counted(data, out)
        if data:
            self._receive_trailed(data, out)
        self.counts.frames += len(out.lines)
        return out

    def close_lines(self) -> Lines:
        """What `close` returns, as columns."""
        out = Lines()
        held, framing = bytes(self._held), self._framing
        self._held.clear()
        self._framing = _Framing.TRAILER_SKIP
        if framing in (_Framing.UNKNOWN, _Framing.TRAILER):
            if held:
                self.counts.unterminated += 1
                self._keep_line(held, MARK_UNTERMINATED, out)
        elif framing is _Framing.OCTET_BODY or (framing is _Framing.OCTET_COUNT and held):
            self.counts.cut += 1
            if not self._overlong:
                self._keep(strip_trailer(held), MARK_CUT, out)
        self.counts.frames += len(out.lines)
        return out

    def _choose(self, data: bytes) -> bytes:
        """Choose the framing once the first bytes tell; returns what is to be framed now."""
        data = bytes(self._held) + data
        self._held.clear()
        digits = data[: MAX_COUNT_DIGITS + 1].partition(b" ")[0]
        if digits and not _may_count(digits):
            self._framing = _Framing.TRAILER
        elif len(digits) < min(len(data), MAX_COUNT_DIGITS + 1):
            self._framing = _Framing.OCTET_COUNT if digits else _Framing.TRAILER
        else:  # all digits so far: the space may still come
            self._held += data
            return b""
        return data

    # -- octet counting ----------------------------------------------------------------------------------------

    def _receive_counted(self, data: bytes, out: Lines) -> bytes:
        """Take counted frames; returns what remains once a count is broken, else nothing."""
        at = 0
        if self._framing is _Framing.OCTET_BODY:
            at = self._continue_body(data, out)
        elif self._held:
            data = bytes(self._held) + data
            self._held.clear()
        end = len(data)
        while (at := self._take_whole(data, at, end, out.lines)) < end:
            space = data.find(b" ", at, at + MAX_COUNT_DIGITS + 1)
            digits = data[at : space if space >= 0 else at + MAX_COUNT_DIGITS + 1]
            if not _may_count(digits):
                if data[at] in _TRAILERS:  # senders that add a newline after a counted frame exist
                    run = _TRAILER_RUN.match(data, at)
                    past = at + 1 if run is None else run.end()
                    self.counts.empty += past - at
                    at = past
                    continue
                return self._lose_count(data[at:])
            if space < 0:
                self._held += digits
                break
            length, at = int(digits), space + 1
            if length <= self.max_frame and at + length <= end:
                self._keep(strip_trailer(data[at : at + length]), None, out)
                at += length
            else:
                self._framing, self._missing = _Framing.OCTET_BODY, length
                at += self._continue_body(data[at : at + length], out)
        return b""

    def _take_whole(self, data: bytes, at: int, end: int, lines: list[bytes]) -> int:
        """Take frames as long as they are whole and nothing about them is special; returns where that ends.

        The frames of a busy sender are nearly all like that, and this loop is what octet counting costs.
        """
        max_frame, find, append = self.max_frame, data.find, lines.append
        while at < end:
            space = find(b" ", at, at + MAX_COUNT_DIGITS + 1)
            digits = data[at:space]
            if space < 0 or not digits.isdigit() or digits[0] == 0x30:
                break
            stop = space + 1 + int(digits)
            if stop > end or stop - space - 1 > max_frame:
                break
            last = data[stop - 1]
            if last == 0x0A or last == 0x0D or last == 0:
                break
            append(data[space + 1 : stop])
            at = stop
        return at

    def _continue_body(self, data: bytes, out: Lines) -> int:
        """Take from `data` what belongs to the body begun earlier; returns how many bytes that was."""
        taken = min(len(data), self._missing)
        self._missing -= taken
        kept = 0
        if not self._overlong:
            kept = min(taken, self.max_frame - len(self._held))
            self._held += data[:kept]
            # Longer than max_frame for sure: bytes are left over, or are announced to come.
            if len(self._held) == self.max_frame and (taken > kept or self._missing):
                self._overlong = True
                self.counts.truncated += 1
                self._keep(strip_trailer(bytes(self._held)), mark_truncated(self.max_frame), out)
                self._held.clear()
        self.counts.skipped += taken - kept
        if not self._missing:
            if not self._overlong:
                self._keep(strip_trailer(bytes(self._held)), None, out)
            self._held.clear()
            self._overlong = False
            self._framing = _Framing.OCTET_COUNT
        return taken

    def _lose_count(self, rest: bytes) -> bytes:
        self._framing = _Framing.TRAILER
        self._fault = MARK_BROKEN
        self.counts.broken += 1
        return rest

    # -- trailers ----------------------------------------------------------------------------------------------

    def _receive_trailed(self, data: bytes, out: Lines) -> None:
        if b"\0" in data:
            data = data.replace(b"\0", b"\n")
        if self._framing is _Framing.TRAILER_SKIP:
            rest_of_frame, ended, data = data.partition(b"\n")
            self.counts.skipped += len(rest_of_frame)
            if not ended:
                return
            self._framing = _Framing.TRAILER
        pieces = data.split(b"\n")
        if len(pieces) > 1:
            if self._held:
                pieces[0] = bytes(self._held) + pieces[0]
                self._held.clear()
            data = pieces.pop()
            self._keep_pieces(pieces, out)
        self._hold(data, out)

    def _keep_pieces(self, pieces: list[bytes], out: Lines) -> None:
        """Keep whole lines: at the speed of C if nothing about them is special."""
        if self._fault is not None or max(map(len, pieces)) > self.max_frame:
            for piece in pieces:
                self._keep_line(piece, None, out)
            return
        lines = [piece.removesuffix(b"\r") for piece in pieces]
        if b"" in lines:
            lines = [line for line in lines if line]
            self.counts.empty += len(pieces) - len(lines)
        out.lines.extend(lines)

    def _hold(self, tail: bytes, out: Lines) -> None:
        """Hold the beginning of a line, or hand it on truncated as soon as it is certainly too long.

        One byte past `max_frame` may yet be the CR of the trailer, so only the second one is certain.
        """
        room = self.max_frame + 2 - len(self._held)
        self._held += tail[:room]
        if len(tail) >= room:
            self.counts.truncated += 1
            self.counts.skipped += 2 + len(tail) - room
            self._keep(bytes(self._held[: self.max_frame]), mark_truncated(self.max_frame), out)
            self._held.clear()
            self._framing = _Framing.TRAILER_SKIP

    def _keep_line(self, line: bytes, mark: str | None, out: Lines) -> None:
        """Keep one line, whole or not, that ended with a trailer or with the connection."""
        content = line.removesuffix(b"\r")
        if len(content) > self.max_frame:
            self.counts.truncated += 1
            self.counts.skipped += len(line) - self.max_frame
            content, mark = content[: self.max_frame], _joined(mark_truncated(self.max_frame), mark)
        self._keep(content, mark, out)

    def _keep(self, line: bytes, mark: str | None, out: Lines) -> None:
        """Hand a frame on, unless nothing is in it."""
        if not line:
            self.counts.empty += 1
            return
        if self._fault is not None:
            mark, self._fault = _joined(self._fault, mark), None
        if mark is not None:
            out.marks[len(out.lines)] = mark
        out.lines.append(line)


def frame_datagram(
    data: bytes, max_frame: int = DEFAULT_MAX_FRAME, counts: FramingCounts | None = None
) -> Frame | None:
    """One UDP datagram is one message (RFC 5426 section 3.1); None if nothing is in it but a trailer."""
    counts = FramingCounts() if counts is None else counts
    counts.bytes += len(data)
    line, mark = strip_trailer(data), None
    if not line:
        counts.empty += 1
        return None
    if len(line) > max_frame:
        counts.truncated += 1
        counts.skipped += len(line) - max_frame
        line, mark = line[:max_frame], mark_truncated(max_frame)
    counts.frames += 1
    return Frame(line, mark)


def strip_trailer(line: bytes) -> bytes:
    """The message without trailing LF, NUL and CR."""
    return line.rstrip(_TRAILERS) if line[-1:] in (b"\n", b"\0", b"\r") else line


def _may_count(digits: bytes) -> bool:
    """Whether these bytes are an octet count or its beginning. Trap: `int` also takes `+1`, ` 1` and `1_0`."""
    return digits.isdigit() and digits[0] != 0x30 and len(digits) <= MAX_COUNT_DIGITS


def _joined(first: str, second: str | None) -> str:
    return first if second is None else f"{first}; {second}"
