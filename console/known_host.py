"""The names the console answers to.

A page from elsewhere can point its own name at this address (DNS rebinding); its requests then carry that name as
`Host`, and are refused before anything is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Request
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.languages import N_
from console.problems import problem

UNKNOWN_HOST: Final = N_(
    "The console does not answer to this host name; its setting allowed_hosts says to which it does."
)


class KnownHost:
    """ASGI layer: a request to another host name is refused with 400, as a problem (RFC 9457)."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self.app = app
        self.allowed_hosts = list(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its host is known."""
        known = False

        async def let_in(*_: object) -> None:
            nonlocal known
            known = True

        async def unsaid(_: Message) -> None:
            """Starlette's own refusal is replaced by ours."""

        trusted = TrustedHostMiddleware(let_in, allowed_hosts=self.allowed_hosts, www_redirect=False)
        await trusted(scope, receive, unsaid)
        if known:
            await self.app(scope, receive, send)
            return
        # Never a page: its links would be made from the host name that is not trusted.
        await problem(Request(scope, receive), 400, UNKNOWN_HOST)(scope, receive, send)
