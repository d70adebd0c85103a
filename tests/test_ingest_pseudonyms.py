"""Pseudonyms: one writing for all writings of a value, one key for a hospital, and keys that go where they belong."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.hospital_keys import (
    KeysError,
    PassphraseError,
    keys_path,
    make_keys,
    private_key_id,
    read_keys,
    read_private,
)
from ingest.pseudonyms import KINDS, PSEUDONYM, CollectorKeys, canonical, date_of, folded, key_id, nir, nir_key

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
KERMOR = CollectorKeys("kermor", "AAAA", b"k" * 32, b"p" * 32)
ROSTREN = CollectorKeys("rostren", "BBBB", b"r" * 32, b"q" * 32)


def test_the_key_of_a_nir_is_97_less_the_rest() -> None:
    assert nir_key("2550814168025") == 38  # the example of public documentation
    assert nir_key("1700175123456") == 97 - 1700175123456 % 97


def test_corsica_counts_as_19_and_18() -> None:
    assert nir_key("155062A004123") == nir_key("1550619004123")
    assert nir_key("155062B004123") == nir_key("1550618004123")
    assert nir_key("155062C004123") is None
    assert nir_key("2A") is None


@pytest.mark.parametrize("text", ["255081416802538", "2 55 08 14 168 025 38", "2.55.08.14.168.025-38", "2550814168025"])
def test_a_nir_is_one_in_every_writing(text: str) -> None:
    assert nir(text) == "255081416802538"


@pytest.mark.parametrize("text", ["255081416802581", "25508141680258", "", "abc", "²55084958815780"])
def test_what_is_no_nir(text: str) -> None:
    assert nir(text) is None


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("INS", ["255081416802538", "2 55 08 14 168 025 38", "2550814168025"]),
        ("IPP", ["8001234", "0008001234", " 8001234 "]),
        ("IPP", ["ab12", "AB12", "00AB12"]),
        ("IPP", ["000"]),
        ("NAM", ["LE GOFF^Anaïs", "Le Goff Anais", "le-goff anaïs", "LE GOFF  ANAI\u0308S", "LE GOFF^ANAIS^^^"]),
        ("NAM", ["LECŒUR", "Lecoeur"]),
        (
            "DOB",
            ["19700131", "1970-01-31", "31/01/1970", "31.1.1970", "31 janvier 1970", "197001311205", "31-JAN-1970"],
        ),
        ("DOB", ["1er août 1970", "01/08/1970", "1 AOUT 1970", "01081970"]),
        ("TEL", ["02 98 00 00 00", "02.98.00.00.00", "0298000000"]),
        ("TEL", ["Anais@Example.net", "anais@example.net"]),
    ],
)
def test_writings_of_one_value_have_one_pseudonym(kind: str, texts: list[str]) -> None:
    assert len({KERMOR.pseudonym(kind, text) for text in texts}) == 1, [canonical(kind, text) for text in texts]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("NAM", "MARTIN^PAUL", "PAUL^MARTIN"),  # in the order given: nobody can tell which is which
        ("DOB", "31/01/70", "31/01/1970"),  # the century is not guessed
        ("IPP", "8001234", "8001235"),
        ("INS", "255081416802538", "170017512345612"),
    ],
)
def test_different_values_have_different_pseudonyms(kind: str, one: str, other: str) -> None:
    assert KERMOR.pseudonym(kind, one) != KERMOR.pseudonym(kind, other)


def test_a_pseudonym_says_kind_and_key_and_nothing_else() -> None:
    token = KERMOR.pseudonym("INS", "255081416802538")
    assert PSEUDONYM.fullmatch(token)
    assert token.startswith("PSN-INS-AAAA-")
    assert token == KERMOR.pseudonym("INS", "255081416802538")


def test_kinds_and_hospitals_keep_apart() -> None:
    assert KERMOR.pseudonym("IPP", "8001234")[8:] != KERMOR.pseudonym("NDA", "8001234")[8:]
    assert KERMOR.pseudonym("IPP", "8001234")[13:] != ROSTREN.pseudonym("IPP", "8001234")[13:]


@given(st.sampled_from(sorted(KINDS)), st.text())
def test_any_text_has_a_pseudonym(kind: str, text: str) -> None:
    assert PSEUDONYM.fullmatch(KERMOR.pseudonym(kind, text))


@given(st.text())
def test_folding_and_dates_never_raise(text: str) -> None:
    assert folded(folded(text)) == folded(text)
    date_of(text)


def test_keys_never_show_their_secret() -> None:
    assert "kkkk" not in repr(KERMOR)


# -- keys --------------------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_the_private_key_is_only_where_asked(tmp_path: Path) -> None:
    registry, to = tmp_path / "registry", tmp_path / "kermor.key"
    made = make_keys(registry, "kermor", to, NOW)
    assert read_keys(registry, "kermor").current == made
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys_path(registry, "kermor").stat().st_mode) == 0o600
    private = read_private(to)
    assert private_key_id(private) == made.id == key_id(made.public)
    secret = private.private_bytes_raw()
    for path in registry.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes()
    with pytest.raises(KeysError, match="--renew"):
        make_keys(registry, "kermor", tmp_path / "second.key", NOW)
    with pytest.raises(KeysError, match="exists already"):
        make_keys(registry, "rostren", to, NOW)
    assert not keys_path(registry, "rostren").exists()


def test_renewed_keys_take_over_and_the_earlier_stay(tmp_path: Path) -> None:
    first = make_keys(tmp_path, "kermor", tmp_path / "1.key", NOW)
    path = keys_path(tmp_path, "kermor")
    path.write_text("seal_unknown = true\n" + path.read_text("utf-8"), "utf-8")
    second = make_keys(tmp_path, "kermor", tmp_path / "2.key", NOW, renew=True)
    held = read_keys(tmp_path, "kermor")
    assert (held.current, held.earlier, held.seal_unknown) == (second, (first,), True)
    assert first.pseudonym("IPP", "1")[13:] != second.pseudonym("IPP", "1")[13:]


def test_a_passphrase_is_needed_where_there_is_one(tmp_path: Path) -> None:
    make_keys(tmp_path, "kermor", tmp_path / "k", NOW, passphrase="correct horse")  # noqa: S106
    assert private_key_id(read_private(tmp_path / "k", "correct horse")) == read_keys(tmp_path, "kermor").current.id
    with pytest.raises(PassphraseError, match="needs its passphrase"):
        read_private(tmp_path / "k")
    with pytest.raises(KeysError, match="wrong passphrase"):
        read_private(tmp_path / "k", "wrong horse")
    make_keys(tmp_path, "rostren", tmp_path / "r", NOW)
    with pytest.raises(PassphraseError, match="has no passphrase"):
        read_private(tmp_path / "r", "correct horse")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "there is none"),
        ("keys = [1]", "a table"),
        ("keys = 3", "there is none"),
        ("[[keys]]\nid='AAAA'\nsecret='x'\npublic='y'", "secret: 32 bytes"),
        ("what = 1\n[[keys]]\n", "32 bytes"),
        ("[[keys", "not valid TOML"),
    ],
)
def test_a_broken_file_of_keys_says_what_is_wrong(tmp_path: Path, content: str, fault: str) -> None:
    path = keys_path(tmp_path, "kermor")
    path.parent.mkdir()
    path.write_text(content, "utf-8")
    with pytest.raises(KeysError, match=fault):
        read_keys(tmp_path, "kermor")


def test_a_hospital_without_keys_is_told_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="tocsin hospital keys kermor --to FILE"):
        read_keys(tmp_path, "kermor")
    for name in ("", "..", "a/b", ".hidden"):
        with pytest.raises(KeysError):
            keys_path(tmp_path, name)


def test_an_id_that_is_not_the_keys_is_refused(tmp_path: Path) -> None:
    made = make_keys(tmp_path, "kermor", tmp_path / "k", NOW)
    path = keys_path(tmp_path, "kermor")
    path.write_text(path.read_text("utf-8").replace(f'"{made.id}"', '"ZZZZ"'), "utf-8")
    with pytest.raises(KeysError, match="not the id"):
        read_keys(tmp_path, "kermor")
