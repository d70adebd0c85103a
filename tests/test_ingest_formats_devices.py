from __future__ import annotations

import pytest

from device_lines import (
    ALL,
    CEF,
    CISCO_ASA,
    COMMAND,
    DNS,
    FORTIGATE,
    FORTIGATE_CEF,
    LEEF,
    OPENVPN,
    PAIRS,
    PALO_ALTO,
    SQUID,
    STORMSHIELD,
    WEB_ACCESS,
    WEB_ERROR,
    Case,
)
from ingest.formats.sigma_taxonomy import is_known
from ingest.logsource import LogSource
from raw_lines import read


def check(case: Case, header: str) -> None:
    logsource, row = read((header + case.line).encode())
    assert (row["event.dataset"], logsource) == (case.dataset, case.source)
    said = {name: row.get(name) for name in case.fields}
    assert said == case.fields


def table(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("case", "header"),
        [pytest.param(case, header, id=f"{case.line[:30]}-{header}") for case in cases for header in case.headers],
    )


@table(STORMSHIELD)
def test_stormshield(case: Case, header: str) -> None:
    check(case, header)


@table([*FORTIGATE, *FORTIGATE_CEF])
def test_fortigate(case: Case, header: str) -> None:
    check(case, header)


@table(PALO_ALTO)
def test_palo_alto(case: Case, header: str) -> None:
    check(case, header)


@table(CISCO_ASA)
def test_cisco_asa(case: Case, header: str) -> None:
    check(case, header)


@table([*CEF, *LEEF])
def test_event_formats(case: Case, header: str) -> None:
    check(case, header)


@table([*SQUID, *WEB_ACCESS, *WEB_ERROR])
def test_web(case: Case, header: str) -> None:
    check(case, header)


@table(DNS)
def test_dns(case: Case, header: str) -> None:
    check(case, header)


@table(OPENVPN)
def test_openvpn(case: Case, header: str) -> None:
    check(case, header)


@table(PAIRS)
def test_pairs(case: Case, header: str) -> None:
    check(case, header)


MEETS: list[tuple[LogSource, list[Case]]] = [
    # what SigmaHQ's rules name, and lines that they must be tried on
    (LogSource(None, "firewall"), [STORMSHIELD[0], FORTIGATE[0], FORTIGATE_CEF[0], PALO_ALTO[0], CISCO_ASA[0]]),
    (LogSource(None, "proxy"), [*SQUID, STORMSHIELD[6], FORTIGATE[4], PALO_ALTO[1]]),
    (LogSource(None, "webserver"), WEB_ACCESS),
    (LogSource(None, "dns"), DNS),
    (LogSource(None, "antivirus"), [FORTIGATE[5], PALO_ALTO[2]]),
    (LogSource("fortigate", None, "event"), [FORTIGATE[2], FORTIGATE_CEF[1]]),
    (
        LogSource("paloalto", "appliance", "globalprotect"),
        [case for case in PALO_ALTO if case.source.service == "globalprotect"],
    ),
    (LogSource("cisco", None, "aaa"), [case for case in CISCO_ASA if case.source == COMMAND]),
    (LogSource("cisco", None, "asa"), CISCO_ASA),
    (LogSource(None, None, "apache"), WEB_ERROR[2:]),
    (LogSource(None, None, "nginx"), WEB_ERROR[:2]),
]


@pytest.mark.parametrize(("rule", "cases"), MEETS, ids=[str(rule) for rule, _ in MEETS])
def test_rules_meet_what_they_are_written_for(rule: LogSource, cases: list[Case]) -> None:
    assert cases
    assert all(rule.meets(read((case.headers[0] + case.line).encode())[0]) for case in cases)


def test_rules_on_commands_do_not_meet_logins_nor_packets() -> None:
    others = [case for case in CISCO_ASA if case.source != COMMAND]
    assert len(others) > 10
    assert not any(LogSource("cisco", None, "aaa").meets(case.source) for case in others)


@pytest.mark.parametrize("case", [case for case in ALL if case.source.product], ids=lambda case: case.line[:30])
def test_every_log_source_is_one_that_json_may_declare(case: Case) -> None:
    source = case.source
    assert is_known(source) or is_known(LogSource(source.product, None, source.service))
