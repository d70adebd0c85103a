from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tocsin.settings import Settings, SettingsError, load_settings
from tocsin.settings_sections import KafkaSourceSection, ListenerSection, RetentionSection, Section

REPOSITORY = Path(__file__).resolve().parent.parent


def test_defaults_stand_alone() -> None:
    settings = load_settings(None, {})
    assert settings.bus.kind == "embedded"
    assert settings.bus_path == Path("tocsin-data/bus.sqlite")


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[console]\nport = 1000\nhost = "file"\ntitle = "file"\n')
    settings = load_settings(
        config,
        {"TOCSIN_CONSOLE__PORT": "2000", "TOCSIN_CONSOLE__HOST": "environment", "OTHER": "x"},
        [("console.port", "3000")],
    )
    assert (settings.console.port, settings.console.host, settings.console.title) == (3000, "environment", "file")


@pytest.mark.parametrize(
    ("text", "environment", "flags", "words"),
    [
        ("[bus]\nkidn = 'kafka'", {}, [], ["config.toml", "bus.kidn", "unknown setting"]),
        ("", {"TOCSIN_BUS__KIDN": "kafka"}, [], ["TOCSIN_BUS__KIDN", "unknown setting"]),
        ("", {}, [("bus.kind", "rabbit")], ["--set bus.kind", "embedded"]),
        ("", {}, [("rules.x.y", "1"), ("rules.x.y.z", "1")], ["rules"]),
        ("not toml", {}, [], ["config.toml", "not valid TOML"]),
        ("[[collect.listeners]]\nname='a'\nport=70000\nhospital='h'", {}, [], ["collect.listeners.[a].port"]),
        ("[[collect.listeners]]\nname='a'", {}, [], ["collect.listeners.[a]", "hospital is missing"]),
        ("[[collect.listeners]]\nname='a'\nhopital='h'", {}, [], ["collect.listeners.[a].hopital", "unknown setting"]),
        ("[[collect.listeners]]\nname='a'\nhospital='a/b'", {}, [], ["[a].hospital", "without a slash"]),
        ("[[collect.listeners]]\nname='a'\nhospital=' .. '", {}, [], ["[a].hospital", "without a slash"]),
        ("", {}, [("rules", "/path")], ["--set rules: a list is wanted"]),
        ("[console]\ntime_zone='Europe/Brest'", {}, [], ["config.toml: console.time_zone", "'Europe/Brest'"]),
        (
            "[[collect.listeners]]\nname='a'\nhospital='h'\n[[collect.listeners]]\nname='a'\nhospital='h'",
            {},
            [],
            ["two listeners", "'a'"],
        ),
    ],
)
def test_a_bad_setting_is_one_clear_line(
    tmp_path: Path, text: str, environment: dict[str, str], flags: list[tuple[str, str]], words: list[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environment, flags)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load_settings(tmp_path / "absent.toml", {})


def test_a_number_may_be_a_password() -> None:
    assert load_settings(None, {"TOCSIN_BUS__PASSWORD": "12345"}).bus.password == "12345"


def test_values_are_read_as_toml_where_they_are() -> None:
    settings = load_settings(None, {"TOCSIN_RULES": '["a", "b"]', "TOCSIN_CONSOLE__TITLE": "SOC Bretagne"})
    assert settings.rules == (Path("a"), Path("b"))
    assert settings.console.title == "SOC Bretagne"


def keys(tree: object, prefix: str = "") -> set[str]:
    if isinstance(tree, list):
        return set().union(*(keys(item, prefix) for item in tree))
    if not isinstance(tree, dict):
        return {prefix}
    return set().union(*(keys(value, f"{prefix}.{name}".lstrip(".")) for name, value in tree.items()), set())


def test_the_sample_names_every_setting_with_its_default(tmp_path: Path) -> None:
    sample = (REPOSITORY / "deploy" / "config.toml").read_text("utf-8")
    # a setting whose default is "empty" stands as a comment: read those as well
    lines = [line.removeprefix("#: ") for line in sample.splitlines()]
    uncommented = tmp_path / "config.toml"
    uncommented.write_text("\n".join(lines))
    lists: dict[str, type[Section]] = {
        "collect.listeners": ListenerSection,
        "collect.kafka": KafkaSourceSection,
        "lake.retention": RetentionSection,
    }
    wanted = keys(Settings().model_dump()) - {*lists, ""}
    wanted |= {f"{section}.{name}" for section, model in lists.items() for name in model.model_fields}
    assert keys(tomllib.loads("\n".join(lines))) == wanted
    load_settings(uncommented, {})
    as_shipped = tmp_path / "shipped.toml"
    as_shipped.write_text(sample)
    shipped = load_settings(as_shipped, {}).model_dump(exclude={"collect"})
    assert shipped == Settings().model_dump(exclude={"collect"})
