"""The processes' log as machines read it: one object a line, whatever is in it and whoever says it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path

import pytest


def lines_of(code: str, form: str = "json", level: str = "info") -> list[str]:
    """What a process writes to stderr that has its log set up and then runs this code."""
    setup = f"""
        import logging, threading, structlog
        from tocsin.logs import configure_logs, name_process
        configure_logs({level!r}, {form!r})
        name_process("detect")
        log = structlog.get_logger()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(setup) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stderr.splitlines()


def records_of(code: str, level: str = "info") -> list[dict[str, object]]:
    found: list[dict[str, object]] = [json.loads(line) for line in lines_of(code, level=level)]
    for record in found:
        assert list(record)[:4] == ["time", "level", "event", "process"]
        assert datetime.fromisoformat(str(record["time"])).tzinfo is not None
        assert record["process"] == "detect"
    return found


def test_a_record_is_one_object_and_nothing_in_it_forges_another() -> None:
    (record,) = records_of(
        r"""
        log.warning("line\nfeed", who="\x1b[31m\u202eevil", what={"deep": "a\nb"}, time="1970", process="liar", n=3)
        """
    )
    assert record["event"] == r"line\x0afeed"
    assert record["who"] == r"\x1b[31m\u202eevil"
    assert record["what"] == {"deep": "a\nb"}  # JSON's own escape, within the line
    assert (record["level"], record["n"]) == ("warning", 3)


def test_an_exception_becomes_fields_without_the_values_of_variables() -> None:
    (record,) = records_of("""
        password = "hunter2"
        try:
            raise OSError("disk\\x07 full")
        except OSError:
            log.exception("not written")
    """)
    assert (record["event"], record["error_type"], record["error"]) == ("not written", "OSError", r"disk\x07 full")
    stack = str(record["traceback"])
    assert stack.startswith("Traceback")
    assert len(stack.split("\n")) > 2
    assert "hunter2" not in stack


def test_libraries_are_heard_from_warnings_on_in_the_same_form() -> None:
    found = records_of("""
        import warnings
        logging.getLogger("kafka.conn").warning("node %s\\nis away", 1)
        logging.getLogger("kafka.conn").info("chatter")
        logging.getLogger("uvicorn.error").error("cannot", exc_info=ValueError("x"))
        warnings.warn("old")
    """)
    assert [(record["event"], record.get("logger")) for record in found[:2]] == [
        (r"node 1\x0ais away", "kafka.conn"),
        ("cannot", "uvicorn.error"),
    ]
    assert found[1]["error_type"] == "ValueError"
    assert "UserWarning: old" in str(found[2]["event"])
    assert len(found) == 3


@pytest.mark.parametrize(("level", "said"), [("info", 5 + 5 + 2 + 9), ("debug", 9 + 9 + 2 + 9)])
def test_what_the_kafka_client_says_over_and_over_is_said_a_few_times_a_minute(level: str, said: int) -> None:
    found = records_of(
        """
        import time
        minute = time.monotonic()
        time.monotonic = lambda: minute
        kafka, other = logging.getLogger("kafka.net.transport"), logging.getLogger("asyncio")
        for number in range(11):
            if number == 9:
                minute += 60
            kafka.error("socket %s disconnected", number)
            if number < 9:
                kafka.error("abort")
                other.error("a task failed")
        """,
        level,
    )
    assert len(found) == said
    text = "socket 9 disconnected" + (" (and 4 more like it before)" if level == "info" else "")
    assert [record["event"] for record in found[-2:]] == [text, "socket 10 disconnected"]


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("raise RuntimeError('boom\\nboom')", "the process ends by an error"),
        ("t = threading.Thread(target=lambda: [][1], name='x'); t.start(); t.join()", "a thread ends by an error"),
        (
            """
            from tocsin.crew import Crew
            crew = Crew(1)
            crew.start(lambda stop: [][1])
            crew.stop.wait()
            """,
            "a thread ends by an error, and the process with it",
        ),
    ],
)
def test_what_ends_a_thread_or_the_process_is_logged_in_one_line(code: str, event: str) -> None:
    (record,) = records_of(code)
    assert (record["event"], record["level"]) == (event, "critical")
    assert "Traceback" in str(record["traceback"])


def test_text_is_one_line_too() -> None:
    found = lines_of("log.error('no', exc_info=ValueError('a\\nb'))", form="text")
    assert len(found) == 1
    assert "no" in found[0]


def test_a_process_says_what_begins_and_ends(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f'data_dir = "{tmp_path}/data"\nrules = ["{tmp_path}/rules"]\n[log]\nformat = "json"\n')
    done = subprocess.run(
        [sys.executable, "-m", "tocsin", "detect", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    started, *_, ended = [json.loads(line) for line in done.stderr.splitlines()]
    assert (started["event"], started["process"], started["role"]) == ("starting", "detect", "detect")
    assert (started["settings"], started["data_dir"]) == (str(config), f"{tmp_path}/data")
    assert (started["bus"], bool(started["version"])) == ("embedded", True)
    assert (ended["event"], ended["level"]) == ("the process ends", "critical")
    assert "no rule that runs" in ended["error"]
