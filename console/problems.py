"""Errors as answers: a page in plain language for people, `application/problem+json` (RFC 9457) under /api."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from console.context import console_of
from console.guard import API_PREFIX, secure
from console.languages import N_
from console.models import FaultModel, ProblemModel
from storage.errors import AlertNotFound, CursorError, DecisionConflict

PLAIN: Final[Mapping[int, tuple[str, str]]] = {
    400: (N_("This request cannot be read"), N_("The address or the form holds a value the console does not know.")),
    403: (N_("Not allowed"), N_("The console did not do this.")),
    404: (N_("There is nothing here"), N_("The address is wrong, or what it named is no longer kept.")),
    405: (N_("Not possible here"), N_("This address does not accept that kind of request.")),
    409: (
        N_("Somebody was faster"),
        N_("This alert has changed since you opened it. Look at its journal, then decide again."),
    ),
    413: (N_("Too large"), N_("The request is larger than the console accepts.")),
    415: (N_("Wrong kind of content"), N_("The content type of this request is not accepted here.")),
    422: (N_("This request cannot be read"), N_("The request holds a value the console does not accept.")),
    500: (
        N_("The console made a mistake"),
        N_("Nothing you did caused this. It has been written to the log of the console; please try again."),
    ),
    503: (N_("Not now"), N_("The console cannot do this at the moment; please try again.")),
}
"""Status code -> (title, what to know), as message ids."""

HEALTH_PATH: Final = "/healthz"
NO_ALERT: Final = N_("There is no alert with this id. It may have been removed when its retention ended.")


def answer(
    request: Request, status_code: int, detail: str | None = None, faults: tuple[FaultModel, ...] = ()
) -> Response:
    """The answer to a request that cannot be served; `detail` is a message id."""
    if _asked_by_program(request):
        return problem(request, status_code, detail, faults)
    title, plain = _plain(status_code)
    rendering = console_of(request).rendering
    context = {
        "status_code": status_code,
        "title": rendering.say(request, title),
        "detail": rendering.say(request, detail or plain),
        "faults": faults,
        "pulse": None,
        "pulse_expected": False,
    }
    return rendering.page(request, "problem.html", context, status_code)


def problem(
    request: Request, status_code: int, detail: str | None = None, faults: tuple[FaultModel, ...] = ()
) -> Response:
    """The same as `application/problem+json`."""
    title, plain = _plain(status_code)
    rendering = console_of(request).rendering
    told = ProblemModel(
        title=rendering.say(request, title),
        status=status_code,
        detail=rendering.say(request, detail or plain),
        errors=list(faults),
    )
    return JSONResponse(told.model_dump(), status_code, media_type="application/problem+json")


def _plain(status_code: int) -> tuple[str, str]:
    phrase = HTTPStatus(status_code).phrase
    return PLAIN.get(status_code, (phrase, phrase))


def _asked_by_program(request: Request) -> bool:
    return request.url.path.startswith(API_PREFIX) or request.url.path == HEALTH_PATH


def install(app: FastAPI) -> None:
    """Answer every error of the application this way."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(AlertNotFound, lambda request, _: answer(request, 404, NO_ALERT))
    app.add_exception_handler(DecisionConflict, lambda request, _: answer(request, 409))
    app.add_exception_handler(CursorError, _cursor)
    app.add_exception_handler(500, _crash)


def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    phrases = {HTTPStatus(error.status_code).phrase, ""}
    response = answer(request, error.status_code, None if error.detail in phrases else error.detail)
    response.headers.update(error.headers or {})
    return response


def _validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    faults = tuple(
        FaultModel(where=".".join(str(part) for part in fault["loc"]), message=str(fault["msg"]))
        for fault in error.errors()
    )
    return _unreadable(request, faults)


def _cursor(request: Request, error: Exception) -> Response:
    return _unreadable(request, (FaultModel(where="query.cursor", message=str(error)),))


def _unreadable(request: Request, faults: tuple[FaultModel, ...]) -> Response:
    return answer(request, 422 if _asked_by_program(request) else 400, None, faults)


def _crash(request: Request, _: Exception) -> Response:
    # Starlette answers a crash outside of all layers, so the headers are put on here; it then raises the error again,
    # and the server logs it with its traceback.
    response = answer(request, 500)
    secure(response.headers)
    return response
