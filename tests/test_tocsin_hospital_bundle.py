"""The files of a bundle, taken by the real programs where those are here, and the guide, run as it is written."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from hospital_desk import REPOSITORY, SYSLOG_NG, Desk, Require, make_desk, unpack
from tocsin.hospital_bundle import TLS_PORT


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return make_desk(tmp_path, monkeypatch)


@pytest.fixture
def enrolled(desk: Desk) -> Desk:
    """With an authority and a hospital."""
    return desk.enrol()


def test_the_guides_are_whole_in_both_languages(enrolled: Desk) -> None:
    enrolled.run("hospital", "source", "add", "ch-de-kermor", "pare-feu", "--host", "fw01", "--time-zone", "UTC")
    folder = unpack(enrolled)
    (certificate,) = enrolled.hospital("ch-de-kermor").certificates
    for name, words in (("LISEZMOI.txt", "reçu, compris"), ("README.txt", "received, understood")):
        raw = (folder / name).read_bytes()
        assert raw.count(b"\n") == raw.count(b"\r\n"), "Notepad"
        text = raw.decode()
        for wanted in (
            words,
            "localhost",
            certificate.serial,
            certificate.fingerprint,
            "pare-feu",
            "fw01",
            "Europe/Paris",
        ):
            assert wanted in text
        for path in re.findall(r"(?<![/\w.-])(?:rsyslog|syslog-ng|nxlog|logstash|winlogbeat|tls)/[\w.-]*\w\.\w+", text):
            assert (folder / path).exists(), path
        assert "{{" not in text
        assert max(len(line) for line in text.splitlines()) <= 132
    assert (folder / "test.ps1").read_bytes().isascii(), "Windows PowerShell 5.1 reads it as ANSI"


def test_every_file_is_rendered_and_none_holds_the_key_but_its_own(enrolled: Desk) -> None:
    folder = unpack(enrolled)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 17
    for path in files:
        raw = path.read_bytes()
        assert raw
        assert (b"PRIVATE" in raw) is (path.name == "client.key"), path
        if path.parent.name != "tls":
            assert b"{{" not in raw
            assert b"{%" not in raw


def test_a_title_cannot_leave_its_comment(enrolled: Desk) -> None:
    title = 'CH "d\'Ys" $(id) `id` {{ 7*7 }} \\ */ ; # }'
    enrolled.run("hospital", "set", "ch-de-kermor", "--title", title)
    folder = unpack(enrolled)
    for path in folder.rglob("*.conf"):
        lines = [line for line in path.read_text().splitlines() if title in line]
        assert lines
        assert all(line.startswith("#") for line in lines)
    assert title not in (folder / "test.sh").read_text()
    assert title not in (folder / "test.ps1").read_text()


@pytest.mark.parametrize("folder", ["relative", '/a"b', "/a b", "/a$b", "/a\n", "/a'"])
def test_a_folder_cannot_leave_its_quotes(enrolled: Desk, folder: str) -> None:
    assert "write an absolute path" in enrolled.run(
        "hospital", "bundle", "ch-de-kermor", "--folder", folder, fails=True
    )


def test_rsyslog_takes_every_file(enrolled: Desk, require: Require) -> None:
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    folder = unpack(enrolled, "--folder", str(enrolled.folder / "b" / "tocsin-ch-de-kermor" / "tls"))
    files = sorted((folder / "rsyslog").iterdir())
    assert len(files) == 5
    for path in files:
        # as it is, and with the lines for devices
        for text in (path.read_text(), re.sub(r"(?m)^#(?=module|input)", "", path.read_text())):
            configuration = enrolled.folder / "r.conf"
            configuration.write_text(f'global(workDirectory="{enrolled.folder}")\n{text}')
            checked = subprocess.run(
                ["rsyslogd", "-N1", "-f", configuration], capture_output=True, text=True, check=False
            )
            assert checked.returncode == 0, checked.stderr
            assert len(checked.stderr.splitlines()) == 2, checked.stderr  # its version and its good-bye


def test_syslog_ng_takes_its_file(enrolled: Desk, require: Require) -> None:
    require(SYSLOG_NG.exists(), f"syslog-ng is not at {SYSLOG_NG}")
    folder = unpack(enrolled, "--folder", str(enrolled.folder / "b" / "tocsin-ch-de-kermor" / "tls"))
    text = (folder / "syslog-ng" / "tocsin.conf").read_text()
    for tried in (text, re.sub(r"(?m)^#(?=source s_|    network|\})", "", text)):
        configuration = enrolled.folder / "s.conf"
        configuration.write_text(f"@version: 3.35\nsource s_src {{ internal(); }};\n{tried}")
        checked = subprocess.run(
            [SYSLOG_NG, "--syntax-only", "--cfgfile", configuration], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
        assert "error" not in checked.stderr.lower()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_shell_takes_the_test(shell: str, enrolled: Desk, require: Require) -> None:
    require(shutil.which(shell) is not None, f"{shell} is not installed")
    folder = unpack(enrolled)
    assert subprocess.run([shell, "-n", folder / "test.sh"], capture_output=True, check=False).returncode == 0


def test_the_files_for_windows_have_the_shape_of_their_programs(enrolled: Desk) -> None:
    """Neither program is here: blocks are closed, YAML is YAML, braces match, and our values are in their places."""
    folder = unpack(enrolled)
    nxlog = (folder / "nxlog" / "tocsin.conf").read_text()
    opened: list[str] = []
    for name, closing in re.findall(r"(?m)^\s*<(/?\w+)[^>]*>()", nxlog):
        if name.startswith("/"):
            assert opened.pop() == name[1:], closing
        elif name != "Select":
            opened.append(name)
    assert opened == []
    instances = re.findall(r"(?m)^<(?:Input|Processor|Output) (\w+)>", nxlog)
    (route,) = re.findall(r"(?m)^    Path\s+(.*)$", nxlog)
    assert route.strip().split(" => ") == instances
    assert f"Port        {TLS_PORT}" in nxlog
    winlogbeat = yaml.safe_load((folder / "winlogbeat" / "winlogbeat.yml").read_text())
    assert {entry["name"] for entry in winlogbeat["winlogbeat.event_logs"]} >= {"Security", "System"}
    assert winlogbeat["output.logstash"]["hosts"] == ["logstash.example.org:5044"]
    logstash = re.sub(r"(?m)#.*$", "", (folder / "logstash" / "tocsin.conf").read_text())
    assert logstash.count("{") == logstash.count("}") == 4
    assert f"port => {TLS_PORT}" in logstash


def commands_of(page: Path) -> list[str]:
    """The commands of this program in the code blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("tocsin ")]


@pytest.mark.parametrize("name", ["hospital.md", "hospital.fr.md"])
def test_the_guide_works_as_it_is_written(desk: Desk, name: str) -> None:
    commands = commands_of(REPOSITORY / "docs" / name)
    assert len(commands) >= 9
    for command in commands:
        said = desk.run(*shlex.split(command)[1:])
        assert "no format is named" not in said
    config = re.search(r"```toml\n(.*?)```", (REPOSITORY / "docs" / name).read_text("utf-8"), re.DOTALL)
    assert config is not None
    (desk.folder / "tocsin.toml").write_text(config[1])
    said = desk.run("hospital", "bundle", "ch-de-kermor", "--to", "last.zip", "--config", "tocsin.toml")
    assert "listener" not in said
    assert "receipts" not in said
    (certificate, *_) = desk.hospital("ch-de-kermor").certificates
    assert certificate.revoked is not None
