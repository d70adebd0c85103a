r"""Cut a stream of text into its top-level JSON values, whole or broken.

Tools write events as one pretty-printed object, as several one after the other, or as an array, and all of these get
cut in the middle. So this is a splitter that is fed text and never asks for all of it: a top-level array is entered,
its elements being the values; a value that cannot be parsed is handed on as broken text, and splitting goes on at the
next line that looks like the beginning of a value at the same depth.

Rule 1: every character that is not white space, a comma or the bracket of the top-level array is in exactly one piece.
Rule 2: where the text is cut does not matter: every split of the text gives the same pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_DECODER: Final = json.JSONDecoder(strict=False)  # strict=False: raw control characters within strings are kept
# Python reads no integer of more than 4,300 digits (that takes quadratic time): such a number stays text.
_LONG_NUMBERS: Final = json.JSONDecoder(strict=False, parse_int=str)
_BETWEEN: Final = re.compile(r"[\s\x1e,]*")  # RFC 7464 puts a record separator, 0x1E, before each value
_TAIL: Final = 16  # an error this near the end of the text may be for want of more of it


@dataclass(frozen=True, slots=True)
class Whole:
    """A value that was parsed, and the line it begins in."""

    line: int
    value: object


@dataclass(frozen=True, slots=True)
class Broken:
    """Text that is no JSON value, the line it begins in, and what the parser says of it."""

    line: int
    text: str
    reason: str


Piece = Whole | Broken


class JsonValues:
    """Feed text, get values; `end` gives what is left.

    Args:
        limit: Characters of one value; a longer one is handed on as broken.
    """

    __slots__ = ("_in_array", "_limit", "_line", "_retry", "_text")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._text = ""
        self._line = 1
        self._in_array = False
        self._retry = 0  # characters to wait for before the same value is tried again: keeps the work linear

    def feed(self, text: str) -> Iterator[Piece]:
        """Take more text; yield the values that are complete."""
        self._text += text
        if len(self._text) >= self._retry:
            yield from self._split(final=False)

    def end(self) -> Iterator[Piece]:
        """Yield what is left once there is no more text."""
        yield from self._split(final=True)

    def _split(self, *, final: bool) -> Iterator[Piece]:
        text, position = self._text, 0
        while True:
            position = self._skip(text, position)
            if position == len(text):
                break
            piece, end = self._take(text, position, final=final)
            if piece is None:
                break
            yield piece
            self._line += text.count("\n", position, end)
            position = end
        self._text = text[position:]
        self._retry = 2 * len(self._text) if self._text else 0

    def _skip(self, text: str, position: int) -> int:
        """Pass what stands between values, entering and leaving the top-level array."""
        while True:
            end = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]  # it matches the empty string
            self._line += text.count("\n", position, end)
            position = end
            if position < len(text) and text[position] == ("]" if self._in_array else "["):
                self._in_array = not self._in_array
                position += 1
            else:
                return position

    def _take(self, text: str, position: int, *, final: bool) -> tuple[Piece | None, int]:
        """The piece at `position` and where it ends; no piece if that cannot be told before there is more text."""
        try:
            value, end = _decode(text, position)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(text) - _TAIL or error.msg.startswith("Unterminated string")
            return self._take_broken(text, position, error.msg, wait=cut and not final, final=final)
        except RecursionError:
            return self._take_broken(text, position, "nested too deeply", wait=False, final=final)
        if end == len(text) and not final and text[position] not in '{["':
            return None, position  # 12 may be the beginning of 123
        return Whole(self._line, value), end

    def _take_broken(
        self, text: str, position: int, reason: str, *, wait: bool, final: bool
    ) -> tuple[Piece | None, int]:
        too_long = len(text) - position > self._limit
        if wait and not too_long:
            return None, position
        end = _next_value(text, position)
        if end is None:
            if not final and not too_long:
                return None, position
            end = len(text)
        return Broken(self._line, text[position:end].rstrip(), reason), end


def _decode(text: str, position: int) -> tuple[object, int]:
    """The value at `position`, and where it ends.

    Raises:
        json.JSONDecodeError: There is no whole value.
        RecursionError: It is nested too deeply.
    """
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _LONG_NUMBERS.raw_decode(text, position)


def _next_value(text: str, position: int) -> int | None:
    """Where the next value begins: in a line that is indented as the line of the value at `position` is."""
    line_start = text.rfind("\n", 0, position) + 1
    indent = text[line_start:position]
    if indent.strip():
        indent = ""
    found = re.compile(rf"\n{re.escape(indent)}(?=[{{\[])").search(text, position)
    return found.end() if found else None
