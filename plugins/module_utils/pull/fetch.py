# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the bytes of a location, http, https or file, within a time and a size that nothing there can stretch.

A process of its own does it, which the kernel ends at the deadline, whatever it waits for: a name server, a server that
sends a byte at a time, a disk that hangs. What reads the network is neither root nor any user that owns something.
"""

from __future__ import annotations

import contextlib

# Now: the socket module takes it by its name, when the interpreter's own files may be out of reach.
import encodings.idna  # noqa: F401  # so it is used, and nothing here says so
import errno
import os
import resource
import select
import signal
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.killlist import MAX_BYTES

UNREACHABLE = "EF_KILL_LIST_UNREACHABLE"
SCHEMES = ("http", "https", "file")
# The user and the group that own nothing on any Linux: the kernel's overflow ids.
UNPRIVILEGED = 65534
MEMORY_BYTES = 512 * 1024 * 1024
# What the first byte of the answer says: the list follows, or why there is none.
GOOD, BAD = b"+", b"-"
MAX_PROBLEM = 400


def check_location(location: str) -> str:
    """The location's scheme; raises ValueError with the fault. No user or password may stand in it."""
    if not location.isascii() or not location.isprintable() or " " in location:
        raise ValueError("holds what no location can; write blanks and other letters as %20")
    parts = urlsplit(location)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"is not one of {', '.join(f'{one}://' for one in SCHEMES)}")
    if parts.fragment or "@" in parts.netloc:
        raise ValueError("holds a user, a password or a fragment; leave it out: it is kept in a file that all can read")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/") or parts.query or "\0" in unquote(parts.path):
            raise ValueError("is not file:// and an absolute path, as file:///srv/kill-list")
    elif not parts.hostname:
        raise ValueError("names no server")
    elif parts.port == 0:  # raises ValueError for another word
        raise ValueError("names the port 0")
    return parts.scheme


def fetch(location: str, timeout: float) -> bytes:
    """The bytes there, at most MAX_BYTES and one more, which says that there are too many.

    ``timeout`` is in seconds, for all of it. Raises FleetError (EF_KILL_LIST_UNREACHABLE).
    """
    reader, writer = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            _be_the_child(location, timeout, writer)
        os.close(writer)
        writer = -1
        answer = _read_until(reader, time.monotonic() + timeout)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    _bury(child)
    return _understand(location, answer, timeout)


def _read_until(reader: int, deadline: float) -> bytes | None:
    """All that the child writes; None where the deadline came first."""
    parts = []
    size = 0
    while size <= MAX_BYTES + 1:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        part = os.read(reader, 65536)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _bury(child: int) -> None:
    """End the child, whatever it waits for; one that is stuck in the kernel is left to whoever ends the service."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    for _attempt in range(50):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.02)


def _understand(location: str, answer: bytes | None, timeout: float) -> bytes:
    if answer is not None and answer.startswith(GOOD):
        return answer[len(GOOD) :]
    if answer is None:
        problem = f"it was not fetched within {timeout:g} s"
    else:
        problem = printable(answer[len(BAD) :].decode("utf-8", "replace"), MAX_PROBLEM) or "the fetcher died"
    remedy = "see that it is there, and that this host reaches it"
    raise FleetError(UNREACHABLE, f"{location}: {problem}; {remedy}", location)


# ---- the child ----


def _be_the_child(location: str, timeout: float, writer: int) -> NoReturn:
    """Write the answer and end. Nothing of the parent runs here again, whatever is raised."""
    try:
        # Should the parent be gone. The default action ends what waits in the C library too.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, timeout + 1)
        _write_all(writer, _answer(location, timeout))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _answer(location: str, timeout: float) -> bytes:
    try:
        if check_location(location) == "file":
            return GOOD + _read_file(unquote(urlsplit(location).path))
        _drop_privileges()
        return GOOD + _read_http(location, timeout)
    except Exception as error:  # whatever it is, it is the reason
        return BAD + _words_of(error).encode("utf-8", "replace")


def _words_of(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        redirects = ", a redirect, which is not followed" if 300 <= error.code < 400 else ""
        return f"the server answered {error.code}{redirects}"
    reason: object = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, FleetError):
        return reason.message
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__


def _drop_privileges() -> None:
    """Nothing that a server sends is read as root; and not more than a bounded memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)


def _read_file(path: str) -> bytes:
    """A regular file; not a symlink, no FIFO, no device."""
    data = bounded.read_bytes(Path(path), MAX_BYTES + 1)
    if data is None:
        raise OSError(errno.ENOENT, "it is not there")
    return data


def _read_http(location: str, timeout: float) -> bytes:
    """No proxy of the environment, no cookie, no other scheme; and no redirect, by which a server could choose one."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({}), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    request = urllib.request.Request(location, headers={"User-Agent": "ebpf-fleet-pull", "Cache-Control": "no-cache"})
    with opener.open(request, timeout=timeout) as response:
        data: bytes = response.read(MAX_BYTES + 1)
        promised = response.headers.get("Content-Length", "")
    if promised.isdigit() and len(data) < min(int(promised), MAX_BYTES + 1):
        raise OSError(f"the server ended after {len(data)} of {promised} bytes")
    return data


def _write_all(writer: int, data: bytes) -> None:
    while data:
        data = data[os.write(writer, data) :]
