from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.alert import Alert, Evidence, Level
from storage.alert_codec import decode_alert, encode_alert, storable
from storage.errors import AlertDecodeError

NOON = datetime(2026, 8, 27, 12, 0, 0, 123456, tzinfo=UTC)
ALERT = Alert(
    id="a1",
    rule_id="r1",
    rule_title="Outil déposé",
    level=Level.HIGH,
    tenant="chu-brest",
    timestamp=NOON,
    received=NOON,
    logsource="windows/process_creation/sysmon",
    host="PC-1",
    event_ids=("tocsin.raw:0:1:2", "tocsin.raw:0:1:3"),
    matched={"Image": "C:\\Users\\Public\\Music\\x.exe"},
    event={"CommandLine": "nul\0 and \U0001f514"},
    original="<14>raw\x00",
    tags=("attack.t1105",),
    evidence=(Evidence("tocsin.raw:0:1:2", NOON, "Outil", "PC-1", None, "10.0.0.1", {"Image": "x.exe", "Hash": None}),),
)
TEXT = st.text(max_size=8)
TIMES = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))]))
ALERTS = st.builds(
    Alert,
    timestamp=TIMES.filter(lambda at: 2 <= at.year <= 9998),
    received=TIMES.filter(lambda at: 2 <= at.year <= 9998),
    matched=st.dictionaries(TEXT, st.none() | TEXT, max_size=3),
    event=st.dictionaries(TEXT, TEXT, max_size=3),
    event_ids=st.lists(TEXT, max_size=3).map(tuple),
    tags=st.lists(TEXT, max_size=3).map(tuple),
    evidence=st.lists(
        st.builds(
            Evidence,
            timestamp=TIMES.filter(lambda at: 2 <= at.year <= 9998),
            matched=st.dictionaries(TEXT, st.none() | TEXT, max_size=3),
        ),
        max_size=2,
    ).map(tuple),
)


@given(ALERTS)
def test_an_alert_survives_the_bus(alert: Alert) -> None:
    assert decode_alert(encode_alert(alert)) == alert


def test_lone_surrogates_are_written_out() -> None:
    hostile = "file\udc80\ud800.exe"
    decoded = decode_alert(
        encode_alert(Alert("i", hostile, "t", Level.LOW, "x", NOON, NOON, "l", event={hostile: "v"}))
    )
    assert decoded.rule_id == "file\\udc80\\ud800.exe"
    assert decoded.event == {"file\\udc80\\ud800.exe": "v"}
    assert storable("déjà \U0001f514") == "déjà \U0001f514"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_alert_or_an_error(value: bytes) -> None:
    with pytest.raises(AlertDecodeError):
        decode_alert(value)


@pytest.mark.parametrize("name", [field.name for field in fields(Alert)])
@pytest.mark.parametrize("wrong", [17, [1], {"a": 1}, "0001-01-01T00:00:00+14:00", "no"])
def test_a_wrong_member_is_named(name: str, wrong: object) -> None:
    members = orjson.loads(encode_alert(ALERT))
    members[name] = wrong
    with suppress(AlertDecodeError):
        assert getattr(decode_alert(orjson.dumps(members)), name) == wrong
        return
    with pytest.raises(AlertDecodeError, match=f"member {name}"):
        decode_alert(orjson.dumps(members))


@pytest.mark.parametrize("name", [field.name for field in fields(Alert) if field.name != "evidence"])
def test_a_missing_member_is_named(name: str) -> None:
    members = orjson.loads(encode_alert(ALERT))
    del members[name]
    with pytest.raises(AlertDecodeError, match=f"{name} is missing"):
        decode_alert(orjson.dumps(members))


def test_an_older_writer_knows_no_evidence() -> None:
    members = orjson.loads(encode_alert(ALERT))
    del members["evidence"]
    assert decode_alert(orjson.dumps(members)) == replace(ALERT, evidence=())


@pytest.mark.parametrize("wrong", [{}, {"event_id": "x"}, "x", None, []])
def test_evidence_that_is_none_is_an_error(wrong: object) -> None:
    members = orjson.loads(encode_alert(ALERT))
    members["evidence"] = [wrong]
    with pytest.raises(AlertDecodeError, match="member evidence"):
        decode_alert(orjson.dumps(members))


def test_members_of_a_newer_writer_are_ignored() -> None:
    members = orjson.loads(encode_alert(ALERT))
    assert decode_alert(orjson.dumps({**members, "score": 7})) == ALERT
