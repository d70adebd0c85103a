"""One line of JSON for a program, which a terminal may be shown as well."""

from __future__ import annotations

import io
import json
import sys
from typing import Final

import orjson

from ingest.visible import hidden

_LAST_OF_16_BITS: Final = 0xFFFF


def json_line(value: object) -> str:
    r"""A value as JSON in one line; what JSON lets stand but a terminal would obey or hide is `\uNNNN`."""
    line = orjson.dumps(value).decode()
    if line.isascii() and "\x7f" not in line:
        return line
    return "".join(_escaped(char) if hidden(char) else char for char in line)


def speak_json() -> None:
    """Have stdout take JSON whatever the terminal: it is UTF-8 (RFC 8259, section 8.1)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def _escaped(char: str) -> str:
    """A character as JSON escapes it: beyond 16 bits as a surrogate pair (RFC 8259, section 7)."""
    return f"\\u{ord(char):04x}" if ord(char) <= _LAST_OF_16_BITS else json.dumps(char)[1:-1]
