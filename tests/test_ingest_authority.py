"""The certificate authority, judged by OpenSSL: its chains verify, its limits hold, and what is revoked is known."""

from __future__ import annotations

import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.authority import (
    PKCS12_PASSWORD,
    AuthorityError,
    Issued,
    authority_folder,
    check_host,
    create_authority,
    issue_client,
    issue_server,
    read_authority,
    read_server,
    write_revocations,
)
from ingest.hospital import Certificate, Hospital, Hospitals
from ingest.registry import RegistryError

NOW = datetime.now(UTC)
HOSTS = ("collect.example.org", "127.0.0.1", "2001:db8::7")


@dataclass(frozen=True)
class Place:
    """An authority, and one hospital's certificate beside it."""

    folder: Path
    issued: Issued

    @property
    def client(self) -> Path:
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        return self.folder / "client.key"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = authority_folder(tmp_path_factory.mktemp("registry"))
    create_authority(folder, "SOC d'Ys", NOW)
    issue_server(folder, HOSTS, NOW)
    issued = issue_client(folder, "ch-de-kermor", NOW)
    (folder / "client.pem").write_bytes(issued.certificate)
    (folder / "client.key").write_bytes(issued.key)
    (folder / "client.p12").write_bytes(issued.pkcs12)
    return Place(folder, issued)


@pytest.fixture(scope="module", autouse=True)
def _openssl_is_there(require: Callable[[bool, str], None]) -> None:
    require(shutil.which("openssl") is not None, "openssl is not installed")


def openssl(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, arguments)], input=given, capture_output=True, timeout=20, check=False)


def verify(place: Place, certificate: Path, *options: str | Path) -> bool:
    return openssl("verify", "-x509_strict", "-CAfile", place.folder / "ca.pem", *options, certificate).returncode == 0


def test_the_chains_verify_for_their_purpose_and_no_other(place: Place) -> None:
    server = place.folder / "server.pem"
    assert verify(place, place.folder / "ca.pem")
    assert verify(place, server, "-purpose", "sslserver")
    assert not verify(place, server, "-purpose", "sslclient")
    assert verify(place, place.client, "-purpose", "sslclient")
    assert not verify(place, place.client, "-purpose", "sslserver")


@pytest.mark.parametrize(
    ("option", "name", "good"),
    [
        ("-verify_hostname", "collect.example.org", True),
        ("-verify_hostname", "other.example.org", False),
        ("-verify_ip", "127.0.0.1", True),
        ("-verify_ip", "2001:db8::7", True),
        ("-verify_ip", "127.0.0.2", False),
    ],
)
def test_the_collector_is_known_by_its_names(place: Place, option: str, name: str, good: bool) -> None:
    assert verify(place, place.folder / "server.pem", option, name) is good


def test_dates_and_names(place: Place) -> None:
    authority, server = read_authority(place.folder), read_server(place.folder)
    assert server.hosts == HOSTS
    assert authority.not_after - NOW > timedelta(days=3650)
    assert server.record.not_after - NOW <= timedelta(days=397)
    assert timedelta(days=364) < place.issued.record.not_after - NOW <= timedelta(days=365)
    assert place.issued.record.not_before < NOW
    assert openssl("x509", "-in", place.client, "-noout", "-subject").stdout.split()[-1] == b"ch-de-kermor"
    text = openssl("x509", "-in", place.folder / "ca.pem", "-noout", "-text").stdout.decode()
    for sign in ("CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "secp384r1", "CN = SOC d'Ys CA"):
        assert sign in text


def test_the_fingerprint_is_what_openssl_says(place: Place) -> None:
    said = openssl("x509", "-in", place.client, "-noout", "-fingerprint", "-sha256", "-serial").stdout.decode()
    assert place.issued.record.fingerprint in said.replace(":", "").lower()
    assert f"serial={int(place.issued.record.serial, 16):X}" in said.replace("serial=0", "serial=")


def test_a_client_cannot_sign(place: Place, tmp_path: Path) -> None:
    key, request, forged = tmp_path / "k", tmp_path / "r", tmp_path / "c"
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-subj",
            "/CN=ch-de-rien", "-out", request)  # fmt: skip
    signed = openssl("x509", "-req", "-in", request, "-CA", place.client, "-CAkey", place.client_key, "-out", forged)
    assert signed.returncode == 0, signed.stderr
    assert not verify(place, forged, "-untrusted", place.client)


def test_keys_are_for_the_owner_alone_and_never_said(place: Place) -> None:
    for name, mode in (("ca.key", 0o600), ("server.key", 0o600), ("ca.pem", 0o644), ("server.pem", 0o644)):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == mode
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o750
    assert place.issued.key.splitlines()[1].decode() not in repr(place.issued)
    assert "PRIVATE" not in repr(place.issued)


def test_windows_gets_the_same_in_pkcs12(place: Place) -> None:
    unpacked = openssl("pkcs12", "-in", place.folder / "client.p12", "-passin", f"pass:{PKCS12_PASSWORD}", "-nodes")
    assert unpacked.returncode == 0, unpacked.stderr
    assert unpacked.stdout.count(b"BEGIN CERTIFICATE") == 2
    assert place.issued.certificate.splitlines()[1] in unpacked.stdout


def test_an_authority_is_made_once(place: Place) -> None:
    before = (place.folder / "ca.key").read_bytes()
    with pytest.raises(AuthorityError, match=r"ca\.key: is there already, and is not overwritten"):
        create_authority(place.folder, "again", NOW)
    assert (place.folder / "ca.key").read_bytes() == before


def test_the_collectors_certificate_is_renewed_with_its_key_or_a_new_one(tmp_path: Path) -> None:
    create_authority(tmp_path, "x", NOW)
    first = issue_server(tmp_path, ["a.example.org"], NOW)
    key = (tmp_path / "server.key").read_bytes()
    second = issue_server(tmp_path, ["A.example.org", "b.example.org", "b.example.org"], NOW)
    assert second.hosts == ("a.example.org", "b.example.org")
    assert read_server(tmp_path) == second
    assert second.record.serial != first.record.serial
    assert (tmp_path / "server.key").read_bytes() == key
    issue_server(tmp_path, ["a.example.org"], NOW, new_key=True)
    assert (tmp_path / "server.key").read_bytes() != key
    match = openssl("x509", "-in", tmp_path / "server.pem", "-noout", "-pubkey").stdout
    assert match == openssl("pkey", "-in", tmp_path / "server.key", "-pubout").stdout


def test_renewal_leaves_the_old_certificate_good(place: Place, tmp_path: Path) -> None:
    renewed = issue_client(place.folder, "ch-de-kermor", NOW)
    assert renewed.record.serial != place.issued.record.serial
    assert renewed.key != place.issued.key
    (tmp_path / "new.pem").write_bytes(renewed.certificate)
    assert verify(place, tmp_path / "new.pem")
    assert verify(place, place.client)


def test_the_revoked_are_in_the_list_and_no_others(place: Place, tmp_path: Path) -> None:
    other = issue_client(place.folder, "chu-d-ys", NOW)
    (tmp_path / "other.pem").write_bytes(other.certificate)
    revoked: Certificate = replace(place.issued.record, revoked=NOW)
    path = write_revocations(
        place.folder,
        Hospitals.of(
            [
                Hospital("ch-de-kermor", "K", certificates=(revoked,)),
                Hospital("chu-d-ys", "Y", certificates=(other.record,)),
            ]
        ),
        NOW,
    )
    check = ("-crl_check", "-CRLfile", path)
    refused = openssl("verify", "-CAfile", place.folder / "ca.pem", *check, place.client)
    assert refused.returncode != 0
    assert b"certificate revoked" in refused.stderr
    assert verify(place, tmp_path / "other.pem", *check)
    listed = openssl("crl", "-in", path, "-noout", "-text", "-CAfile", place.folder / "ca.pem")
    assert b"verify OK" in listed.stderr
    assert revoked.serial.upper() in listed.stdout.decode()
    write_revocations(place.folder, Hospitals(), NOW)
    assert verify(place, place.client, *check)


@pytest.mark.parametrize(
    "host", ["", "a b", "-a", "a..b", "*.example.org", "a_b", "a/b", "é.example.org", "a" * 64, 'x"y', "a\n"]
)
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    if host == "a\n":
        assert check_host(host) == "a"
        return
    create_authority(tmp_path, "x", NOW)
    with pytest.raises(AuthorityError, match="is no host name or address"):
        issue_server(tmp_path, [host], NOW)
    assert not (tmp_path / "server.pem").exists()


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match=r"ca\.pem: is not there; `tocsin authority init"):
        issue_client(tmp_path, "x", NOW)
    create_authority(tmp_path, "x", NOW)
    with pytest.raises(RegistryError, match="not an id"):
        issue_client(tmp_path, "../x", NOW)
    with pytest.raises(AuthorityError, match="at least one name"):
        issue_server(tmp_path, [], NOW)
    with pytest.raises(AuthorityError, match="the authority expired on 20"):
        issue_client(tmp_path, "x", NOW + timedelta(days=4000))
    with pytest.raises(AuthorityError, match="cannot be the name of an authority"):
        create_authority(tmp_path / "b", "a" * 80, NOW)
    late = issue_client(tmp_path, "x", NOW + timedelta(days=3600))
    assert late.record.not_after == read_authority(tmp_path).not_after, "no certificate outlives the authority"
    create_authority(tmp_path / "c", "c", NOW)
    (tmp_path / "c" / "ca.key").write_bytes((tmp_path / "ca.key").read_bytes())
    with pytest.raises(AuthorityError, match=r"ca\.key is not the key of ca\.pem"):
        issue_client(tmp_path / "c", "x", NOW)
    (tmp_path / "c" / "ca.key").write_text("nothing")
    with pytest.raises(AuthorityError, match="no private key in PEM form"):
        issue_client(tmp_path / "c", "x", NOW)
    (tmp_path / "c" / "ca.pem").write_text("nothing")
    with pytest.raises(AuthorityError, match="no certificate in PEM form"):
        read_authority(tmp_path / "c")


@pytest.fixture
def server(place: Place) -> Iterator[int]:
    """A TLS server of OpenSSL that wants a client certificate of the authority; the port it listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-Verify", "1", "-verify_return_error", "-quiet",
         "-CAfile", place.folder / "ca.pem", "-cert", place.folder / "server.pem", "-key", place.folder / "server.key"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    yield port
    process.kill()
    process.communicate()


def dial(place: Place, port: int, *credentials: str | Path) -> bool:
    dialled = openssl(
        "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}", "-verify_ip", "127.0.0.1", "-verify_return_error",
        "-CAfile", place.folder / "ca.pem", *credentials,
    )  # fmt: skip
    return dialled.returncode == 0 and b"Verify return code: 0 (ok)" in dialled.stdout


def test_openssl_lets_a_hospital_in_and_nobody_else(place: Place, server: int, tmp_path: Path) -> None:
    assert dial(place, server, "-cert", place.client, "-key", place.client_key)
    assert not dial(place, server)
    create_authority(tmp_path, "another", NOW)
    stranger = issue_client(tmp_path, "ch-de-kermor", NOW)
    (tmp_path / "s.pem").write_bytes(stranger.certificate)
    (tmp_path / "s.key").write_bytes(stranger.key)
    assert not dial(place, server, "-cert", tmp_path / "s.pem", "-key", tmp_path / "s.key")
