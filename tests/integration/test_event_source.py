# SPDX-License-Identifier: GPL-3.0-or-later
"""The event source over real sockets, run as ansible-rulebook runs it: by its path, with a queue."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.events import desk, senders

from tests.loader.prometheus import free_address
from tests.support.play import ROOT
from tests.support.rulebook import listens, tool, wait_until

pytestmark = pytest.mark.apart

TOKEN, KEY = "t" * 40, "k" * 40
SENDERS = f"ops token {TOKEN}\nrelay hmac {KEY}\n"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
# Its path is that of an installed collection: what it imports it finds by that.
SOURCE = ROOT / "collections/ansible_collections/ebpf/fleet/extensions/eda/plugins/event_source/alertmanager_alerts.py"
RUN = """
import asyncio, json, runpy, sys
class Queue:
    async def put(self, event):
        print(json.dumps(event), flush=True)
asyncio.run(runpy.run_path(sys.argv[1])["main"](Queue(), json.loads(sys.argv[2])))
"""


def document(scope: str = "feature=runqlat", fingerprint: str = "0123456789abcdef") -> bytes:
    labels = {"alertname": "Costly", "ebpf_fleet_action": "kill", "ebpf_fleet_scope": scope}
    alert = {"status": "firing", "labels": labels, "startsAt": "2026-11-28T12:00:00Z", "fingerprint": fingerprint}
    return json.dumps(
        {"version": "4", "status": "firing", "receiver": "r", "groupKey": "g", "alerts": [alert]}
    ).encode()


class Source:
    """A source that listens, with what it emitted, logged and printed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def events(self) -> list[Any]:
        return [json.loads(line) for line in (self.folder / "stdout").read_text().splitlines()]

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def post(
        self, body: Any = None, headers: Any = None, path: str = "/alerts", method: str = "POST"
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, document() if body is None else body, BEARER if headers is None else headers)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


def command(folder: Path, port: int, **options: Any) -> list[str]:
    given = {"secrets": str(folder / "senders"), "log": str(folder / "log"), "port": port, **options}
    return [str(tool("python")), "-c", RUN, str(SOURCE), json.dumps(given)]


@contextlib.contextmanager
def source(folder: Path, **options: Any) -> Iterator[Source]:
    """The source, listening. It has none of the paths that this test's Python has."""
    (folder / "senders").touch(0o600)
    (folder / "senders").write_text(SENDERS)
    port = int(free_address().rpartition(":")[2])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command(folder, port, **options), stdout=out, stderr=err, env=environment)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), "the source listens", 60)
        assert process.poll() is None, (folder / "stderr").read_text()
        yield Source(folder, port)
    finally:
        process.kill()
        process.wait(timeout=10)


def test_a_sender_is_heard_once_and_all_others_are_not(tmp_path: Path) -> None:
    with source(tmp_path) as one:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            assert one.post(headers=headers) == (401, "EF_EVENT_SENDER: not a sender\n")
        assert one.events() == [] and one.log()[-1]["sender"] is None
        assert one.post() == (200, "taken\n") and one.post() == (200, "duplicate\n")
        (event,) = one.events()
        assert event["ebpf_fleet"]["scope"] == "feature=runqlat" and event["ebpf_fleet"]["action"] == "kill"
        assert [line["decision"] for line in one.log()] == ["stranger"] * 3 + ["taken", "duplicate"]
        assert {line["remote"] for line in one.log()} == {"127.0.0.1"}
        assert os.stat(tmp_path / "log").st_mode & 0o777 == 0o600
        assert TOKEN not in (tmp_path / "log").read_text() + (tmp_path / "stderr").read_text()


def test_a_signed_request_is_heard_and_not_replayed(tmp_path: Path) -> None:
    with source(tmp_path) as one:
        now = int(time.time())
        signed = {"X-Ebpf-Fleet-Sender": "relay", "X-Ebpf-Fleet-Time": str(now),
                  "X-Ebpf-Fleet-Signature": senders.sign(KEY.encode(), now, document())}  # fmt: skip
        assert one.post(document("feature=other"), signed)[0] == 401, "the body is another than the signed one"
        assert one.post(headers=signed) == (200, "taken\n")
        assert one.post(headers=signed)[0] == 401
        assert len(one.events()) == 1 and "used before" in one.log()[-1]["detail"]


def test_a_flood_is_bounded_and_answered_with_the_time_to_wait(tmp_path: Path) -> None:
    with source(tmp_path, actions=2) as one:
        answers = [one.post(document(f"feature=f{at}", f"{at:016x}"))[0] for at in range(6)]
        assert answers == [200, 200, 429, 429, 429, 429] and len(one.events()) == 2
        assert one.log()[-1]["counts"]["limited"] == 4 and one.log()[-1]["reason_code"] == "EF_EVENT_RATE"
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
        connection.request("POST", "/alerts", document("feature=g", "a" * 16), BEARER)
        with contextlib.closing(connection):
            assert 0 < int(connection.getresponse().headers["Retry-After"]) <= 600


def chunks(size: int) -> Iterator[bytes]:
    """A body that does not say how long it is."""
    for _ in range(size // 65536 + 1):
        yield b" " * 65536


def test_what_is_not_a_document_of_a_bounded_size_is_refused_and_logged(tmp_path: Path) -> None:
    with source(tmp_path) as one:
        assert one.post(b"{")[0] == 400
        assert one.post(document("global"))[0] == 422
        for body in (b" " * (desk.MAX_BODY + 1), chunks(desk.MAX_BODY)):
            assert one.post(body)[0] == 413
        assert one.post(b" " * (desk.MAX_BODY - 1000) + document())[0] == 200
        assert one.post(path="/")[0] == 404 and one.post(method="GET")[0] == 405
        assert [line["status"] for line in one.log()] == [400, 422, 413, 413, 200]
        assert len(one.events()) == 1


@pytest.mark.slow
def test_a_sender_that_does_not_send_is_left_after_its_time(tmp_path: Path) -> None:
    with source(tmp_path) as one:
        with socket.create_connection(("127.0.0.1", one.port), timeout=60) as raw:
            raw.sendall(b"POST /alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert raw.recv(100).split(b" ")[1] == b"408"
        assert one.post() == (200, "taken\n") and [line["status"] for line in one.log()] == [408, 200]


def test_a_header_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with source(tmp_path) as one:
        body = document()
        head = f"POST /alerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        for second in (TOKEN, "wrong"):
            with socket.create_connection(("127.0.0.1", one.port), timeout=30) as raw:
                tokens = f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {second}\r\n\r\n"
                raw.sendall((head + tokens).encode() + body)
                assert raw.recv(100).split(b" ")[1] in (b"400", b"401")
        assert one.events() == []


@pytest.mark.parametrize("place", ["folder", "fifo", "link"])
def test_a_log_that_cannot_be_written_stops_no_kill(tmp_path: Path, place: str) -> None:
    log = tmp_path / "log"
    if place == "folder":
        log.mkdir()
    elif place == "fifo":
        os.mkfifo(log)
    else:
        log.symlink_to(tmp_path / "elsewhere")
    with source(tmp_path) as one:
        assert one.post() == (200, "taken\n") and len(one.events()) == 1
        assert '"decision": "taken"' in (tmp_path / "stderr").read_text()
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_log_the_lines_go_to_standard_error(tmp_path: Path) -> None:
    with source(tmp_path, log="") as one:
        assert one.post()[0] == 200
        assert json.loads((tmp_path / "stderr").read_text())["decision"] == "taken"


def test_it_speaks_tls_with_a_certificate_and_nothing_else_then(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(make, check=True, capture_output=True)
    with source(tmp_path, certfile=str(cert), keyfile=str(key)) as one:
        context = ssl.create_default_context(cafile=str(cert))
        connection = http.client.HTTPSConnection("127.0.0.1", one.port, timeout=30, context=context)
        connection.request("POST", "/alerts", document(), BEARER)
        with contextlib.closing(connection):
            assert connection.getresponse().status == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            one.post(document("feature=other", "a" * 16))
        assert len(one.events()) == 1


def refused(folder: Path, **options: Any) -> str:
    """What a source that does not start says."""
    port = int(free_address().rpartition(":")[2])
    done = subprocess.run(command(folder, port, **options), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "No such file"),
        ("open", "has the mode 0644"),
        ("link", "Too many levels"),
        ("folder", "Is a directory"),
        ("large", "is not a regular file of at most"),
        ("fifo", "is not a regular file"),
        ("empty", "names 0 senders"),
    ],
)
def test_without_a_private_file_of_senders_nothinglistens(tmp_path: Path, kind: str, says: str) -> None:
    path = tmp_path / "senders"
    real = tmp_path / "real"
    real.touch(0o600)
    real.write_text(SENDERS)
    if kind == "link":
        path.symlink_to(real)
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind != "missing":
        path.touch(0o600)
        path.write_text({"open": SENDERS, "large": SENDERS + "#" * senders.MAX_BYTES}.get(kind, ""))
        path.chmod(0o644 if kind == "open" else 0o600)
    text = refused(tmp_path)
    assert says in text and "RuntimeError: EF_EVENT_SECRETS: " in text and "senders" in text, text


def asked(raw: socket.socket) -> bytes:
    """What a request on an open connection is answered; empty where the other end closed it."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        raw.sendall(b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        return raw.recv(1000)
    return b""


def test_idle_connections_are_bounded_and_a_sender_is_heard_again_when_one_ends(tmp_path: Path) -> None:
    with source(tmp_path) as one, contextlib.ExitStack() as stack:
        place = ("127.0.0.1", one.port)
        held = [stack.enter_context(socket.create_connection(place, timeout=60)) for _ in range(64)]
        # Each has its place: it is answered, and goes on.
        assert [asked(raw)[:12] for raw in held] == [b"HTTP/1.1 404"] * 64
        # One more is not answered.
        assert asked(stack.enter_context(socket.create_connection(place, timeout=60))) == b""
        held[0].close()

        def heard() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return one.post() == (200, "taken\n")
            return False

        wait_until(heard, "a sender is heard")


@pytest.mark.slow
def test_a_connection_without_a_request_ends_by_itself(tmp_path: Path) -> None:
    with source(tmp_path) as one, socket.create_connection(("127.0.0.1", one.port), timeout=120) as raw:
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""
        assert one.post() == (200, "taken\n")


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "senders").touch(0o600)
    (tmp_path / "senders").write_text(SENDERS)
    (tmp_path / "bad.pem").write_text("not a certificate")
    for name in ("missing.pem", "bad.pem"):
        told = refused(tmp_path, certfile=str(tmp_path / name), keyfile=str(tmp_path / name))
        assert "RuntimeError: EF_ARGUMENT: certfile, keyfile: " in told and name in told, told


def test_an_address_for_others_needs_tls(tmp_path: Path) -> None:
    (tmp_path / "senders").touch(0o600)
    (tmp_path / "senders").write_text(SENDERS)
    assert "EF_ARGUMENT: host: 0.0.0.0 is not" in refused(tmp_path, host="0.0.0.0")
