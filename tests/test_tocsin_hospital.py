"""Enrolment from the command line: the register of hospitals, and their certificates."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from hospital_desk import REPOSITORY, Desk, Require, make_desk, unpack
from ingest.authority import authority_folder, issue_client
from ingest.hospital import Contact, ExpectedSource, Hospital
from ingest.registry import hospital_path, write_hospital
from tocsin.hospital_bundle import PLAIN_PORTS, RECEIPTS_PORT, RELP_TLS_PORT, TLS_PORT
from tocsin.hospital_fields import contact_of, source_of


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


@pytest.fixture
def enrolled(desk: Desk) -> Desk:
    """With an authority and a hospital."""
    return desk.enrol()


def test_a_hospital_is_added_with_all_that_is_known_of_it(desk: Desk) -> None:
    said = desk.run(
        "hospital", "add", "CH de Kermor", "--finess-ej", "290000017", "--finess-et", "290000025", "--ght", "Ys",
        "--region", "Bretagne", "--ose", "--contact", "Marie Le Goff; RSSI;;rssi@kermor.example", "--time-zone", "UTC",
        "--network", "192.0.2.9/24", "--source", "pare-feu; host=fw; format=stormshield.sns; time-zone=Europe/Paris",
    )  # fmt: skip
    assert said.splitlines()[0] == "added ch-de-kermor (CH de Kermor)"
    assert desk.hospital("ch-de-kermor") == Hospital(
        "ch-de-kermor",
        "CH de Kermor",
        "290000017",
        ("290000025",),
        "Ys",
        "Bretagne",
        ose=True,
        contacts=(Contact("Marie Le Goff", "RSSI", "", "rssi@kermor.example"),),
        time_zone="UTC",
        networks=("192.0.2.0/24",),
        sources=(ExpectedSource("pare-feu", host="fw", format="stormshield.sns", time_zone="Europe/Paris"),),
    )
    shown = desk.run("hospital", "show", "ch de KERMOR")
    for text in ("CH de Kermor  (ch-de-kermor)", "290000017", "Bretagne", "OSE: yes", "UTC", "192.0.2.0/24", "RSSI"):
        assert text in shown
    assert "source: pare-feu (host=fw, format=stormshield.sns, time_zone=Europe/Paris)" in shown


def test_what_cannot_be_added_is_said_with_the_reason(desk: Desk) -> None:
    desk.run("hospital", "add", "CH de Kermor", "--network", "192.0.2.0/24")
    before = hospital_path(desk.registry, "ch-de-kermor").read_bytes()
    for arguments, reason in (
        (("CH de Kermor",), "ch-de-kermor is in the register already"),
        (("X", "--id", "../x"), "'../x' is not an id"),
        (("東",), "'' is not an id"),
        (("X", "--network", "192.0.2.7/24"), "network 192.0.2.0/24 is also that of ch-de-kermor"),
        (("X", "--time-zone", "Mars"), "'Mars' is no time zone"),
        (("X", "--finess-ej", "12"), "'12' is not a FINESS number"),
        (("X", "--source", "a"), "address or host is needed"),
        (("X", "--source", "a;adress=b"), "'adress=b' is none of address="),
        (("X", "--contact", ";RSSI"), "write NAME;ROLE;PHONE;EMAIL"),
        (("X\x1b[2J",), "holds a sign that cannot be seen"),
    ):
        said = desk.run("hospital", "add", *arguments, fails=True)
        assert reason in said, said
        assert "\x1b" not in said
    assert [path.name for path in hospital_path(desk.registry, "x").parent.iterdir()] == ["ch-de-kermor.toml"]
    assert hospital_path(desk.registry, "ch-de-kermor").read_bytes() == before


def test_fields_are_changed_and_emptied(desk: Desk) -> None:
    desk.run("hospital", "add", "CH de Kermor", "--region", "Bretagne", "--network", "192.0.2.0/24", "--ose")
    said = desk.run("hospital", "set", "ch-de-kermor", "--title", "CHU", "--network", "", "--region", "", "--no-ose")
    assert said == "changed title, region, ose, networks of ch-de-kermor\n"
    assert desk.hospital("ch-de-kermor") == Hospital("ch-de-kermor", "CHU")
    assert desk.run("hospital", "set", "CHU", "--title", "CHU") == "ch-de-kermor was so already\n"
    assert "nothing to change" in desk.run("hospital", "set", "CHU", fails=True)


def test_sources_are_declared_and_taken_back(desk: Desk) -> None:
    desk.run("hospital", "add", "CHU")
    assert desk.run("hospital", "source", "add", "chu", "ad", "--host", "dc01") == "added the source ad to chu\n"
    desk.run("hospital", "source", "add", "chu", "fw", "--address", "192.0.2.0/24", "--format", "stormshield.sns")
    assert desk.run("hospital", "source", "add", "chu", "ad", "--host", "dc02") == "replaced the source ad of chu\n"
    assert {source.name: source.host for source in desk.hospital("chu").sources} == {"fw": None, "ad": "dc02"}
    assert "chu has no source 'pacs'; it has: fw, ad" in desk.run(
        "hospital", "source", "remove", "chu", "pacs", fails=True
    )
    desk.run("hospital", "source", "remove", "chu", "fw")
    assert [source.name for source in desk.hospital("chu").sources] == ["ad"]
    assert "no format is named 'nonsuch'" in desk.run(
        "hospital", "source", "add", "chu", "x", "--host", "x", "--format", "nonsuch"
    )


def test_names_that_are_not_clear_are_refused(desk: Desk) -> None:
    desk.run("hospital", "add", "CH Ys", "--id", "ys-nord")
    desk.run("hospital", "add", "CH Ys", "--id", "ys-sud")
    assert "several hospitals are named 'CH Ys': ys-nord, ys-sud" in desk.run("hospital", "show", "CH Ys", fails=True)
    assert "near to it: ys-nord" in desk.run("hospital", "show", "ys-norf", fails=True)
    assert "no hospital is named 'x\\x1b'" in desk.run("hospital", "show", "x\x1b", fails=True).replace("\\\\", "\\")
    assert "no hospital is named ''" in desk.run("hospital", "show", "", fails=True)


def test_the_list_is_a_table_or_json(enrolled: Desk) -> None:
    enrolled.run("hospital", "add", "CHU d'Ys", "--region", "Bretagne")
    unpack(enrolled)
    table = enrolled.run("hospital", "list").splitlines()
    assert [line.split()[0] for line in table] == ["id", "ch-de-kermor", "chu-d-ys"]
    assert table[2].endswith("none")
    lines = [json.loads(line) for line in enrolled.run("hospital", "list", "--json").splitlines()]
    assert [line["id"] for line in lines] == ["ch-de-kermor", "chu-d-ys"]
    assert lines[0]["certificates"][0]["revoked"] is None
    assert json.loads(enrolled.run("hospital", "show", "chu-d-ys", "--json")) == lines[1]


def test_an_empty_register_says_what_to_do(desk: Desk) -> None:
    assert "tocsin hospital add" in desk.run("hospital", "list")
    assert "tocsin authority init" in desk.run("authority", "show", fails=True)
    desk.run("hospital", "add", "X")
    assert "tocsin authority init" in desk.run("hospital", "bundle", "x", fails=True)
    assert not Path("x.zip").exists()


def test_a_broken_register_is_one_line_and_no_traceback(desk: Desk) -> None:
    desk.run("hospital", "add", "X")
    hospital_path(desk.registry, "x").write_text('id = "x"\ntitel = "X"')
    process = subprocess.run(
        [sys.executable, "-m", "tocsin", "hospital", "list", f"--set=data_dir={desk.folder / 'data'}"],
        capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | {"LANG": "C"}, timeout=50, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "x.toml: titel: unknown key" in process.stderr


def test_parts_of_a_contact_and_of_a_source() -> None:
    assert contact_of("A") == Contact("A")
    assert contact_of(" A ;; 1 ") == Contact("A", "", "1")
    assert source_of("a;host=h") == ExpectedSource("a", host="h")
    for text in ("", ";x", "a;b;c;d;e"):
        with pytest.raises(click.BadParameter):
            contact_of(text)
    for text in ("a;host", "a;host=", "a;name=b", "a;host=a;host=b"):
        with pytest.raises(click.BadParameter):
            source_of(text)


# -- certificates ----------------------------------------------------------------------------------------------------


def test_the_authority_is_made_once_and_shown(desk: Desk) -> None:
    said = desk.run("authority", "init", "--host", "collect.example.org", "--title", "SOC")
    assert "made the authority in" in said
    assert "for collect.example.org, good until" in said
    key = authority_folder(desk.registry) / "ca.key"
    before = key.read_bytes()
    assert "is not overwritten" in desk.run("authority", "init", "--host", "x", fails=True)
    assert key.read_bytes() == before
    shown = desk.run("authority", "show")
    assert "collector  collect.example.org" in shown
    assert "expires" not in shown
    desk.run("authority", "server", "--host", "a.example.org", "--host", "192.0.2.1")
    assert "collector  a.example.org, 192.0.2.1" in desk.run("authority", "show")
    assert "is no host name or address" in desk.run("authority", "server", "--host", "a b", fails=True)


def test_a_faulty_name_leaves_no_half_of_an_authority(desk: Desk) -> None:
    desk.run("authority", "init", "--host", "a b", fails=True)
    assert not desk.registry.exists()


def test_a_bundle_holds_the_only_copy_of_the_key(enrolled: Desk) -> None:
    said = enrolled.run("hospital", "bundle", "CH de Kermor", "--to", "out/k.zip")
    path = Path("out/k.zip")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        key = archive.read("tocsin-ch-de-kermor/tls/client.key")
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert names == sorted(names)
    assert all(name.startswith("tocsin-ch-de-kermor/") and ".." not in name for name in names)
    assert stat.S_IMODE(modes["tocsin-ch-de-kermor/tls/client.key"]) == 0o600
    assert stat.S_IMODE(modes["tocsin-ch-de-kermor/test.sh"]) == 0o755
    secret = b"".join(key.splitlines()[1:-1])[50:60]  # of the private number itself
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert secret.decode() not in said
    for file in enrolled.registry.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()
    (certificate,) = enrolled.hospital("ch-de-kermor").certificates
    assert f"issued certificate {certificate.serial} to ch-de-kermor" in said
    assert "of which there is no copy" in said


def test_a_zip_that_is_there_stays_and_no_certificate_is_issued(enrolled: Desk) -> None:
    Path("ch-de-kermor.zip").write_text("mine")
    assert "is not overwritten" in enrolled.run("hospital", "bundle", "ch-de-kermor", fails=True)
    assert Path("ch-de-kermor.zip").read_text() == "mine"
    assert enrolled.hospital("ch-de-kermor").certificates == ()


def test_a_certificate_that_cannot_be_entered_leaves_no_zip(enrolled: Desk) -> None:
    folder = hospital_path(enrolled.registry, "x").parent
    path = folder / "ch-de-kermor.toml"
    path.write_text(path.read_text().replace("CH de Kermor", "CH de Kermor" + " " * 300))
    enrolled.run("hospital", "bundle", "ch-de-kermor", fails=True)
    assert not Path("ch-de-kermor.zip").exists()


def test_the_collector_is_called_by_a_name_that_its_certificate_holds(enrolled: Desk) -> None:
    said = enrolled.run("hospital", "bundle", "ch-de-kermor", "--collector", "elsewhere", fails=True)
    assert "not good for elsewhere, only for localhost, 127.0.0.1" in said
    folder = unpack(enrolled, "--collector", "127.0.0.1")
    assert 'target="127.0.0.1"' in (folder / "rsyslog" / "60-tocsin-relp-tls.conf").read_text()


def test_ports_come_from_the_flags_else_the_listeners_else_custom(enrolled: Desk) -> None:
    said = enrolled.run("hospital", "bundle", "ch-de-kermor", "--to", "a.zip")
    assert f"no tls listener in these settings: the bundle says port {TLS_PORT}" in said
    assert f"no relp-tls listener in these settings: the bundle says port {RELP_TLS_PORT}" in said
    assert f"(port {RECEIPTS_PORT})" in said
    assert "no settings were named: --config FILE" in said
    config = enrolled.folder / "c.toml"
    config.write_text(
        """
        [collect.receipts]
        enabled = true
        port = 9443
        [[collect.listeners]]
        name = "patients"
        transport = "tls"
        port = 7001
        patient_data = true
        [[collect.listeners]]
        name = "another's"
        transport = "tls"
        hospital = "chu-d-ys"
        port = 7002
        [[collect.listeners]]
        name = "tls"
        transport = "tls"
        port = 7003
        [[collect.listeners]]
        name = "relp"
        transport = "relp-tls"
        port = 7004
        [[collect.listeners]]
        name = "udp"
        transport = "udp"
        by_address = true
        port = 7005
        """
    )
    said = enrolled.run(
        "hospital", "bundle", "ch-de-kermor", "--to", "b.zip", "--config", str(config), "--relp-port", "7"
    )
    assert "listener" not in said
    assert "receipts" not in said
    with zipfile.ZipFile("b.zip") as archive:
        texts = {
            name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "tls/" not in name
        }
    assert "port(7003)" in texts["syslog-ng/tocsin.conf"]
    assert 'port="7"' in texts["rsyslog/60-tocsin-relp-tls.conf"]
    assert 'port="7005"' in texts["rsyslog/60-tocsin-udp.conf"]
    assert f'port="{PLAIN_PORTS["tcp"]}"' in texts["rsyslog/60-tocsin-tcp.conf"]
    assert "https://localhost:9443/receipt" in texts["test.sh"]
    assert "TCP 7001" in texts["LISEZMOI.txt"]
    assert "TCP 7001" in texts["README.txt"]


def test_renewal_and_revocation(enrolled: Desk, require: Require) -> None:
    require(shutil.which("openssl") is not None, "openssl is not installed")
    enrolled.run("hospital", "bundle", "ch-de-kermor")
    said = enrolled.run("hospital", "renew", "ch-de-kermor", "--to", "new.zip")
    assert "1 older certificates of ch-de-kermor are good as before" in said
    with zipfile.ZipFile("new.zip") as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    assert names == ["tls/ca.pem", "tls/client.key", "tls/client.p12", "tls/client.pem"]
    old, new = enrolled.hospital("ch-de-kermor").certificates
    both = enrolled.run("hospital", "revoke", "ch-de-kermor", fails=True)
    assert old.serial in both
    assert new.serial in both
    assert "no such certificate" in enrolled.run("hospital", "revoke", "ch-de-kermor", "--serial", "ffff", fails=True)
    assert "together" in enrolled.run("hospital", "revoke", "ch-de-kermor", "--serial", "f", "--all", fails=True)
    said = enrolled.run("hospital", "revoke", "ch-de-kermor", "--serial", old.serial[:12].upper())
    assert said == f"revoked certificate {old.serial} of ch-de-kermor\n1 good certificates are left to ch-de-kermor\n"
    first, second = enrolled.hospital("ch-de-kermor").certificates
    assert (first.revoked is None, second.revoked is None) == (False, True)
    assert re.search(
        rf"{old.serial}, revoked on .*\n.*{new.serial}, good until", enrolled.run("hospital", "show", "ch-de-kermor")
    )
    listed = subprocess.run(
        ["openssl", "crl", "-noout", "-text", "-in", authority_folder(enrolled.registry) / "crl.pem"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert old.serial.upper() in listed
    assert new.serial.upper() not in listed
    enrolled.run("hospital", "revoke", "ch-de-kermor")
    assert "no such certificate" in enrolled.run("hospital", "revoke", "ch-de-kermor", "--all", fails=True)


@pytest.mark.parametrize(
    ("days", "remark"),
    [(300, "expires"), (340, "its certificate expires in 25 days"), (400, "no good certificate since")],
)
def test_what_expires_is_said(enrolled: Desk, days: int, remark: str) -> None:
    issued = issue_client(
        authority_folder(enrolled.registry), "ch-de-kermor", datetime.now(UTC) - timedelta(days=days, hours=-1)
    )
    write_hospital(enrolled.registry, replace(enrolled.hospital("ch-de-kermor"), certificates=(issued.record,)))
    for command in (("hospital", "list"), ("hospital", "show", "ch-de-kermor"), ("authority", "show")):
        said = enrolled.run(*command)
        assert (remark in said) is (days > 335)
        assert ("tocsin hospital renew ch-de-kermor" in said) is (days > 335)


def test_a_command_with_the_wrong_settings_says_which_register_it_read(desk: Desk) -> None:
    assert f"no hospital yet in {desk.registry}" in desk.run("hospital", "list")
    assert "the register is empty; are these the right settings" in desk.run("hospital", "show", "ch-x", fails=True)


def test_a_format_that_does_not_exist_is_entered_and_told_with_its_neighbours(enrolled: Desk) -> None:
    def pinned(name: str) -> str:
        return enrolled.run("hospital", "source", "add", "ch-de-kermor", "fw", "--host", "fw", "--format", name)

    assert "no format is named 'stormshield', but it was entered; near to it: stormshield.sns" in pinned("stormshield")
    assert "near to it: fortigate." in pinned("fortinet")
    assert "docs/formats.md lists them" in pinned("zzzz")
    assert "no format" not in pinned("stormshield.sns")
    assert enrolled.hospital("ch-de-kermor").sources[0].format == "stormshield.sns"
