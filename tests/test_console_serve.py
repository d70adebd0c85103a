from __future__ import annotations

import http.client
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from console.errors import ConsoleError
from console.guard import HeadAsGet
from console.serve import serve


def bell(_: Request) -> PlainTextResponse:
    return PlainTextResponse("dong")


APP = Starlette(routes=[Route("/bell", bell)])


def ask(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/bell")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_port_0_takes_a_free_port_and_says_which() -> None:
    with serve(APP, port=0) as running:
        assert running.port != 0
        assert running.url == f"http://127.0.0.1:{running.port}"
        assert [ask(running.port), running.alive] == [b"dong", True]
    assert not running.alive
    with pytest.raises(OSError, match="refused"):
        ask(running.port)
    running.stop()


def test_head_leaves_the_connection_fit_for_the_next_request() -> None:
    with serve(HeadAsGet(APP), port=0) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
        seen = []
        for method in ("HEAD", "GET", "HEAD"):
            connection.request(method, "/bell")
            answer = connection.getresponse()
            seen.append((answer.status, answer.getheader("content-length"), answer.read()))
        connection.close()
    assert seen == [(200, "4", b""), (200, "4", b"dong"), (200, "4", b"")]


def test_a_port_can_be_served_again_at_once() -> None:
    with serve(APP, port=0) as first:
        ask(first.port)
    with serve(APP, port=first.port) as second:
        assert ask(second.port) == b"dong"


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConsoleError) as caught:
            serve(APP, port=port)
    assert str(caught.value) == f"console: cannot listen on 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("no-such-host.invalid", 0), ("127.0.0.1", 70000), ("127.0.0.1", -1)]
)
def test_an_address_that_cannot_be_had_is_one_clear_line(host: str, port: int) -> None:
    with pytest.raises(ConsoleError, match=f"^console: cannot listen on {host}:{port}: .+$"):
        serve(APP, host, port)


def test_an_application_that_does_not_start_is_said() -> None:
    async def broken(
        _: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(ConsoleError, match="did not start"):
        serve(broken, port=0)  # type: ignore[arg-type]
