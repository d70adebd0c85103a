"""A hunt in a part of the lake: what is asked for is found, nothing else is, and what was left unread is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.bus import Position
from ingest.parse import parse
from raw_lines import batch
from storage.lake import Lake
from tocsin.hunt import hunt
from tocsin.hunt_scope import HuntScope, scope_of

BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = """\
title: A Word
id: 11111111-1111-4111-8111-111111111111
status: test
logsource: {product: linux, service: syslog}
detection:
    selection: ['drill']
    condition: selection
level: low
"""


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three days of two hospitals, an event each, on the hour of noon."""
    (tmp_path / "rule.yml").write_text(RULE)
    for place, (day, tenant) in enumerate((day, tenant) for day in range(3) for tenant in ("chu-a", "CH de Kermor")):
        when = BEGUN + timedelta(days=day)
        line = f"<13>1 {when:%Y-%m-%dT%H:%M:%SZ} h app - - - drill {day} {tenant}".encode()
        writer = Lake(tmp_path / "lake").writer()
        writer.add(parse(batch([line], first=place, tenant=tenant, received=when)), Position("t", 0, place))
        writer.flush()
    return tmp_path / "lake"


def run(lake: Path, *options: str) -> Result:
    asked = ["--rules", str(lake.with_name("rule.yml")), "--lake-path", str(lake), "--json", *options]
    return CliRunner().invoke(hunt, asked, catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "found", "left"),
    [
        ([], [0, 1, 2, 3, 4, 5], 0),
        (["--since", "2026-03-02"], [2, 3, 4, 5], 2),
        (["--until", "2026-03-02"], [0, 1], 4),
        (["--since", "2026-03-02T12:00:00", "--until", "2026-03-02T12:00:01"], [2, 3], 4),
        (["--since", "2026-03-02T14:00:01+0200", "--until", "2026-03-03"], [], 6),
        (["--tenant", "CH de Kermor"], [1, 3, 5], 3),
        (["--tenant", "CH de Kermor", "--tenant", "chu-a", "--until", "2026-03-02"], [0, 1], 4),
        (["--tenant", "nobody"], [], 6),
    ],
)
def test_what_is_asked_for_is_found_and_the_rest_left_unread(
    lake: Path, options: list[str], found: list[int], left: int
) -> None:
    result = run(lake, *options)
    assert result.exit_code == 0, result.stderr
    assert sorted(int(json.loads(line)["event_id"].rpartition(":")[2]) for line in result.stdout.splitlines()) == found
    read, *more = [line for line in result.stderr.splitlines() if "of the lake read" in line or "left out" in line]
    assert read.startswith(f"{6 - left} file")
    assert [line.split()[0] for line in more] == ([str(left)] if left else [])


def test_files_have_no_such_scope(lake: Path) -> None:
    rule = str(lake.with_name("rule.yml"))
    result = CliRunner().invoke(hunt, ["--rules", rule, "--events", rule, "--since", "2026-03-02"])
    assert result.exit_code == 2
    assert "they need --lake" in result.stderr


def test_a_time_without_a_zone_is_utc() -> None:
    assert scope_of(datetime(2026, 3, 1), None, ()) == HuntScope(datetime(2026, 3, 1, tzinfo=UTC))  # noqa: DTZ001
    assert not scope_of(None, None, ()).narrowed
    assert scope_of(None, None, ("chu-a",)).narrowed
