"""When the certificates that a collector shows expire: hospitals then stop sending all at once."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from tocsin.settings import Settings


class CertificateDates:
    """Reads certificates when their files change. Used by one thread at a time, or by several that read the same.

    Args:
        settings: Says where they are; those of listeners without TLS are not looked at.
    """

    def __init__(self, settings: Settings) -> None:
        authority = settings.registry_path / "authority"
        files: dict[str, Path] = {}
        encrypted = [listener for listener in settings.collect.listeners if listener.transport in ("tls", "relp-tls")]
        for listener in encrypted:
            files[listener.name] = listener.certificate or authority / "server.pem"
        if encrypted:
            files["authority"] = authority / "ca.pem"
        if settings.collect.receipts.enabled:
            files["receipts"] = authority / "server.pem"
        self._files = files
        self._read: dict[Path, tuple[int, float]] = {}  # file -> time of its last change (ns), when it expires

    def not_after(self) -> dict[str, float]:
        """Listener, "authority" or "receipts" -> when its certificate expires (seconds since 1970)."""
        found: dict[str, float] = {}
        for name, path in self._files.items():
            moment = self._of(path)
            if moment is not None:
                found[name] = moment
        return found

    def _of(self, path: Path) -> float | None:
        try:
            changed = path.stat().st_mtime_ns
            known = self._read.get(path)
            if known is None or known[0] != changed:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
                known = self._read[path] = (changed, certificate.not_valid_after_utc.timestamp())
        except (OSError, ValueError):
            return None  # the listener that shows it says so, and does not open
        return known[1]
