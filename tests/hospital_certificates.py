"""An authority for tests, and hospitals with certificates it has issued."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from ingest.authority import create_authority, issue_client, issue_server
from ingest.hospital import Hospital, Hospitals
from ingest.listeners import ListenerSettings, Transport


@dataclass
class Registry:
    """A registry that a test changes as it goes; `hospitals` is what a collector is given to ask."""

    folder: Path
    known: dict[str, Hospital] = field(default_factory=dict)
    snapshot: Hospitals = field(default_factory=Hospitals)

    @classmethod
    def made(cls, folder: Path) -> Registry:
        registry = cls(folder)
        create_authority(registry.authority, "Test", datetime.now(UTC) - timedelta(days=1))
        issue_server(registry.authority, ["127.0.0.1", "localhost"], datetime.now(UTC))
        return registry

    @property
    def authority(self) -> Path:
        return self.folder / "authority"

    @property
    def ca(self) -> Path:
        return self.authority / "ca.pem"

    def hospitals(self) -> Hospitals:
        return self.snapshot

    def put(self, hospital: Hospital) -> None:
        self.known[hospital.id] = hospital
        self.snapshot = Hospitals(dict(self.known))

    def issue(self, name: str, *, known: bool = True, days_ago: float = 0) -> tuple[Path, Path]:
        """A certificate and its key, entered for the hospital if `known`."""
        issued = issue_client(self.authority, name, datetime.now(UTC) - timedelta(days=days_ago))
        number = len(list(self.folder.glob("*.pem")))
        certificate, key = self.folder / f"{name}-{number}.pem", self.folder / f"{name}-{number}.key"
        certificate.write_bytes(issued.certificate)
        key.write_bytes(issued.key)
        if known:
            before = self.known.get(name, Hospital(name, name))
            self.put(replace(before, certificates=(*before.certificates, issued.record)))
        return certificate, key

    def change(self, name: str, *, revoked: datetime | None = None, not_after: datetime | None = None) -> None:
        """Change all certificates of a hospital."""
        hospital = self.known[name]
        changed = tuple(
            replace(old, revoked=revoked, not_after=not_after or old.not_after) for old in hospital.certificates
        )
        self.put(replace(hospital, certificates=changed))

    def listener(self, transport: Transport = "tls", *, name: str = "tls", tenant: str = "") -> ListenerSettings:
        return ListenerSettings(
            name,
            transport,
            "127.0.0.1",
            0,
            tenant,
            certificate=self.authority / "server.pem",
            key=self.authority / "server.key",
            client_ca=self.ca,
        )

    def client_context(self, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if pair is not None:
            context.load_cert_chain(*pair)
        return context


def serial_of(path: Path) -> int:
    """Serial number of a certificate."""
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number
