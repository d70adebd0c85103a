"""Hostile input in bulk: real lines cut, spliced, stuffed and flipped, from a seed, so that a failure comes again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

NASTY = (
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # a surrogate in UTF-8
    b"\xef\xbb\xbf",
    b"\\",
    b'"',
    b"'",
    b"]]>",
    b"<!ENTITY x SYSTEM 'file:///etc/passwd'>",
    b"&x;",
    b"{{{{",
    b"[[[[",
    b"|",
    b"=",
    b"^~\\&",
    b"%s%n",
    b"#011#012#015#000",
    b"\x1b[2J",
    b"9" * 40,
    b"-1",
    b"1e999",
    b"NaN",
    b"\xc2\xa0",
    "’é".encode(),
    b" " * 300,
    b"99999-99-99T99:99:99Z",
)


def _cut(chance: random.Random, line: bytes, _others: Sequence[bytes]) -> bytes:
    return line[: chance.randrange(len(line) + 1)]


def _cut_front(chance: random.Random, line: bytes, _others: Sequence[bytes]) -> bytes:
    return line[chance.randrange(len(line) + 1) :]


def _stuff(chance: random.Random, line: bytes, _others: Sequence[bytes]) -> bytes:
    place = chance.randrange(len(line) + 1)
    return line[:place] + chance.choice(NASTY) + line[place:]


def _flip(chance: random.Random, line: bytes, _others: Sequence[bytes]) -> bytes:
    changed = bytearray(line)
    for _ in range(chance.randrange(1, 4)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _splice(chance: random.Random, line: bytes, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others)
    return line[: chance.randrange(len(line) + 1)] + other[chance.randrange(len(other) + 1) :]


def _drop(chance: random.Random, line: bytes, _others: Sequence[bytes]) -> bytes:
    start = chance.randrange(len(line) + 1)
    return line[:start] + line[start + chance.randrange(1, 12) :]


def _repeat(chance: random.Random, line: bytes, _others: Sequence[bytes]) -> bytes:
    start = chance.randrange(len(line) + 1)
    piece = line[start : start + chance.randrange(1, 20)]
    return line[:start] + piece * chance.randrange(2, 30) + line[start:]


def _noise(chance: random.Random, _line: bytes, _others: Sequence[bytes]) -> bytes:
    return chance.randbytes(chance.randrange(80))


MUTATIONS: tuple[Mutation, ...] = (_cut, _cut_front, _stuff, _stuff, _flip, _flip, _splice, _drop, _repeat, _noise)


def hostile_lines(seed: int, count: int, seeds: Sequence[bytes]) -> list[bytes]:
    """`count` lines made of `seeds`, the same for the same seed: some as they are, most damaged once to three times."""
    chance = random.Random(seed)  # noqa: S311 - a test
    lines: list[bytes] = []
    for _ in range(count):
        line = chance.choice(seeds)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            line = chance.choice(MUTATIONS)(chance, line, seeds)
        lines.append(line)
    return lines


def cuts(seed: int, stream: bytes, pieces: int) -> list[bytes]:
    """A stream in random pieces, empty and single bytes among them."""
    chance = random.Random(seed)  # noqa: S311 - a test
    places = sorted(chance.randrange(len(stream) + 1) for _ in range(pieces - 1))
    return [stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True)]
