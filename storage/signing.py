"""Signatures of the lake's records: Ed25519 (RFC 8032), over the bytes that are kept.

The private key is made when it is first needed, in the registry's folder `keys/` beside those of the pseudonyms, and
never lies in the lake. The public key lies there, for whoever checks; who wants to know more than that the lake agrees
with itself keeps a copy of the public key elsewhere, since a lake and a key may be exchanged together.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from storage.errors import LakeError

KEY_FILE: Final = "lake.pem"
_ID_LENGTH: Final = 16
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with one private key.

    Attributes:
        id: Of the public key: the start of its SHA-256.
    """

    id: str
    _private: Ed25519PrivateKey

    def sign(self, content: bytes) -> str:
        """The signature, in hexadecimal."""
        return self._private.sign(content).hex()

    @property
    def public_pem(self) -> bytes:
        """The public key, as PEM."""
        return pem(self._private.public_key())


Keys = Mapping[str, Ed25519PublicKey]
"""Public keys by id."""


def open_signer(folder: Path) -> Signer:
    """The key of a folder, made if there is none yet.

    Args:
        folder: `keys` of the registry.

    Raises:
        LakeError: It cannot be made or read, or others may read it.
    """
    path = folder / KEY_FILE
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise LakeError(f"{path}: others may read this key; it signs what the lake keeps: chmod 600 {path}")
        content = path.read_bytes()
    except OSError as error:
        raise LakeError(f"{path}: the key that signs for the lake: {error.strerror}") from error
    try:
        private = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise LakeError(f"{path}: is no private key in PEM form without a passphrase") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise LakeError(f"{path}: is no Ed25519 key")
    return Signer(key_id(private.public_key()), private)


def read_public(folder: Path) -> Keys:
    """The public half of the key of a folder, if there is a key; none is made."""
    if not (folder / KEY_FILE).exists():
        return {}
    return public_keys([(str(folder / KEY_FILE), open_signer(folder).public_pem)])


def public_keys(files: Iterable[tuple[str, bytes]]) -> Keys:
    """Public keys from (name, PEM).

    Raises:
        LakeError: One is no Ed25519 public key.
    """
    found: dict[str, Ed25519PublicKey] = {}
    for name, content in files:
        try:
            key = load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise LakeError(f"{name}: is no public key in PEM form") from error
        if not isinstance(key, Ed25519PublicKey):
            raise LakeError(f"{name}: is no Ed25519 key")
        found[key_id(key)] = key
    return found


def signed(key: Ed25519PublicKey, signature: str, content: bytes) -> bool:
    """Whether a signature is that of the content."""
    try:
        key.verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def key_id(key: Ed25519PublicKey) -> str:
    """The id of a public key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:_ID_LENGTH]


def pem(key: Ed25519PublicKey) -> bytes:
    """A public key in PEM form."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _make(path: Path) -> None:
    """Put a new key there, whole or not at all; of two processes that do so at once, one wins and both use its key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    partial = path.with_name(f".{KEY_FILE}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)
