"""`tocsin hospital keys` and `tocsin hospital reveal`: the two commands on patients' pseudonyms.

The first is run once, by the centre and the hospital together; the private key leaves with the hospital. The second is
the hospital's: it needs the private key and a copy of the vault, and neither registry nor settings.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Final

import click
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ingest.hospital_keys import PassphraseError, keys_path, make_keys, private_key_id, read_private
from ingest.pseudonyms import KINDS, PSEUDONYM
from ingest.registry import read_registry
from ingest.reveal_journal import Reveal, append_reveal
from ingest.vault import open_entry, read_vault
from ingest.visible import visible
from tocsin.languages import gettext
from tocsin.registry_options import hospital_named, said, shown_path, utc_now, warned
from tocsin.settings_options import settings_from, settings_options

NOT_FOUND: Final = 1

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("keys")
@click.argument("name")
@click.option("--to", required=True, type=_FILE, help="Where the private key goes; a file that does not exist yet.")
@click.option("--passphrase-file", type=_FILE, help="File whose first line encrypts the private key.")
@click.option("--renew", is_flag=True, help="Make new keys beside those there are: every patient gets a new pseudonym.")
@settings_options
def keys_command(
    name: str, to: Path, passphrase_file: Path | None, *, renew: bool, config: Path | None, flags: tuple[str, ...]
) -> None:
    """Make the keys of a hospital's pseudonyms. The private key belongs to the hospital, and to nobody else."""
    folder = settings_from(config, flags).registry_path
    found = hospital_named(read_registry(folder), name)
    keys = make_keys(folder, found.id, to, utc_now(), passphrase=_passphrase(passphrase_file), renew=renew)
    said(
        gettext("made the keys {key} of {id}: {path}").format(
            key=keys.id, id=found.id, path=keys_path(folder, found.id)
        )
    )
    said(gettext("the private key is in {path}: give it to the hospital, and keep no copy").format(path=shown_path(to)))


@click.command("reveal")
@click.argument("tokens", nargs=-1, required=True)
@click.option("--key", required=True, type=_FILE, help="The hospital's private key.")
@click.option("--vault", "vaults", required=True, multiple=True, type=_FILE, help="The vault; may be repeated.")
@click.option("--reason", required=True, help="Why; it is written into the journal.")
@click.option("--who", required=True, help="Who asks; it is written into the journal.")
@click.option("--journal", type=_FILE, help="Where looks are noted; beside the first vault if not given.")
@click.option("--passphrase-file", type=_FILE, help="File whose first line opens the private key.")
def reveal_command(
    tokens: tuple[str, ...],
    key: Path,
    vaults: tuple[Path, ...],
    reason: str,
    who: str,
    journal: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Say what pseudonyms stand for. Who, when, why and which are noted first. Exit 1 if one is not found."""
    for option, text in (("--reason", reason), ("--who", who)):
        if not text.strip():
            raise click.ClickException(gettext("{option}: nothing is revealed without it").format(option=option))
    for token in tokens:
        if not PSEUDONYM.fullmatch(token):
            raise click.ClickException(visible(gettext("{token!r} is no pseudonym").format(token=token)))
    private = _private(key, passphrase_file)
    wanted = frozenset(tokens)
    sealed: dict[str, bytes] = {}
    for vault in vaults:
        sealed = {**read_vault(vault, wanted), **sealed}
    opened = {token: open_entry(token, entry, private) for token, entry in sealed.items()}
    noted = journal or vaults[0].with_suffix(".reveals.jsonl")
    append_reveal(noted, Reveal(who.strip(), getpass.getuser(), reason.strip(), tokens), utc_now())
    for token in dict.fromkeys(tokens):
        if token in opened:
            click.echo(f"{token}\t{visible(_text(opened[token]))}")
        else:
            warned(_missing(token, private_key_id(private)))
    if wanted - opened.keys():
        raise SystemExit(NOT_FOUND)


def _missing(token: str, key: str) -> str:
    if token.split("-")[2] != key:
        return gettext("{token}: not in this vault; it is of other keys than {key}").format(token=token, key=key)
    return gettext("{token}: not in this vault ({kind})").format(token=token, kind=KINDS.get(token.split("-")[1], "?"))


def _text(said_bytes: bytes) -> str:
    """An identifier, or a whole line as it was sent: bytes that are no UTF-8 are read as ISO-8859-1."""
    try:
        return said_bytes.decode("utf-8")
    except UnicodeDecodeError:
        return said_bytes.decode("iso-8859-1")


def _private(key: Path, passphrase_file: Path | None) -> X25519PrivateKey:
    passphrase = _passphrase(passphrase_file)
    try:
        return read_private(key, passphrase)
    except PassphraseError:
        if passphrase:
            raise
        return read_private(key, str(click.prompt(gettext("Passphrase"), hide_input=True, err=True)))


def _passphrase(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        found = path.read_text("utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(
            gettext("{path}: the passphrase cannot be read").format(path=shown_path(path))
        ) from error
    if not found:
        raise click.ClickException(gettext("{path}: there is no passphrase in it").format(path=shown_path(path)))
    return found
