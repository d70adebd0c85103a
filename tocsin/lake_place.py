"""Where the settings say the lake lies: a folder here, or a prefix in an S3-compatible bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from storage.errors import LakeError
from storage.lake import Lake
from storage.lake_place import LakePlace
from storage.lake_s3 import S3Place, found_key
from storage.s3_requests import S3Key
from tocsin.folders import make_folder
from tocsin.languages import gettext
from tocsin.settings import Settings, SettingsError
from tocsin.settings_sections import S3Section


def lake_of(settings: Settings) -> Lake:
    """The lake of the settings, to write to; its folder is made if it is not there, its bucket must be there.

    Raises:
        SettingsError: Nothing can be written in its folder, or no key to its bucket is to be found.
        LakeError: Its store cannot be reached, refuses the key, or has no such bucket.
    """
    if settings.lake.url:
        return Lake(_bucket_of(settings))
    make_folder(settings.lake_path / "events", "lake.path" if settings.lake.path else "data_dir")
    return Lake(settings.lake_path)


def standing_lake(settings: Settings) -> Lake:
    """The lake of the settings, to look back in: it is not made.

    Raises:
        SettingsError: No key to its bucket is to be found.
        LakeError: There is none, or as for `lake_of`.
    """
    return Lake(_bucket_of(settings)) if settings.lake.url else lake_at(settings.lake_path)


def lake_at(folder: Path) -> Lake:
    """The lake at a folder, to look back in: it is not made.

    Raises:
        LakeError: There is none.
    """
    if not folder.is_dir():
        raise LakeError(gettext("{path}: no lake there").format(path=folder))
    return Lake(folder)


def _bucket_of(settings: Settings) -> LakePlace:
    section = settings.lake.s3
    key = _key_of(section, os.environ)
    region = section.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    return S3Place(settings.lake.url, endpoint=section.endpoint, region=region, key=key)


def _key_of(section: S3Section, environment: Mapping[str, str]) -> S3Key:
    if bool(section.access_key) != bool(section.secret_key):
        raise SettingsError("lake.s3: access_key and secret_key go together: one of them is empty")
    key = S3Key(section.access_key, section.secret_key) if section.access_key else found_key(environment)
    if key is None:
        raise SettingsError(
            "lake.s3.access_key: no key here, none in AWS_ACCESS_KEY_ID, none in the file of AWS credentials"
        )
    return key
