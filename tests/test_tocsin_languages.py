"""The command line speaks French and English: the catalog is whole, and the environment decides."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click
import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po

import tocsin as package
from tocsin import languages
from tocsin.cli import tocsin
from tocsin.exercise_scenario import Text
from tocsin.languages import LOCALES, counted, gettext, in_language, language_of, number, plain, speak

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path(package.__file__).parent
KEYWORDS = DEFAULT_KEYWORDS | {"counted": (1, 1)}
PLACEHOLDER = re.compile(r"%\(\w+\)s|\{\w+(?:![rs])?\}")

Key = str | tuple[str, ...]


def extracted(folder: Path) -> Iterator[Key]:
    for _, _, message, _, _ in extract_from_dir(folder, method_map=[("**.py", "python")], keywords=KEYWORDS):
        yield message


def help_texts(command: click.Command) -> Iterator[str]:
    yield cleandoc(command.help or "")
    for option in command.params:
        if isinstance(option, click.Option) and option.help:
            yield cleandoc(option.help)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from help_texts(below)


def french() -> Catalog:
    with (LOCALES / "fr" / "LC_MESSAGES" / "messages.po").open("rb") as source:
        return read_po(source, locale="fr", abort_invalid=True)


def entries() -> dict[Key, tuple[str, ...]]:
    """Message id -> its translations."""
    found: dict[Key, tuple[str, ...]] = {}
    for message in french():
        if message.id:
            key = tuple(message.id) if isinstance(message.id, list | tuple) else message.id
            texts = message.string
            found[key] = (texts or "",) if isinstance(texts, str | None) else tuple(texts)
            assert not message.fuzzy, f"fuzzy: {key}"
    return found


@pytest.fixture
def speaking() -> Iterator[None]:
    yield
    speak("en")


def test_every_message_is_translated_and_no_translation_is_left_over() -> None:
    ours, clicks = {*extracted(FOLDER), *help_texts(tocsin.load())}, set(extracted(Path(click.__file__).parent))
    assert len(ours) > 100, "extraction found almost nothing, so it proves nothing"
    held = set(entries())
    assert ours - held == set(), "not translated"
    assert held - ours - clicks == set(), "left over"


def test_translations_are_whole_and_keep_their_placeholders() -> None:
    for key, texts in entries().items():
        forms = (key,) if isinstance(key, str) else key
        assert len(texts) == len(forms)
        for form, text in zip(forms, texts, strict=True):
            assert text.strip(), f"empty: {key}"
            assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(form)), key


def test_extraction_misses_no_call() -> None:
    """Babel does not look into f-strings on every Python, and nobody can extract what is not a literal."""
    found = {key if isinstance(key, str) else key[0] for key in extracted(FOLDER)}
    named = {"critical", "high", "medium", "low", "informational"}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("gettext", "counted")
            ):
                argument = node.args[0]
                if isinstance(argument, ast.Constant):
                    assert argument.value in found, f"{path.name}:{node.lineno}"
                elif path.name != "languages.py":
                    assert ast.unparse(argument) in {
                        *("level", "seen.level", "PROBLEMS[problem.kind]"),
                        *(
                            "STATES[source.state]",
                            "VERDICTS[balance.verdict]",
                            "CHORES[note.chore]",
                            "STATES[record.state]",
                        ),
                    }, path.name
    assert named <= found


def test_french_typography() -> None:
    for texts in entries().values():
        for text in texts:
            assert not re.search(r"\w'\w", text), f"typewriter apostrophe: {text}"
            shown = PLACEHOLDER.sub("x", text).replace("http://", "").replace("HOST:PORT", "")
            assert not re.search(r"[ \w\])»][;!?:]", shown), f"a no-break space is missing: {text}"
            assert not re.search("«[^\u00a0]|[^\u00a0]»", text), f"a no-break space is missing in quotes: {text}"


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "fr"),
        ({"LANG": "fr"}, "fr"),
        ({"LANG": "fr_CA@euro"}, "fr"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "POSIX"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "frr_DE"}, "en"),
        ({"LANG": "fr_FR", "LC_ALL": ""}, "fr"),
        ({"LANG": "fr_FR", "LC_MESSAGES": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_US", "LC_MESSAGES": "fr_FR"}, "fr"),
        ({"LANG": "fr_FR", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "fr_FR", "LC_ALL": "en_IE"}, "en"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "br:fr:en"}, "fr"),
        ({"LANG": "fr_FR.UTF-8", "LANGUAGE": "en_GB:fr"}, "en"),
        ({"LANGUAGE": "fr"}, "fr"),
        ({"LC_ALL": "C", "LANGUAGE": "fr", "LANG": "fr_FR"}, "en"),
        ({"LANG": "../../etc\x00", "LANGUAGE": ":::"}, "en"),
    ],
)
def test_the_environment_decides(environment: dict[str, str], language: str) -> None:
    assert language_of(environment) == language


@pytest.mark.usefixtures("speaking")
def test_counts_and_numbers() -> None:
    assert [counted("{n} events", n) for n in (0, 1, 2000)] == ["0 events", "1 events", "2000 events"]
    assert counted("{n} events", 2000, grouped=True) == "2,000 events"
    assert (number(1234.56, 1), number(12)) == ("1,234.6", "12")
    speak("fr")
    assert [counted("{n} events", n) for n in (0, 1, 2000)] == [
        "0 événement",
        "1 événement",
        "2\u202f000 événements",
    ]
    assert number(1234.56, 1) == "1\u202f234,6"
    assert in_language(Text(fr="été", en="summer")) == "été"


@pytest.mark.usefixtures("speaking")
def test_a_terminal_without_accents_has_plain_letters() -> None:
    speak("fr", accents=False)
    assert counted("{n} events", 2000) == "2 000 evenements"
    assert in_language(Text(fr="« cœur » d’été…", en="")) == plain("« cœur » d’été…") == '" coeur " d\'ete...'
    assert gettext("level") == "niveau"
    for texts in entries().values():
        for text in texts:
            assert plain(text).isascii()
            assert PLACEHOLDER.findall(plain(text)) == PLACEHOLDER.findall(text)


def test_english_reads_no_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "LOCALES", tmp_path)
    speak("en")
    assert gettext("level") == "level"


RULE = """\
title: Un Cri
id: 11111111-1111-4111-8111-111111111111
logsource: {product: linux}
detection: {words: ['hélas'], condition: words}
level: high
"""


@pytest.fixture
def hunted(tmp_path: Path) -> list[str]:
    """The arguments of a small hunt that finds something."""
    (tmp_path / "cri.yml").write_text(RULE, "utf-8")
    (tmp_path / "a.log").write_text("<13>1 2026-01-02T03:04:05Z pc-01 app - - - hélas \U0001f514\n" * 2, "utf-8")
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 not a zip")
    return ["hunt", "--rules", str(tmp_path / "cri.yml"), "--events", str(tmp_path / "a.log"), str(tmp_path / "b.zip")]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    unset = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-m", "tocsin", *arguments],
        capture_output=True,
        cwd=REPOSITORY,
        env=kept | {"PYTHONUTF8": "1"} | environment,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("locale", ["C", "de_DE.UTF-8", "en_GB.UTF-8"])
def test_help_is_english_where_french_is_not_asked_for(locale: str) -> None:
    shown = run("--help", LANG=locale).stdout.decode()
    assert shown.startswith("Usage: ")
    assert "Check, test and explain Sigma rules." in shown
    assert "Show this message and exit." in shown
    assert shown.isascii()


def test_help_is_french_where_it_is_asked_for() -> None:
    shown = run("--help", LANG="fr_FR.UTF-8").stdout.decode()
    assert shown.startswith("Utilisation\u00a0: ")
    for text in ("Options\u00a0:", "Commandes\u00a0:", "Vérifie, teste et explique", "Affiche la version"):
        assert text in shown
    shown = run("hunt", "--help", LANG="fr_FR.UTF-8").stdout.decode()
    assert "[obligatoire]" in shown
    assert "Affiche ce message et se termine." in shown


def test_what_was_asked_wrongly_is_told_in_french() -> None:
    unknown = run("hunt", "--rulez", LANG="fr_FR.UTF-8")
    assert unknown.returncode == 2
    assert "Erreur\u00a0: L’option '--rulez' n’existe pas." in unknown.stderr.decode()
    scenario = run("exercise", "run", "absent", LANG="fr_FR.UTF-8")
    assert scenario.returncode == 2
    assert scenario.stderr.decode().startswith("tocsin: il n’y a pas de scénario 'absent'\u202f; ")


def test_a_hunt_is_told_in_french(hunted: list[str]) -> None:
    result = run(*hunted, LANG="fr_FR.UTF-8")
    assert result.returncode == 0, result.stderr.decode()
    sums = result.stderr.decode()
    for text in (
        "1 règle exécutée, 0 refusée, ",
        "illisible\u00a0: ",
        "2 événements\u00a0: ",
        "2 correspondances en ",
        "lu\u00a0: 1 illisible (voir ci-dessus)",
    ):
        assert text in sums
    table = result.stdout.decode()
    for text in ("Niveau", "élevé", "Machines et heure (UTC)", "Un Cri"):
        assert text in table
    english = run(*hunted, LANG="C")
    assert b"2 matches in " in english.stderr
    assert all(text in english.stdout for text in (b"Level", b"high", b"Hosts and time (UTC)"))


def test_json_is_the_same_in_every_language_and_on_every_terminal(hunted: list[str]) -> None:
    english, in_french = run(*hunted, "--json", LANG="C"), run(*hunted, "--json", LANG="fr_FR.UTF-8")
    in_ascii = run(*hunted, "--json", LANG="fr_FR.UTF-8", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    lines = [json.loads(line) for line in english.stdout.splitlines()]
    assert [line["level"] for line in lines] == ["high", "high"]
    assert english.stdout == in_french.stdout == in_ascii.stdout


@pytest.mark.parametrize("locale", ["C", "fr_FR.UTF-8"])
def test_an_ascii_terminal_gets_plain_letters_and_escaped_evidence(hunted: list[str], locale: str) -> None:
    result = run(*hunted, LANG=locale, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr.decode()
    assert (result.stdout + result.stderr).isascii()
    if locale != "C":
        assert b"eleve" in result.stdout
        assert b"2 evenements : " in result.stderr
    assert b"h\\xe9las" in result.stdout
    listed = run("exercise", "list", LANG=locale, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert listed.returncode == 0, listed.stderr.decode()
    assert (b"(9 etapes)" if locale != "C" else b"(9 stages)") in listed.stdout
