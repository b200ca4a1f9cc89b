# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a person's hooks of an entry, each within its time. A hook decides nothing: what it does wrong is returned."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger

_WORDS = 300


def tell(hook, entry):
    """Why the hook failed; empty where it did not."""
    body = ledger.line_of(entry)
    return _command(hook, body) if hook.command else _post(hook, body)


def _command(hook, body):
    # A file, not a pipe: a program that closes neither cannot hold this up, nor fill memory.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as told:
        given.write(body)
        given.seek(0)
        try:
            child = subprocess.Popen(
                list(hook.command), stdin=given, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True
            )
        except (OSError, ValueError) as error:
            return printable(f"cannot be run: {getattr(error, 'strerror', None) or error}", _WORDS)
        try:
            status = child.wait(hook.timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return f"was ended after {hook.timeout:g} s"
        told.seek(0)
        words = told.read(_WORDS).decode("utf-8", "replace").strip()
    return "" if status == 0 else printable(f"ended with {status}{': ' + words if words else ''}", _WORDS)


def _post(hook, body):
    """In a thread, as a server that answers a byte at a time keeps within every timeout of a socket."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(_sent(hook, body)), daemon=True)
    thread.start()
    thread.join(hook.timeout)
    return answer[0] if answer else f"did not answer within {hook.timeout:g} s"


def _sent(hook, body):
    headers = {"Content-Type": "application/json", "User-Agent": "ebpf.fleet"}
    request = urllib.request.Request(hook.url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=hook.timeout) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except http.client.HTTPException:
        return "answered with what is not HTTP"
    except (OSError, ValueError) as error:
        # The address may hold a key; what is wrong with it is told without it.
        return printable(f"cannot be reached: {getattr(error, 'reason', None) or type(error).__name__}", _WORDS)
    return "" if 200 <= status < 300 else f"answered with {status}"


class _Stay(urllib.request.HTTPRedirectHandler):
    """An entry goes where a person said, and nowhere else."""

    def redirect_request(self, *_arguments):
        return None
