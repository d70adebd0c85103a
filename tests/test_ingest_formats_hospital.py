from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.logsource import LogSource
from ingest.parse import parse
from raw_lines import NOW, batch, read

MIRTH = LogSource("mirth", None, "server")
ORTHANC = LogSource("orthanc", None, "server")
CHANNEL = "2fe30c1b-9a2e-4c1d-8f57-000000000001"

MIRTH_LINES: list[tuple[str, dict[str, str]]] = [
    ("INFO  2026-02-28 10:05:23,313 [Main Server Thread] com.mirth.connect.server.Mirth: server successfully started.",
     {"level": "INFO", "thread": "Main Server Thread", "logger": "com.mirth.connect.server.Mirth",
      "message": "server successfully started."}),
    ("INFO  2026-02-28 10:05:23.313 [Main Server Thread] com.mirth.connect.server.Mirth: Engine 4.5.2 started.",
     {"message": "Engine 4.5.2 started."}),
    ((f"ERROR 2026-02-28 10:05:23,313 [TCP Receiver Thread on ADT Inbound ({CHANNEL}) < pool-1-thread-3] "
     "com.mirth.connect.connectors.tcp.TcpReceiver: Error sending response.\njava.io.IOException: closed.\n"
     "\tat com.mirth.connect.connectors.tcp.TcpReceiver.send(TcpReceiver.java:937)"),
     {"level": "ERROR", "channel": "ADT Inbound", "channel_id": CHANNEL, "message": "Error sending response.",
      "stack_trace": "java.io.IOException: closed.\n\tat "
      "com.mirth.connect.connectors.tcp.TcpReceiver.send(TcpReceiver.java:937)"}),
    ((f'WARN  2026-02-28 10:05:23,313 [pool-1-thread-3] com.mirth.connect.X: lost (TCP Listener "Source" on channel '
     f"{CHANNEL})."), {"level": "WARN", "channel_id": CHANNEL, "thread": "pool-1-thread-3"}),
    ("ERROR 2026-02-28 10:05:23,313 [a [b] c] com.mirth.connect.X: Error undeploying channel [Labo ORU].",
     {"channel": "Labo ORU", "thread": "a [b] c"}),
    (f"INFO  2026-02-28 10:05:23,313 [Destination Chain Thread on Labo [prod] ({CHANNEL})] transformer: sent",
     {"channel": "Labo [prod]", "logger": "transformer", "message": "sent"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), MIRTH_LINES)
@pytest.mark.parametrize("header", ["", "<13>Feb 28 10:05:24 moteur1 mirth: ", "<13>Feb 28 10:05:24 moteur1 java[9]: "])
def test_mirth(header: str, line: str, said: dict[str, str]) -> None:
    logsource, row = read((header + line).encode())
    assert (logsource, row["event.dataset"]) == (MIRTH, "mirth")
    assert said.items() <= row.items()
    assert row["@timestamp"] == datetime(2026, 2, 28, 10, 5, 23, 313000, tzinfo=UTC)
    assert ("stack_trace" in row) == ("stack_trace" in said)


def test_other_programs_of_log4j_are_not_mirth() -> None:
    line = "INFO  2026-02-28 10:05:23,313 [main] org.example.App: started"
    assert read(f"<13>Feb 28 10:05:24 app1 java: {line}".encode())[0].product == "linux"
    assert read(f"<13>Feb 28 10:05:24 app1 mirth: {line}".encode())[0] == MIRTH


ORTHANC_LINES: list[tuple[str, dict[str, str]]] = [
    ("W0228 10:05:23.313123 main.cpp:1436] Orthanc version: 1.12.0",
     {"level": "WARNING", "log.time": "0228 10:05:23.313123", "source_file": "main.cpp:1436",
      "message": "Orthanc version: 1.12.0"}),
    ("I0228 10:05:23.313123             MAIN main.cpp:2041] Orthanc version: mainline",
     {"level": "INFO", "thread": "MAIN", "source_file": "main.cpp:2041"}),
    ("E0228 10:05:23.313      DICOM-SCP-1 OrthancException.cpp:61] Cannot parse",
     {"level": "ERROR", "thread": "DICOM-SCP-1"}),
    (('W0228 10:05:23.313123 main.cpp:334] DICOM authorization rejected for AET SCAN 2 on IP 192.0.2.77: This AET is '
     'not listed in configuration option "DicomModalities"'),
     {"aet": "SCAN 2", "src_ip": "192.0.2.77", "source.ip": "192.0.2.77",
      "reason": 'This AET is not listed in configuration option "DicomModalities"'}),
    ('E0228 10:05:23.313123 main.cpp:300] Unknown remote DICOM modality AET: "ROGUE"', {"aet": "ROGUE"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), ORTHANC_LINES)
@pytest.mark.parametrize(
    ("header", "time"),
    [("", NOW), ("<13>Feb 28 10:05:24 pacs1 Orthanc[1]: ", datetime(2026, 2, 28, 10, 5, 24, tzinfo=UTC))],
)
def test_orthanc(header: str, time: datetime, line: str, said: dict[str, str]) -> None:
    logsource, row = read((header + line).encode())
    assert (logsource, row["event.dataset"], row["@timestamp"]) == (ORTHANC, "orthanc", time)
    assert said.items() <= row.items()
    assert ("aet" in row) == ("aet" in said)


@pytest.mark.parametrize(
    "line",
    [
        "I0228 10:05:23.313123    1234 server.go:44] a line of another glog program",
        "W0228 10:05:23.313123 no file here",
        "X0228 10:05:23.313123 main.cpp:1] no level",
    ],
)
def test_what_is_not_orthanc(line: str) -> None:
    assert read(f"<13>Feb 28 10:05:24 k8s1 kubelet: {line}".encode())[0].product == "linux"


@st.composite
def damaged_lines(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from([line for line, _ in (*MIRTH_LINES, *ORTHANC_LINES)]))
    start = draw(st.integers(0, len(text)))
    stop = draw(st.integers(start, min(len(text), start + 30)))
    return text[:start] + draw(st.text(max_size=8)) + text[stop:]


@settings(max_examples=100, deadline=None)
@given(st.lists(damaged_lines(), min_size=1, max_size=4), st.sampled_from(["", "<13>Feb 28 10:05:24 h mirth: "]))
def test_any_damage_gives_every_row_once(texts: list[str], header: str) -> None:
    raw = batch([(header + text).encode("utf-8", "surrogatepass") for text in texts])
    ids = [name for frame in parse(raw) for name in frame.events["event.id"].to_list()]
    assert sorted(ids) == sorted(raw["event.id"].to_list())


def test_every_cut() -> None:
    lines = [line[:end].encode() for line, _ in (*MIRTH_LINES, *ORTHANC_LINES) for end in range(len(line))]
    assert sum(frame.events.height for frame in parse(batch(lines))) == len(lines)
