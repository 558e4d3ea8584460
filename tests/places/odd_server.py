"""A web server of a folder with one oddity that such servers have."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from stemstore.testing.servers import Request, byte_range


class OddServer:
    """A folder over HTTP, with byte ranges; see `_Handler` for what may be odd.

    Parameters
    ----------
    folder
        What is served.
    oddities
        ``"no head"``: HEAD is not allowed. ``"no ranges"``: the whole file is sent for any part of it. ``"gzip"``:
        bodies are compressed, whatever was accepted. ``"chunked"``: no lengths are told. ``"too long"`` and
        ``"too short"``: the length that is told is 100 bytes more than the body, or less. ``"secretive"``: what is
        missing is forbidden.
    to
        Where requests are redirected to: another server, which wants the signature that is put into the link.
    signature
        Without which nothing is served.
    """

    def __init__(self, folder, *oddities, to="", signature=""):
        self.folder, self.oddities, self.to, self.signature = Path(folder), set(oddities), to, signature
        self.requests, self.authorizations = [], []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self._server.handle_error = lambda *_: None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self):
        """Where it listens."""
        return self._server.server_address[1]

    @property
    def url(self):
        """Address of the folder."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: OddServer

    def do_HEAD(self):
        self._serve(body=False)

    def do_GET(self):
        self._serve(body=True)

    def _serve(self, *, body):
        owner, odd, wanted = self.owner, self.owner.oddities, self.headers.get("Range", "")
        owner.requests.append(Request(self.command, self.path, wanted))
        owner.authorizations.append(self.headers.get("Authorization"))
        parts = urlsplit(self.path)
        path = owner.folder / unquote(parts.path).lstrip("/")
        if owner.to:
            self._answer(302, b"moved", body, Location=f"{owner.to}{parts.path}?X-Signature={owner.signature}")
        elif owner.signature and parse_qs(parts.query).get("X-Signature") != [owner.signature]:
            self._answer(403, b"no", body)
        elif self.command == "HEAD" and "no head" in odd:
            self._answer(405, b"", body)
        elif not path.is_file():
            self._answer(403 if "secretive" in odd else 404, b"none", body)
        else:
            self._file(path.read_bytes(), "" if odd & {"no ranges", "gzip"} else wanted, body)

    def _file(self, content, wanted, body):
        odd, size = self.owner.oddities, len(content)
        start, stop = byte_range(wanted, size)
        if wanted and start >= size:
            self._answer(416, b"", body)
            return
        more = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if wanted else {}
        if "no ranges" not in odd:
            more["Accept-Ranges"] = "bytes"
        content = content[start:stop]
        if "gzip" in odd:
            content, more["Content-Encoding"] = gzip.compress(content, 1), "gzip"
        self._answer(206 if wanted else 200, content, body, **more)

    def _answer(self, status, content, body, **more):
        odd = self.owner.oddities if status in (200, 206) else set()
        length = len(content) + (100 if "too long" in odd else -100 if "too short" in odd else 0)
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        if "chunked" in odd:
            self.send_header("Transfer-Encoding", "chunked")
            content = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        else:
            self.send_header("Content-Length", str(max(length, 0)))
        self.end_headers()
        if body:
            self.wfile.write(content)
        if odd & {"too long", "too short"}:
            self.close_connection = True

    def log_message(self, *_):
        """Print nothing."""
