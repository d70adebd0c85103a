"""The JSON API of sources: what each hospital sends, and whether received = stored + quarantined. All times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, Field

from console.asking import NAME_MAX, only_known_parameters
from console.context import TheConsole
from console.languages import N_
from console.models import ProblemModel
from console.source_view import HospitalSources, SourceLine, SourcesView, State, Verdict
from storage.source import Drops

router = APIRouter(prefix="/api", tags=["sources"], dependencies=[Depends(only_known_parameters)])

NOT_KNOWN: Final = N_("What the hospitals send is not known here")
_NOT_KNOWN: Final = {"model": ProblemModel, "description": "This console does not know what is sent."}


class DropsModel(BaseModel):
    """What was sent and not kept."""

    queue: Annotated[int, Field(description="Datagrams dropped because too much was waiting.")]
    kernel: Annotated[int, Field(description="Datagrams that the kernel dropped.")]
    refused: Annotated[dict[str, int], Field(description="Reason -> connections and datagrams refused.")]

    @classmethod
    def of(cls, drops: Drops) -> DropsModel:
        """From the store's value."""
        return cls(queue=drops.queue, kernel=drops.kernel, refused=dict(drops.refused))


class SourceModel(BaseModel):
    """A source."""

    address: Annotated[str, Field(description="Of the sender; * for all beyond the bound.")]
    host: str
    family: Annotated[str, Field(description="Of the format that reads its lines.")]
    known_as: Annotated[str, Field(description="Its name in the registry, or empty.")]
    state: State
    first: datetime | None
    last: datetime | None
    rate: Annotated[float, Field(description="Lines a minute in the last hour.")]
    usual: Annotated[float | None, Field(description="Lines a minute, usually, at such an hour.")]
    lines: int
    understood: Annotated[float | None, Field(description="Share, 0 to 1, of the last day.")]
    skew: Annotated[float | None, Field(description="Seconds from the time of a line to its receipt, median.")]
    marked: int
    again: Annotated[int, Field(description="Lines recognised as sent again.")]
    alert_id: Annotated[str, Field(description="The alert on its silence, or empty.")]

    @classmethod
    def of(cls, line: SourceLine) -> SourceModel:
        """From the view's value."""
        name = line.name
        members = {field: getattr(line, field) for field in cls.model_fields if hasattr(line, field)}
        return cls.model_validate({**members, "address": name.address, "host": name.host, "family": name.family})


class BalanceModel(BaseModel):
    """received = stored + quarantined + outstanding + missing + cut_off + earlier."""

    received: Annotated[int, Field(description="Lines that collectors took.")]
    stored: Annotated[int, Field(description="Lines in the lake.")]
    again: Annotated[int, Field(description="Of these, lines recognised as sent again.")]
    quarantined: Annotated[int, Field(description="Lines of batches that could not be read.")]
    outstanding: Annotated[int, Field(description="Lines on their way: with a collector or on the bus.")]
    overdue: Annotated[int, Field(description="Of these, lines taken more than five minutes ago.")]
    missing: Annotated[int, Field(description="Lines that were on the bus and did not come out of it.")]
    cut_off: Annotated[int, Field(description="Lines held by a collector that is not heard of any more.")]
    earlier: Annotated[int, Field(description="Missing or cut off in runs that ended more than a week ago.")]
    surplus: Annotated[int, Field(description="Lines beyond what a collector said before it ended.")]
    unsaid: Annotated[int, Field(description="Unreadable batches that do not say how many lines they hold.")]
    verdict: Verdict


class HospitalSourcesModel(BaseModel):
    """A hospital and what it sends."""

    hospital: str
    title: str
    state: State
    last: datetime | None
    balance: BalanceModel
    drops: DropsModel
    alert_id: str
    sources: list[SourceModel]

    @classmethod
    def of(cls, seen: HospitalSources) -> HospitalSourcesModel:
        """From the view's value."""
        balance = seen.balance
        equation = {name: getattr(balance, name) for name in BalanceModel.model_fields if name != "verdict"}
        return cls(
            hospital=seen.tenant,
            title=seen.title,
            state=seen.state,
            last=seen.last,
            balance=BalanceModel.model_validate({**equation, "verdict": seen.verdict}),
            drops=DropsModel.of(seen.drops),
            alert_id=seen.alert_id,
            sources=[SourceModel.of(line) for line in seen.sources],
        )


class CollectorModel(BaseModel):
    """A collector at its last report."""

    run: str
    at: datetime
    final: Annotated[bool, Field(description="Whether it ended in good order.")]
    spool_bytes: int
    spool_oldest: datetime | None
    waiting_bytes: int


class SourcesModel(BaseModel):
    """Everything, the worst first."""

    at: datetime
    lag: Annotated[int | None, Field(description="Records on the bus that are not read yet; null: not known.")]
    missing: Annotated[int, Field(description="Lines that are missing.")]
    shared_drops: Annotated[DropsModel, Field(description="On listeners where several hospitals send.")]
    platform: Annotated[list[str], Field(description="Alerts on silences of our own.")]
    collectors: list[CollectorModel]
    hospitals: list[HospitalSourcesModel]

    @classmethod
    def of(cls, view: SourcesView) -> SourcesModel:
        """From the view."""
        return cls(
            at=view.at,
            lag=view.lag,
            missing=view.missing,
            shared_drops=DropsModel.of(view.shared),
            platform=[silence.alert_id for silence in view.platform],
            collectors=[CollectorModel.model_validate(row, from_attributes=True) for row in view.collectors],
            hospitals=[HospitalSourcesModel.of(seen) for seen in view.hospitals],
        )


@router.get("/sources", responses={404: _NOT_KNOWN})
def get_sources(console: TheConsole, hospital: Annotated[str, Query(max_length=NAME_MAX)] = "") -> SourcesModel:
    """What each hospital sends, or one of them."""
    if console.sources is None:
        raise HTTPException(404, NOT_KNOWN)
    return SourcesModel.of(console.sources.view(console.clock(), hospital or None))
