"""What stands before every route: the token, limits on size, time and number, problems as JSON, and the counts.

A connection that sends nothing, a body that never ends, and more requests than can be served are answered in time.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import h11
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from script import Stop

NOTICE = "not a medical device; for research and teaching only"
PROBLEM = "application/problem+json"
MAX_BODY_BYTES = 1 << 16  # but of /predict
MAX_REQUESTS = 256  # at work at a time
MAX_BYTES_AT_WORK = 1 << 29  # announced by all of these; a body of unknown length counts as the largest
BODY_S = 60.0  # for a request's body to come
REQUEST_S = 300.0  # for all of a request
LINGER_S = 2.0  # an answer waits so long for a body that nobody wants, or the client would not see it
HEADER_S = 15.0  # for the head of a request on an open connection
KINDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # s


def problem(status: int, detail: str, path: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an answer as RFC 9457 has it; `detail` is one line."""
    tree = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": " ".join(detail.split()),
        "instance": quote(path, errors="replace"),
    }
    return JSONResponse(tree, status, headers, media_type=PROBLEM)


class Metrics:
    """What GET /metrics tells, of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("ecg_requests", "Requests", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "ecg_request_seconds", "Seconds from request to answer", ["route"], buckets=KINDS, registry=self.registry
        )
        self.batch_rows = Histogram(
            "ecg_batch_rows", "Rows scored together", buckets=[2**k for k in range(9)], registry=self.registry
        )
        self.predictions = Counter("ecg_predictions", "Records predicted", ["run"], registry=self.registry)
        self.waiting = Gauge("ecg_waiting_pieces", "Pieces of records that wait for a network", registry=self.registry)
        self.queued = Gauge("ecg_queued_trainings", "Trainings that wait", registry=self.registry)
        self.active = Gauge("ecg_active_requests", "Requests at work", registry=self.registry)


@dataclass
class Guard:
    """The ASGI application around that of FastAPI."""

    app: ASGIApp
    metrics: Metrics
    token: str  # "" where none is asked for
    sizes: dict[str, int]  # largest body in bytes, by path; MAX_BODY_BYTES of others
    active: int = 0
    n_bytes: int = 0  # that the bodies of the active requests may have

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self.sizes.get(scope["path"], MAX_BODY_BYTES))
        began = time.perf_counter()
        self.active += 1
        self.n_bytes += exchange.expected
        try:
            with anyio.move_on_after(REQUEST_S) as limit:
                if refused := self._refusal(exchange):
                    await refused(scope, exchange.receive, exchange.send)
                else:
                    await self.app(scope, exchange.receive, exchange.send)
            if limit.cancelled_caught and not exchange.status:
                late = problem(503, f"not done in {REQUEST_S:g} s", scope["path"], {"retry-after": "10"})
                await late(scope, exchange.receive, exchange.send)
        finally:
            self.active -= 1
            self.n_bytes -= exchange.expected
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, exchange.status or "none").inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _refusal(self, exchange: Exchange) -> JSONResponse | None:
        """Return the answer to a request that is not let through."""
        path = exchange.scope["path"]
        if path == "/health":
            return None
        scheme, _, given = exchange.headers.get(b"authorization", b"").partition(b" ")
        fits = scheme.lower() == b"bearer" and hmac.compare_digest(given, self.token.encode())
        if self.token and not fits:
            detail = "a bearer token is needed: Authorization: Bearer ..., as in the service's ECG_API_TOKEN"
            return problem(401, detail, path, {"www-authenticate": "Bearer"})
        if exchange.announced > exchange.most:
            return problem(413, exchange.too_large, path)
        if self.active > MAX_REQUESTS or self.n_bytes > MAX_BYTES_AT_WORK:
            detail = "as many requests are at work as can be served; try again"
            return problem(503, detail, path, {"retry-after": "1"})
        return None


class Exchange:
    """One request and its answer: the body is counted and timed, the answer marked."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        self.scope, self.most = scope, most
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        length = self.headers.get(b"content-length", b"0")
        self.announced = int(length) if length.isdigit() else 0
        self.expected = min(most, self.announced) if b"transfer-encoding" not in self.headers else most
        self.status = 0
        self.ended = not self.announced and b"transfer-encoding" not in self.headers  # the body has come
        self._receive, self._send = receive, send
        self._n_bytes = 0
        self._until = time.monotonic() + BODY_S

    @property
    def too_large(self) -> str:
        """Say how large a body may be."""
        return f"the body may have {self.most:,} bytes"

    async def receive(self) -> Message:
        """Receive a piece of the body.

        Raises
        ------
        HTTPException
            The body is larger than it may be, or does not come in time.
        """
        if self.ended or self.status:
            return await self._receive()
        try:
            with anyio.fail_after(max(0.0, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, f"the body has not come in {BODY_S:g} s") from error
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self.most:
            raise HTTPException(413, self.too_large)
        self.ended = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the answer; one that is given before the body has come ends the connection."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-notice", NOTICE.encode())]
            message = {**message, "headers": headers if self.ended else [*headers, (b"connection", b"close")]}
        elif not message.get("more_body", False) and not self.ended:
            await self._send({**message, "more_body": True})
            with anyio.move_on_after(LINGER_S):
                while (await self._receive()).get("more_body", False):
                    pass
            message = {"type": "http.response.body"}
        await self._send(message)


class Protocol(H11Protocol):
    """uvicorn's HTTP, which lets a client take for ever over the head of a request, with an end to that."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has a head of more than 64 KiB."""
        answer = problem(400, "not an HTTP request, or one whose head is too long", "/")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [*answer.raw_headers, (b"connection", b"close")]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=bytes(answer.body))):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect(self) -> None:
        """Close the connection if no request comes in time."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEADER_S, self._close_idle, self.cycle)

    def _close_idle(self, cycle: Any) -> None:
        if self.cycle is cycle and (cycle is None or cycle.response_complete):
            self.transport.close()


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of the service; Stop where that is not possible."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.create_server((host, port), family=family, backlog=2048)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms: head, then body
        return opened
    except (OSError, OverflowError) as error:
        raise Stop(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}") from error
