"""The language of the command line: French or English, decided once, when the process starts.

Message ids are English, so English needs no catalog; the French one is read only where French is spoken. What speaks
to people is translated: help, tables, sums, and faults in what was asked for. What is read by programs or looked up by
engineers is not: JSON, log lines, and the errors of the stages.

Help texts are not marked in the code: `translate_help` finds them in the commands themselves, so none can be forgotten.
"""

from __future__ import annotations

import gettext as stdlib_gettext
import inspect
import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import click

from tocsin.exercise_scenario import Text

LOCALES: Final = Path(__file__).parent / "locales"
ENGLISH: Final = "en"
LANGUAGES: Final = (ENGLISH, "fr")

_UNTRANSLATED: Final = frozenset({"C", "POSIX"})
"""Locales that ask for the texts as they stand in the code."""

_FRENCH_SIGNS: Final = "éèœ’«»…\u00a0\u202f"


def N_(message: str) -> str:  # noqa: N802 - gettext's own name for "mark, translate later"
    """Mark a message for extraction; it is translated where it is shown."""
    return message


LEVELS: Final = (N_("critical"), N_("high"), N_("medium"), N_("low"), N_("informational"))
"""Sigma's levels, worst first; `gettext` names them for people."""


class _PlainTranslations(stdlib_gettext.NullTranslations):
    """Translations for a terminal without accents: é becomes e, « becomes a plain quote.

    Only our own texts go through here. Evidence does not: where the terminal lacks a sign, it is shown as an escape.
    """

    def __init__(self, accented: stdlib_gettext.NullTranslations) -> None:
        super().__init__()
        self._accented = accented

    def gettext(self, message: str) -> str:
        return plain(self._accented.gettext(message))

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return plain(self._accented.ngettext(msgid1, msgid2, n))


@dataclass(slots=True)
class _Speech:
    """What this process speaks."""

    code: str = ENGLISH
    texts: stdlib_gettext.NullTranslations = field(default_factory=stdlib_gettext.NullTranslations)


_speech: Final = _Speech()


def language_of(environment: Mapping[str, str]) -> str:
    """The language that an environment asks for; English where it asks for none that we have.

    As in GNU gettext, `LANGUAGE` (a list) comes before `LC_ALL`, `LC_MESSAGES` and `LANG`, unless the locale is C:
    programs that read what others print set that.
    """
    locales = [environment.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG")]
    if next(filter(None, locales), "") in _UNTRANSLATED:
        return ENGLISH
    for wish in (*environment.get("LANGUAGE", "").split(":"), *locales):
        code = re.split(r"[_.@-]", wish)[0]
        if code in _UNTRANSLATED:
            return ENGLISH
        if code.lower() in LANGUAGES:
            return code.lower()
    return ENGLISH


def speak(code: str, *, accents: bool = True) -> None:
    """Speak a language of `LANGUAGES` from now on.

    Args:
        code: The language.
        accents: Whether the terminal has the signs that French is written with.

    Raises:
        ConsoleError: The catalog cannot be read.
    """
    texts: stdlib_gettext.NullTranslations = stdlib_gettext.NullTranslations()
    if code != ENGLISH:
        from console.languages import load_catalogs  # noqa: PLC0415 - English goes without Babel

        texts = load_catalogs(LOCALES, (code,))[code]
    _speech.code = code
    _speech.texts = texts if accents else _PlainTranslations(texts)


def has_accents(stream: TextIO) -> bool:
    """Whether French can be written to a stream."""
    try:
        _FRENCH_SIGNS.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def gettext(message: str) -> str:
    """A message in the language spoken."""
    return _speech.texts.gettext(message)


def ngettext(singular: str, plural: str, n: int) -> str:
    """The form of a message that goes with a count, in the language spoken."""
    return _speech.texts.ngettext(singular, plural, n)


def counted(message: str, n: int, *, grouped: bool = False, **fields: object) -> str:
    """A message with the count `{n}` and other fields filled in.

    English has one form for all counts ("1 events"), which scripts look for; other languages have theirs.

    Args:
        message: Message id; extraction takes it as both singular and plural.
        n: The count that the form goes with.
        grouped: Whether English groups its digits; French always does.
        fields: Other placeholders.
    """
    shown = number(n) if grouped or _speech.code != ENGLISH else str(n)
    return ngettext(message, message, n).format(n=shown, **fields)


def number(value: float, decimals: int = 0) -> str:
    """A number as the language spoken writes it: 1,234.5 or 1 234,5."""
    shown = f"{value:,.{decimals}f}"
    if _speech.code == ENGLISH:
        return shown
    space = " " if isinstance(_speech.texts, _PlainTranslations) else "\u202f"
    return shown.translate({ord(","): space, ord("."): ","})


def in_language(text: Text) -> str:
    """A text that carries its own translation."""
    shown = text.fr if _speech.code == "fr" else text.en
    return plain(shown) if isinstance(_speech.texts, _PlainTranslations) else shown


def plain(text: str) -> str:
    """French or English in ASCII."""
    quoted = re.sub("«[\u00a0\u202f]?|[\u00a0\u202f]?»|[“”]", '"', text)
    spelled = quoted.translate({ord("’"): "'", ord("œ"): "oe", ord("Œ"): "OE"})
    return unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode()


def translate_help(command: click.Command) -> None:
    """Put the help of a command, of its options and of all below it into the language spoken."""
    command.help = _translated(command.help)
    for option in command.params:
        if isinstance(option, click.Option):
            option.help = _translated(option.help)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            translate_help(below)


def spoken() -> str:
    """The language spoken."""
    return _speech.code


def _translated(text: str | None) -> str | None:
    return gettext(inspect.cleandoc(text)) if text else text  # Python 3.13 cleans docstrings itself


def teach_click() -> None:
    """Have click's own texts ("Usage:", "No such option") translated as well.

    Click binds gettext's functions when it is imported, and those read nothing but `.mo` files; ours take their place
    in click's modules. A click that does this otherwise would go on in English.
    """
    ours = {stdlib_gettext.gettext: gettext, stdlib_gettext.ngettext: ngettext}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "click":
            for bound, function in list(vars(module).items()):
                for theirs, replacement in ours.items():
                    if function is theirs:
                        setattr(module, bound, replacement)
