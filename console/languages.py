"""Languages: French and English catalogs, and which of them a request gets.

The catalogs are gettext `.po` files with English message ids. They are compiled in memory at the start, so that the
repository and the wheel hold only text, and a translation that does not parse stops the start, not a page.
Order of choice: `?lang=` (the visible switch), the cookie it leaves, `Accept-Language` (RFC 9110, 12.5.4), the default.
"""

from __future__ import annotations

import gettext
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po

from console.errors import ConsoleError
from console.settings import LANGUAGES

LOCALES: Final = Path(__file__).parent / "locales"
LANGUAGE_COOKIE: Final = "tocsin_lang"
LANGUAGE_NAMES: Final[Mapping[str, str]] = {"fr": "Français", "en": "English"}


def N_(message: str) -> str:  # noqa: N802 - gettext's own name for "mark, translate later"
    """Mark a message for extraction; it is translated where it is shown."""
    return message


def load_catalogs(folder: Path = LOCALES, languages: Sequence[str] = LANGUAGES) -> dict[str, gettext.GNUTranslations]:
    """Compile the catalog of every language that is asked for.

    Raises:
        ConsoleError: A catalog is missing or is not a `.po` file.
    """
    return {code: _compile(folder / code / "LC_MESSAGES" / "messages.po", code) for code in languages}


def _compile(path: Path, code: str) -> gettext.GNUTranslations:
    try:
        with path.open("rb") as source:
            catalog = read_po(source, locale=code, abort_invalid=True)
    except (OSError, PoFileError, ValueError) as error:
        raise ConsoleError(f"the {code} catalog cannot be read: {path}: {error}") from error
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def choose_language(asked: str | None, remembered: str | None, accepted: str | None, default: str) -> str:
    """The language of a request, from `?lang=`, the cookie, `Accept-Language` and the default."""
    for wish in (asked, remembered):
        if wish in LANGUAGES:
            return wish
    return _best_accepted(accepted or "") or default


def _best_accepted(header: str) -> str | None:
    """The language with the greatest weight of `Accept-Language` that we have; the first one wins a tie."""
    best: tuple[float, str] | None = None
    for part in header.split(","):
        tag, _, parameters = part.strip().partition(";")
        code = tag.strip().lower().partition("-")[0]
        weight = _weight(parameters)
        if code in LANGUAGES and weight > 0 and (best is None or weight > best[0]):
            best = (weight, code)
    return best[1] if best else None


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
