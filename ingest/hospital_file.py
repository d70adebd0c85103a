"""A hospital as TOML: what may stand in its file, and why something may not.

People write these files as well as programs do, so every fault names its key and its reason, and an unknown key is one:
a misspelt `networks` that is silently passed over is how a hospital's lines are refused. Nothing here touches a disk.

Texts are shown on terminals and put into configuration, so none may hold a sign that cannot be seen.
"""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar, cast
from zoneinfo import available_timezones

import tomli_w

from ingest.hospital import DEFAULT_TIME_ZONE, Certificate, Contact, ExpectedSource, Hospital, network_of
from ingest.visible import hidden, visible

T = TypeVar("T")

LONGEST_TEXT: Final = 200

_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
"""A label of a host name (RFC 1123, 2.1): fit for a file, a topic key, a certificate and a URL alike."""

_FINESS: Final = re.compile(r"[0-9AB]{9}")
"""A number of the national file of establishments: 9 characters, A and B being those of 2A and 2B, Corsica."""

_FORMAT: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")
"""At most 20 octets (RFC 5280, 4.1.2.2)."""

_HOST: Final = re.compile(r"[!-~]{1,255}")
"""HOSTNAME of RFC 5424, section 6: printable ASCII without a blank."""

FIELDS: Final = (
    "id",
    "title",
    "finess_ej",
    "finess_et",
    "ght",
    "region",
    "ose",
    "time_zone",
    "networks",
    "contacts",
    "sources",
    "certificates",
)
"""The keys of a hospital's file, as they are written."""


class RegistryError(Exception):
    """Something about the registry that a person can mend; the message says where, what and why, in one line."""


class _FaultError(Exception):
    """A value that may not be; the key is said on the way out."""


def hospital_of_toml(text: str, origin: str) -> Hospital:
    """The hospital that a file holds.

    Args:
        text: The file's content.
        origin: What to call the file in errors.

    Raises:
        RegistryError: Names file, key and reason.
    """
    try:
        tree = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise RegistryError(f"{origin}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise RegistryError(f"{origin}: not valid TOML: too many brackets in each other") from error
    return _read_hospital(tree, origin)


def toml_of_hospital(hospital: Hospital) -> str:
    """A hospital as TOML; what is empty is left out, but `id`, `title` and `time_zone` always stand."""
    tree: dict[str, object] = {}
    for name in FIELDS:
        value: object = getattr(hospital, name)
        if isinstance(value, tuple):
            value = [_tree(item) for item in value]
        if value or name in ("id", "title", "time_zone"):
            tree[name] = value
    return tomli_w.dumps(tree, multiline_strings=False)


def check_hospital(hospital: Hospital, origin: str) -> Hospital:
    """The hospital as it would be read back, networks in their usual form.

    Raises:
        RegistryError: It may not be written: names `origin`, key and reason.
    """
    return hospital_of_toml(toml_of_hospital(hospital), origin)


def slug(title: str) -> str:
    """The id that follows from a title: "CH de Kermor (Éa)" -> "ch-de-kermor-ea"; empty if nothing is left of it."""
    spelled = title.translate({ord("œ"): "oe", ord("Œ"): "oe", ord("æ"): "ae", ord("Æ"): "ae"})
    letters = unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:64].strip("-")


def check_id(text: str) -> str:
    """An id of a hospital.

    Raises:
        RegistryError: It is none.
    """
    try:
        return _id(text)
    except _FaultError as fault:
        raise RegistryError(str(fault)) from fault


def _tree(item: object) -> object:
    if not isinstance(item, Certificate | Contact | ExpectedSource):
        return item
    pairs = {name: getattr(item, name) for name in item.__dataclass_fields__}
    return {name: value for name, value in pairs.items() if value not in (None, "")}


def _read_hospital(tree: Mapping[str, object], origin: str) -> Hospital:
    try:
        _no_others(tree, FIELDS)
        hospital = Hospital(
            id=_needed(tree, "id", _id),
            title=_needed(tree, "title", _title),
            finess_ej=_optional(tree, "finess_ej", _finess_or_nothing, ""),
            finess_et=_optional(tree, "finess_et", _list_of(_finess), ()),
            ght=_optional(tree, "ght", _text, ""),
            region=_optional(tree, "region", _text, ""),
            ose=_optional(tree, "ose", _truth, default=False),
            contacts=_optional(tree, "contacts", _list_of(_contact), ()),
            time_zone=_optional(tree, "time_zone", _time_zone, DEFAULT_TIME_ZONE),
            networks=_optional(tree, "networks", _list_of(_network), ()),
            sources=_optional(tree, "sources", _list_of(_source), ()),
            certificates=_optional(tree, "certificates", _list_of(_certificate), ()),
        )
        _no_twins("networks", hospital.networks)
        _no_twins("sources", [source.name for source in hospital.sources])
        _no_twins("certificates", [certificate.fingerprint for certificate in hospital.certificates])
    except _FaultError as fault:
        raise RegistryError(f"{origin}: {fault}") from fault
    return hospital


def _no_others(tree: Mapping[str, object], known: Sequence[str]) -> None:
    for key in tree:
        if key not in known:
            raise _FaultError(f"{visible(key)}: unknown key (known: {', '.join(known)})")


def _no_twins(key: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise _FaultError(f"{key}: {name!r} stands there twice")


def _needed(tree: Mapping[str, object], key: str, read: Callable[[object], T]) -> T:
    if key not in tree:
        raise _FaultError(f"{key}: this key is missing")
    try:
        return read(tree[key])
    except _FaultError as fault:
        raise _FaultError(_within(key, fault)) from fault


def _optional(tree: Mapping[str, object], key: str, read: Callable[[object], T], default: T) -> T:
    return _needed(tree, key, read) if key in tree else default


def _within(key: str, fault: _FaultError) -> str:
    """`sources.[1]: x` and the like are one path."""
    rest = str(fault)
    return f"{key}{rest}" if rest.startswith("[") else f"{key}: {rest}"


def _list_of(read: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    def read_list(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _FaultError("a list is wanted")
        found = []
        for place, item in enumerate(value):
            try:
                found.append(read(item))
            except _FaultError as fault:
                raise _FaultError(f"[{place}]: {fault}") from fault
        return tuple(found)

    return read_list


def _table(value: object, known: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _FaultError("a table is wanted")
    tree = cast("dict[str, object]", value)
    _no_others(tree, known)
    return tree


def _contact(value: object) -> Contact:
    tree = _table(value, tuple(Contact.__dataclass_fields__))
    return Contact(
        name=_needed(tree, "name", _title),
        role=_optional(tree, "role", _text, ""),
        phone=_optional(tree, "phone", _text, ""),
        email=_optional(tree, "email", _text, ""),
    )


def _source(value: object) -> ExpectedSource:
    tree = _table(value, tuple(ExpectedSource.__dataclass_fields__))
    source = ExpectedSource(
        name=_needed(tree, "name", _title),
        address=_optional(tree, "address", _address, None),
        host=_optional(tree, "host", _host, None),
        format=_optional(tree, "format", _format, None),
        time_zone=_optional(tree, "time_zone", _time_zone, None),
    )
    if source.address is None and source.host is None:
        raise _FaultError(f"{source.name!r}: address or host is needed, or no line would ever be of it")
    return source


def _certificate(value: object) -> Certificate:
    tree = _table(value, tuple(Certificate.__dataclass_fields__))
    return Certificate(
        fingerprint=_needed(tree, "fingerprint", _matching(_FINGERPRINT, "64 lower-case hexadecimal digits")),
        serial=_needed(tree, "serial", _matching(_SERIAL, "lower-case hexadecimal digits, at most 40")),
        not_before=_needed(tree, "not_before", _moment),
        not_after=_needed(tree, "not_after", _moment),
        revoked=_optional(tree, "revoked", _moment, None),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _FaultError("text is wanted")
    if any(hidden(character) for character in value):
        raise _FaultError(f"{value!a} holds a sign that cannot be seen")
    if len(value) > LONGEST_TEXT:
        raise _FaultError(f"at most {LONGEST_TEXT} characters, not {len(value)}")
    return value.strip()


def _title(value: object) -> str:
    text = _text(value)
    if not text:
        raise _FaultError("it is empty")
    return text


def _matching(pattern: re.Pattern[str], wanted: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = _text(value)
        if not pattern.fullmatch(text):
            raise _FaultError(f"{text!r} is not {wanted}")
        return text

    return read


_id: Final = _matching(_ID, "an id: lower-case letters, digits and hyphens, at most 64, no hyphen at an end")
_finess: Final = _matching(_FINESS, "a FINESS number: 9 digits, of which A or B may be one")
_host: Final = _matching(_HOST, "a host name as in a syslog header")
_format: Final = _matching(_FORMAT, "the name of a format, such as windows.nxlog")


def _finess_or_nothing(value: object) -> str:
    return "" if value == "" else _finess(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise _FaultError("true or false is wanted")
    return value


@functools.cache
def _time_zones() -> frozenset[str]:
    """All time zones; the library looks through a folder for them each time."""
    return frozenset(available_timezones())


def _time_zone(value: object) -> str:
    text = _text(value)
    if text not in _time_zones():
        raise _FaultError(f"{text!r} is no time zone, such as {DEFAULT_TIME_ZONE}")
    return text


def _network(value: object) -> str:
    text = _text(value)
    try:
        return str(network_of(text))
    except ValueError as error:
        raise _FaultError(f"{text!r} is no address or network, such as 10.1.0.0/16") from error


def _address(value: object) -> str:
    _network(value)
    return _text(value)


def _moment(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise _FaultError("a date and time is wanted, such as 2026-01-31T08:00:00Z")
    if value.tzinfo is None:
        raise _FaultError("its offset from UTC is missing: write 2026-01-31T08:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise _FaultError("it is before the year 1 or after the year 9999") from error
