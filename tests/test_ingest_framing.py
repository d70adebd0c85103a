"""Framing: a table of what senders do, and what must hold for any bytes in any split."""

from __future__ import annotations

import time
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.framing import (
    MARK_BROKEN,
    MARK_CUT,
    MARK_UNTERMINATED,
    MAX_COUNT_DIGITS,
    Frame,
    Framer,
    FramingCounts,
    frame_datagram,
    mark_truncated,
    strip_trailer,
)

MAX = 16
TRUNCATED = mark_truncated(MAX)

CASES: list[tuple[str, bytes, list[tuple[bytes, str | None]]]] = [
    # octet counting
    ("one counted frame", b"5 hello", [(b"hello", None)]),
    ("two counted frames", b"5 hello3 bye", [(b"hello", None), (b"bye", None)]),
    ("a newline inside a counted frame stays", b"7 a\nb\r\nc!", [(b"a\nb\r\nc!", None)]),
    ("a trailer that was counted in is dropped", b"6 hello\n4 bye\0", [(b"hello", None), (b"bye", None)]),
    ("trailers not counted are skipped", b"5 hello\n3 bye\r\n2 ok", [(b"hello", None), (b"bye", None), (b"ok", None)]),
    ("counted, exactly the limit", b"16 " + b"x" * 16, [(b"x" * 16, None)]),
    ("counted, one too long", b"17 " + b"x" * 16 + b"y2 ok", [(b"x" * 16, TRUNCATED), (b"ok", None)]),
    ("counted, a billion announced", b"1000000000 " + b"x" * 50, [(b"x" * 16, TRUNCATED)]),
    ("counted, only a trailer inside", b"1 \n2 ok", [(b"ok", None)]),
    ("cut in the body", b"5 hello9 part", [(b"hello", None), (b"part", MARK_CUT)]),
    ("cut in the count", b"5 hello1234", [(b"hello", None), (b"1234", MARK_CUT)]),
    ("cut right after the count", b"5 hello3 ", [(b"hello", None)]),
    ("count with a letter", b"5 hello12x one\ntwo\n", [(b"hello", None), (b"12x one", MARK_BROKEN), (b"two", None)]),
    ("count with a sign", b"5 hello+2 ok\n", [(b"hello", None), (b"+2 ok", MARK_BROKEN)]),
    ("count of zero", b"5 hello0 <13>x\n", [(b"hello", None), (b"0 <13>x", MARK_BROKEN)]),
    ("count with a leading zero", b"5 hello03 abc\n", [(b"hello", None), (b"03 abc", MARK_BROKEN)]),
    ("count missing", b"5 hello<13>x\n5 hello\n", [(b"hello", None), (b"<13>x", MARK_BROKEN), (b"5 hello", None)]),
    ("count with too many digits", b"5 hello12345678901 x\n", [(b"hello", None), (b"12345678901 x"[:16], MARK_BROKEN)]),
    ("count, no space", b"5 hello111111111111\nok\n", [(b"hello", None), (b"1" * 12, MARK_BROKEN), (b"ok", None)]),
    ("broken, then too long", b"1 a" + b"x" * 30 + b"\n", [(b"a", None), (b"x" * 16, f"{MARK_BROKEN}; {TRUNCATED}")]),
    ("broken, then unterminated", b"1 a;bc", [(b"a", None), (b";bc", f"{MARK_BROKEN}; {MARK_UNTERMINATED}")]),
    # trailers
    ("LF", b"<13>a\n<13>b\n", [(b"<13>a", None), (b"<13>b", None)]),
    ("CR LF", b"<13>a\r\n<13>b\r\n", [(b"<13>a", None), (b"<13>b", None)]),
    ("only one CR is the trailer's", b"<13>a\r\r\n", [(b"<13>a\r", None)]),
    ("a CR inside stays", b"a\rb\n", [(b"a\rb", None)]),
    ("NUL", b"<13>a\0<13>b\0", [(b"<13>a", None), (b"<13>b", None)]),
    ("NUL after LF", b"<13>a\n\0<13>b\n\0", [(b"<13>a", None), (b"<13>b", None)]),
    ("empty lines", b"\n\r\n\na\n\n", [(b"a", None)]),
    ("exactly the limit", b"x" * 16 + b"\nok\n", [(b"x" * 16, None), (b"ok", None)]),
    ("exactly the limit, CR LF", b"x" * 16 + b"\r\nok\n", [(b"x" * 16, None), (b"ok", None)]),
    ("one too long", b"x" * 17 + b"\nok\n", [(b"x" * 16, TRUNCATED), (b"ok", None)]),
    ("far too long", b"x" * 500 + b"\nok\n", [(b"x" * 16, TRUNCATED), (b"ok", None)]),
    ("too long to the end", b"x" * 500, [(b"x" * 16, TRUNCATED)]),
    ("no newline at the end", b"a\nbc", [(b"a", None), (b"bc", MARK_UNTERMINATED)]),
    ("too long by one, and no newline", b"x" * 17, [(b"x" * 16, f"{TRUNCATED}; {MARK_UNTERMINATED}")]),
    ("not UTF-8", b"<13>\xff\xfe\x80\n", [(b"<13>\xff\xfe\x80", None)]),
    # which of the two
    ("starts with zero", b"0 abc\n", [(b"0 abc", None)]),
    ("digits without a space", b"12abc\n", [(b"12abc", None)]),
    ("a date first", b"2026-11-23 x\n", [(b"2026-11-23 x", None)]),
    ("too many digits", b"1" * 11 + b" ab\n", [(b"1" * 11 + b" ab", None)]),
    ("a space first", b" 5 hello\n", [(b" 5 hello", None)]),
    ("digits only", b"123", [(b"123", MARK_UNTERMINATED)]),
    ("digits and a newline", b"123\n", [(b"123", None)]),
    ("nothing", b"", []),
]  # fmt: skip


def frame_all(pieces: list[bytes], max_frame: int = MAX) -> tuple[list[Frame], FramingCounts]:
    framer = Framer(max_frame)
    frames = [frame for piece in pieces for frame in framer.receive(piece)]
    return frames + framer.close(), framer.counts


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(("name", "data", "expected"), CASES, ids=[name for name, _, _ in CASES])
def test_frames_whole_and_a_byte_at_a_time(name: str, data: bytes, expected: list[tuple[bytes, str | None]]) -> None:
    whole, whole_counts = frame_all([data])
    split, split_counts = frame_all(singly(data))
    assert [(frame.line, frame.mark) for frame in whole] == expected, name
    assert split == whole
    assert split_counts == whole_counts


def test_counts() -> None:
    counts = FramingCounts()
    framer = Framer(4, counts)
    framer.receive(b"2 ab9 123456789\n1 \nx\n\n")
    framer.close()
    other = Framer(4, counts)
    other.receive(b"<13>\nab")
    other.close()
    third = Framer(4, counts)
    third.receive(b"1 a3 b")
    third.close()
    assert asdict(counts) == {
        "frames": 7,
        "bytes": 35,
        "truncated": 1,
        "broken": 1,
        "cut": 1,
        "unterminated": 1,
        "empty": 3,
        "skipped": 5,
    }


def syslog_bytes() -> st.SearchStrategy[bytes]:
    """Bytes near the borders of the two framings, which plain random bytes hardly ever meet."""
    counted = st.binary(max_size=24).map(lambda body: b"%d %b" % (len(body), body))
    trailed = st.tuples(st.binary(max_size=24), st.sampled_from([b"\n", b"\r\n", b"\0", b"\n\0"])).map(b"".join)
    odd = st.sampled_from([b"12x ", b"0 ", b"1" * 12, b"999999999 ", b"\r", b"\n", b"\0", b" ", b"3 ", b"x" * 40])
    return st.lists(st.one_of(counted, trailed, odd, st.binary(max_size=6)), max_size=12).map(b"".join)


@settings(deadline=None)
@given(data=st.one_of(syslog_bytes(), st.binary(max_size=80)), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_split_gives_the_same_frames(data: bytes, cuts: list[int]) -> None:
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(borders)]
    whole = frame_all([data])
    assert frame_all(pieces) == whole
    assert frame_all(singly(data)) == whole


@settings(deadline=None)
@given(data=syslog_bytes(), max_frame=st.integers(1, 40), size=st.integers(1, 20))
def test_what_is_held_and_handed_on_is_bounded(data: bytes, max_frame: int, size: int) -> None:
    framer = Framer(max_frame)
    frames = []
    for at in range(0, len(data), size):
        frames += framer.receive(data[at : at + size])
        assert framer.held_bytes <= max(max_frame + 2, MAX_COUNT_DIGITS)
    frames += framer.close()
    assert framer.held_bytes == 0
    assert all(0 < len(frame.line) <= max_frame for frame in frames)
    assert framer.counts.frames == len(frames)
    assert framer.counts.bytes == len(data)


@settings(deadline=None)
@given(data=syslog_bytes())
def test_nothing_is_lost_but_framing(data: bytes) -> None:
    """Without the bytes that framing is made of, what comes out is what went in, in order."""
    frames, counts = frame_all([data], max_frame=10_000)
    framing = bytes(range(0x30, 0x3A)) + b" \r\n\0"
    assert b"".join(frame.line for frame in frames).translate(None, framing) == data.translate(None, framing)
    assert counts.skipped == 0


@settings(deadline=None)
@given(lines=st.lists(st.binary(min_size=1, max_size=40).map(lambda body: b"<" + body + b">"), max_size=20))
def test_counted_frames_come_back(lines: list[bytes]) -> None:
    frames, _ = frame_all([b"".join(b"%d %b" % (len(line), line) for line in lines)], max_frame=100)
    assert frames == [Frame(line) for line in lines]


def test_a_huge_frame_costs_little_memory_and_time() -> None:
    framer = Framer(1000)
    chunk = b"x" * 65536
    frames = framer.receive(b"1000000000 ")
    for _ in range(1_000_000_000 // len(chunk) // 10):
        frames += framer.receive(chunk)
        assert framer.held_bytes <= 1000
    assert [(len(frame.line), frame.mark) for frame in frames] == [(1000, mark_truncated(1000))]


@pytest.mark.parametrize("head", [b"200000 ", b"<"], ids=["counted", "trailer"])
def test_a_frame_that_trickles_in_is_not_copied_again_and_again(head: bytes) -> None:
    framer = Framer(262_144)
    framer.receive(head)
    start = time.process_time()
    for _ in range(199_998):
        framer.receive(b"x")
    assert framer.held_bytes >= 199_998
    assert time.process_time() - start < 5  # copying 200,000 times an average of 100 kB takes tens of seconds


def test_max_frame_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_frame must be at least 1, not 0"):
        Framer(0)


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b"<13>hello", Frame(b"<13>hello")),
        (b"<13>hello\n", Frame(b"<13>hello")),
        (b"<13>hello\r\n\0", Frame(b"<13>hello")),
        (b"<13>two\nlines\n", Frame(b"<13>two\nlines")),
        (b"5 hello", Frame(b"5 hello")),
        (b"x" * 17, Frame(b"x" * 16, TRUNCATED)),
        (b"\n", None),
        (b"", None),
    ],
)
def test_a_datagram_is_a_frame(data: bytes, frame: Frame | None) -> None:
    counts = FramingCounts()
    assert frame_datagram(data, MAX, counts) == frame
    assert (counts.frames, counts.empty, counts.bytes) == (int(frame is not None), int(frame is None), len(data))


@settings(deadline=None)
@given(data=st.binary())
def test_a_datagram_never_raises(data: bytes) -> None:
    frame = frame_datagram(data)
    assert frame == (Frame(strip_trailer(data)) if strip_trailer(data) else None)
