"""The guide of who operates a region: what it tells to type, to set and to look for is there.

Someone follows it at night. A command that was renamed, a setting that went, or a message that the log no longer says
would be noticed then.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from click import Context, Group, MissingParameter
from click.testing import CliRunner
from pydantic import BaseModel

from tocsin.cli import tocsin as cli
from tocsin.settings import NOT_SETTINGS, Settings, load_settings

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "operate.md").read_text("utf-8")
NIGHT = PAGE.split("## Three in the morning\n")[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL))
SHELL = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
TYPED = sorted(
    {text for text in [*SHELL, *SPANS] if text.startswith("tocsin ")}
    | {match for line in SHELL for match in re.findall(r"exec console (tocsin .+)", line)}
)
PACKAGES = ("ingest", "detections", "storage", "console", "tocsin")
OTHERS_SAY = ("duckdb", "Corrupt database file", "Address already in use", "oom-kill", "systemctl status")
"""What the night's table quotes and others say: DuckDB, the system, systemd."""


@cache
def source() -> str:
    files = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text("utf-8") for path in files))


def parsed(text: str) -> Context:
    """The command as it would be called: every word of it known. Nothing is run."""
    words = [word for word in shlex.split(text)[1:] if word != "..."]
    context = Context(cli, info_name="tocsin")
    group: Group = cli
    while words:
        found = group.get_command(context, words[0])
        assert found is not None, f"{text}: no command {words[0]}"
        name, *words = words
        if not isinstance(found, Group):
            return found.make_context(name, words, parent=context)
        context, group = Context(found, parent=context, info_name=name), found
    return context


def test_the_guide_is_read() -> None:
    assert len(TYPED) > 40
    assert len(BLOCKS) > 20


@pytest.mark.parametrize("text", TYPED)
def test_a_command_that_is_told_can_be_typed(text: str) -> None:
    try:
        parsed(text)
    except MissingParameter:
        assert text not in SHELL, text  # else only spoken of, by its name


def test_a_command_that_is_not_there_would_be_found() -> None:
    with pytest.raises(AssertionError, match="no command restor"):
        parsed("tocsin alerts restor newest")
    with pytest.raises(Exception, match="No such option"):
        parsed("tocsin alerts restore newest --forced")


def fields_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(prefix + name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fields_of(kind, f"{prefix}{name}.")
    return found


def test_settings_that_are_named_are_there() -> None:
    known = fields_of(Settings)
    sections = {name.split(".")[0] for name in known if "." in name}
    named = {span.split(" ")[0] for span in SPANS if re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+( = .*)?", span)}
    named = {
        name for name in named if name.split(".")[0] in sections and not name.endswith((".duckdb", ".sqlite", ".md"))
    }
    assert len(named) > 25
    assert named - known == set()
    for text in TYPED:
        for key in re.findall(r"--set ([\w.]+)=", text):
            assert key in known, text
    variables = set(re.findall(r"TOCSIN_[A-Z0-9_]*[A-Z0-9]", PAGE)) - NOT_SETTINGS
    assert {name.removeprefix("TOCSIN_").lower().replace("__", ".") for name in variables} <= known


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "toml"])
def test_settings_that_are_shown_can_be_used(block: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(block)
    load_settings(config, {})


def test_what_the_night_looks_for_is_what_is_said() -> None:
    rows = [re.split(r"(?<!\\)\|", line)[1] for line in NIGHT.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 22
    quoted = [span for row in rows for span in re.findall(r"`([^`]+)`", row) if " " in span and "/" not in span]
    assert len(quoted) > 12
    unsaid = [text for text in quoted if text not in source() and text not in OTHERS_SAY]
    assert unsaid == []
    alerts = (REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")
    named = set(re.findall(r"`(Tocsin[A-Z]\w+)`", PAGE))
    assert len(named) > 8
    assert {name for name in named if f"alert: {name}\n" not in alerts} == set()


def test_the_ports_are_those_of_the_units() -> None:
    table = dict(re.findall(r"^\| `(tocsin[\w@-]*?)(?:@N)?` \| (\d{3}[\dN]) \|$", PAGE, re.MULTILINE))
    units = {
        path.stem.rstrip("@"): path.read_text("utf-8") for path in (REPOSITORY / "deploy/systemd").glob("*.service")
    }
    ports = {name: re.search(r"TOCSIN_HEALTH__PORT=(\S+)", text) for name, text in units.items()}
    assert table == {name: found[1].replace("%i", "N") for name, found in ports.items() if found}


def test_what_it_links_to_is_there() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-") for line in PAGE.splitlines() if "## " in line
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        if not path:
            assert anchor in headings, target
        else:
            assert (REPOSITORY / "docs" / path).exists(), target
    for path in re.findall(r"(?<![\w/])deploy/[\w./]*\w", PAGE):
        assert (REPOSITORY / path).exists() or list(REPOSITORY.glob(f"{path}*")), path


def test_the_cheap_ones_do_what_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'data_dir = "{tmp_path / "data"}"\nrules = ["{REPOSITORY / "rules" / "hospital"}"]\n')
    monkeypatch.setenv("TOCSIN_CONFIG", str(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")

    for beginning, code in (
        ("tocsin authority init", 0),
        ("tocsin authority show", 0),
        ("tocsin hospital add", 0),
        ("tocsin hospital show", 0),
        ("tocsin authority server --host", 0),
        ("tocsin hospital renew", 0),
        ("tocsin lake verify --show-key", 0),
        ("tocsin rules check", 0),
    ):
        words = shlex.split(
            next(text for text in TYPED if text.startswith(beginning)).replace(
                "/opt/tocsin/share/rules", str(REPOSITORY / "rules" / "hospital")
            )
        )
        done = CliRunner().invoke(cli, words[1:])
        assert (done.exit_code, done.exception) == (code, None), (words, done.output)
    assert (tmp_path / "kermor.zip").is_file()
