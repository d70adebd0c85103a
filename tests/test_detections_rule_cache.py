"""The cache gives the rules that their files would give, or nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sigma.processing.pipeline import ProcessingPipeline

import detections.plan_load
import detections.rule_cache
from detections.atoms import atoms_of
from detections.compile import CompiledRule, Placeholders, compile_rule
from detections.expression_codec import CodecError
from detections.filters import FilteredSigma
from detections.load import load_rules
from detections.pipelines import load_pipelines, pipelines_fingerprint
from detections.plan import Plan
from detections.plan_load import KnownRules, LoadedRules, load_plan
from detections.rule import Refusal, Rule, RuleChangedError
from detections.rule_cache import FILES_KEPT, FORMAT, RuleCache, _seal, cache_name, decode_rules, encode_rules

NAME: Final = "n" * 64

SHELL: Final = """
title: Shell
id: 4d3e8f6e-0000-4000-8000-000000000001
name: shell
tags: [attack.execution, attack.t1059.003]
level: high
logsource: {product: windows, category: process_creation}
detection:
  sel: {Image|endswith: '\\cmd.exe', CommandLine|contains|all: [' /c ', 'Ünïcode']}
  words: ['telling keyword']
  other: {EventID: [1, 4688], User|re: '(?i)adm.*', Size|gt: 7, Parent: null, Child|exists: true, Ip|cidr: 10.0.0.0/8}
  slow: {CommandLine|re: '(?=a)b'}
  condition: sel and not (words or other) and not slow
"""
USER: Final = """
title: User
id: 4d3e8f6e-0000-4000-8000-000000000002
logsource: {product: windows, category: process_creation}
detection: {sel: {User|expand: '%admins%'}, condition: sel}
"""
BROKEN: Final = "title: Broken\nlogsource: {product: windows}\ndetection: {sel: {A|foo: b}, condition: sel}\n"
UNFIT: Final = """
title: Unfit
id: my-own-id
logsource: {product: windows}
detection: {a: {b: c}, condition: nothing}
---
title: Unreadable
logsource: {product: windows}
detection: {a: {b: c}, condition: a) or (a}
"""
CORRELATIONS: Final = """
title: Often
name: often
correlation:
  type: event_count
  rules: shell
  group-by: [User]
  timespan: 5m
  condition: {gte: 3, lt: 10.5}
  generate: true
---
title: Percentile
correlation:
  type: value_percentile
  rules: [shell]
  group-by: [who]
  aliases: {who: {shell: User}}
  timespan: 1h
  condition: {field: Size, percentile: 95, gt: 5}
---
title: Both
correlation: {type: temporal, rules: [shell, often], timespan: 5m, condition: shell and often}
---
title: To nothing
correlation: {type: temporal, rules: [nothing], timespan: 5m}
"""
FILTER: Final = """
title: Administrators
logsource: {product: windows}
filter: {rules: any, selection: {User|startswith: adm}, condition: not selection}
"""
PIPELINE: Final = """
name: Ours
priority: 10
transformations:
  - {id: names, type: field_name_mapping, mapping: {User: user.name}}
  - {id: source, type: change_logsource, product: linux, category: process_creation}
"""
ADMINS: Final = {"admins": ("ann", "bob*")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rules = tmp_path / "rules"
    rules.mkdir()
    texts = {"shell": SHELL, "user": USER, "broken": BROKEN, "unfit": UNFIT, "cor": CORRELATIONS, "copy": SHELL}
    for name, text in texts.items():
        (rules / f"{name}.yml").write_text(text)
    return rules


@pytest.fixture
def cache(tmp_path: Path) -> RuleCache:
    return RuleCache(tmp_path / "data" / "cache")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles of the rules that were compiled."""
    titles: list[str] = []

    def noted(
        rule: Rule, placeholders: Placeholders | None, pipeline: ProcessingPipeline | None
    ) -> CompiledRule | Refusal:
        titles.append(rule.title)
        return compile_rule(rule, placeholders, pipeline)

    monkeypatch.setattr(detections.plan_load, "compile_rule", noted)
    return titles


def told(loaded: LoadedRules) -> tuple[object, ...]:
    """All that a load gives, each author's text too."""
    texts = [[atom.text for atom in compiled.positive] for compiled in loaded.plan.rules]
    lines = [[dict(rule.lines) for rule in rules] for rules in (loaded.pack.rules, loaded.pack.correlations)]
    heads = [(compiled.rule, compiled.slow, compiled.ungated) for compiled in loaded.plan.rules]
    return loaded.pack, loaded.plan.rules, loaded.plan.refused, texts, lines, heads


def cold(folder: Path, **options: object) -> tuple[object, ...]:
    """The same without anything known."""
    pack = load_rules([folder])
    plan = Plan.build(pack.rules, **options)  # type: ignore[arg-type]
    return told(LoadedRules(pack, plan, KnownRules()))


def again(cache: RuleCache, loaded: LoadedRules) -> KnownRules:
    """What the cache gives of a load."""
    cache.save(NAME, loaded.known)
    return cache.load(NAME)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("piped", [False, True])
def test_what_is_kept_gives_what_the_files_give(
    folder: Path, cache: RuleCache, compilations: list[str], *, filtered: bool, piped: bool
) -> None:
    if filtered:
        (folder / "filter.yml").write_text(FILTER)
    (folder.parent / "p.yml").write_text(PIPELINE)
    pipeline = load_pipelines([folder.parent / "p.yml"]) if piped else None
    expected = cold(folder, placeholders=ADMINS, pipeline=pipeline)
    first = load_plan([folder], ADMINS, pipeline)
    assert told(first) == expected
    assert [compiled.rule.title for compiled in first.plan.rules] == ["Shell", "User"]
    assert sorted(compilations) == ["Shell", "Unfit", "Unreadable", "User"]
    known = again(cache, first)
    compilations.clear()
    second = load_plan([folder], ADMINS, pipeline, known=known)
    assert told(second) == expected
    assert compilations == []
    assert second.known.changed is filtered  # the file of the filter is read each time
    for one, other in zip(second.plan.rules, first.plan.rules, strict=True):
        assert compile_rule(one.rule, ADMINS) == compile_rule(other.rule, ADMINS) == replace(one, rule=one.rule)


def test_all_of_sigmahq_from_the_cache_is_all_of_sigmahq(shared_data: Path, cache: RuleCache) -> None:
    folders = [shared_data / "sigmahq" / f"rules{more}" for more in ("", "-emerging-threats", "-threat-hunting")]
    first = load_plan(folders)
    assert len(first.plan.rules) > 3500
    known = again(cache, first)
    second = load_plan(folders, known=known)
    assert not second.known.changed
    pack = load_rules(folders)
    expected = Plan.build(pack.rules)
    for loaded in (first, second):
        assert told(loaded) == told(LoadedRules(pack, expected, KnownRules()))
    assert second.pack.rules[7].sigma.detection == pack.rules[7].sigma.detection


def test_of_changed_files_only_what_changed_is_done_again(
    folder: Path, cache: RuleCache, compilations: list[str]
) -> None:
    known = again(cache, load_plan([folder], ADMINS))
    compilations.clear()
    (folder / "user.yml").write_text(USER.replace("sel:", "who:").replace("condition: sel", "condition: who"))
    (folder / "copy.yml").unlink()
    (folder / "shell.yml").rename(folder / "moved.yml")
    assert told(load_plan([folder], ADMINS, known=known)) == cold(folder, placeholders=ADMINS)
    assert compilations == ["User"]


def test_rules_that_were_not_wanted_are_compiled_when_they_are(
    folder: Path, cache: RuleCache, compilations: list[str]
) -> None:
    known = again(cache, load_plan([folder], ADMINS, wanted=lambda rule: rule.level == "high"))
    assert compilations == ["Shell"]
    assert told(load_plan([folder], ADMINS, known=known)) == cold(folder, placeholders=ADMINS)
    assert compilations == ["Shell", "Unfit", "Unreadable", "User"]


def test_a_filter_that_changes_compiles_its_rules_anew(folder: Path, cache: RuleCache, compilations: list[str]) -> None:
    (folder / "filter.yml").write_text(FILTER)
    first = load_plan([folder], ADMINS)
    (folder / "filter.yml").write_text(FILTER.replace("adm", "svc"))
    compilations.clear()
    second = load_plan([folder], ADMINS, known=again(cache, first))
    assert told(second) == cold(folder, placeholders=ADMINS)
    assert compilations == ["Shell", "User"]  # of the others no condition can be read, so no filter is joined
    outcomes = [key for file in second.known.files.values() for key in file.outcomes]
    assert len(outcomes) == 4  # those of the filter that has gone are not carried along
    (folder / "filter.yml").unlink()
    third = load_plan([folder], ADMINS, known=second.known)
    assert told(third) == cold(folder, placeholders=ADMINS)


def test_a_rule_is_read_again_when_somebody_asks(folder: Path, cache: RuleCache) -> None:
    (folder / "filter.yml").write_text(FILTER)
    known = again(cache, load_plan([folder], ADMINS))
    rule = next(rule for rule in load_plan([folder], ADMINS, known=known).pack.rules if rule.title == "Shell")
    assert isinstance(rule.parsed, FilteredSigma)
    expected = next(item for item in load_rules([folder]).rules if item.title == "Shell")
    assert rule.sigma.detection == expected.sigma.detection
    assert "_filter_1_selection" in rule.sigma.detection.detections
    assert rule.sigma is rule.sigma
    assert "adm" in str(compile_rule(rule))


@pytest.mark.parametrize(("text", "reason"), [("title: [", "changed since"), (None, "cannot be read|not a file")])
def test_a_rule_whose_file_has_changed_says_so(folder: Path, cache: RuleCache, text: str | None, reason: str) -> None:
    known = again(cache, load_plan([folder], ADMINS))
    rules = {rule.title: rule for rule in load_plan([folder], ADMINS, known=known).pack.rules}
    path = rules["User"].path
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(RuleChangedError, match=reason):
        _ = rules["User"].sigma


def test_a_piped_rule_is_piped_when_somebody_asks(folder: Path, cache: RuleCache) -> None:
    (folder.parent / "p.yml").write_text(PIPELINE)
    pipeline = load_pipelines([folder.parent / "p.yml"])
    known = again(cache, load_plan([folder], ADMINS, pipeline))
    user = next(
        item for item in load_plan([folder], ADMINS, pipeline, known=known).plan.rules if item.rule.title == "User"
    )
    assert (str(user.rule.logsource), user.positive[0].field) == (str(user.rule.logsource), "user.name")
    assert user.rule.logsource.product == "linux"
    (item,) = user.rule.sigma.detection.detections["sel"].detection_items
    assert getattr(item, "field", None) == "user.name"


def test_everything_that_decides_is_in_the_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "p.yml").write_text(PIPELINE)
    plain = pipelines_fingerprint([])
    piped = pipelines_fingerprint([folder.parent / "p.yml"])
    (folder.parent / "p.yml").write_text(PIPELINE.replace("user.name", "who"))
    other = pipelines_fingerprint([folder.parent / "p.yml"])
    assert plain is not None
    assert piped is not None
    assert other is not None
    names = [
        cache_name([folder], {}, plain),
        cache_name([folder], ADMINS, plain),
        cache_name([folder], {"admins": ("ann",)}, plain),
        cache_name([folder], {}, piped),
        cache_name([folder], {}, other),
        cache_name([folder / "shell.yml"], {}, plain),
    ]
    monkeypatch.setattr(detections.rule_cache, "code_digest", lambda: "another")
    names.append(cache_name([folder], {}, plain))
    assert len(set(names)) == len(names)
    assert pipelines_fingerprint(["sysmon"]) is None  # code: not known by its content


def test_only_its_owner_sees_the_cache(folder: Path, cache: RuleCache) -> None:
    cache.save(NAME, load_plan([folder], ADMINS).known)
    (file,) = cache.folder.iterdir()
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o620)
    assert cache.load(NAME) == KnownRules()


def test_a_cache_that_cannot_be_written_is_only_a_warning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "cache", tmp_path / "file"):
        RuleCache(place).save(NAME, load_plan([folder], ADMINS).known)
        assert "compiled rules not kept" in "".join(capsys.readouterr())
        assert RuleCache(place).load(NAME) == KnownRules()


def test_many_may_write_at_once(folder: Path, cache: RuleCache) -> None:
    loaded = load_plan([folder], ADMINS)
    expected = set(encode(loaded))

    def work(_: int) -> None:
        cache.save(NAME, loaded.known)
        assert set(cache.load(NAME).encoded) == expected

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(work, range(40)))) == 40
    assert len(list(cache.folder.iterdir())) == 1


def encode(loaded: LoadedRules) -> dict[str, object]:
    """The files of a cache file."""
    payload = encode_rules(loaded.known, NAME).split(b"\n", 2)[2]
    return cast("dict[str, object]", orjson.loads(payload)["files"])


def test_caches_that_nobody_uses_are_removed(folder: Path, cache: RuleCache) -> None:
    known = load_plan([folder], ADMINS).known
    for number in range(FILES_KEPT + 3):
        cache.save(f"{number}", known)
        os.utime(cache.folder / f"{number}.rules", (number, number))
    cache.load("3")  # used: it stays
    cache.save("last", known)
    names = {path.stem for path in cache.folder.iterdir()}
    assert len(names) == FILES_KEPT
    assert {"3", "last"} <= names
    assert "4" not in names


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_bytes_are_no_cache(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, headed: bool, sealed: bool
) -> None:
    folder = tmp_path_factory.mktemp("c")
    whole = (FORMAT if headed else b"") + (_seal(NAME, data) + b"\n" if sealed else b"") + data
    (folder / f"{NAME}.rules").write_bytes(whole)
    (folder / f"{NAME}.rules").chmod(0o600)
    assert RuleCache(folder).load(NAME) == KnownRules()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder of rules, and its cache file."""
    folder = tmp_path_factory.mktemp("small")
    for name, text in {"a": SHELL, "b": UNFIT, "c": CORRELATIONS}.items():
        (folder / f"{name}.yml").write_text(text)
    return folder, encode_rules(load_plan([folder]).known, NAME)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_cache_is_made_anew(
    small: tuple[Path, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder, whole = small
    at = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    damaged = {
        "cut": whole[:at],
        "flip": whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :],
        "insert": whole[:at] + b" " + whole[at:],
    }[change]
    cache = RuleCache(tmp_path_factory.mktemp("c"))
    (cache.folder / f"{NAME}.rules").write_bytes(damaged)
    known = cache.load(NAME)
    assert known == KnownRules()
    loaded = load_plan([folder], known=known)
    assert told(loaded) == cold(folder)
    assert set(again(cache, loaded).encoded) == set(encode(loaded))


def test_a_cache_under_another_name_is_foreign(small: tuple[Path, bytes], cache: RuleCache) -> None:
    cache.folder.mkdir(parents=True)
    (cache.folder / "other.rules").write_bytes(small[1])
    assert cache.load("other") == KnownRules()


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_sealed_and_has_another_shape_raises_nothing(small: tuple[Path, bytes], data: st.DataObject) -> None:
    folder, whole = small
    tree = orjson.loads(whole.split(b"\n", 2)[2])
    places = list(_places(tree))
    parent, key = places[data.draw(st.integers(0, len(places) - 1))]
    parent[key] = data.draw(JSON)
    payload = orjson.dumps(tree)
    try:
        known = decode_rules(FORMAT + _seal(NAME, payload) + b"\n" + payload, NAME)
    except CodecError:
        return
    loaded = load_plan([folder], known=known)
    for compiled in loaded.plan.rules:
        assert str(compiled.rule.refuse("reason"))
        assert all(isinstance(atom.value, str) for atom in atoms_of(compiled.expression))
    assert {rule.level for rule in loaded.pack.rules} <= {"high", "medium"}
    assert all(str(refusal) for refusal in (*loaded.plan.refused, *loaded.pack.refused))
    assert told(LoadedRules(loaded.pack, loaded.plan, KnownRules()))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - JSON of any shape
    """Every list and map of a tree with each of its places."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
