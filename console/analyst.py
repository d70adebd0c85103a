"""Who decides. There is no sign-in: the analyst's name is what the browser remembers.

`current_analyst` is the one place that answers "who is this?"; whatever later proves an identity replaces it.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from fastapi import Request

from console.context import console_of
from console.visible import hidden

ANALYST_COOKIE: Final = "tocsin_analyst"
ANALYST_MAX: Final = 80


def clean_analyst(name: str) -> str:
    """A name fit for the journal: one line, nothing invisible, at most `ANALYST_MAX` characters."""
    return " ".join("".join(c for c in name if not hidden(c)).split())[:ANALYST_MAX]


def analyst_cookie(name: str) -> str:
    """The cookie's value: RFC 6265 allows only ASCII without blanks, names have accents."""
    return quote(name, safe="")


def current_analyst(request: Request) -> str:
    """The analyst who makes this request (FastAPI dependency)."""
    remembered = clean_analyst(unquote(request.cookies.get(ANALYST_COOKIE, "")))
    return remembered or console_of(request).settings.default_analyst
