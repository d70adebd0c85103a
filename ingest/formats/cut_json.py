"""JSON that ends in the middle: closed where it was cut, so that what is there can be read.

Relays and framings cut long lines (rsyslog at 8 KiB by default), and who chooses a long command line chooses the cut:
the event would be hidden from every field rule. Members that are whole are kept, and of a string that was cut, its
beginning; a number that was cut is dropped with its name, since half a number is another number.

One pass, linear in the text. Nothing is judged here: the closed text is parsed like any other, and may be refused.
"""

from __future__ import annotations

import re
from typing import Final

MAX_OPEN: Final = 100
"""Most objects and lists that are closed; loggers nest a handful."""
MAX_TOKENS: Final = 20_000
"""Where reading ends at the latest: an event has some hundred fields, and a walk in Python must not be made long."""

_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|,(?:[^"{}\[\]:]*,)?|[{}\[\]:]', re.DOTALL)
"""A string, ended or not; commas, with the numbers and names of values between them; a bracket; a colon."""
_CUT_ESCAPE: Final = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
_CLOSERS: Final = {"{": "}", "[": "]"}


def close_cut_json(text: str) -> str | None:
    """The text up to where it was cut, with its strings, objects and lists closed.

    Returns:
        None if the text is not one that was cut: brackets that do not fit, nothing open, or something after the end.
    """
    opened: list[str] = []
    before = ""  # the token before: "" at the start, a bracket that opens, ",", ":", or "v" for a value or a key
    good = 0  # text[:good] and closing brackets are whole
    for count, match in enumerate(_TOKEN.finditer(text)):
        if count == MAX_TOKENS:
            break
        token = match[0]
        kind = token[0]
        if kind == '"':
            is_value = before == ":" or (before in ("[", ",") and opened[-1:] == ["["])
            if match.end() == len(text) and not _ended(token):
                return (
                    _closed(text[: match.start()] + _whole(token) + '"', opened)
                    if is_value
                    else _cut(text, good, opened)
                )
            if is_value:
                good = match.end()
            before = "v"
            continue
        if kind in _CLOSERS:
            opened.append(kind)
            if len(opened) > MAX_OPEN:
                return None
            good = match.end()
        elif kind in "}]":
            if not opened or _CLOSERS[opened.pop()] != kind:
                return None
            if not opened:
                return None  # whole, whatever follows it
            good = match.end()
            kind = "v"
        elif kind == ",":
            good = match.end() - 1
        before = kind
    return _cut(text, good, opened)


def _ended(token: str) -> bool:
    """Whether a string has its closing quote: one that is not the opening quote, and not escaped."""
    if len(token) < 2 or token[-1] != '"':
        return False
    body = token[1:-1]
    return (len(body) - len(body.rstrip("\\"))) % 2 == 0


def _whole(token: str) -> str:
    """The beginning of a string without an escape that was cut in the middle."""
    body = token[1:]
    cut = _CUT_ESCAPE.search(body, max(0, len(body) - 5))
    if cut is None:
        return token
    slashes = body[: cut.start() + 1]
    escaped = (len(slashes) - len(slashes.rstrip("\\"))) % 2 == 1
    return token[: 1 + cut.start()] if escaped else token


def _cut(text: str, good: int, opened: list[str]) -> str | None:
    return _closed(text[:good], opened) if opened else None


def _closed(text: str, opened: list[str]) -> str:
    return text + "".join(_CLOSERS[kind] for kind in reversed(opened))
