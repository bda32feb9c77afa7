"""A proxy in front of an S3 server that fails as stores do, on chosen requests and a chosen number of times.

Bytes pass as they are, so that signatures, which cover the host that the client asked, stay valid.
"""

import re
import select
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Literal

Kind = Literal["503", "507", "reset", "hang", "delay", "truncate", "ack_lost", "ack_hang"]
"""`503`, `507`, `reset` and `hang` never reach the server; after `ack_lost` (reset) and `ack_hang` the server has done what was asked."""

REFUSALS = {
    "503": ("Slow Down", b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"),
    "507": ("Insufficient Storage", b"<Error><Code>StorageFull</Code><Message>The disks of the server are full.</Message></Error>"),
}
"""Reason and body of the answers that the proxy gives itself."""
HANG_SECONDS = 120
"""Longer than any deadline of the tests; a client that gives up ends it sooner."""


@dataclass
class Fault:
    """What goes wrong with requests whose 'METHOD path' matches; the first `skip` are spared, `times` are struck."""

    kind: Kind
    pattern: str
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    struck: int = 0


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    line: str
    data: bytes

    @property
    def method(self) -> str:
        return self.line.partition(" ")[0]


@dataclass
class FaultProxy:
    """Where the proxy listens, the faults that are left, and the requests that came ('METHOD path')."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, kind: Kind, pattern: str, times: int = 1, *, skip: int = 0, seconds: float = 0.0) -> Fault:
        """Let `times` requests that match fail, after `skip` that do not; `seconds` is what a delay takes."""
        fault = Fault(kind, pattern, times, skip, seconds)
        with self.lock:
            self.faults.append(fault)
        return fault

    def strike(self, line: str) -> Fault | None:
        """The fault of a request, counted; None where it may pass."""
        with self.lock:
            self.requests.append(line)
            for fault in self.faults:
                if fault.struck == fault.times or not re.search(fault.pattern, line):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.struck += 1
                return fault
        return None


@contextmanager
def running_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy before `upstream` (http://host:port), up when this is entered and gone when it is left."""
    host, _, port = upstream.removeprefix("http://").partition(":")
    with _Listener(("127.0.0.1", 0), _Connection) as listener:
        proxy = listener.proxy = FaultProxy(f"http://127.0.0.1:{listener.server_address[1]}")
        listener.upstream = (host, int(port))
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.closing.set()
            listener.shutdown()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    proxy: FaultProxy
    upstream: tuple[str, int]


class _Connection(socketserver.BaseRequestHandler):
    """One connection of a client, with one request after another."""

    server: _Listener
    request: socket.socket

    def handle(self) -> None:
        with suppress(OSError, HTTPException), self.request.makefile("rb") as stream:
            while (request := _read_request(stream)) is not None:
                if not self._answer(request):
                    return

    def _answer(self, request: Request) -> bool:
        """Whether the connection goes on."""
        fault = self.server.proxy.strike(request.line)
        kind = fault.kind if fault else None
        if kind in REFUSALS:
            reason, body = REFUSALS[kind]
            head = f"HTTP/1.1 {kind} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            self.request.sendall(head.encode() + body)
            return True
        if kind in ("reset", "hang"):
            return self._drop(hang=kind == "hang")
        if fault is not None and kind == "delay":
            time.sleep(fault.seconds)
        head, body = self._forward(request)
        if kind in ("ack_lost", "ack_hang"):
            return self._drop(hang=kind == "ack_hang")
        self.request.sendall(head + body[: len(body) // 2 if kind == "truncate" else None])
        return kind != "truncate"

    def _drop(self, *, hang: bool) -> bool:
        """End the connection by a reset, or never answer on it until the client or the test gives up."""
        deadline = time.monotonic() + HANG_SECONDS
        while hang and time.monotonic() < deadline and not self.server.proxy.closing.is_set():
            if select.select([self.request], [], [], 0.1)[0] and not self.request.recv(1):
                return False
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()
        return False

    def _forward(self, request: Request) -> tuple[bytes, bytes]:
        """The server's answer as head and body."""
        with socket.create_connection(self.server.upstream, timeout=60) as upstream:
            upstream.sendall(request.data)
            response = HTTPResponse(upstream, method=request.method)
            response.begin()
            body = response.read()
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in ("transfer-encoding", "connection")]
            if response.chunked:
                kept.append(("Content-Length", str(len(body))))
            lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in kept)]
            return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body


def _read_request(stream) -> Request | None:
    """The next request of a connection, None where the client has ended it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    first = head.split(b"\r\n", 1)[0].decode("latin-1")
    size = re.search(rb"(?im)^content-length:\s*(\d+)", head)
    return Request(first.rpartition(" ")[0], head + (stream.read(int(size[1])) if size else b""))
