"""`tocsin status`: how the processes fare, asked at their health endpoints. It works when the bus is down.

Exit status: 0 if all is well, 1 if something fails, 2 if a process cannot be reached.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from pydantic import ValidationError

from ingest.visible import visible
from tocsin.health_report import ProcessStatus, StageStatus
from tocsin.languages import N_, counted, gettext, number
from tocsin.settings import Settings, SettingsError
from tocsin.settings_options import settings_from, settings_options

ANSWER_SECONDS: Final = 20.0
ANSWER_BYTES: Final = 4 * 1024 * 1024
SHOWN_HOSPITALS: Final = 30
MEBIBYTE: Final = 1 << 20

FAILING, UNREACHABLE = 1, 2
"""Exit statuses."""

CHORES: Final = {"backup": N_("backup"), "maintain": N_("maintenance of the lake"), "verify": N_("check of the lake")}


class UnreachableError(Exception):
    """Nothing that speaks as a process of this version answers there; the message says what was asked, and why."""


@click.command()
@click.option("--url", "urls", multiple=True, metavar="URL", help="A process: http://HOST:PORT. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array: of each process its address and what it says.")
@settings_options
def status(urls: tuple[str, ...], as_json: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Show how processes fare: stages, hospitals, spool, bus, lake, alerts. Exit 1: something fails; 2: unreachable."""
    settings = settings_from(config, flags)
    answers = [(url, _ask(url, settings)) for url in urls or (own_url(settings),)]
    if as_json:
        click.echo(json.dumps([_as_json(url, answer) for url, answer in answers], ensure_ascii=False))
    else:
        for place, (url, answer) in enumerate(answers):
            if place:
                click.echo()
            for line in [str(answer)] if isinstance(answer, UnreachableError) else lines(answer, url):
                click.echo(line)
    raise SystemExit(exit_status([answer for _, answer in answers]))


def exit_status(answers: list[ProcessStatus | UnreachableError]) -> int:
    """0, `FAILING` or `UNREACHABLE`; a process that is not there is worse than one that says what it lacks."""
    if any(isinstance(answer, UnreachableError) for answer in answers):
        return UNREACHABLE
    return 0 if all(isinstance(answer, ProcessStatus) and well(answer) for answer in answers) else FAILING


def well(process: ProcessStatus) -> bool:
    """Whether nothing fails: it is ready, and what is done now and then went well."""
    return process.ready and process.alive and all(note.ok for note in process.chores)


def own_url(settings: Settings) -> str:
    """Where the process of these settings answers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.health.host, settings.health.host)  # noqa: S104
    return f"http://[{host}]:{settings.health.port}" if ":" in host else f"http://{host}:{settings.health.port}"


def _ask(url: str, settings: Settings) -> ProcessStatus | UnreachableError:
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or not host:
        raise SettingsError(gettext("--url {url}: write http://HOST:PORT").format(url=visible(url)))
    connection = http.client.HTTPConnection(host, port or 80, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        reason = gettext("{url}: nothing answers ({error}).").format(url=visible(url), error=visible(str(error)))
        return UnreachableError(f"{reason} {_advice(settings)}")
    finally:
        connection.close()
    try:
        if answer.status == HTTPStatus.OK:
            return ProcessStatus.model_validate_json(body)
    except ValidationError:
        pass
    reason = gettext("{url}: what answers there is no process of this version of Tocsin ({status}).")
    return UnreachableError(reason.format(url=visible(url), status=answer.status))


def _advice(settings: Settings) -> str:
    if settings.health.enabled:
        return gettext("Is the process running? Its port is health.port.")
    return gettext(
        "In these settings health.enabled is false: with true, a process answers at health.host, health.port."
    )


def _as_json(url: str, answer: ProcessStatus | UnreachableError) -> dict[str, object]:
    if isinstance(answer, UnreachableError):
        return {"url": url, "error": str(answer), "status": None}
    return {"url": url, "error": None, "status": answer.model_dump(mode="json")}


# -- the page --------------------------------------------------------------------------------------------------


def lines(seen: ProcessStatus, url: str) -> Iterator[str]:
    """The page of one process, at most about 80 signs wide unless a name or a reason is longer."""
    verdict = gettext("all well") if well(seen) else gettext("FAILING")
    since = span(seen.at - seen.began)
    yield f"tocsin {visible(seen.role)} {visible(seen.version)}  {visible(url)}"
    yield gettext("{verdict}, running for {span}").format(verdict=verdict, span=since)
    for reason in seen.reasons:
        yield f"  ! {visible(reason.part)}: {visible(reason.reason)}"
    for note in seen.chores:
        if not note.ok:
            yield f"  ! {gettext(CHORES[note.chore])}: {visible(note.reason)}"
    for title, body in (
        (gettext("Stages"), _stages(seen)),
        (gettext("Hospitals"), _hospitals(seen)),
        (gettext("Listeners"), _listeners(seen)),
        (gettext("Stores"), _stores(seen)),
    ):
        found = list(body)
        if found:
            yield title
            yield from (f"  {line}" for line in found)


def _stages(seen: ProcessStatus) -> Iterator[str]:
    width = max((len(visible(stage.name)) for stage in seen.stages), default=0)
    for stage in seen.stages:
        yield f"{visible(stage.name):{width}}  {_stage(stage)}"


def _stage(stage: StageStatus) -> str:
    if stage.starting and stage.failing is None:
        return gettext("starting, for {span}").format(span=span(timedelta(seconds=stage.idle)))
    parts = [gettext("last step {span} ago").format(span=span(timedelta(seconds=stage.idle)))]
    if stage.lag:
        waits = span(timedelta(seconds=stage.lag_seconds))
        parts.append(counted("{n} records wait, for {span}", stage.lag, grouped=True, span=waits))
    elif stage.lag is not None:
        parts.append(gettext("nothing waits"))
    if stage.stuck:
        parts.append(gettext("STUCK"))
    elif stage.failing is not None:
        parts.append(gettext("FAILING"))
    return ", ".join(parts)


def _hospitals(seen: ProcessStatus) -> Iterator[str]:
    shown = seen.hospitals[:SHOWN_HOSPITALS]
    width = max((len(visible(hospital.hospital)) for hospital in shown), default=0)
    for hospital in shown:
        rate = gettext("{rate} lines/s").format(rate=number(hospital.rate, 1))
        yield f"{visible(hospital.hospital):{width}}  {_last(hospital.last_line, seen.at)}, {rate}"
    beyond = len(seen.hospitals) - len(shown) + seen.hospitals_beyond
    if beyond:
        yield counted("and {n} more, heard later than these", beyond, grouped=True)


def _last(moment: datetime | None, at: datetime) -> str:
    if moment is None:
        return gettext("no line yet")
    return gettext("last line {span} ago").format(span=span(at - moment))


def _listeners(seen: ProcessStatus) -> Iterator[str]:
    for listener in seen.listeners:
        parts = [f"{visible(listener.name)}  {listener.transport} {visible(listener.address)}"]
        if listener.transport != "udp":
            parts.append(counted("{n} connections", listener.connections, grouped=True))
        if listener.refused:
            parts.append(counted("{n} refused", listener.refused, grouped=True))
        if listener.dropped:
            parts.append(counted("{n} datagrams lost", listener.dropped, grouped=True))
        yield ", ".join(parts)


def _stores(seen: ProcessStatus) -> Iterator[str]:
    if seen.rules is not None:
        rules = counted("{n} rules run", seen.rules.running, grouped=True)
        refused = counted("{n} refused", seen.rules.refused, grouped=True)
        yield gettext("rules: {running}, {refused}").format(running=rules, refused=refused)
    if seen.spool is not None:
        line = gettext("spool: {used} of {most} MiB").format(
            used=number(seen.spool.bytes / MEBIBYTE, 1), most=number(seen.spool.max_bytes / MEBIBYTE)
        )
        if seen.spool.oldest:
            line += ", " + gettext("oldest {span} old").format(span=span(seen.at - seen.spool.oldest))
        yield line
    if seen.bus is not None:
        yield gettext("bus: {kind}, {read} records read, {published} published, {errors} errors").format(
            kind=seen.bus.kind,
            read=number(seen.bus.read),
            published=number(seen.bus.published),
            errors=number(seen.bus.publish_errors),
        )
    if seen.lake is not None:
        yield gettext("lake: {place}, {failed} flushes failed").format(
            place=visible(seen.lake), failed=number(seen.lake_flushes_failed)
        )
    if seen.alerts is not None:
        waiting = "?" if seen.alerts.waiting is None else number(seen.alerts.waiting)
        total = "?" if seen.alerts.total is None else number(seen.alerts.total)
        yield gettext("alerts: {waiting} wait for an analyst, {total} in all").format(waiting=waiting, total=total)
    for note in seen.chores:
        done = gettext("done {span} ago") if note.ok else gettext("FAILED {span} ago")
        line = f"{gettext(CHORES[note.chore])}: {done.format(span=span(seen.at - note.at))}"
        yield f"{line}; {visible(note.reason)}" if note.ok and note.reason else line


def span(length: timedelta) -> str:
    """A length of time, in the largest unit that has two of it."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size in ((gettext("{n} d"), 86_400), (gettext("{n} h"), 3600), (gettext("{n} min"), 60)):
        if seconds >= 2 * size:
            return unit.format(n=seconds // size)
    return gettext("{n} s").format(n=seconds)
