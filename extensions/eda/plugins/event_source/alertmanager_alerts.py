# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event source of ansible-rulebook: Alertmanager's alerts over HTTP, of known senders, each once, and not too often.

All decisions are in plugins/module_utils/events. Here are the socket, the clock, the file of secrets and the log.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import stat
import sys
import time
from pathlib import Path
from typing import Any, Mapping

from aiohttp import web

# ansible-rulebook runs this file by its path, and need not have Ansible's finder of collections.
for _root in Path(__file__).absolute().parents:
    if (_root / "ansible_collections/ebpf/fleet").is_dir():
        sys.path.append(str(_root))
        break

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.events import desk, options, senders

DOCUMENTATION = r"""
---
short_description: Alerts of Alertmanager that turn eBPF off, or down
description:
  - Takes the webhook of Alertmanager (version 4) at C(/alerts), and emits an event for each firing alert that asks for
    a kill or the reduced profile by its labels C(ebpf_fleet_action) and C(ebpf_fleet_scope).
  - Only known senders are heard, each alert is acted on once, and no more than O(actions) within O(window) seconds.
    Every request has a line in O(log).
  - No event takes an order back or starts programs.
options:
  secrets:
    description:
      - File of those who may send, a line each, C(NAME token SECRET) or C(NAME hmac SECRET).
      - The user that runs ansible-rulebook, or root, owns it, with the mode 0600.
    type: str
    required: true
  host:
    description: Address to listen on. One that is not of the loopback needs O(certfile) and O(keyfile).
    type: str
    default: 127.0.0.1
  port:
    description: Port to listen on.
    type: int
    default: 5001
  certfile:
    description: Certificate (chain) of this server, for TLS.
    type: str
  keyfile:
    description: Private key of O(certfile).
    type: str
  log:
    description: File to which a JSON line for each request is added. Without it the lines go to standard error.
    type: str
  actions:
    description: Most actions of one kind within O(window); kills and reductions are counted apart.
    type: int
    default: 6
  per_scope:
    description: Most actions of one kind and scope within O(window).
    type: int
    default: 2
  window:
    description: Seconds within which actions are counted.
    type: int
    default: 600
  allow_everything:
    description:
      - Also take a scope that may be everything on every host, as V(global), V(host=all) or V(kernel_family=6.1).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Alerts
  hosts: all
  sources:
    - ebpf.fleet.alertmanager_alerts:
        secrets: /etc/ebpf-fleet-events/secrets
        log: /var/log/ebpf-fleet-events.jsonl
  rules:
    - name: Kill
      condition: event.ebpf_fleet.action == "kill"
      action:
        run_playbook:
          name: ebpf.fleet.rollback
          extra_vars:
            scope: "{{ event.ebpf_fleet.scope }}"
            reason: "{{ event.ebpf_fleet.reason }}"
"""

BODY_SECONDS = 10
# Of connections, so that who reaches the port does not use up what ansible-rulebook needs for a kill: files and memory.
MAX_CONNECTIONS, CONNECTION_SECONDS = 64, 30


def read_secrets(path: str) -> tuple[senders.Sender, ...]:
    """Who may send; FleetError EF_EVENT_SECRETS where the file is not one, or not private."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(fd, "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > senders.MAX_BYTES:
                raise FleetError(
                    "EF_EVENT_SECRETS", f"{path}: is not a regular file of at most {senders.MAX_BYTES} bytes", path
                )
            senders.check_place(found.st_mode, found.st_uid, os.geteuid(), path)
            data = stream.read(senders.MAX_BYTES + 1)
    except OSError as error:
        raise FleetError("EF_EVENT_SECRETS", f"{path}: {error.strerror}", path) from error
    return senders.parse(data, path)


class Log:
    """The file of lines, opened for each, so that it may be moved away; what cannot be written there goes to stderr."""

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, line: Mapping[str, Any] | None) -> None:
        """Write a line. That it cannot be written stops no kill."""
        if line is None:
            return
        text = json.dumps(line, sort_keys=True) + "\n"
        if not self._path:
            sys.stderr.write(text)
            return
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(self._path, flags, 0o600)
            with os.fdopen(fd, "wb", 0) as stream:
                stream.write(text.encode("ascii"))
        except OSError as error:
            sys.stderr.write(f"{self._path}: {error.strerror}: {text}")


class Receiver:
    """Puts requests before the desk, and what it takes into the queue."""

    def __init__(self, queue: Any, front: desk.Desk, log: Log) -> None:
        self._queue, self._desk, self._log = queue, front, log

    async def receive(self, request: web.Request) -> web.Response:
        """One POST. The answer comes after the event is in the queue."""
        headers = [(str(name), str(value)) for name, value in request.headers.items()]
        asked = desk.Request(str(request.remote), headers, b"", time.time(), time.monotonic())
        try:
            body = await asyncio.wait_for(request.read(), BODY_SECONDS)
            outcome = self._desk.decide(asked._replace(body=body))
        except web.HTTPRequestEntityTooLarge:
            outcome = self._desk.unread(asked, 413, f"is larger than {desk.MAX_BODY} bytes")
        except asyncio.TimeoutError:
            outcome = self._desk.unread(asked, 408, f"did not come whole within {BODY_SECONDS} s")
        # The kill first: a disk that hangs must not hold it up.
        for event in outcome.events:
            await self._queue.put(event)
        self._log.add(outcome.line)
        more = {"Retry-After": str(outcome.retry_after)} if outcome.retry_after else {}
        answer = web.Response(status=outcome.status, text=outcome.sentence + "\n", headers=more)
        answer.force_close()
        return answer


class Refusal(asyncio.Protocol):
    """What a connection is given that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """End it at once."""
        transport.close()


class Connections:
    """Makes the protocol of each connection, of a bounded number for a bounded time."""

    def __init__(self, server: web.Server) -> None:
        self._server = server

    def __call__(self) -> asyncio.Protocol:
        """A connection's protocol."""
        if len(self._server.connections) >= MAX_CONNECTIONS:
            return Refusal()
        made: asyncio.Protocol = self._server()
        asyncio.get_running_loop().call_later(CONNECTION_SECONDS, self._end, made)
        return made

    @staticmethod
    def _end(made: Any) -> None:
        if made.transport is not None:
            made.transport.abort()


def tls_of(chosen: options.Options) -> ssl.SSLContext | None:
    """TLS with the given certificate; None where it is not given."""
    if not chosen.certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(chosen.certfile, chosen.keyfile)
    except OSError as error:
        problem = f"{chosen.certfile}, {chosen.keyfile}: {error.strerror or error}"
        raise FleetError(
            "EF_ARGUMENT", f"certfile, keyfile: {problem}; give a certificate and its key in PEM"
        ) from error
    return context


async def main(queue: Any, args: dict[str, Any]) -> None:
    """Listen until ansible-rulebook ends. RuntimeError, with the reason code, for what cannot be used."""
    try:
        chosen = options.read(args)
        front = desk.Desk(read_secrets(chosen.secrets), chosen.limits, chosen.allow_everything)
        tls = tls_of(chosen)
    except FleetError as error:
        # ansible-rulebook shows the error's text alone.
        raise RuntimeError(error.as_line()) from error
    receiver = Receiver(queue, front, Log(chosen.log))
    app = web.Application(client_max_size=desk.MAX_BODY)
    app.router.add_post("/alerts", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    made = Connections(runner.server)
    server = await asyncio.get_running_loop().create_server(made, chosen.host, chosen.port, ssl=tls)
    try:
        await asyncio.Future()
    finally:
        server.close()
        await runner.cleanup()
