"""The vault: what pseudonyms stand for, sealed to the hospital's public key, append only.

One line an entry, so that half a line at the end (the power went) spoils no other:

    PSEUDONYM SP base64(ephemeral public key [32] | number [4] | ciphertext and tag) LF

Sealing: X25519 between an ephemeral key and the hospital's, HKDF-SHA256 to a key, ChaCha20-Poly1305 with the number
within the batch as nonce and the pseudonym as associated data (the shape of RFC 9180 in base mode). The
ephemeral private key is forgotten with its batch: the collector itself cannot open what it wrote. Plain texts are
padded to steps of 32 bytes, so that lengths say little of names.

Promised: when `keep` returns, every pseudonym it was given is on disk. What was written before is remembered for about
`remember` pseudonyms; a forgotten one is written again, which costs disk and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ingest.hospital_keys import PatientDataError, private_key_id
from ingest.pseudonyms import PSEUDONYM, CollectorKeys
from ingest.registry import make_folder

REMEMBERED: Final = 200_000
"""Pseudonyms known to be on disk, at about 150 bytes each."""

STEP: Final = 32
_PUBLIC: Final = 32
_NUMBER: Final = 4
_TAG: Final = 16
_INFO: Final = b"tocsin vault 1"
_FILE_MODE: Final = 0o640
_TAIL: Final = 64 * 1024 * 1024
"""Bytes of an old vault that are read at the start to remember its pseudonyms."""


class VaultError(PatientDataError):
    """The vault cannot be written or read; the message names the file and the cause."""


def vault_path(folder: Path, keys: CollectorKeys) -> Path:
    """Where the vault of a hospital's keys lies: one file a key, so that each can be handed to who can open it."""
    return folder / keys.hospital / f"{keys.id}.vault"


class VaultFile:
    """The vault of one hospital's keys, open for writing. One object serves one thread at a time.

    Args:
        path: Of the file; it and its folders are made.
        keys: To whom to seal.
        remember: How many pseudonyms to know at once.

    Raises:
        VaultError: It cannot be opened.
    """

    def __init__(self, path: Path, keys: CollectorKeys, remember: int = REMEMBERED) -> None:
        self.path = path
        self._public = X25519PublicKey.from_public_bytes(keys.public)
        self._recipient = keys.public
        self._remember = remember
        self._known: OrderedDict[str, None] = OrderedDict()
        try:
            make_folder(path.parent)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, _FILE_MODE)
            self._end = self._mend()
            _sync_folder(path.parent)
        except OSError as error:
            raise VaultError(f"{path}: cannot be opened: {error.strerror}") from error

    def _mend(self) -> int:
        """Remember what is there, and drop half a line that a crash left: nobody was told that it is kept."""
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, min(size, _TAIL), max(0, size - _TAIL))
        for line in tail.split(b"\n")[:-1]:
            entry = _entry(line)
            if entry is not None:
                self._note(entry[0])
        torn = len(tail) - tail.rfind(b"\n") - 1
        if torn:
            size -= torn
            os.ftruncate(self._file, size)
        return size

    def keep(self, originals: Sequence[tuple[str, bytes]]) -> int:
        """Seal and write what is not known yet, and return when it is on disk.

        Args:
            originals: Pseudonym and what it stands for.

        Returns:
            How many were new.

        Raises:
            VaultError: They are not on disk; the file is as it was, or ends in half a line.
        """
        new: dict[str, bytes] = {}
        for token, said in originals:
            if token not in self._known:
                new.setdefault(token, said)  # the first writing stands for all
        for token, _ in originals:
            if token in self._known:
                self._known.move_to_end(token)
        if not new:
            return 0
        content = b"".join(seal_entries(new, self._public, self._recipient))
        try:
            self._append(content)
        except OSError as error:
            raise VaultError(f"{self.path}: cannot be written: {error.strerror}") from error
        for token in new:
            self._note(token)
        return len(new)

    def _append(self, content: bytes) -> None:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._end)  # the entries are tried again, and would stand there twice
            raise
        self._end += len(content)

    def _note(self, token: str) -> None:
        self._known[token] = None
        self._known.move_to_end(token)
        if len(self._known) > self._remember:
            self._known.popitem(last=False)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def seal_entries(originals: dict[str, bytes], public: X25519PublicKey, recipient: bytes) -> Iterator[bytes]:
    """Lines of a vault, sealed with one ephemeral key."""
    ephemeral = X25519PrivateKey.generate()
    sender = ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    cipher = ChaCha20Poly1305(_shared_key(ephemeral.exchange(public), sender, recipient))
    for number, (token, said) in enumerate(originals.items()):
        counted = number.to_bytes(_NUMBER, "big")
        sealed = cipher.encrypt(counted.rjust(12, b"\0"), _padded(said), token.encode())
        yield token.encode() + b" " + base64.b64encode(sender + counted + sealed) + b"\n"


def _shared_key(shared: bytes, sender: bytes, recipient: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=sender + recipient, info=_INFO).derive(shared)


def _padded(said: bytes) -> bytes:
    """ISO/IEC 7816-4: one bit, then zeros."""
    return said + b"\x80" + bytes(-(len(said) + 1) % STEP)


def _entry(line: bytes) -> tuple[str, bytes] | None:
    token, _, sealed = line.partition(b" ")
    try:
        name = token.decode("ascii")
        content = base64.b64decode(sealed, validate=True)
    except (UnicodeDecodeError, binascii.Error):
        return None
    padded = len(content) - _PUBLIC - _NUMBER - _TAG
    whole = padded > 0 and padded % STEP == 0  # half an entry may still be valid base64
    return (name, content) if PSEUDONYM.fullmatch(name) and whole else None


def read_vault(path: Path, wanted: frozenset[str]) -> dict[str, bytes]:
    """The sealed entries of some pseudonyms; lines that are no entries are passed over.

    Raises:
        VaultError: The file cannot be read.
    """
    found: dict[str, bytes] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                entry = _entry(line.rstrip(b"\n"))
                if entry is not None and entry[0] in wanted:
                    found.setdefault(*entry)
    except OSError as error:
        raise VaultError(f"{path}: cannot be read: {error.strerror}") from error
    return found


def open_entry(token: str, sealed: bytes, private: X25519PrivateKey) -> bytes:
    """What a pseudonym stands for.

    Raises:
        VaultError: It was sealed to another key, or changed since.
    """
    recipient = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    sender, number, content = sealed[:_PUBLIC], sealed[_PUBLIC : _PUBLIC + _NUMBER], sealed[_PUBLIC + _NUMBER :]
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(sender))
        cipher = ChaCha20Poly1305(_shared_key(shared, sender, recipient))
        padded = cipher.decrypt(number.rjust(12, b"\0"), content, token.encode())
    except (InvalidTag, ValueError) as error:
        named = token.split("-")[2]
        mine = private_key_id(private)
        reason = "it was changed" if named == mine else f"it takes the key {named}, and this is {mine}"
        raise VaultError(f"{token}: cannot be opened: {reason}") from error
    return padded.rstrip(b"\0")[:-1]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
