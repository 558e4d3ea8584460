"""Small servers for tests of remote data: a folder with byte ranges, and a proxy with latency and faults.

Both listen on a free port of the loopback interface only, note every request, and end with their ``with`` block.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_BYTES = re.compile(rb"\r\nrange:\s*(\S+)", re.IGNORECASE)
_CHUNK = 256 * 1024
_STARTING = 30.0
"""Seconds that a server may take to start or to stop."""


class Request(NamedTuple):
    """What a client asked for: method, target as sent, and range of bytes, empty for all."""

    method: str
    target: str
    range: str = ""


class Fault(NamedTuple):
    """What goes wrong with one request.

    Attributes
    ----------
    kind
        As for `Proxy.fault`.
    at
        Part of the body that still passes, from 0 to 1, or seconds of a delay.
    """

    kind: str
    at: float = 0.5


class FileServer:
    """A folder over HTTP, with byte ranges and connections that stay open; read-only.

    Parameters
    ----------
    folder
        What is served.
    ranges
        Whether ranges are honoured; a server that ignores them answers with the whole file.
    tls
        Certificate and key, for https.

    Attributes
    ----------
    requests
        Everything that was asked for.
    """

    def __init__(self, folder: Path, *, ranges: bool = True, tls: SSLContext | None = None) -> None:
        self.folder, self.ranges, self.tls = Path(folder).resolve(), ranges, tls
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self))
        if tls is not None:  # the handshake is left to the thread of each connection
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Address of the folder."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_STARTING)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # idle connections of clients would hold up the end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, owner: FileServer, *arguments: Any) -> None:
        self.owner = owner
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Send a file or a part of it."""
        self._send(body=True)

    def do_HEAD(self) -> None:
        """Send the headers of a file."""
        self._send(body=False)

    def _send(self, *, body: bool) -> None:
        wanted = self.headers.get("Range", "")
        self.owner.requests.append(Request(self.command, self.path, wanted))
        path = (self.owner.folder / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_file() or not path.is_relative_to(self.owner.folder):
            self._status(404, 0)
            return
        size = path.stat().st_size
        start, stop = byte_range(wanted if self.owner.ranges else "", size)
        if start >= size and wanted:
            self._status(416, 0, f"bytes */{size}")
            return
        part = f"bytes {start}-{stop - 1}/{size}" if wanted and self.owner.ranges else ""
        self._status(206 if part else 200, stop - start, part)
        if body:
            with path.open("rb") as file:
                self.wfile.flush()
                if self.owner.tls is not None:  # what the kernel sends by itself would not be encrypted
                    file.seek(start)
                while start < stop:
                    if self.owner.tls is not None:
                        start += self.wfile.write(file.read(min(_CHUNK, stop - start)))
                    else:
                        start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)

    def _status(self, status: int, length: int, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of http.server
        """Print nothing."""


def byte_range(text: str, size: int) -> tuple[int, int]:
    """First byte, and the one behind the last, of a ``Range`` header; the whole file where there is none."""
    match = _RANGE.match(text)
    if match is None or not any(match.groups()):
        return 0, size
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1 if last else size, size)


@dataclass
class Proxy:
    """A way to a server that is as long and as bad as wanted; for HTTP without encryption.

    Attributes
    ----------
    port
        Of the server on this machine.
    latency : unit s
        Added to every request; bodies are delayed, not slowed down.
    bandwidth : unit bytes/s
        What all answers together may take; None for no limit.
    fault
        Called with each request. ``"drop"`` closes the connection at once, ``"truncate"`` in the middle of
        the answer's body, ``"cut"`` in the middle of the request's body; ``"lose"`` lets the server do what it is asked
        and closes the connection instead of its answer; ``"delay"`` waits first; a `Fault` says where and how long;
        a number is the status that is answered; None lets it pass.
    requests
        Everything that was asked for.
    """

    port: int
    latency: float = 0.0
    bandwidth: float | None = None
    fault: Callable[[Request], Fault | str | int | None] | None = None
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._line_free = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        if self._server is None:
            msg = "the proxy runs inside its with block only"
            raise RuntimeError(msg)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = starting.result(_STARTING)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_STARTING)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STARTING)
        self._loop.close()

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_line(self, n_bytes: int) -> None:
        """Wait until so many bytes have passed the line, which all connections share."""
        if self.bandwidth is None:
            return
        now = self._loop.time()
        self._line_free = max(now, self._line_free) + n_bytes / self.bandwidth
        await asyncio.sleep(self._line_free - now)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            there, onward = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                await _Conversation(self, reader, writer, there, onward).run()
            finally:
                onward.close()
        writer.close()


class _Conversation:
    """One connection: requests one after the other, each with its answer."""

    def __init__(self, proxy: Proxy, *streams: Any) -> None:
        self.proxy = proxy
        self.reader, self.writer, self.there, self.onward = streams
        self.spoiled = Fault("")

    async def run(self) -> None:
        """Hand on requests and answers until the server has closed."""
        answers = asyncio.ensure_future(self._answers())
        asking = asyncio.ensure_future(self._request())
        try:
            while not answers.done():
                await asyncio.wait({asking, answers}, return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    if not asking.result():
                        return
                    asking = asyncio.ensure_future(self._request())
        finally:
            answers.cancel()
            asking.cancel()
            await asyncio.gather(answers, asking, return_exceptions=True)

    async def _request(self) -> bool:
        """Pass one request on; False ends the connection."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        method, target = head.split(b" ", 2)[:2]
        found = _BYTES.search(head)
        request = Request(method.decode(), target.decode(), found[1].decode() if found else "")
        self.proxy.requests.append(request)
        wrong = self.proxy.fault(request) if self.proxy.fault is not None else None
        fault = Fault(wrong) if isinstance(wrong, str) else wrong if isinstance(wrong, Fault) else Fault("")
        length = _LENGTH.search(head)
        left = int(length[1]) if length else 0
        if self.proxy.latency:
            await asyncio.sleep(self.proxy.latency)
        if fault.kind == "delay":
            await asyncio.sleep(fault.at)
        if fault.kind == "drop":
            return False
        if isinstance(wrong, int):
            self.writer.write(f"HTTP/1.1 {wrong} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await self.writer.drain()
            return False
        self.spoiled = fault
        self.onward.write(head)
        stop = left - int(left * fault.at) if fault.kind == "cut" else 0
        while left > stop:
            body = await self.reader.read(min(left - stop, _CHUNK))
            if not body:
                return False
            left -= len(body)
            self.onward.write(body)
            await self.onward.drain()
        return fault.kind != "cut"

    async def _answers(self) -> None:
        """Pass answers back, as they come."""
        while True:
            body = await self.there.read(_CHUNK)
            if not body:
                return
            if self.spoiled.kind == "lose":
                return
            if self.spoiled.kind == "truncate":
                end = body.find(b"\r\n\r\n") + 4
                length = _LENGTH.search(body[:end])
                if length and int(length[1]):
                    self.writer.write(body[: end + int(min(int(length[1]), len(body) - end) * self.spoiled.at)])
                    await self.writer.drain()
                    return
            await self.proxy.wait_for_line(len(body))
            self.writer.write(body)
            await self.writer.drain()
