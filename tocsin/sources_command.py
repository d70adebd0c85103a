"""`tocsin sources`: what each hospital sends, and whether received = stored + quarantined.

One process may hold the store's file, and that is the console's. So the console is asked, over its API; where none
answers, nobody holds the file, and it is read here.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

import click
from pydantic import ValidationError

from console.source_api import HospitalSourcesModel, SourceModel, SourcesModel
from console.source_view import SKEWED, SourceBook, State, Verdict
from ingest.bus import BusError
from ingest.registry import read_registry
from ingest.visible import visible
from storage.errors import StoreError
from storage.source_store import IN_FLIGHT, SourceStore
from tocsin.buses import open_bus
from tocsin.languages import N_, counted, gettext, number
from tocsin.settings import Settings, SettingsError
from tocsin.settings_options import settings_from, settings_options
from tocsin.source_stage import unread_records
from tocsin.text_table import table_lines

ANSWER_SECONDS: Final = 30.0
ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - not bound: asked instead

STATES: Final = {
    State.SILENT: N_("silent"),
    State.NEVER: N_("never seen"),
    State.NEW: N_("new"),
    State.OK: N_("ok"),
}
VERDICTS: Final = {
    Verdict.MISSING: N_("LINES ARE MISSING"),
    Verdict.DELAYED: N_("lines wait for more than five minutes"),
    Verdict.CUT_OFF: N_("a collector that held lines is not heard of any more"),
    Verdict.SURPLUS: N_("balanced; a collector ended before it could say all that it took"),
    Verdict.UNSAID: N_("no collector says what it took"),
    Verdict.IN_FLIGHT: N_("the last lines are on their way"),
    Verdict.BALANCED: N_("balanced"),
}


@click.command()
@click.option("--hospital", default="", help="Only this hospital.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as the console's API gives it.")
@click.option(
    "--check", is_flag=True, help="Exit 1 if lines are missing or cut off, or a source is silent or was never seen."
)
@settings_options
def sources(hospital: str, as_json: bool, check: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Show what each hospital sends: last line, rate, share understood, skew, and what became of its lines."""
    settings = settings_from(config, flags)
    seen = asked(settings, hospital)
    stale = False
    if seen is None:
        seen = read(settings, hospital)
        stale = all(seen.at - row.at > IN_FLIGHT for row in seen.collectors)
    if as_json:
        click.echo(seen.model_dump_json())
    else:
        zone = ZoneInfo(settings.console.time_zone)
        for line in lines(seen, zone):
            click.echo(line)
    if hospital and not seen.hospitals:
        raise SettingsError(gettext("{hospital}: nothing is known of this hospital").format(hospital=visible(hospital)))
    if stale:
        click.echo(gettext("No console answers, so nothing is counted now: these are its last counts"), err=True)
    if check and (stale or not sound(seen)):
        raise SystemExit(1)


def sound(seen: SourcesModel) -> bool:
    """Whether no line is missing, and every source is heard."""
    return not seen.platform and all(
        found.balance.verdict not in (Verdict.MISSING, Verdict.CUT_OFF)
        and found.state not in (State.SILENT, State.NEVER)
        and all(source.state not in (State.SILENT, State.NEVER) for source in found.sources)
        for found in seen.hospitals
    )


def asked(settings: Settings, hospital: str) -> SourcesModel | None:
    """What the console answers; None if none answers there.

    Raises:
        SettingsError: Something answers, but not what the console does.
    """
    section = settings.console
    host = ANY_ADDRESS.get(section.host, section.host)
    place = f"{host}:{section.port}"
    path = "/api/sources" + (f"?hospital={quote(hospital)}" if hospital else "")
    known = next((name for name in section.allowed_hosts if "*" not in name), host)
    connection = http.client.HTTPConnection(host, section.port, timeout=ANSWER_SECONDS)
    with closing(connection):
        try:
            connection.request("GET", path, headers={"Host": known})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
    if answer.status != http.client.OK:
        raise SettingsError(
            gettext("console at {place}: it answers {status}").format(place=place, status=answer.status)
        )
    try:
        return SourcesModel.model_validate_json(body)
    except ValidationError as error:
        reason = gettext("console at {place}: its answer is not that of this version").format(place=place)
        raise SettingsError(reason) from error


def read(settings: Settings, hospital: str) -> SourcesModel:
    """What the store's file says.

    Raises:
        SettingsError: It is not there, or a process holds it.
    """
    path = settings.alerts_path
    if not path.exists():
        raise SettingsError(gettext("{path}: no console has run here yet, so nothing is counted").format(path=path))
    try:
        with SourceStore.read_only(path) as store:
            hospitals = read_registry(settings.registry_path)
            book = SourceBook(store, lambda: hospitals, lambda: _lag(settings))
            return SourcesModel.of(book.view(datetime.now(UTC), hospital or None))
    except StoreError as error:
        place = f"{settings.console.host}:{settings.console.port}"
        reason = gettext("no console answers at {place}, and its store cannot be read: {error}")
        raise SettingsError(reason.format(place=place, error=error)) from error


def _lag(settings: Settings) -> int | None:
    if settings.bus.kind == "embedded" and not settings.bus_path.exists():
        return None
    try:
        with closing(open_bus(settings)) as bus:
            return unread_records(bus)
    except BusError:
        return None  # it is away: what waits there cannot be known


def lines(seen: SourcesModel, zone: tzinfo) -> Iterator[str]:
    """The tables, for people."""
    for found in seen.hospitals:
        yield from _hospital(found, seen.at, zone)
        yield ""
    for alert in seen.platform:
        yield gettext("The logs that come in are not being received or read: alert {alert}").format(alert=alert)
    drops = seen.shared_drops
    yield from _drops(drops.kernel, drops.queue, drops.refused)
    spooled = sum(row.spool_bytes for row in seen.collectors[:1])
    if spooled:
        yield counted("{n} bytes wait on a collector's disk", spooled, grouped=True)
    if seen.lag:
        yield counted("{n} batches on the bus are not read yet", seen.lag, grouped=True)


def _hospital(found: HospitalSourcesModel, at: datetime, zone: tzinfo) -> Iterator[str]:
    silent = f"  ** {gettext('silent')} **" if found.state is State.SILENT else ""
    name = found.hospital if found.title == found.hospital else f"{found.title} ({found.hospital})"
    yield visible(name) + silent
    balance = found.balance
    equation = gettext(
        "{received} received = {stored} stored (of which {again} were sent again) + {quarantined} quarantined "
        "+ {outstanding} to come"
    ).format(
        **{key: number(getattr(balance, key)) for key in ("received", "stored", "again", "quarantined", "outstanding")}
    )
    for text, amount in (
        (gettext("{n} missing"), balance.missing),
        (gettext("{n} cut off"), balance.cut_off),
        (gettext("{n} lost more than a week ago"), balance.earlier),
    ):
        equation += f" + {text.format(n=number(amount))}" if amount else ""
    overdue = f" ({number(balance.overdue)})" if balance.verdict is Verdict.DELAYED else ""
    yield f"  {equation}: {gettext(VERDICTS[balance.verdict])}{overdue}"
    for line in _drops(found.drops.kernel, found.drops.queue, found.drops.refused):
        yield f"  {line}"
    heads = [
        *(gettext("source"), gettext("state"), gettext("last line"), gettext("lines/min"), gettext("usual")),
        *(gettext("understood"), gettext("skew (s)"), gettext("marked")),
    ]
    rows = [_row(source, at, zone) for source in found.sources]
    for line in table_lines(heads, rows, numbers=(3, 4, 5, 6, 7)):
        yield f"  {line}"


def _row(source: SourceModel, at: datetime, zone: tzinfo) -> list[str]:
    where = " ".join(filter(None, (source.known_as, source.host, source.family, source.address)))
    skew = "" if source.skew is None else number(source.skew, 1)
    return [
        gettext("all others") if source.address == "*" else where,
        gettext(STATES[source.state]),
        gettext("never")
        if source.last is None
        else f"{source.last.astimezone(zone):%Y-%m-%d %H:%M:%S} ({ago(at - source.last)})",
        number(source.rate, 1),
        "" if source.usual is None else number(source.usual, 1),
        "" if source.understood is None else f"{number(int(source.understood * 1000) / 10, 1)} %",
        skew + (" !" if source.skew is not None and abs(source.skew) > SKEWED else ""),
        number(source.marked),
    ]


def ago(span: timedelta) -> str:
    """How long ago, in the largest unit that has two of it."""
    seconds = max(0, int(span.total_seconds()))
    for unit, size in ((gettext("{n} d"), 86_400), (gettext("{n} h"), 3600), (gettext("{n} min"), 60)):
        if seconds >= 2 * size:
            return unit.format(n=seconds // size)
    return gettext("{n} s").format(n=seconds)


def _drops(kernel: int, queue: int, refused: dict[str, int]) -> Iterator[str]:
    if kernel:
        yield counted("{n} datagrams dropped by the kernel", kernel, grouped=True)
    if queue:
        yield counted("{n} datagrams dropped because too much was waiting", queue, grouped=True)
    for reason, times in sorted(refused.items()):
        yield gettext("refused: {reason} ({n})").format(reason=visible(reason), n=number(times))
