"""RELP without sockets: what a session makes of bytes, however they are cut; and answers, which wait for the disk."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import relp
from ingest.framing import FramingCounts, mark_truncated
from ingest.relp import FIRST_LINES, MAX_OFFERS, MAX_WINDOW, RelpSession

OFFERS = b"relp_version=0\nrelp_software=librelp,1.11.0\ncommands=syslog"
OPENED = b"1 rsp 58 200 OK\nrelp_version=0\nrelp_software=tocsin\ncommands=syslog\n"
MAX = 16


def frame(number: int, command: bytes, data: bytes = b"") -> bytes:
    return b"%d %b %d%b%b\n" % (number, command, len(data), b" " if data else b"", data)


OPEN = frame(1, b"open", OFFERS)


def syslog(number: int, line: bytes) -> bytes:
    return frame(number, b"syslog", line)


Heard = tuple[list[tuple[bytes, str | None]], bytes, str | None, dict[str, int], bool]


def hear(pieces: list[bytes], max_frame: int = MAX) -> Heard:
    """Lines with their marks, replies (each line acknowledged in the end), fault, counts, and whether it was closed."""
    session = RelpSession(max_frame)
    lines = [item for piece in pieces for item in session.receive_lines(piece).frames()]
    session.acknowledge(session.unacknowledged)
    assert session.close_lines().lines == []
    rows = [(item.line, item.mark) for item in lines]
    return rows, session.take_replies(), session.fault, asdict(session.counts), session.closed


CASES: list[tuple[str, bytes, list[tuple[bytes, str | None]], bytes, str | None]] = [
    ("open", OPEN, [], OPENED, None),
    ("a line", OPEN + syslog(2, b"<13>a"), [(b"<13>a", None)], OPENED + b"2 rsp 6 200 OK\n", None),
    ("LF within", OPEN + syslog(2, b"a\nb\n"), [(b"a\nb", None)], OPENED + b"2 rsp 6 200 OK\n", None),
    ("nothing in it", OPEN + frame(2, b"syslog"), [], OPENED + b"2 rsp 6 200 OK\n", None),
    ("nothing in it, with a space", OPEN + b"2 syslog 0 \n", [], OPENED + b"2 rsp 6 200 OK\n", None),
    ("close", OPEN + frame(2, b"close"), [], OPENED + b"2 rsp 0\n0 serverclose 0\n", None),
    ("after close", OPEN + frame(2, b"close") + b"what", [], OPENED + b"2 rsp 0\n0 serverclose 0\n", None),
    ("the limit", OPEN + syslog(2, b"x" * 16), [(b"x" * 16, None)], OPENED + b"2 rsp 6 200 OK\n", None),
    (
        "too long, and the next",
        OPEN + syslog(2, b"x" * 99) + syslog(3, b"y"),
        [(b"x" * 16, mark_truncated(16)), (b"y", None)],
        OPENED + b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n",
        None,
    ),
    ("too long, of nothing", OPEN + syslog(2, b"\n" * 99), [], OPENED + b"2 rsp 6 200 OK\n", None),
    ("cut off", OPEN + syslog(2, b"abc")[:-2], [], OPENED, None),
    ("numbers may leave gaps", OPEN + syslog(9, b"a"), [(b"a", None)], OPENED + b"9 rsp 6 200 OK\n", None),
    # faults
    ("HTTP", b"GET / HTTP/1.1\r\n", [], b"", relp.FAULT_FRAME),
    ("TLS", b"\x16\x03\x01\x02\x00", [], b"", relp.FAULT_FRAME),
    ("plain syslog", b"<13>a\n", [], b"", relp.FAULT_FRAME),
    ("ten digits", b"1234567890 open 0\n", [], b"", relp.FAULT_FRAME),
    ("a length of ten digits", OPEN + b"2 syslog 1234567890 x", [], OPENED, relp.FAULT_FRAME),
    ("no space before the data", OPEN + b"2 syslog 3\nabc\n", [], OPENED, relp.FAULT_FRAME),
    ("number 0", b"0 open 0\n", [], b"", relp.FAULT_NUMBER),
    ("the same number", OPEN + syslog(1, b"a"), [], OPENED, relp.FAULT_NUMBER),
    ("a smaller number", OPEN + syslog(5, b"a") + syslog(4, b"b"), [(b"a", None)], OPENED + b"5 rsp 6 200 OK\n",
     relp.FAULT_NUMBER),
    ("unknown command", OPEN + frame(2, b"starttls"), [], OPENED, relp.FAULT_COMMAND),
    ("a command of ours", OPEN + frame(2, b"serverclose"), [], OPENED, relp.FAULT_COMMAND),
    ("not opened", syslog(1, b"a"), [], b"", relp.FAULT_OPEN),
    ("opened twice", OPEN + frame(2, b"open", OFFERS), [], OPENED, relp.FAULT_OPEN),
    ("no trailer", OPEN + b"2 syslog 1 ab", [], OPENED, relp.FAULT_TRAILER),
    ("no trailer, lines before", OPEN + syslog(2, b"a") + b"3 syslog 1 bc", [(b"a", None)], OPENED
     + b"2 rsp 6 200 OK\n", relp.FAULT_TRAILER),
    ("no offers", frame(1, b"open"), [], b"1 rsp 49 500 relp_version=0 and commands=syslog are needed\n",
     relp.FAULT_OFFERS),
    ("no syslog", frame(1, b"open", b"relp_version=0\ncommands=eventlog"), [],
     b"1 rsp 49 500 relp_version=0 and commands=syslog are needed\n", relp.FAULT_OFFERS),
    ("offers without end", b"1 open %d x" % (MAX_OFFERS + 1), [], b"", relp.FAULT_LENGTH),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "lines", "replies", "fault"), CASES, ids=[case[0] for case in CASES])
def test_sessions_whole_and_a_byte_at_a_time(
    name: str, data: bytes, lines: list[tuple[bytes, str | None]], replies: bytes, fault: str | None
) -> None:
    whole = hear([data])
    assert whole[:3] == (lines, replies, fault), name
    assert hear([data[at : at + 1] for at in range(len(data))]) == whole


def test_answers_wait_for_the_disk_and_leave_in_order() -> None:
    session = RelpSession()
    session.receive_lines(OPEN + syslog(2, b"a") + syslog(3, b"b") + frame(4, b"syslog") + syslog(5, b"c"))
    assert session.take_replies() == OPENED
    assert (session.unacknowledged, session.closed) == (3, False)
    session.acknowledge(1)
    assert session.take_replies() == b"2 rsp 6 200 OK\n"
    session.receive_lines(frame(6, b"close"))
    assert (session.take_replies(), session.ended, session.closed) == (b"", True, False)
    session.acknowledge(1)
    assert session.take_replies() == b"3 rsp 6 200 OK\n4 rsp 6 200 OK\n"  # the empty one waited for its turn
    session.acknowledge(1)
    assert session.take_replies() == b"5 rsp 6 200 OK\n6 rsp 0\n0 serverclose 0\n"
    assert (session.unacknowledged, session.closed) == (0, True)


def test_numbers_start_over_at_their_end() -> None:
    session = RelpSession()
    session.receive_lines(OPEN + syslog(999_999_999, b"a"))
    assert session.receive_lines(syslog(1, b"b") + syslog(2, b"c")).lines == [b"b", b"c"]
    assert session.fault is None


def test_the_first_lines_of_a_session_are_marked_as_such() -> None:
    session = RelpSession()
    session.receive_lines(OPEN)
    first = [session.receive_lines(syslog(number, b"x")).first for number in range(2, FIRST_LINES + 4)]
    assert first == [True] * FIRST_LINES + [False] * 2


def test_what_a_client_sends_without_waiting_is_bounded() -> None:
    session = RelpSession()
    session.receive_lines(OPEN + syslog(2, b"a"))
    session.receive_lines(b"".join(frame(number, b"syslog") for number in range(3, MAX_WINDOW + 3)))
    assert session.crowded
    session.acknowledge(1)
    assert not session.crowded


def test_a_huge_frame_costs_little_memory() -> None:
    session = RelpSession(1000)
    lines = session.receive_lines(OPEN + b"2 syslog 100000000 ").lines
    chunk = b"x" * 65536
    for _ in range(100_000_000 // len(chunk) + 1):
        lines += session.receive_lines(chunk).lines
        assert session.held_bytes <= 1000
    assert (lines, session.fault) == ([], relp.FAULT_TRAILER)  # x instead of LF at its end: as if it had never come


def relp_bytes() -> st.SearchStrategy[bytes]:
    """Sessions, near to what is valid: plain random bytes hardly ever open one."""
    line = st.binary(max_size=24)
    counted = st.lists(line, max_size=8).map(
        lambda lines: b"".join(syslog(number, data) for number, data in enumerate(lines, 2))
    )
    odd = st.sampled_from(
        [b"9 close 0\n", b"3 syslog 0 \n", b"99 syslog 1 ab", b"7 syslog 999999999 ", b"\n", b"0 ", OPEN]
    )
    return st.tuples(
        st.sampled_from([OPEN, OPEN, OPEN, b""]), st.lists(st.one_of(counted, odd, st.binary(max_size=6)), max_size=5)
    ).map(lambda parts: parts[0] + b"".join(parts[1]))


@settings(deadline=None, max_examples=300)
@given(data=st.one_of(relp_bytes(), st.binary(max_size=80)), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_split_gives_the_same(data: bytes, cuts: list[int]) -> None:
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(borders)]
    whole = hear([data])
    assert hear(pieces) == whole
    assert hear([data[at : at + 1] for at in range(len(data))]) == whole


@settings(deadline=None)
@given(data=relp_bytes(), size=st.integers(1, 20), counts=st.lists(st.integers(1, 3), max_size=20))
def test_each_line_is_answered_once_and_in_order(data: bytes, size: int, counts: list[int]) -> None:
    session = RelpSession(MAX)
    for at in range(0, len(data), size):
        session.receive_lines(data[at : at + size])
        assert session.held_bytes <= max(MAX, len(OFFERS))
        if counts and session.unacknowledged:
            session.acknowledge(min(counts.pop(), session.unacknowledged))
    session.acknowledge(session.unacknowledged)
    replies = session.take_replies()
    numbers = [int(line.split()[0]) for line in replies.split(b"\n") if b" rsp " in line]
    assert len(numbers) == len(set(numbers))
    assert numbers == sorted(numbers)
    assert replies == hear([data])[1]


@settings(deadline=None)
@given(lines=st.lists(st.binary(min_size=1, max_size=40).map(lambda body: b"<" + body + b">"), max_size=20))
def test_lines_come_back(lines: list[bytes]) -> None:
    data = OPEN + b"".join(syslog(number, line) for number, line in enumerate(lines, 2))
    rows, _, fault, counts, _ = hear([data], max_frame=100)
    assert rows == [(line, None) for line in lines]
    assert fault is None
    assert counts == asdict(FramingCounts(frames=len(lines), bytes=len(data)))
