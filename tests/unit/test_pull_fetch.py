# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching within a time and a size, from real servers and real files that do their worst."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.killlist import MAX_BYTES
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import fetch as fetching

from tests.support.httpserver import respond, serving

TIMEOUT = 2.0


def problem(location: str, timeout: float = 20.0) -> str:
    with pytest.raises(FleetError) as caught:
        fetching.fetch(location, timeout)
    assert caught.value.code == "EF_KILL_LIST_UNREACHABLE" and caught.value.message.isprintable()
    assert caught.value.message.startswith(f"{location}: ") and "see that it is there" in caught.value.message
    return caught.value.message


class Server(NamedTuple):
    """Where it is, the requests that it got, and what ends the answers that have no end."""

    url: str
    seen: list[BaseHTTPRequestHandler]
    over: threading.Event

    def drip(self, request: BaseHTTPRequestHandler, piece: bytes) -> None:
        while not self.over.wait(0.05):
            try:
                request.wfile.write(piece)
                request.wfile.flush()
            except OSError:
                return

    # Each answer by the first word of the path; the second is its figure.

    def status(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        request.send_response(figure)
        request.send_header("Location", "/good" if figure == 307 else "file:///etc/hostname")
        request.end_headers()

    def bytes(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        request.send_response(200)
        request.end_headers()
        with_pieces(request, figure)

    def short(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"x" * 99)

    def body(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        request.send_response(200)
        request.end_headers()
        self.drip(request, b"x")

    def header(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self.drip(request, b"x")

    def headers(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 1000 + b"\r\nlist")

    def silence(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        self.over.wait()

    def rubbish(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        request.wfile.write(b"\x00\x1b[2J\xff\r\n\r\n")

    def good(self, request: BaseHTTPRequestHandler, figure: int) -> None:
        respond(request, 200, b"list")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server of every kind of answer."""
    kinds = Server("", [], threading.Event())

    def answer(request: BaseHTTPRequestHandler) -> None:
        kinds.seen.append(request)
        kind, _dash, figure = request.path.strip("/").partition("?")[0].partition("-")
        getattr(kinds, kind)(request, int(figure or 0))

    with serving(answer) as url:
        yield kinds._replace(url=url)
        kinds.over.set()


@pytest.fixture
def server(running: Server) -> Server:
    running.seen.clear()
    return running


def with_pieces(request: BaseHTTPRequestHandler, count: int) -> None:
    try:
        for _piece in range(count // 65536):
            request.wfile.write(b"x" * 65536)
        request.wfile.write(b"x" * (count % 65536))
    except OSError:
        return


def test_a_list_is_fetched_and_no_proxy_of_the_environment_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    url, seen = server.url, server.seen
    assert fetching.fetch(f"{url}/good?x=y", 20.0) == b"list"
    assert [request.path for request in seen] == ["/good?x=y"]
    assert seen[0].headers["Cache-Control"] == "no-cache" and seen[0].headers["Authorization"] is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_wherever_it_leads(server: Server, status: int) -> None:
    url, seen = server.url, server.seen
    assert f"the server answered {status}, a redirect, which is not followed" in problem(f"{url}/status-{status}")
    assert len(seen) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 407, 500, 503])
def test_an_error_of_the_server_is_told(server: Server, status: int) -> None:
    assert f"the server answered {status};" in problem(f"{server.url}/status-{status}")


@pytest.mark.parametrize(
    ("sent", "had"),
    [(0, 0), (MAX_BYTES, MAX_BYTES), (MAX_BYTES + 1, MAX_BYTES + 1), (MAX_BYTES * 4, MAX_BYTES + 1)],
)
def test_no_more_is_read_than_says_that_it_is_too_much(server: Server, sent: int, had: int) -> None:
    assert len(fetching.fetch(f"{server.url}/bytes-{sent}", 60.0)) == had


def test_an_answer_that_ends_early_is_no_list(server: Server) -> None:
    assert "the server ended after 99 of 100 bytes" in problem(f"{server.url}/short")


@pytest.mark.parametrize("kind", ["body", "header", "silence"])
def test_a_server_that_goes_on_for_ever_is_left(server: Server, kind: str) -> None:
    """Each byte comes soon; it is all of them together that have a time. Without that, this test does not end."""
    assert "it was not fetched within 2 s" in problem(f"{server.url}/{kind}", TIMEOUT)


@pytest.mark.parametrize("kind", ["headers", "rubbish"])
def test_an_answer_that_is_no_http_is_told(server: Server, kind: str) -> None:
    problem(f"{server.url}/{kind}")


def test_where_no_server_is_the_reason_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert "Connection refused" in problem(f"http://127.0.0.1:{port}/x")
    assert "is not one of http://, https://, file://" in problem("ftp://127.0.0.1/x")


def test_a_server_that_takes_no_connection_is_left() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _one in range(4):  # until its queue is full
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(full.getsockname())
            waiting.append(connection)
        assert "it was not fetched within 2 s" in problem(f"http://127.0.0.1:{full.getsockname()[1]}/", TIMEOUT)
        for connection in waiting:
            connection.close()


def test_what_reads_the_network_is_not_root_and_what_reads_a_file_is(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has something to give up")
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)
    tmp_path.chmod(0o711)

    class Telling(http.client.HTTPConnection):
        def connect(self) -> None:
            told.write_text(f"{os.getresuid()} {os.getresgid()} {os.getgroups()}")
            super().connect()

    for folder in [tmp_path, *tmp_path.parents][:-1]:
        folder.chmod(folder.stat().st_mode | 0o011)
    monkeypatch.setattr(http.client, "HTTPConnection", Telling)
    assert fetching.fetch(f"{server.url}/good", 20.0) == b"list"
    unprivileged = f"({', '.join([str(fetching.UNPRIVILEGED)] * 3)})"
    assert told.read_text() == f"{unprivileged} {unprivileged} []"
    secret = tmp_path / "secret"
    secret.write_bytes(b"list")
    secret.chmod(0o600)
    assert fetching.fetch(f"file://{secret}", 20.0) == b"list"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "it is not there"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: path.symlink_to("/etc/hostname"), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "Too many levels of symbolic links"),
        (lambda path: (path.touch(), os.truncate(path, MAX_BYTES + 2)), "is larger than"),
    ],
    ids=["none", "fifo", "folder", "link", "endless", "large"],
)
def test_a_file_that_is_no_plain_one_is_told(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    make(tmp_path / "list")
    assert words in problem(f"file://{tmp_path}/list")


def test_a_file_with_blanks_in_its_name_is_read_and_nothing_else_of_the_location_is(tmp_path: Path) -> None:
    (tmp_path / "kill list").write_bytes(b"list")
    assert fetching.fetch(f"file://{tmp_path}/kill%20list", 20.0) == b"list"
    problem(f"file://{tmp_path}/kill list")


def test_a_certificate_is_asked_for_and_judged(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if subprocess.run(["which", "openssl"], capture_output=True, check=False).returncode:
        pytest.skip("openssl is not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=list", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key"),
         "-out", str(tmp_path / "cert")], check=True, capture_output=True)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(4)
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/list"

        def serve() -> None:
            for _one in range(2):
                plain, _where = listening.accept()
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        connection.recv(4096)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlist")
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert "CERTIFICATE_VERIFY_FAILED" in problem(url)
        for folder in [tmp_path, *tmp_path.parents][:-1]:
            folder.chmod(folder.stat().st_mode | 0o011)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        assert fetching.fetch(url, 20.0) == b"list"
        thread.join(20)


def test_no_process_and_no_descriptor_is_left_behind(server: Server) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for kind in ("good", "status-404", "body"):
        try:
            fetching.fetch(f"{server.url}/{kind}", 1.0)
        except FleetError:
            continue
    assert len(os.listdir("/proc/self/fd")) - before <= 1  # the server's side of the last one
    with pytest.raises(ChildProcessError):  # there is none
        os.waitpid(-1, os.WNOHANG)
