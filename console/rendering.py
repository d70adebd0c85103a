"""Pages from templates: one Jinja environment a language, autoescaped, and no string leaves it unseen.

`finalize` runs over whatever a template puts out: a string that is not already HTML has its hidden characters replaced
(`console.visible`) and is then escaped. A template cannot forget it.
"""

from __future__ import annotations

import gettext
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

from babel.dates import format_skeleton, format_timedelta
from babel.numbers import format_decimal, format_percent
from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from console import wording
from console.guard import SAME_SITE_COOKIE
from console.languages import LANGUAGE_COOKIE, LANGUAGE_NAMES, choose_language, load_catalogs
from console.rule_text import linkable
from console.settings import ConsoleSettings
from console.visible import evidence_line, highlighted, marked_up, shown
from storage.alert import Level, Status

TEMPLATES: Final = Path(__file__).parent / "templates"
_SECOND: Final = timedelta(seconds=1)
COOKIE_SECONDS: Final = 365 * 24 * 3600


class Rendering:
    """Renders the pages of one console in every language."""

    def __init__(self, settings: ConsoleSettings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._catalogs = load_catalogs()
        self._environments = {
            code: _environment(code, catalog, settings, clock) for code, catalog in self._catalogs.items()
        }

    def language(self, request: Request) -> str:
        """The language of this request."""
        return choose_language(
            request.query_params.get("lang"),
            request.cookies.get(LANGUAGE_COOKIE),
            request.headers.get("accept-language"),
            self._settings.default_language,
        )

    def say(self, request: Request, message: str) -> str:
        """A message id in the language of this request."""
        return self._catalogs[self.language(request)].gettext(message)

    def page(
        self, request: Request, template: str, context: Mapping[str, object], status_code: int = 200
    ) -> HTMLResponse:
        """A whole page, with the cookies that remember the language and prove later forms to be ours."""
        code = self.language(request)
        text = (
            self._environments[code]
            .get_template(template)
            .render(
                {
                    **context,
                    "request": request,
                    "languages": [
                        (other, LANGUAGE_NAMES[other], str(request.url.include_query_params(lang=other).query))
                        for other in LANGUAGE_NAMES
                    ],
                }
            )
        )
        response = HTMLResponse(
            text, status_code, headers={"Content-Language": code, "Vary": "Accept-Language, Cookie"}
        )
        secure_only = request.url.scheme == "https"
        response.set_cookie(SAME_SITE_COOKIE, "1", samesite="strict", httponly=True, secure=secure_only)
        if request.query_params.get("lang") == code:
            response.set_cookie(
                LANGUAGE_COOKIE, code, max_age=COOKIE_SECONDS, samesite="lax", httponly=True, secure=secure_only
            )
        return response


def _environment(
    code: str, catalog: gettext.GNUTranslations, settings: ConsoleSettings, clock: Callable[[], datetime]
) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        extensions=["jinja2.ext.i18n"],
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.install_gettext_translations(catalog, newstyle=True)  # type: ignore[attr-defined]
    environment.policies["ext.i18n.trimmed"] = True
    zone = settings.zone()
    environment.tests["linkable"] = linkable
    environment.globals.update(
        lang=code,
        settings=settings,
        Level=Level,
        Status=Status,
        level_name=lambda level: catalog.gettext(wording.LEVEL_NAMES[level]),
        status_name=lambda status: catalog.gettext(wording.STATUS_NAMES[status]),
        status_keys=wording.STATUS_KEYS,
        since_choices=[(key, catalog.gettext(name)) for key, (name, _) in wording.SINCE.items()],
        now=clock,
    )
    environment.filters.update(
        visible=marked_up,
        highlight=highlighted,
        evidence=evidence_line,
        tag=wording.tag_name,
        short_host=wording.short_host,
        number=lambda value: format_decimal(value, locale=code),
        moment=lambda value: moment(value, code, zone, clock()),
        ago=lambda value: format_timedelta(min(value - clock(), -_SECOND), add_direction=True, locale=code),
        percent=lambda value: format_percent(math.floor(value * 1000) / 1000, "#,##0.#%", locale=code),
        rule_title=lambda alert: (
            catalog.gettext(wording.RULE_TITLES[alert.rule_id])
            if alert.rule_id in wording.RULE_TITLES
            else alert.rule_title
        ),
    )
    return environment


def _finalize(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Markup):
        return shown(value)
    return value


def moment(value: datetime, code: str, zone: tzinfo, now: datetime) -> Markup:
    """A `<time>` element: local date and time to read, UTC for machines and in the tooltip."""
    in_utc = value.astimezone(UTC)
    try:
        local = in_utc.astimezone(zone)
    except OverflowError:  # the first and last day of `datetime`'s range
        local = in_utc
    skeleton = "MMMd" if local.year == now.astimezone(zone).year else "yMMMd"
    return Markup('<time datetime="{}" title="{} UTC"><span class="day">{}</span> {}</time>').format(
        in_utc.isoformat().replace("+00:00", "Z"),
        in_utc.replace(tzinfo=None).isoformat(" ", "seconds"),
        format_skeleton(skeleton, local, locale=code),
        local.strftime("%H:%M:%S"),
    )
