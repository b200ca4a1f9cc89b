# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do something with files that may hang, as on a dead network file system, and wait for it only so long.

It is done in a process of its own: one that waits for a disk cannot be ended, but it need not be waited for.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain


def within(seconds, code, call):
    """What `call` returns, a JSON value; FleetError as it raised it, or of this code where it takes longer.

    Whatever else it raises is a FleetError of this code too: who asks has something more important to do.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            _write(writer, json.dumps(_outcome(code, call)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        data = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        _end(pid)
    if data is None:
        raise FleetError(code, f"no answer from the disk within {seconds:g} s; see whether its file system hangs")
    outcome = json.loads(data) if data else {"fault": [code, "the process that was to do it ended by itself", None]}
    if "fault" in outcome:
        code, message, file = outcome["fault"]
        raise FleetError(code, message, file)
    return outcome["value"]


def _outcome(code, call):
    try:
        return {"value": call()}
    except FleetError as error:
        return {"fault": [error.code, error.message, error.file]}
    except OSError as error:
        found = explain(error, code)
        return {"fault": [found.code, found.message, found.file]}
    except Exception as error:  # pylint: disable=broad-except
        return {"fault": [code, f"{type(error).__name__}: {error}; tell the authors of ebpf.fleet", None]}


def _write(writer, data):
    while data:
        data = data[os.write(writer, data) :]


def _read(reader, until):
    """Everything up to the end; None where the end does not come in time."""
    found = b""
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        some = os.read(reader, 1 << 16)
        if not some:
            return found
        found += some


def _end(pid):
    """Take its end where it has one; else end it, and wait no longer for what may not end."""
    for pause in (0, 0.01, 0.1, 0.3):
        time.sleep(pause)
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        if pause:
            os.kill(pid, signal.SIGKILL)
