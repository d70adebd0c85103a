"""Guards around every request: headers, size, and where a change may come from.

- The Content-Security-Policy allows this origin's files and nothing else, no inline script or style: should log text
  ever reach a page unescaped, the browser still runs none of it.
- A change (POST) must come from a page of this origin. Three signs are asked for, since each has gaps: `Sec-Fetch-Site`
  (Fetch Metadata; old browsers lack it), `Origin` (RFC 6454), and for forms a `SameSite=Strict` cookie that every page
  sets. A JSON change must say `application/json`, which another origin cannot send without a CORS preflight, and the
  console answers none.
- Trap: `Referrer-Policy: no-referrer` makes browsers send `Origin: null` with our own forms; hence `same-origin`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.languages import N_

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
BODY_MAX: Final = 64 * 1024  # a note is at most 4,000 characters; nginx allows 1 MiB, nothing here needs it
SAME_SITE_COOKIE: Final = "tocsin_same_site"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
API_PREFIX: Final = "/api/"


def secure(headers: MutableHeaders) -> None:
    """Put the security headers on a response; log text must not stay in caches, unless the response says otherwise."""
    for name, value in SECURITY_HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")


class SecurityHeaders:
    """ASGI layer: the security headers on every response that passes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the headers as the response starts."""

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                secure(MutableHeaders(scope=message))
            await send(message)

        await self.app(scope, receive, send_secured if scope["type"] == "http" else send)


class BodyLimit:
    """ASGI layer: a request body longer than `BODY_MAX` bytes is refused with 413 as soon as that is known."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; count its body as it is read."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        too_long = announced.isdecimal() and int(announced[:20]) > BODY_MAX
        counted = 0

        async def receive_counted() -> Message:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if too_long or counted > BODY_MAX:
                # Raised where the application reads the body, so that it is answered like any other refusal.
                raise HTTPException(413, N_("The request is larger than the console accepts."))
            return message

        await self.app(scope, receive_counted, send)


class HeadAsGet:
    """ASGI layer: HEAD is answered as GET is, without the body (RFC 9110, 9.3.2); load balancers ask that way."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass HEAD on as GET; send only the head of the answer."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # A copy: the server must still see HEAD, or it would wait for the body that Content-Length announces.
        await self.app({**scope, "method": "GET"}, receive, send_head)


def same_origin(request: Request) -> None:
    """Refuse a change that a page of this console did not make (FastAPI dependency of every route).

    Raises:
        HTTPException: 403 for another origin, 415 for a content type that a form of another origin could send.
    """
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin")
    fetch_site = request.headers.get("sec-fetch-site")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.url.path.startswith(API_PREFIX):
        wanted, proven = "application/json", True
    else:
        wanted = "application/x-www-form-urlencoded"
        proven = SAME_SITE_COOKIE in request.cookies and not (origin is None and fetch_site is None)
    if not proven or fetch_site not in (None, "same-origin") or not _is_here(origin, request):
        raise HTTPException(
            403, N_("This change did not come from a page of this console, so it was not made. Reload the page.")
        )
    if content_type != wanted:
        raise HTTPException(415, N_("The content type of this request is not accepted here."))


def _is_here(origin: str | None, request: Request) -> bool:
    # Only the authority is compared: behind a proxy that ends TLS the scheme we see is not the browser's.
    return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
