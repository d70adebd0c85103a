from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from test_storage_lake import frame, store

from storage.errors import LakeError
from tocsin.cli import tocsin
from tocsin.lake_place import lake_at, lake_of, standing_lake
from tocsin.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from deploy.s3.store import S3Store

KEYS = {"TOCSIN_LAKE__S3__ACCESS_KEY": "tocsin-trial", "TOCSIN_LAKE__S3__SECRET_KEY": "not-a-secret"}

RULE = """\
title: A rule
id: 5ff0c6b5-0000-4000-8000-000000000001
status: test
logsource: {category: process_creation, product: windows}
detection:
  selection: {Image|endswith: whoami.exe}
  condition: selection
level: high
"""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE", "TOCSIN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOCSIN_DATA_DIR", str(tmp_path / "data"))


def in_store(s3: S3Store) -> dict[str, str]:
    return {"TOCSIN_LAKE__URL": f"s3://tocsin/{uuid.uuid4()}", "TOCSIN_LAKE__S3__ENDPOINT": s3.endpoint}


def test_the_lake_is_a_folder_unless_a_url_is_set(tmp_path: Path) -> None:
    settings = load_settings(None, {"TOCSIN_DATA_DIR": str(tmp_path / "data")})
    with pytest.raises(LakeError, match="no lake there"):
        standing_lake(settings)
    assert not (tmp_path / "data").exists()
    assert lake_of(settings).place.name == str(tmp_path / "data" / "lake")
    assert standing_lake(settings).count() == lake_at(tmp_path / "data" / "lake").count() == 0


def test_a_key_is_taken_from_the_settings_or_the_environment(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, named = load_settings(None, in_store(s3)), load_settings(None, in_store(s3) | KEYS)
    with pytest.raises(SettingsError, match=r"lake\.s3\.access_key: no key"):
        lake_of(bare)
    half = load_settings(None, in_store(s3) | {"TOCSIN_LAKE__S3__SECRET_KEY": "h0llow"})
    with pytest.raises(SettingsError, match="go together") as caught:
        standing_lake(half)
    assert "h0llow" not in str(caught.value)
    assert "not-a-secret" not in repr(named)
    store(lake_of(named), frame(0, {"A": ["x"]}))
    assert standing_lake(named).count() == 1
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["TOCSIN_LAKE__S3__ACCESS_KEY"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["TOCSIN_LAKE__S3__SECRET_KEY"])
    assert lake_of(bare).count() == 0


def test_a_hunt_reads_the_lake_in_a_store(s3: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = in_store(s3) | KEYS
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store(lake_of(load_settings(None, environment)), frame(0, {"Image": [r"C:\x\whoami.exe", "y"]}))
    rule = tmp_path / "rule.yml"
    rule.write_text(RULE)
    result = CliRunner().invoke(tocsin, ["hunt", "--rules", str(rule), "--lake", "--json"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("A rule") == 1
    assert f'"source":"{environment["TOCSIN_LAKE__URL"]}' in result.stdout
