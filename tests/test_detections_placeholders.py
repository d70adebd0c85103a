"""Files of values for placeholders."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from detections.placeholders import PlaceholderError, load_placeholders
from ingest.logsource import LogSource
from tocsin.cli import tocsin
from tocsin.hunt import hunt
from tocsin.rule_set import RuleSource, load_rule_set
from tocsin.settings import Settings


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "x.yml", "admins: [ann, 'adm-*', 007, true]\nhost: pc1\nothers:\n  - a b\n")
    expected = {"admins": ("ann", "adm-*", "007", "true"), "host": ("pc1",), "others": ("a b",)}
    assert load_placeholders([path]) == expected


def test_text(tmp_path: Path) -> None:
    path = write(tmp_path, "admins.txt", "\ufeff# people\r\nann\r\n\n  bob smith \n\\#hash\n#not me\nadm-*")
    assert load_placeholders([path]) == {"admins": ("ann", "bob smith", "#hash", "adm-*")}


def test_folders_and_several(tmp_path: Path) -> None:
    write(tmp_path, "lists/a.txt", "x")
    write(tmp_path, "lists/sub/b.yaml", "b: y")
    write(tmp_path, "lists/README.md", "not values")
    other = write(tmp_path, "odd.names", "z")  # named by itself, read whatever its suffix
    assert load_placeholders([tmp_path / "lists", other]) == {"a": ("x",), "b": ("y",), "odd": ("z",)}


FAULTS: list[tuple[str, str | bytes, str]] = [
    ("x.yml", "a: [x", "x.yml:2: not YAML"),
    ("x.yml", "- a", "a YAML map"),
    ("x.yml", "", "0 YAML documents"),
    ("x.yml", "a: x\nb: [y, null]", "x.yml:2: a value is a text or a number, not null"),
    ("x.yml", "a:\n  - x\n  - [y]", "x.yml:3: a value is a text or a number, not a list or map"),
    ("x.yml", "a: []", "x.yml:1: placeholder 'a' has no value"),
    ("x.yml", "a: x\nc: y\na: z", "x.yml:3: key 'a' is given twice"),
    ("x.yml", "a: " + "[" * 100_000, "x.yml:1: nests deeper"),
    ("x.txt", "# nothing\n", "x.txt:1: placeholder 'x' has no value"),
    ("x.txt", b"ann\nb\xe9\n", "x.txt:2: not UTF-8"),
]


@pytest.mark.parametrize(("name", "text", "reason"), FAULTS)
def test_faults_name_file_and_line(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    with pytest.raises(PlaceholderError) as error:
        load_placeholders([write(tmp_path, name, text)])
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_two_files_of_one_name(tmp_path: Path) -> None:
    paths = [write(tmp_path, "a/names.txt", "x"), write(tmp_path, "b/names.lst", "y")]
    with pytest.raises(PlaceholderError, match=r"names.lst:1: placeholder 'names' has its values from .*names.txt:1"):
        load_placeholders(paths)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlaceholderError, match="no such file"):
        load_placeholders([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlaceholderError, match="no placeholders in this folder"):
        load_placeholders([tmp_path / "empty"])


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text("a:[]{}-#&*! \n\"'", max_size=60).map(str.encode)))
def test_whatever_stands_in_a_file_gives_values_or_one_error(tmp_path: Path, data: bytes) -> None:
    for name in ("x.yml", "x.txt"):
        path = write(tmp_path, name, data)
        values: dict[str, tuple[str, ...]] = {}
        message = name
        try:
            values = load_placeholders([path])
        except PlaceholderError as error:
            message = str(error)
        assert name in message
        assert all(values.values())


RULE = """title: T
id: 5f1a2d0e-7c1f-4d3c-9a55-0d9c1f2f7a11
logsource: {product: cloud, service: x}
detection:
  sel: {Actor|expand: '%admins%'}
  condition: sel
"""
PIPELINE = """transformations:
  - {type: field_name_mapping, mapping: {Actor: User}}
  - {type: change_logsource, product: windows, category: process_creation}
"""
EVENT = (
    '{"Event":{"System":{"Provider":{"#attributes":{"Name":"Microsoft-Windows-Sysmon"}},"EventID":1,"Channel":'
    '"Microsoft-Windows-Sysmon/Operational","Computer":"pc1"},"EventData":{"Image":"a","User":"bob"}}}\n'
)


def test_hunt_takes_both(tmp_path: Path) -> None:
    arguments = [
        *("--rules", str(write(tmp_path, "r.yml", RULE)), "--events", str(write(tmp_path, "e.jsonl", EVENT)), "--json"),
        *("--pipeline", str(write(tmp_path, "p/map.yml", PIPELINE))),
        *("--expand", str(write(tmp_path, "values/admins.txt", "ann\nb?b\n"))),
    ]
    result = CliRunner().invoke(hunt, arguments)
    assert result.exit_code == 0, result.output
    assert '"rule_id":"5f1a2d0e-7c1f-4d3c-9a55-0d9c1f2f7a11"' in result.stdout.replace(": ", ":")
    without = CliRunner().invoke(hunt, arguments[:-2])
    assert without.exit_code == 2
    assert "%admins% has no values" in without.stderr


def test_hunt_says_what_is_wrong_with_a_pipeline(tmp_path: Path) -> None:
    rules, events = write(tmp_path, "r.yml", RULE), write(tmp_path, "e.jsonl", EVENT)
    arguments = ["hunt", "--rules", str(rules), "--events", str(events), "--pipeline", "nosuch"]
    result = CliRunner().invoke(tocsin, arguments)
    assert "nosuch: no pipeline file" in str(result.exception)


def test_settings_name_both(tmp_path: Path) -> None:
    rules = write(tmp_path, "r.yml", RULE)
    settings = Settings(
        data_dir=tmp_path / "data",
        rules=(rules,),
        pipelines=(str(write(tmp_path, "p.yml", PIPELINE)),),
        placeholders=(write(tmp_path, "admins.txt", "ann"),),
    )
    loaded = load_rule_set(RuleSource.of(settings))
    assert loaded.refused == ()
    (compiled,) = loaded.plan.rules
    assert str(compiled.rule.logsource) == str(LogSource("windows", "process_creation", None))
    assert [(atom.field, atom.value) for atom in compiled.positive] == [("User", "ann")]
