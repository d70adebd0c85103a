"""Patients' privacy from end to end: what goes in as an identifier is found nowhere, and the hospital gets it back."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from detections.match import MATCH_SCHEMA
from ingest.bus import TOPIC_MATCHES, TOPIC_RAW, TOPICS
from ingest.bus_embedded import EmbeddedBus
from ingest.collect import Collector
from ingest.hospital import Hospital
from ingest.hospital_keys import KeysError, make_keys, read_keys
from ingest.ipc import FrameDecodeError, decode_frame
from ingest.listeners import ListenError, ListenerSettings
from ingest.patient_guard import PatientGuard
from ingest.pseudonyms import PSEUDONYM, nir_key
from ingest.rawbatch import decode_record
from ingest.registry import write_hospital
from ingest.reveal_journal import RevealJournalError, verify_reveals
from ingest.vault import VaultError, read_vault, vault_path
from storage.alert_queue import AlertFilter
from storage.alerts import AlertStore
from tocsin.hospital_command import hospital
from tocsin.processes import Running, running
from tocsin.settings import Settings, load_settings
from tocsin.tally import Flow

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
RULE = """
title: Record Opened
id: 4d3e8f6e-9a58-4bb1-8b0a-5a4a4f3f5b77
status: test
description: Somebody opened the record of a patient.
level: high
logsource: {product: linux}
detection:
    selection: ['dossier-ouvert']
    condition: selection
"""
NIR = f"1700129155034{nir_key('1700129155034'):02d}"
SPACED = f"{NIR[0]} {NIR[1:3]} {NIR[3:5]} {NIR[5:7]} {NIR[7:10]} {NIR[10:13]} {NIR[13:]}"
IDENTIFIERS = (
    "80012345",
    NIR,
    SPACED,
    NIR[:13],
    "KERVÉLLA",
    "Maëlyss",
    "31/01/1970",
    "1970-01-31",
    "19700131",
    "RUE DU QUAI",
    "0298112233",
)
STAFF = "LE BRAS"
CONTROL = "CONTROLE99887766"


def lines() -> list[bytes]:
    hl7 = "#015".join(
        [
            "MSH|^~\\&|GAM|CH|DPI|CH|20261123100000||ADT^A08|17|P|2.5",
            f"EVN||20261123|||1001^{STAFF}^ANNE",
            f"PID|1||80012345^^^CH^PI~{NIR}^^^&1.2.250.1.213.1.4.8&ISO^INS||KERVÉLLA^Maëlyss||19700131|F|||12 RUE DU QUAI^^X||0298112233",  # noqa: E501
            "ZZZ|dossier-ouvert pour Kervella",
        ]
    )
    atna = (
        f'<AuditMessage><ActiveParticipant UserID="alb" UserName="{STAFF}"/><ParticipantObjectIdentification '
        'ParticipantObjectID="80012345" ParticipantObjectTypeCode="1" ParticipantObjectTypeCodeRole="1">'
        "<ParticipantObjectName>KERVÉLLA^Maëlyss</ParticipantObjectName><ParticipantObjectQuery>"
        f"{base64.b64encode(f'PID|{NIR}|KERVÉLLA'.encode()).decode()}</ParticipantObjectQuery>"
        "<ParticipantObjectDetail type='dossier-ouvert' value='MTk3MDAxMzE='/></ParticipantObjectIdentification></AuditMessage>"  # noqa: E501
    )
    record = {"user": {"nom": STAFF}, "action": "dossier-ouvert", "ipp": 80012345, "nom": "KERVÉLLA", "prenom": "Maëlyss",  # noqa: E501
              "dateNaissance": "31/01/1970"}  # fmt: skip
    text = f"dossier-ouvert par {STAFF}: Patient KERVÉLLA Maëlyss née le 31/01/1970, IPP: 80012345, INS {SPACED}, (kervella)"  # noqa: E501
    fhir = {"resourceType": "AuditEvent", "agent": [{"who": {"display": STAFF}}], "outcomeDesc": "dossier-ouvert",
            "entity": [{"what": {"reference": "Patient/80012345", "display": "Maëlyss KERVÉLLA"}}]}  # fmt: skip
    header = "<86>1 2026-11-23T10:00:00Z dpi app 7 - - "
    return [
        f"{header}{hl7}".encode(),
        f"{header}{atna}".encode(),
        f"{header}{json.dumps(record)}".encode(),
        f"{header}{json.dumps(fhir, ensure_ascii=False)}".encode(),
        f"{header}{text}".encode(),
        f"<86>Nov 23 10:00:00 dpi app: {text}".encode("iso-8859-1"),
        f"{header}{atna[:-40]}".encode(),  # cannot be read: sealed
    ]


def forms(identifier: str) -> set[bytes]:
    """An identifier as it could still be found."""
    plain = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode()
    texts = {identifier, plain, identifier.upper(), identifier.lower(), plain.upper(), plain.lower()}
    found: set[bytes] = {json.dumps(text)[1:-1].encode() for text in texts}
    for text in texts:
        for encoding in ("utf-8", "iso-8859-1", "utf-16-le"):
            raw = text.encode(encoding)
            found |= {raw, raw.hex().encode(), raw.hex().upper().encode()}
            for shift in range(3):  # base64 of a text that holds it, at each place it may begin
                whole = base64.b64encode(b"\0" * shift + raw).decode()
                inner = whole[0 if shift == 0 else 4 : -4]
                if len(inner) >= 8:
                    found.add(inner.encode())
    return found


def seek(content: bytes, identifiers: tuple[str, ...]) -> list[str]:
    return [identifier for identifier in identifiers if any(form in content for form in forms(identifier))]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass(frozen=True)
class Region:
    """Two hospitals with keys, one listener each, and one listener where nothing is protected."""

    settings: Settings
    folder: Path

    def key(self, name: str) -> Path:
        return self.folder / "taken-away" / f"{name}.key"

    def vault(self, name: str) -> Path:
        return vault_path(self.settings.data_dir / "vault", read_keys(self.settings.registry_path, name).current)


@pytest.fixture
def region(tmp_path: Path) -> Region:
    rules = tmp_path / "rules"
    rules.mkdir()
    for number, product in enumerate(("linux", "hl7", "atna")):
        (rules / f"{product}.yml").write_text(RULE.replace("linux", product).replace("5b77", f"5b7{number}"))
    listeners = ",".join(
        f'{{name="{name}", hospital="{name}", port=0, patient_data={flag}}}'
        for name, flag in (("kermor", "true"), ("rostren", "true"), ("control", "false"))
    )
    flags = [
        ("data_dir", str(tmp_path / "data")),
        ("rules", f'["{rules}"]'),
        ("console.port", "0"),
        ("log.level", "debug"),
    ]
    settings = load_settings(
        None, {}, [*flags, ("detect.flush_seconds", "0.1"), ("collect.listeners", f"[{listeners}]")]
    )
    region = Region(settings, tmp_path)
    (tmp_path / "taken-away").mkdir()
    for name in ("kermor", "rostren", "control"):
        write_hospital(settings.registry_path, Hospital(name, f"CH {name}"))
    for name in ("kermor", "rostren"):
        make_keys(settings.registry_path, name, region.key(name), NOW)
    return region


def send(here: Running, listener: str, content: list[bytes]) -> None:
    before = here.tally.received
    with socket.create_connection(here.listeners[listener]) as connection:
        connection.sendall(b"".join(str(len(line)).encode() + b" " + line for line in content))
    wait_for(lambda: here.tally.received == before + len(content))


def bus_contents(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """Everything that ever went over the bus, unpacked."""
    bus = EmbeddedBus(settings.bus_path)
    for partition, end in bus.ends(TOPICS).items():
        for record in bus.read(partition, 0, end):
            yield partition.topic, record.value
            yield partition.topic, repr((record.key, record.headers)).encode()
            if partition.topic == TOPIC_RAW:
                for line in decode_record(record)["line"]:
                    yield partition.topic, line
            if partition.topic == TOPIC_MATCHES:
                try:
                    yield partition.topic, decode_frame(record.value, MATCH_SCHEMA).write_json().encode()
                except FrameDecodeError:
                    pytest.fail("a match that cannot be read")
    bus.close()


def lake_contents(settings: Settings) -> Iterator[bytes]:
    for path in settings.lake_path.rglob("*.parquet"):
        frame = pl.read_parquet(path)
        for column in frame.get_columns():
            yield "\n".join(str(value) for value in column).encode("utf-8", "surrogatepass")


def alert_contents(settings: Settings) -> Iterator[bytes]:
    with AlertStore(settings.alerts_path) as store:
        page = store.queue(AlertFilter(), 500)
        assert page.items
        yield repr(page).encode()
        for row in page.items:
            yield repr(store.get(row.alert.id)).encode()
            yield repr(row).encode()


def test_no_identifier_is_found_anywhere_and_the_hospital_gets_them_back(
    region: Region, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(region.settings) as here:
        for name in ("kermor", "rostren"):
            send(here, name, lines())
        send(here, "control", [f"<86>Nov 23 10:00:00 dpi app: dossier-ouvert Patient: {CONTROL}".encode()])
        store = here.store
        assert store is not None
        wait_for(lambda: store.counts(AlertFilter()).total >= 9)
        assert here.tally.passed(Flow.QUARANTINED) == 0
    settings = region.settings
    on_bus = list(bus_contents(settings))
    assert {topic for topic, _ in on_bus} >= {TOPIC_RAW, TOPIC_MATCHES}
    places = {
        "bus": [content for _, content in on_bus],
        "lake": list(lake_contents(settings)),
        "alerts": list(alert_contents(settings)),
        "logs": [text.encode() for text in capfd.readouterr()],
        "files": [path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()],
    }
    for place, contents in places.items():
        assert contents
        for content in contents:
            assert seek(content, IDENTIFIERS) == [], place
    for place in ("bus", "lake", "alerts"):  # the search finds what is there
        assert any(seek(content, (CONTROL,)) for content in places[place]), place
        assert any(STAFF.encode() in content for content in places[place]), place

    raw = [decoded for topic, decoded in on_bus if topic == TOPIC_RAW and decoded.startswith((b"<86>", b"tocsin: "))]
    assert len(raw) == 2 * len(lines()) + 1
    tokens = {name: set(read_tokens(region.vault(name))) for name in ("kermor", "rostren")}
    assert set(PSEUDONYM.findall(b"\n".join(raw).decode("utf-8", "replace"))) == tokens["kermor"] | tokens["rostren"]
    ends = {name: {token.rpartition("-")[2] for token in found} for name, found in tokens.items()}
    assert len(ends["kermor"]) == len(ends["rostren"])
    assert not ends["kermor"] & ends["rostren"]  # nobody can join patients across hospitals

    result = reveal(region, sorted(tokens["kermor"]), region.key("kermor"))
    assert result.exit_code == 0, result.output
    for identifier in ("80012345", NIR, "KERVÉLLA^Maëlyss", "19700131", "12 RUE DU QUAI", "0298112233"):
        assert identifier in result.stdout
    sealed = next(token for token in tokens["kermor"] if token.startswith("PSN-LIN-"))
    assert lines()[-1].decode() in reveal(region, [sealed], region.key("kermor")).stdout
    other = reveal(region, sorted(tokens["kermor"])[:1], region.key("rostren"))
    assert isinstance(other.exception, VaultError)
    journal = region.vault("kermor").with_suffix(".reveals.jsonl")
    assert verify_reveals(journal)[0] == 2
    assert seek(journal.read_bytes(), IDENTIFIERS) == []


def read_tokens(vault: Path) -> Iterator[str]:
    for line in vault.read_text("ascii").splitlines():
        yield line.split()[0]


def reveal(region: Region, tokens: list[str], key: Path, **more: str) -> Result:
    options = {
        "--key": str(key),
        "--vault": str(region.vault("kermor")),
        "--reason": "incident 12",
        "--who": "Dr Le Bras",
    } | more
    return CliRunner().invoke(hospital, ["reveal", *tokens, *(part for pair in options.items() for part in pair)])


# -- the commands ------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(region: Region) -> tuple[Region, str]:
    keys = read_keys(region.settings.registry_path, "kermor").current
    guard = PatientGuard(region.settings.registry_path, region.settings.data_dir / "vault")
    guard._of("kermor").protect([b"IPP: 80012345"])
    guard.close()
    return region, keys.pseudonym("IPP", "80012345")


def test_reveal_says_who_why_and_when_before_it_shows(filled: tuple[Region, str], tmp_path: Path) -> None:
    region, token = filled
    journal = tmp_path / "looks"
    result = reveal(region, [token], region.key("kermor"), **{"--journal": str(journal)})
    assert (result.exit_code, result.stdout) == (0, f"{token}\t80012345\n")
    entry = json.loads(journal.read_text())
    assert (entry["who"], entry["reason"], entry["tokens"]) == ("Dr Le Bras", "incident 12", [token])
    journal.write_text(journal.read_text().replace("incident 12", "incident 13"))
    refused = reveal(region, [token], region.key("kermor"), **{"--journal": str(journal)})
    assert isinstance(refused.exception, RevealJournalError)
    assert "80012345" not in refused.output
    unwritable = reveal(region, [token], region.key("kermor"), **{"--journal": str(tmp_path / "none" / "looks")})
    assert isinstance(unwritable.exception, RevealJournalError)
    assert "80012345" not in unwritable.output


@pytest.mark.parametrize("option", ["--reason", "--who"])
def test_reveal_refuses_without_reason_or_name(filled: tuple[Region, str], option: str) -> None:
    region, token = filled
    result = reveal(region, [token], region.key("kermor"), **{option: "  "})
    assert result.exit_code != 0
    assert option in result.output
    assert "80012345" not in result.output


def test_reveal_names_what_it_does_not_find(filled: tuple[Region, str]) -> None:
    region, token = filled
    keys = read_keys(region.settings.registry_path, "kermor").current
    unknown, foreign = keys.pseudonym("IPP", "1"), "PSN-IPP-ZZZZ-AAAAAAAAAAAAAAAA"
    result = reveal(region, [token, unknown, foreign], region.key("kermor"))
    assert result.exit_code == 1
    assert "80012345" in result.stdout
    assert unknown in result.stderr
    assert "other keys" in result.stderr
    assert "no pseudonym" in reveal(region, ["PSN-IPP-x"], region.key("kermor")).output


def test_the_keys_command(region: Region, tmp_path: Path) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(hospital, ["keys", *arguments, "--set", f'data_dir="{region.settings.data_dir}"'])

    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    made = run("control", "--to", str(tmp_path / "c.key"), "--passphrase-file", str(passphrase))
    assert made.exit_code == 0, made.output
    assert "give it to the hospital" in made.output
    assert b"ENCRYPTED" in (tmp_path / "c.key").read_bytes()
    again = run("control", "--to", str(tmp_path / "d.key"))
    assert isinstance(again.exception, KeysError)
    assert run("control", "--to", str(tmp_path / "d.key"), "--renew").exit_code == 0
    assert len(read_keys(region.settings.registry_path, "control").earlier) == 1
    assert run("nobody", "--to", str(tmp_path / "e.key")).exit_code != 0
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert (
        "no passphrase"
        in run("rostren", "--to", str(tmp_path / "f"), "--passphrase-file", str(empty), "--renew").output
    )


def test_a_key_with_a_passphrase_asks_for_it(region: Region, tmp_path: Path) -> None:
    make_keys(region.settings.registry_path, "kermor", tmp_path / "k", NOW, passphrase="correct horse", renew=True)  # noqa: S106
    guard = PatientGuard(region.settings.registry_path, region.settings.data_dir / "vault")
    guard._of("kermor").protect([b"IPP: 80012345"])
    token = read_keys(region.settings.registry_path, "kermor").current.pseudonym("IPP", "80012345")
    arguments = [
        "reveal",
        token,
        "--key",
        str(tmp_path / "k"),
        "--vault",
        str(region.vault("kermor")),
        "--reason",
        "x",
        "--who",
        "y",
    ]
    asked = CliRunner().invoke(hospital, arguments, input="correct horse\n")
    assert (asked.exit_code, asked.stdout.splitlines()[-1]) == (0, f"{token}\t80012345")


# -- the collector -----------------------------------------------------------------------------------------------


def test_without_keys_the_listener_does_not_open(region: Region) -> None:
    listener = ListenerSettings("c", "tcp", "127.0.0.1", 0, "control", patient_data=True)

    async def start(guard: PatientGuard | None) -> None:
        bus = EmbeddedBus(region.folder / "bus.sqlite")
        bus.ensure_topics(TOPICS)
        try:
            await Collector(bus, [listener], patients=guard).start()
        finally:
            bus.close()

    guard = PatientGuard(region.settings.registry_path, region.settings.data_dir / "vault")
    with pytest.raises(ListenError, match=r"listener 'c': patient_data: .*control has no keys"):
        asyncio.run(start(guard))
    with pytest.raises(ListenError, match="nothing here makes pseudonyms"):
        asyncio.run(start(None))


def test_new_keys_are_taken_up_while_running(region: Region) -> None:
    registry = region.settings.registry_path
    guard = PatientGuard(registry, region.settings.data_dir / "vault")
    first = guard._of("kermor").protect([b"IPP: 80012345"])
    make_keys(registry, "kermor", region.folder / "second.key", NOW, renew=True)
    second = guard._of("kermor").protect([b"IPP: 80012345"])
    assert first != second
    current = read_keys(registry, "kermor").current
    assert current.pseudonym("IPP", "80012345").encode() in second[0]
    assert read_vault(region.vault("kermor"), frozenset([current.pseudonym("IPP", "80012345")]))
    assert guard.stats()["kermor"].lines == 2


def test_while_the_vault_cannot_be_written_nothing_goes_on(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, vaults = region.settings.registry_path, region.settings.data_dir / "vault"
    bus = EmbeddedBus(region.folder / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    guard = PatientGuard(registry, vaults)
    vault = guard._of("kermor")._vault
    keep = vault.keep
    refusals: list[object] = []

    def refuse(originals: list[tuple[str, bytes]]) -> int:
        if len(refusals) < 2:
            refusals.append(originals)
            raise VaultError("no space left")
        return keep(originals)

    monkeypatch.setattr(type(vault), "keep", lambda _, originals: refuse(originals))
    listener = ListenerSettings("k", "tcp", "127.0.0.1", 0, "kermor", patient_data=True)

    async def collect() -> None:
        collector = Collector(bus, [listener], patients=guard, batch_seconds=0.01)
        await collector.start()
        with socket.create_connection(collector.addresses["k"]) as connection:
            connection.sendall(b"IPP: 80012345\n")
        await collector.stop()
        assert collector.stats().lines == 1

    asyncio.run(collect())
    assert len(refusals) == 2
    lines_on_bus = [
        line
        for partition, end in bus.ends([TOPIC_RAW]).items()
        for record in bus.read(partition, 0, end)
        for line in decode_record(record)["line"]
    ]
    bus.close()
    assert len(lines_on_bus) == 1
    assert lines_on_bus[0].startswith(b"IPP: PSN-IPP-")
