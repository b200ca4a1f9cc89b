# SPDX-License-Identifier: GPL-3.0-or-later
"""A real HTTP server on this machine for the length of a test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server that has every GET and POST answered by `answer`, which writes the whole response."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802  # as http.server calls it
            answer(self)

        do_POST = do_GET  # noqa: N815  # as http.server calls it

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def respond(request: BaseHTTPRequestHandler, status: int, body: bytes = b"") -> None:
    """A whole response without headers of its own."""
    request.send_response(status)
    request.end_headers()
    request.wfile.write(body)
