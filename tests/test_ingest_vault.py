"""The vault and the journal of looks: only the private key opens, nothing is lost, and nothing is looked at unnoted."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.hospital_keys import make_keys, read_private
from ingest.listeners import CollectError
from ingest.pseudonyms import CollectorKeys
from ingest.reveal_journal import Reveal, RevealJournalError, append_reveal, verify_reveals
from ingest.vault import STEP, VaultError, VaultFile, open_entry, read_vault, vault_path

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> CollectorKeys:
    return make_keys(tmp_path / "registry", "kermor", tmp_path / "kermor.key", NOW)


@pytest.fixture
def vault(tmp_path: Path, keys: CollectorKeys) -> VaultFile:
    return VaultFile(vault_path(tmp_path / "vault", keys), keys)


def revealed(vault: VaultFile, key: Path, token: str) -> bytes:
    return open_entry(token, read_vault(vault.path, frozenset([token]))[token], read_private(key))


def test_what_is_kept_comes_back_with_the_private_key(tmp_path: Path, vault: VaultFile, keys: CollectorKeys) -> None:
    tokens = [keys.pseudonym("NAM", name) for name in ("DUPONT^JEAN", "LE GOFF^Anaïs")]
    assert vault.keep(list(zip(tokens, [b"DUPONT^JEAN", "LE GOFF^Anaïs".encode()], strict=True))) == 2
    assert revealed(vault, tmp_path / "kermor.key", tokens[0]) == b"DUPONT^JEAN"
    assert revealed(vault, tmp_path / "kermor.key", tokens[1]) == "LE GOFF^Anaïs".encode()
    assert vault.path == tmp_path / "vault" / "kermor" / f"{keys.id}.vault"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(said=st.binary(max_size=200))
def test_any_bytes_come_back(tmp_path: Path, vault: VaultFile, keys: CollectorKeys, said: bytes) -> None:
    token = keys.line_pseudonym(said)
    vault.keep([(token, said)])
    assert revealed(vault, tmp_path / "kermor.key", token) == said


def test_another_key_opens_nothing_and_a_changed_entry_is_noticed(
    tmp_path: Path, vault: VaultFile, keys: CollectorKeys
) -> None:
    token, other = keys.pseudonym("IPP", "8001234"), keys.pseudonym("IPP", "8001235")
    vault.keep([(token, b"8001234"), (other, b"8001235")])
    make_keys(tmp_path / "registry", "rostren", tmp_path / "rostren.key", NOW)
    entry = read_vault(vault.path, frozenset([token]))[token]
    with pytest.raises(VaultError, match="takes the key"):
        open_entry(token, entry, read_private(tmp_path / "rostren.key"))
    private = read_private(tmp_path / "kermor.key")
    for place in (0, 33, len(entry) - 1):
        changed = bytearray(entry)
        changed[place] ^= 1
        with pytest.raises(VaultError, match="it was changed"):
            open_entry(token, bytes(changed), private)
    with pytest.raises(VaultError, match="it was changed"):  # an entry moved under another pseudonym
        open_entry(other, entry, private)


def test_the_file_shows_neither_values_nor_exact_lengths(vault: VaultFile, keys: CollectorKeys) -> None:
    names = ["LI", "DUPONT^JEAN", "VILLENEUVE^MARIE"]
    vault.keep([(keys.pseudonym("NAM", name), name.encode()) for name in names])
    content = vault.path.read_bytes()
    assert not any(name.encode() in content for name in names[1:])
    assert len({len(line) for line in content.splitlines()}) == 1
    assert max(map(len, names)) < STEP


def test_a_pseudonym_is_written_once_also_by_the_next_process(vault: VaultFile, keys: CollectorKeys) -> None:
    pair = (keys.pseudonym("IPP", "8001234"), b"8001234")
    assert [vault.keep([pair, pair]), vault.keep([pair])] == [1, 0]
    vault.close()
    again = VaultFile(vault.path, keys)
    assert again.keep([pair]) == 0
    assert len(again.path.read_bytes().splitlines()) == 1


def test_memory_is_bounded_and_forgetting_costs_disk_only(tmp_path: Path, keys: CollectorKeys) -> None:
    small = VaultFile(tmp_path / "v", keys, remember=10)
    pairs = [(keys.pseudonym("IPP", str(number)), str(number).encode()) for number in range(30)]
    assert small.keep(pairs) == 30
    assert len(small._known) == 10
    assert small.keep(pairs[:1]) == 1
    assert revealed(small, tmp_path / "kermor.key", pairs[0][0]) == b"0"


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
def test_a_torn_tail_spoils_nothing_else(tmp_path: Path, vault: VaultFile, keys: CollectorKeys, cut: int) -> None:
    first, torn, later = (keys.pseudonym("IPP", number) for number in ("1111", "2222", "3333"))
    vault.keep([(first, b"1111")])
    vault.keep([(torn, b"2222")])
    vault.close()
    with vault.path.open("r+b") as file:
        file.truncate(vault.path.stat().st_size - cut)
    again = VaultFile(vault.path, keys)
    assert again.keep([(torn, b"2222"), (later, b"3333")]) == 2
    again.close()
    again = VaultFile(vault.path, keys)
    assert again.keep([(torn, b"2222"), (later, b"3333")]) == 0
    for token, said in ((first, b"1111"), (torn, b"2222"), (later, b"3333")):
        assert revealed(again, tmp_path / "kermor.key", token) == said


def test_a_full_disk_is_an_error_and_leaves_no_half_entries(
    vault: VaultFile, keys: CollectorKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = vault.path.read_bytes()
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        if len(content) <= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(content)[:20])

    monkeypatch.setattr(os, "write", full)
    pair = (keys.pseudonym("IPP", "8001234"), b"8001234")
    with pytest.raises(VaultError, match="No space left"):
        vault.keep([pair])
    monkeypatch.undo()
    assert vault.path.read_bytes().startswith(before)
    assert vault.keep([pair]) == 1
    assert read_vault(vault.path, frozenset([pair[0]]))


def test_a_vault_that_cannot_be_opened_says_so(tmp_path: Path, keys: CollectorKeys) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectError, match="file"):
        VaultFile(tmp_path / "file" / "v", keys)
    with pytest.raises(VaultError, match="cannot be read"):
        read_vault(tmp_path / "none", frozenset())


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_reading_any_file_never_raises(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v").write_bytes(content)
    assert read_vault(tmp_path / "v", frozenset(["PSN-IPP-AAAA-AAAAAAAAAAAAAAAA"])) == {}


# -- the journal of looks ----------------------------------------------------------------------------------------

LOOK = Reveal("Dr Le Bras", "root", "incident 12", ("PSN-IPP-AAAA-AAAAAAAAAAAAAAAA",))


def test_looks_are_chained(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    hashes = [append_reveal(path, LOOK, NOW) for _ in range(3)]
    assert verify_reveals(path) == (3, hashes[-1])
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    assert entries[0]["reason"] == "incident 12"
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("change", ["reason", "remove", "swap", "double", "cut", "garbage"])
def test_a_changed_journal_is_noticed_and_nothing_is_added(tmp_path: Path, change: str) -> None:
    path = tmp_path / "looks"
    for _ in range(3):
        append_reveal(path, LOOK, NOW)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "reason": [lines[0].replace(b"incident 12", b"incident 13"), *lines[1:]],
        "remove": [lines[0], lines[2]],
        "swap": [lines[1], lines[0], lines[2]],
        "double": [lines[0], *lines],
        "cut": [*lines[:2], lines[2][:-10]],
        "garbage": [*lines, b"[]\n"],
    }[change]
    path.write_bytes(b"".join(changed))
    with pytest.raises(RevealJournalError):
        verify_reveals(path)
    with pytest.raises(RevealJournalError):
        append_reveal(path, LOOK, NOW)
    assert path.read_bytes() == b"".join(changed)


def test_the_files_of_keys_and_vault_are_nobody_elses_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keys = make_keys(tmp_path / "registry", "kermor", tmp_path / "k", NOW)
        VaultFile(vault_path(tmp_path / "vault", keys), keys).close()
    finally:
        os.umask(old)
    for secret in (tmp_path / "k", tmp_path / "registry" / "keys" / "kermor.toml"):
        assert secret.stat().st_mode & 0o777 == 0o600
    assert all(path.stat().st_mode & 0o007 == 0 for path in (tmp_path / "vault").rglob("*"))
