"""Zeek's logs as JSON: told by `_path`, or by the keys that one of its logs alone has.

Sigma's service is the log (`conn`, `dns`, `smb_files`), and rules use Zeek's own names, dots and all (`id.orig_h`).
JSON written by Zeek itself has no `_path` unless a shipper adds it, so each log is known by keys of its own beside
`ts`: the keys decide, once for all events that share them; only the value of `_path` is looked at event by event.
Source: Zeek documentation, "Log Files"; the json-streaming-logs package for `_path` and `_write_ts`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from ingest.formats.piece import EnvelopeNames
from ingest.formats.shapes import Alike, split_by
from ingest.formats.sigma_taxonomy import PRODUCT_SERVICES
from ingest.logsource import LogSource

DATASET: Final = "zeek"
NAMES: Final = EnvelopeNames(
    time=(("ts", True), ("_write_ts", True), ("@timestamp", True)),
    host=("_system_name", "host.name"),
    user=("username", "user", "client", "cookie"),
    source_ip=("id.orig_h", "src", "tx_hosts", "client_addr"),
    destination_ip=("id.resp_h", "dst", "rx_hosts", "server_addr"),
)

BY_KEYS: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("conn", frozenset({"conn_state", "proto"})),
    ("dns", frozenset({"query", "rejected"})),
    ("dns", frozenset({"qtype_name"})),
    ("http", frozenset({"method", "uri"})),
    ("http", frozenset({"trans_depth", "host"})),
    ("x509", frozenset({"certificate.serial"})),
    ("ssl", frozenset({"cipher", "established"})),
    ("smb_mapping", frozenset({"share_type"})),
    ("smb_files", frozenset({"action", "path", "name"})),
    ("kerberos", frozenset({"request_type", "service"})),
    ("dce_rpc", frozenset({"endpoint", "operation"})),
    ("rdp", frozenset({"security_protocol"})),
    ("rdp", frozenset({"cookie", "result"})),
    ("ntlm", frozenset({"server_nb_computer_name"})),
    ("ssh", frozenset({"auth_attempts"})),
    ("files", frozenset({"fuid", "mime_type"})),
    ("ftp", frozenset({"command", "reply_code"})),
    ("smtp", frozenset({"helo"})),
    ("dhcp", frozenset({"msg_types"})),
    ("notice", frozenset({"note", "actions"})),
    ("snmp", frozenset({"community", "get_requests"})),
    ("sip", frozenset({"call_id", "request_from"})),
)
"""Service and keys that its log has and no other: the first that an event has all of counts."""

SERVICES: Final = PRODUCT_SERVICES["zeek"]


def is_zeek(keys: Container[str]) -> bool:
    """Whether an event with these keys is of a Zeek log."""
    if "_path" in keys:
        return "ts" in keys or "_write_ts" in keys
    if "ts" not in keys:
        return False
    return ("uid" in keys and ("id.orig_h" in keys or "id" in keys)) or _of_its_own(keys)


def _of_its_own(keys: Container[str]) -> bool:
    """Logs without a connection: x509, files, dhcp, notice."""
    return (
        "certificate.serial" in keys
        or "certificate" in keys
        or ("fuid" in keys and "source" in keys)
        or ("msg_types" in keys and "mac" in keys)
        or ("note" in keys and "actions" in keys)
    )


def by_service(same: Alike) -> Iterator[tuple[LogSource, Alike]]:
    """The events by the log source of their log."""
    if "_path" not in same.keys:
        yield _logsource(service_of(same)), same
        return
    paths = [path if isinstance(path, str) else "" for path in same.values("_path")]
    found = list(dict.fromkeys(paths))
    if len(found) == 1:
        yield _logsource(found[0]), same
        return
    # Not one log source a value: their number is bounded by what Sigma knows.
    places = {path: index for index, path in enumerate(found)}
    for place, part in split_by(same, [places[path] for path in paths]).items():
        yield _logsource(found[place]), part


def service_of(same: Alike) -> str:
    """The log that events with these keys are of, as far as the keys tell; else empty."""
    keys = same.keys
    nested = same.events[0].get("certificate")
    if isinstance(nested, dict):
        return "x509"
    return next((service for service, needed in BY_KEYS if needed <= keys), "")


def _logsource(service: str) -> LogSource:
    folded = service.lower()
    return LogSource("zeek", None, folded if folded in SERVICES else None)
