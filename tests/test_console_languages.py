from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import console
from console.errors import ConsoleError
from console.languages import LOCALES, choose_language, load_catalogs
from console.settings import LANGUAGES

Key = str | tuple[str, ...]
Held = str | tuple[str, ...] | list[str] | None
FOLDER = Path(console.__file__).parent
PLACEHOLDER = re.compile(r"%\(\w+\)s|\{\w+\}")


def extracted() -> Iterator[Key]:
    options = {"templates/**.html": {"extensions": "jinja2.ext.i18n", "newstyle_gettext": "true", "silent": "false"}}
    methods = [("**.py", "python"), ("templates/**.html", "jinja2")]
    for _, _, message, _, _ in extract_from_dir(FOLDER, method_map=methods, options_map=options):
        yield message


def catalog(code: str) -> Catalog:
    with (LOCALES / code / "LC_MESSAGES" / "messages.po").open("rb") as source:
        return read_po(source, locale=code, abort_invalid=True)


def as_tuple(value: Held) -> tuple[str, ...]:
    return (value or "",) if isinstance(value, str | None) else tuple(value)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_message_is_translated_and_no_translation_is_left_over(code: str) -> None:
    wanted = set(extracted())
    assert len(wanted) > 100, "extraction found almost nothing, so it proves nothing"
    held = {tuple(m.id) if isinstance(m.id, list) else m.id: m for m in catalog(code) if m.id}
    assert set(held) == wanted
    for key, message in held.items():
        assert not message.fuzzy, f"fuzzy: {key}"
        texts = as_tuple(message.string)
        assert len(texts) == len(as_tuple(key))
        assert all(text.strip() for text in texts), f"empty: {key}"
        for text in texts:
            assert set(PLACEHOLDER.findall(text)) == set(PLACEHOLDER.findall(as_tuple(key)[-1])), key


def test_french_typography() -> None:
    for message in catalog("fr"):
        for text in as_tuple(message.string):
            if not message.id:
                continue
            assert "'" not in text, f"typewriter apostrophe: {text}"
            assert not re.search(r"[ \w][;!?]|[ \w]:(?!\w)", text), f"a no-break space is missing: {text}"


def test_the_words_of_the_trade() -> None:
    french = load_catalogs()["fr"]
    assert [french.gettext(word) for word in ("True positive", "False positive", "In progress", "Closed")] == [
        "Vrai positif",
        "Faux positif",
        "En cours",
        "Clos",
    ]
    assert french.ngettext("alert", "alerts", 0) == "alerte"
    assert load_catalogs()["en"].ngettext("alert", "alerts", 0) == "alerts"


@pytest.mark.parametrize(
    ("asked", "remembered", "accepted", "chosen"),
    [
        ("en", "fr", "fr", "en"),
        (None, "en", "fr", "en"),
        (None, None, "en-GB,en;q=0.9", "en"),
        (None, None, "de, en;q=0.5, fr-CA;q=0.8", "fr"),
        (None, None, "en;q=0, *;q=0.1", "fr"),
        (None, None, "en;q=high", "fr"),
        (None, None, None, "fr"),
        ("xx", "../../etc", "\x00,;;=,q", "fr"),
    ],
)
def test_choice_of_language(asked: str | None, remembered: str | None, accepted: str | None, chosen: str) -> None:
    assert choose_language(asked, remembered, accepted, "fr") == chosen


def test_a_broken_catalog_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConsoleError, match=r"fr catalog cannot be read: .*messages\.po"):
        load_catalogs(tmp_path)
    folder = tmp_path / "fr" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "messages.po").write_text("this is no catalog\n")
    with pytest.raises(ConsoleError, match="fr catalog cannot be read"):
        load_catalogs(tmp_path)
