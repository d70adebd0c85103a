"""The registry: what is written is read back, what is broken is named, and a running process follows its changes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.hospital import Certificate, Contact, ExpectedSource, Hospital, Hospitals
from ingest.hospital_file import check_hospital, hospital_of_toml, slug, toml_of_hospital
from ingest.registry import (
    RegistryError,
    RegistryWatch,
    changing,
    hospital_path,
    read_registry,
    write_file,
    write_hospital,
)

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CERTIFICATE = Certificate("ab" * 32, "1f", START, START + timedelta(days=365), revoked=START + timedelta(days=3))
KERMOR = Hospital(
    id="ch-de-kermor",
    title="CH de Kermor",
    finess_ej="290000017",
    finess_et=("290000025", "2A0000014"),
    ght="Finistère",
    region="Bretagne",
    ose=True,
    contacts=(Contact("Marie Le Goff", "RSSI", "+33 2 00 00 00 00", "rssi@kermor.example"), Contact("astreinte")),
    time_zone="Europe/Paris",
    networks=("192.0.2.0/24", "2001:db8::/48"),
    sources=(
        ExpectedSource("pare-feu", host="fw01", format="stormshield", time_zone="UTC"),
        ExpectedSource("pacs", address="192.0.2.17"),
    ),
    certificates=(CERTIFICATE,),
)


def file_of(folder: Path, text: str, name: str = "x") -> Path:
    path = folder / "hospitals" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_a_hospital_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_hospital(tmp_path / "r", KERMOR)
    assert written == KERMOR
    assert read_registry(tmp_path / "r") == Hospitals.of([KERMOR])


def test_a_registry_that_is_not_there_has_no_hospital(tmp_path: Path) -> None:
    assert read_registry(tmp_path / "none") == Hospitals()


def test_files_are_for_owner_and_group_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write_hospital(tmp_path / "a" / "r", KERMOR)
    finally:
        os.umask(umask)
    path = hospital_path(tmp_path / "a" / "r", KERMOR.id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for folder in (path.parent, tmp_path / "a" / "r", tmp_path / "a"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "something was left behind"


def test_what_people_write_by_hand_is_understood(tmp_path: Path) -> None:
    file_of(
        tmp_path,
        """
        id = "x"
        title = " CHU d'Ys "
        networks = ["10.1.2.3", "10.2.0.9/16"]
        [[sources]]
        name = "pare-feu"
        host = "fw"
        [[certificates]]
        fingerprint = "%s"
        serial = "1f"
        not_before = 2026-01-02T04:04:05+01:00
        not_after = 2027-01-02T03:04:05Z
        """
        % ("ab" * 32),
    )
    found = read_registry(tmp_path).by_id["x"]
    assert found.title == "CHU d'Ys"
    assert found.networks == ("10.1.2.3/32", "10.2.0.0/16")
    assert found.sources == (ExpectedSource("pare-feu", host="fw"),)
    assert found.certificates[0].not_before == START
    assert found.time_zone == "Europe/Paris"


TITLED = 'id = "x"\ntitle = "X"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('id = "x"', "title: this key is missing"),
        ('title = "X"', "id: this key is missing"),
        ('id = "x"\ntitle = ""', "title: it is empty"),
        ('id = "X y"\ntitle = "X"', "id: 'X y' is not an id"),
        ('id = "-x"\ntitle = "X"', "id: '-x' is not an id"),
        ('id = "y"\ntitle = "X"', "id: 'y' belongs into a file named y.toml"),
        (TITLED + "netwroks = []", "netwroks: unknown key"),
        (TITLED + '"\\u001b" = 1', "\\x1b: unknown key"),
        (TITLED + 'networks = "10.0.0.0/8"', "networks: a list is wanted"),
        (TITLED + 'networks = ["10.0.0.0/8", "all"]', "networks[1]: 'all' is no address or network"),
        (TITLED + 'networks = ["10.0.0.0/8", "10.9.9.9/8"]', "networks: '10.0.0.0/8' stands there twice"),
        (TITLED + 'finess_ej = "29000001"', "finess_ej: '29000001' is not a FINESS number"),
        (TITLED + 'finess_et = ["2C0000014"]', "finess_et[0]: '2C0000014' is not a FINESS number"),
        (TITLED + "finess_ej = 290000017", "finess_ej: text is wanted"),
        (TITLED + 'ose = "yes"', "ose: true or false is wanted"),
        (TITLED + 'time_zone = "Europe/Brest"', "time_zone: 'Europe/Brest' is no time zone"),
        (TITLED + 'region = "a\\u202eb"', "region: 'a\\u202eb' holds a sign that cannot be seen"),
        (TITLED + f'region = "{"a" * 201}"', "region: at most 200 characters, not 201"),
        (TITLED + "sources = [1]", "sources[0]: a table is wanted"),
        (TITLED + 'sources = [{name = "a"}]', "sources[0]: 'a': address or host is needed"),
        (TITLED + 'sources = [{name = "a", host = "b c"}]', "sources[0]: host: 'b c' is not a host name"),
        (TITLED + 'sources = [{name = "a", adress = "b"}]', "sources[0]: adress: unknown key (known: name, address"),
        (TITLED + 'sources = [{name = "a", host = "b", format = "A B"}]', "sources[0]: format: 'A B' is not the name"),
        (TITLED + 'sources = [{name = "a", host = "b"}, {name = "a", host = "c"}]', "sources: 'a' stands there twice"),
        (TITLED + 'contacts = [{role = "RSSI"}]', "contacts[0]: name: this key is missing"),
        (TITLED + 'certificates = [{fingerprint = "AB"}]', "certificates[0]: fingerprint: 'AB' is not 64"),
        (
            TITLED
            + f'certificates = [{{fingerprint = "{"a" * 64}", serial = "1", not_before = 2026-01-01T00:00:00, '
            + "not_after = 2026-01-01T00:00:00Z}]",
            "certificates[0]: not_before: its offset from UTC is missing",
        ),
        ("id = ", "not valid TOML"),
    ],
)
def test_a_broken_file_is_named_with_key_and_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(RegistryError) as error:
        read_registry(tmp_path)
    assert str(error.value).startswith(f"{path}: {reason}")
    assert str(error.value).isprintable()


def test_a_file_that_is_no_text_or_not_to_be_read_is_named(tmp_path: Path) -> None:
    path = file_of(tmp_path, "")
    path.write_bytes(b'id = "x"\ntitle = "caf\xe9"')
    with pytest.raises(RegistryError, match=r"x\.toml: not UTF-8: .* at byte 21"):
        read_registry(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RegistryError, match=r"x\.toml: cannot be read: Is a directory"):
        read_registry(tmp_path)
    path.rmdir()
    path.write_bytes(b"#" * 5_000_000)
    with pytest.raises(RegistryError, match="larger than"):
        read_registry(tmp_path)


@pytest.mark.parametrize("hospital_id", ["../x", "a/b", "", "x.toml", ".", "..", "a\x00b", "é", "A", "a" * 65, "a\n"])
def test_an_id_leads_nowhere_but_into_the_registry(tmp_path: Path, hospital_id: str) -> None:
    with pytest.raises(RegistryError, match=r"not an id|cannot be seen"):
        hospital_path(tmp_path, hospital_id)
    with pytest.raises(RegistryError, match=r"not an id|cannot be seen"):
        write_hospital(tmp_path, replace(KERMOR, id=hospital_id))
    assert list(tmp_path.iterdir()) == []


def test_two_hospitals_may_not_claim_the_same(tmp_path: Path) -> None:
    write_hospital(tmp_path, KERMOR)
    other = Hospital("chu-d-ys", "CHU d'Ys", networks=("192.0.2.128/24",))
    with pytest.raises(RegistryError, match=r"chu-d-ys: network 192\.0\.2\.0/24 is also that of ch-de-kermor"):
        write_hospital(tmp_path, other)
    with pytest.raises(RegistryError, match=f"chu-d-ys: certificate {'ab' * 32} is also that of ch-de-kermor"):
        write_hospital(tmp_path, replace(other, networks=(), certificates=(CERTIFICATE,)))
    assert set(read_registry(tmp_path).by_id) == {KERMOR.id}, "nothing was written"
    write_hospital(tmp_path, replace(other, networks=("192.0.2.128/25",)))
    hospitals = read_registry(tmp_path)
    narrow, wide = hospitals.at_address("192.0.2.130"), hospitals.at_address("192.0.2.3")
    assert narrow is not None
    assert wide is not None
    assert (narrow.id, wide.id) == ("chu-d-ys", "ch-de-kermor")


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")), max_size=30).map(str.strip)


@given(title=TEXT.filter(bool), region=TEXT, name=TEXT.filter(bool), zone=st.sampled_from(["UTC", "Indian/Reunion"]))
def test_every_text_that_can_be_seen_survives_the_file(title: str, region: str, name: str, zone: str) -> None:
    hospital = Hospital("x", title, region=region, contacts=(Contact(name, region),), time_zone=zone)
    assert hospital_of_toml(toml_of_hospital(hospital), "x") == hospital


@given(st.one_of(st.text(), st.text(alphabet='idtle="[]{}x,\n #\\u0')))
@settings(max_examples=300)
def test_arbitrary_text_is_a_hospital_or_a_reason(text: str) -> None:
    with contextlib.suppress(RegistryError):  # and nothing else
        hospital = hospital_of_toml(text, "x")
        assert check_hospital(hospital, "x") == hospital


@given(st.text())
def test_a_slug_is_an_id_or_nothing(title: str) -> None:
    made = slug(title)
    if made:
        hospital_path(Path("r"), made)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("CH de Kermor", "ch-de-kermor"),
        ("  Hôpital Sacré-Cœur (Éa) ", "hopital-sacre-coeur-ea"),
        ("東", ""),
        ("..", ""),
    ],
)
def test_slugs(title: str, expected: str) -> None:
    assert slug(title) == expected


def test_a_time_in_another_zone_is_kept_as_the_same_moment() -> None:
    paris = timezone(timedelta(hours=1))
    moved = replace(CERTIFICATE, not_before=START.astimezone(paris))
    assert check_hospital(replace(KERMOR, certificates=(moved,)), "x").certificates == (CERTIFICATE,)


def test_a_file_that_must_not_go_stays(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    write_file(path, b"old", 0o600, replace=False)
    with pytest.raises(RegistryError, match=r"ca\.key: is there already, and is not overwritten"):
        write_file(path, b"new", 0o600, replace=False)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["ca.key"]
    with pytest.raises(RegistryError, match="cannot be written: Not a directory"):
        write_file(path / "below", b"", 0o600)


def test_a_change_is_seen_and_a_broken_one_is_told_once(tmp_path: Path) -> None:
    told: list[str | None] = []
    watch = RegistryWatch(tmp_path, 0, failing=told.append)
    assert watch.current == Hospitals()
    assert not watch.look(0)
    write_hospital(tmp_path, KERMOR)
    assert watch.look(1)
    assert not watch.look(2)
    good = watch.current
    broken = file_of(tmp_path, 'id = "x"')
    assert not watch.look(3)
    assert not watch.look(4)
    assert watch.current is good
    assert told == [watch.fault]
    assert "title: this key is missing" in str(watch.fault)
    # a revocation reaches the process once the broken file is mended, not before: one registry, whole
    write_file(broken, b'id = "x"\ntitle = "X"\n', 0o640)
    assert watch.look(5)
    assert set(watch.current.by_id) == {"x", KERMOR.id}
    assert told[1:] == [None]
    broken.unlink()
    assert watch.look(6)
    assert watch.current == good


def test_a_revocation_is_seen_while_running(tmp_path: Path) -> None:
    good = replace(KERMOR, certificates=(replace(CERTIFICATE, revoked=None),))
    write_hospital(tmp_path, good)
    watch = RegistryWatch(tmp_path, 0)
    found = watch.current.certificate(CERTIFICATE.fingerprint)
    assert found is not None
    assert found[1].revoked is None
    write_hospital(tmp_path, KERMOR)
    assert watch.look(1)
    found = watch.current.certificate(CERTIFICATE.fingerprint)
    assert found is not None
    assert found[1].revoked == START + timedelta(days=3)


def test_files_are_looked_at_no_more_often_than_asked(tmp_path: Path) -> None:
    watch = RegistryWatch(tmp_path, 10)
    assert not watch.look(100)
    write_hospital(tmp_path, KERMOR)
    assert not watch.look(109.9)
    assert watch.look(110)


def test_an_unchanged_file_with_a_new_time_is_no_change(tmp_path: Path) -> None:
    write_hospital(tmp_path, KERMOR)
    watch = RegistryWatch(tmp_path, 0)
    os.utime(hospital_path(tmp_path, KERMOR.id), (1, 1))
    assert not watch.look(1)


def test_a_registry_that_is_broken_at_the_start_is_refused(tmp_path: Path) -> None:
    file_of(tmp_path, "")
    with pytest.raises(RegistryError, match="id: this key is missing"):
        RegistryWatch(tmp_path)


def test_half_written_files_are_not_read(tmp_path: Path) -> None:
    write_hospital(tmp_path, KERMOR)
    for name in (".x.toml.k3j2", ".x.toml", "y.toml~", "notes.txt"):
        (tmp_path / "hospitals" / name).write_text("id = ")
    assert set(read_registry(tmp_path).by_id) == {KERMOR.id}


def _add_sources(folder: Path, prefix: str) -> None:
    for number in range(20):
        with changing(folder):
            old = read_registry(folder).by_id["x"]
            write_hospital(folder, replace(old, sources=(*old.sources, ExpectedSource(f"{prefix}{number}", host="h"))))


def test_programs_that_change_a_hospital_at_once_lose_nothing(tmp_path: Path) -> None:
    write_hospital(tmp_path, Hospital("x", "X"))
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.starmap(_add_sources, [(tmp_path, prefix) for prefix in "abc"])
    assert len(read_registry(tmp_path).by_id["x"].sources) == 60
