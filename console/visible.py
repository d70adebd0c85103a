"""Log text made visible: what an attacker wrote is shown as it is, and does nothing.

HTML escaping stops markup. It does not stop text that deceives the reader: an ANSI escape, a right-to-left override
that turns `exe.fdp` round (Trojan Source, CVE-2021-42574), a zero-width space that splits a name. Every such character
is replaced by a sign that names it. `shown` is what a template outputs for any string; `marked_up` does the same with
each sign in a `<span>` of its own, so that it cannot be mistaken for text that was really there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from markupsafe import Markup, escape

from ingest import visible

# Cc, Cf, Cs, Co and Cn as a pattern would be long; the quick test below lets ordinary text through without a look at
# each character. \xad is the soft hyphen, the first invisible one above ASCII.
_PERHAPS_HIDDEN: Final = re.compile(r"\r\n|[^\t\n\x20-\x7e\xa0-\xac\xae-\u02ff]")
_PERHAPS_HIDDEN_OR_SPACE: Final = re.compile(r"\r\n|[^\x20-\x7e\xa0-\xac\xae-\u02ff]")
_CONTROL_NAMES: Final[Mapping[str, str]] = {
    "\0": "NUL",
    "\a": "BEL",
    "\b": "BS",
    "\v": "VT",
    "\f": "FF",
    "\r": "CR",
    "\x1b": "ESC",
    "\x7f": "DEL",
}
_SPACE_SIGNS: Final[Mapping[str, str]] = {"\r\n": "↵\n", "\n": "↵\n", "\t": "→\t"}
_LINE_END: Final = "\r\n"  # Windows ends its lines so: one line end, nothing hidden; a CR alone deceives
NEEDLE_MIN: Final = 3  # shorter values would light up half of the line
NEEDLES_MAX: Final = 64
_BLANKS: Final = re.compile(r"[ \t\r\n]+")


def sign(character: str) -> str:
    """How a character that cannot be seen is written: its ASCII name (RFC 20) where people know it, or its number.

    Not the control pictures of Unicode (U+2400 block): many fonts lack them, and an empty box says nothing.
    """
    return f"⟨{_CONTROL_NAMES.get(character) or f'U+{ord(character):04X}'}⟩"


def hidden(character: str) -> bool:
    """Whether a reader could not see this character, or could be deceived by it."""
    return character not in "\t\n" and visible.hidden(character)


def shown(text: str) -> str:
    """The text with every hidden character replaced by its sign; line ends (as line feeds) and tabs stay."""
    return _PERHAPS_HIDDEN.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    if found[0] == _LINE_END:
        return "\n"
    return sign(found[0]) if hidden(found[0]) else found[0]


def marked_up(text: str, *, whole: bool = False) -> Markup:
    """The text as HTML, hidden characters as signs in `<span class="ctl">`.

    Args:
        text: Anything.
        whole: Show line feeds and tabs as signs too (and keep them), as a raw line needs.
    """
    return Markup("").join(_pieces(text, whole=whole))


def _pieces(text: str, *, whole: bool) -> Iterable[Markup]:
    pattern = _PERHAPS_HIDDEN_OR_SPACE if whole else _PERHAPS_HIDDEN
    start = 0
    for found in pattern.finditer(text):
        character = found[0]
        if character == _LINE_END and not whole:
            yield escape(text[start : found.start()] + "\n")
            start = found.end()
            continue
        written = _SPACE_SIGNS.get(character) or (sign(character) if hidden(character) else None)
        if written is None:
            continue
        yield escape(text[start : found.start()])
        yield Markup('<span class="ctl">{}</span>').format(written)
        start = found.end()
    yield escape(text[start:])


def highlighted(text: str, values: Iterable[str | None]) -> Markup:
    """A raw line as HTML, with every place where one of the values stands in `<mark>`.

    The value is looked for as it is and as JSON writes it (backslashes doubled), without regard to case.
    """
    spans = _merge(_places(text, values))
    parts: list[Markup] = []
    start = 0
    for begin, end in spans:
        parts.append(marked_up(text[start:begin], whole=True))
        parts.append(Markup("<mark>{}</mark>").format(marked_up(text[begin:end], whole=True)))
        start = end
    parts.append(marked_up(text[start:], whole=True))
    return Markup("").join(parts)


def _places(text: str, values: Iterable[str | None]) -> list[tuple[int, int]]:
    forms = {
        form for value in values if value is not None for form in (value, json.dumps(value, ensure_ascii=False)[1:-1])
    }
    needles = sorted((form for form in forms if len(form) >= NEEDLE_MIN), key=len, reverse=True)[:NEEDLES_MAX]
    return sorted(found.span() for needle in needles for found in re.finditer(re.escape(needle), text, re.IGNORECASE))


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in spans:
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def evidence_line(matched: Mapping[str, str | None], limit: int = 240) -> str:
    """What made the rule fire, on one line of at most `limit` characters; a field the event lacks has the value ∅."""
    line = " · ".join(f"{name}: {'∅' if value is None else _BLANKS.sub(' ', value)}" for name, value in matched.items())
    return line if len(line) <= limit else line[: limit - 1] + "…"
