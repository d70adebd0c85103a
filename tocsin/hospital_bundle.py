"""What a hospital is given: a zip with its certificate, ready configuration for its log senders, and a test.

The templates lie in `bundle/`; what goes into them has been checked to be host names, numbers, ids and texts without
hidden signs, so nothing that a person entered can end a comment or a quotation. The zip is the only place where the
private key exists: it is made in memory and written for its owner alone.
"""

from __future__ import annotations

import io
import ipaddress
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ingest.authority import PKCS12_PASSWORD, Issued, ServerCertificate
from ingest.hospital import Hospital
from tocsin.settings import Settings
from tocsin.settings_sections import ListenerSection

TEMPLATES: Final = Path(__file__).parent / "bundle"
SUFFIX: Final = ".j2"

FOLDERS: Final[dict[str, str]] = {
    # within /etc/rsyslog.d, since that is what the AppArmor profile of Ubuntu lets rsyslogd read
    "rsyslog": "/etc/rsyslog.d/tocsin",
    "syslog-ng": "/etc/syslog-ng/tocsin",
    "logstash": "/etc/logstash/tocsin",
    "nxlog": r"C:\Program Files\nxlog\cert\tocsin",
}
"""Program -> where the configuration looks for the certificate."""

QUEUE_GIGABYTES: Final = 2
"""What may wait on the hospital's disk; a day of a hundred servers, and less than any system disk."""

TLS_PORT: Final = 6514
"""RFC 5425, section 4.1."""

RELP_TLS_PORT: Final = 20514
RECEIPTS_PORT: Final = 8443
PLAIN_PORTS: Final[Mapping[str, int]] = {"udp": 514, "tcp": 514, "relp": 2514}

_FOR_WINDOWS: Final = (".txt", ".ps1", ".yml", "nxlog/tocsin.conf")
"""Endings of files that may be opened with a Notepad that knows CR LF alone."""

_KEY_FILES: Final = ("tls/client.key", "tls/client.p12")


@dataclass(frozen=True, slots=True)
class Reach:
    """How a hospital reaches the collector.

    Attributes:
        host: The name or address that stands in the configuration.
        names: Those in the collector's certificate; `host` is one of them.
        tls: Port of syslog over TLS.
        relp_tls: Port of RELP over TLS.
        receipts: Port of the receipts.
        plain: Transport without encryption -> port.
        patients: Ports for logs that name patients.
        missing: Transports for which the settings have no listener, so that a usual port was taken.
    """

    host: str
    names: tuple[str, ...]
    tls: int = TLS_PORT
    relp_tls: int = RELP_TLS_PORT
    receipts: int = RECEIPTS_PORT
    plain: tuple[tuple[str, int], ...] = tuple(PLAIN_PORTS.items())
    patients: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()


def reach_of(
    settings: Settings,
    server: ServerCertificate,
    hospital: Hospital,
    host: str,
    ports: Mapping[str, int | None],
) -> Reach:
    """The ports of the settings' listeners, unless others are given; the usual ones where there is neither.

    Args:
        settings: Of the collector.
        server: Its certificate.
        hospital: Whom it is for: listeners bound to other hospitals are passed over.
        host: By which name it is reached.
        ports: "tls", "relp-tls", "receipts" -> a port that was asked for, as where a firewall translates it.
    """
    listeners = [one for one in settings.collect.listeners if one.hospital in ("", hospital.id, hospital.title)]
    missing = []

    def port(transport: str, usual: int) -> int:
        asked, found = ports.get(transport), _port(listeners, transport)
        if not asked and not found:
            missing.append(transport)
        return asked or found or usual

    receipts = settings.collect.receipts
    return Reach(
        host=host,
        names=server.hosts,
        tls=port("tls", TLS_PORT),
        relp_tls=port("relp-tls", RELP_TLS_PORT),
        receipts=ports.get("receipts") or receipts.port or RECEIPTS_PORT,
        plain=tuple((name, _port(listeners, name) or usual) for name, usual in PLAIN_PORTS.items()),
        patients=tuple(sorted({one.port for one in listeners if one.patient_data and one.port})),
        missing=tuple(missing) if receipts.enabled else (*missing, "receipts"),
    )


def _port(listeners: list[ListenerSection], transport: str) -> int | None:
    """The port of the first listener of a transport for logs that name no patients; 0 is no port to be told."""
    ports = (one.port for one in listeners if one.transport == transport and not one.patient_data and one.port)
    return next(ports, None)


def bundle_files(hospital: Hospital, issued: Issued, reach: Reach, folder: str | None = None) -> dict[str, bytes]:
    """The files of a bundle, by name.

    Args:
        hospital: Whose it is.
        issued: Its new certificate.
        reach: How it reaches the collector.
        folder: Where configuration for Linux looks for the certificate, in the place of `FOLDERS`.
    """
    return {
        **_texts(_values(hospital, issued, reach, folder)),
        **certificate_files(issued),
    }


def certificate_files(issued: Issued) -> dict[str, bytes]:
    """The certificate, its key and the authority, by name."""
    return {
        "tls/ca.pem": issued.authority,
        "tls/client.pem": issued.certificate,
        "tls/client.key": issued.key,
        "tls/client.p12": issued.pkcs12,
    }


def packed(hospital_id: str, files: Mapping[str, bytes], now: datetime) -> bytes:
    """A zip of files in one folder, in the order of their names; keys for their owner alone."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"tocsin-{hospital_id}/{name}", now.timetuple()[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix: the modes are taken up when it is unpacked
            mode = 0o600 if name in _KEY_FILES else 0o755 if name.endswith(".sh") else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, files[name])
    return content.getvalue()


def _texts(values: Mapping[str, object]) -> dict[str, bytes]:
    # Configuration and plain text, no HTML: escaping would corrupt them, and the values are checked where they enter
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = lambda text: f'"{text}"'
    texts = {}
    for template in environment.list_templates(extensions=[SUFFIX.removeprefix(".")]):
        name = template.removesuffix(SUFFIX)
        text = environment.get_template(template).render(values)
        texts[name] = (text.replace("\n", "\r\n") if name.endswith(_FOR_WINDOWS) else text).encode()
    return texts


def _values(hospital: Hospital, issued: Issued, reach: Reach, folder: str | None) -> dict[str, object]:
    address = _is_address(reach.host)
    return {
        "id": hospital.id,
        "title": hospital.title,
        "time_zone": hospital.time_zone,
        "sources": hospital.sources,
        "serial": issued.record.serial,
        "fingerprint": issued.record.fingerprint,
        "not_after": f"{issued.record.not_after.astimezone(ZoneInfo(hospital.time_zone)):%Y-%m-%d}",
        "host": reach.host,
        "host_is_address": address,
        "bracketed": f"[{reach.host}]" if address and ":" in reach.host else reach.host,
        # librelp and rsyslog compare with names and CN alone: where an address is dialled, the CN is what matches
        "peers": tuple(dict.fromkeys((reach.host, reach.names[0]) if address else (reach.host,))),
        "tls_port": reach.tls,
        "relp_port": reach.relp_tls,
        "receipts_port": reach.receipts,
        "plain": dict(reach.plain),
        "patient_ports": reach.patients,
        "folders": FOLDERS | {name: folder for name in FOLDERS if folder and name != "nxlog"},
        "queue_gigabytes": QUEUE_GIGABYTES,
        "pkcs12_password": PKCS12_PASSWORD,
    }


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
