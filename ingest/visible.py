"""Text that an attacker wrote, made fit to be shown: terminals, logs and pages.

Log text may hold escape sequences that move a terminal's cursor, line breaks that forge a second line, or Unicode
controls that reorder what is read ("Trojan Source", CVE-2021-42574). Shown text has them as visible escapes.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Controls, format characters, the unassigned, private, surrogates, line and paragraph separators."""
_PLAIN: Final = re.compile(r"[ -~\u00a1-\u00ac\u00ae-\u02ff]*")


def hidden(character: str) -> bool:
    """Whether a reader could not see this character, or could be deceived by it; line feeds and tabs are hidden too.

    The one definition of it: terminals and logs (`visible`) and the pages of the console write what is hidden each in
    their own way.
    """
    return unicodedata.category(character) in _HIDDEN_CATEGORIES


def visible(text: str, *, keep: str = "") -> str:
    r"""The text with every control, format, surrogate, private or unassigned character as `\xNN` or `\uNNNN`.

    Args:
        text: Anything.
        keep: Characters to leave alone, such as "\n\t" where line breaks are wanted.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        character if character in keep or not hidden(character) else _escape(ord(character)) for character in text
    )


def _escape(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
