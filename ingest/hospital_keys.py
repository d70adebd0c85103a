"""The keys of hospitals' pseudonyms: made, kept in the registry, and read by the collector.

    registry/keys/ID.toml    what the collector needs: HMAC key and public key, the newest last; mode 0600
    FILE, where asked        the private key, and nowhere else: the hospital takes it away

The collector can make pseudonyms and seal originals. Opening what is sealed takes the private key, which only passes
through the memory of the command that makes it.

A renewed key gives every patient a new pseudonym; its id in the pseudonym says which private key opens it.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import tomli_w
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ingest.listeners import CollectError
from ingest.pseudonyms import CollectorKeys, key_id
from ingest.registry import RegistryError, write_file

FILE_MODE: Final = 0o600
_KEY_BYTES: Final = 32


class PatientDataError(CollectError):
    """Root of what goes wrong with keys and vaults; the message says where, what and why, in one line."""


class KeysError(PatientDataError):
    """Keys that are missing or cannot be used."""


class PassphraseError(KeysError):
    """A private key needs a passphrase, or has none."""


@dataclass(frozen=True, slots=True)
class HospitalKeys:
    """What the registry holds of a hospital.

    Attributes:
        current: The keys in use.
        earlier: Those before, oldest first.
        seal_unknown: Whether text of no known structure that names a patient is sealed whole.
    """

    current: CollectorKeys
    earlier: tuple[CollectorKeys, ...] = ()
    seal_unknown: bool = False


def keys_path(registry: Path, hospital: str) -> Path:
    """Where a hospital's keys lie.

    Raises:
        KeysError: The name could lead anywhere.
    """
    if not hospital or hospital.startswith(".") or "/" in hospital or "\0" in hospital:
        raise KeysError(f"{hospital!r} is no id of a hospital")
    return registry / "keys" / f"{hospital}.toml"


def read_keys(registry: Path, hospital: str) -> HospitalKeys:
    """The keys of a hospital.

    Raises:
        KeysError: There are none, or the file is broken.
    """
    path = keys_path(registry, hospital)
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise KeysError(
            f"{path}: {hospital} has no keys for pseudonyms; make them with: tocsin hospital keys {hospital} --to FILE"
        ) from error
    except OSError as error:
        raise KeysError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KeysError(f"{path}: not valid TOML: {error}") from error
    entries = tree.get("keys")
    if not isinstance(entries, list) or not entries:
        raise KeysError(f"{path}: keys: there is none")
    keys = [_read_entry(path, hospital, entry) for entry in entries]
    seal_unknown = tree.get("seal_unknown", False)
    if not isinstance(seal_unknown, bool):
        raise KeysError(f"{path}: seal_unknown: true or false is wanted")
    if unknown := tree.keys() - {"keys", "seal_unknown"}:
        raise KeysError(f"{path}: {min(unknown)}: unknown setting")
    return HospitalKeys(keys[-1], tuple(keys[:-1]), seal_unknown)


def _read_entry(path: Path, hospital: str, entry: object) -> CollectorKeys:
    if not isinstance(entry, dict):
        raise KeysError(f"{path}: keys: a table is wanted")
    secret, public = (_bytes(path, name, entry.get(name)) for name in ("secret", "public"))
    if entry.get("id") != key_id(public):
        raise KeysError(f"{path}: keys.id: {entry.get('id')!r} is not the id of this public key")
    return CollectorKeys(hospital, key_id(public), secret, public)


def _bytes(path: Path, name: str, text: object) -> bytes:
    try:
        found = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != _KEY_BYTES:
        raise KeysError(f"{path}: keys.{name}: {_KEY_BYTES} bytes in base64 are wanted")
    return found


def make_keys(
    registry: Path, hospital: str, to: Path, now: datetime, *, passphrase: str = "", renew: bool = False
) -> CollectorKeys:
    """Make a hospital's keys: the collector's part into the registry, the private key into `to`.

    Args:
        registry: Its folder.
        hospital: Id of the hospital.
        to: A file that must not exist yet; mode 0600.
        now: Noted beside the keys.
        passphrase: Encrypts the private key; empty for none.
        renew: Whether the hospital may have keys already; they stay for what was sealed with them.

    Raises:
        KeysError: There are keys already, or something cannot be written.
    """
    path = keys_path(registry, hospital)
    entries: list[dict[str, str]] = []
    settings: dict[str, object] = {}
    if path.exists():
        if not renew:
            raise KeysError(
                f"{path}: {hospital} has keys already; new ones give every patient a new pseudonym (--renew)"
            )
        held = read_keys(registry, hospital)
        tree = tomllib.loads(path.read_text("utf-8"))
        entries = list(tree["keys"])
        settings = {"seal_unknown": held.seal_unknown}
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    secret = secrets.token_bytes(_KEY_BYTES)
    entry = {
        "id": key_id(public),
        "made": now.isoformat(timespec="seconds"),
        "secret": base64.b64encode(secret).decode(),
        "public": base64.b64encode(public).decode(),
    }
    _write_private(to, private, passphrase)  # first: keys whose private half was lost would seal for nobody
    try:
        write_file(path, tomli_w.dumps({**settings, "keys": [*entries, entry]}).encode(), FILE_MODE)
    except RegistryError as error:
        to.unlink(missing_ok=True)
        raise KeysError(str(error)) from error
    return CollectorKeys(hospital, entry["id"], secret, public)


def _write_private(to: Path, private: X25519PrivateKey, passphrase: str) -> None:
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    try:
        descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise KeysError(f"{to}: exists already; a private key does not take the place of another file") from error
    except OSError as error:
        raise KeysError(f"{to}: cannot be written: {error.strerror}") from error


def read_private(path: Path, passphrase: str = "") -> X25519PrivateKey:
    """A hospital's private key.

    Raises:
        KeysError: It cannot be read, is no such key, or the passphrase is wrong or missing.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except OSError as error:
        raise KeysError(f"{path}: cannot be read: {error.strerror}") from error
    except TypeError as error:
        wanted = "has no passphrase" if passphrase else "needs its passphrase"
        raise PassphraseError(f"{path}: the key {wanted}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeysError(f"{path}: no private key, or the wrong passphrase") from error
    if not isinstance(key, X25519PrivateKey):
        raise KeysError(f"{path}: a key of another kind (X25519 is wanted)")
    return key


def private_key_id(private: X25519PrivateKey) -> str:
    """The id that pseudonyms carry which this key opens."""
    return key_id(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
