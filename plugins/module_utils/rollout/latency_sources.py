# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask for an application's latency: Prometheus, an HTTP endpoint, a file or a command, each bounded in time and size.

What cannot be had is never an exception to the caller: it is the sentence that says why.
"""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded, values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import latency

DOCUMENT_LIMIT_BYTES = 64 << 10
TOKEN_LIMIT_BYTES = 16 << 10
# Sources asked at once, and the most seconds for all of them.
AT_ONCE = 16
ALL_SECONDS = 120.0


class SourceError(OneCodeError):
    """A source did not answer as it must; the message says what is wrong."""

    code = "EF_UNREADABLE"


def ask(source: latency.Source) -> tuple[dict[str, int] | None, str | None]:
    """({"p95_ns", "p99_ns"} or None, why not or None)."""
    try:
        return dict(_ASKERS[source.source](source)), None
    except (SourceError, bounded.BoundedReadError, values.RefusedValueError, ValueError) as error:
        return None, printable(f"{place_of(source)}: {error}", 1_000)


def ask_all(sources: Mapping[str, latency.Source], seconds: float = ALL_SECONDS) -> dict[str, Any]:
    """{host: {"application", "application_error"}}, several at once; whoever is not reached in time is told so."""
    end = time.monotonic() + seconds

    def one(source: latency.Source) -> dict[str, Any]:
        if time.monotonic() >= end:
            late = f"{place_of(source)}: was not asked, {seconds:g} s for all hosts were over"
            return {"application": None, "application_error": late}
        found, wrong = ask(source)
        return {"application": found, "application_error": wrong}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(sources, pool.map(one, sources.values())))


def place_of(source: latency.Source) -> str:
    """What is named in a sentence: no query, which is long."""
    return source.url or source.path or (source.argv[0] if source.argv else source.source)


# --- sources -----------------------------------------------------------------------------------------


def _prometheus(source: latency.Source) -> Mapping[str, int]:
    answers = {}
    for percentile, query in source.queries.items():
        # Without it a series that ended five minutes ago still has a value.
        asked = {"query": query, "timeout": f"{source.timeout:g}s", "lookback_delta": f"{source.max_age:g}s"}
        url = f"{source.url}/api/v1/query?{urllib.parse.urlencode(asked)}"
        answers[percentile] = bounded.parse_json(fetch(source, url, errors=(400, 422)))
    return latency.read_samples(answers, source.unit)


def _http(source: latency.Source) -> Mapping[str, int]:
    document = bounded.parse_json(fetch(source, source.url))
    return latency.read_document(document, time.time(), source.max_age)


def _file(source: latency.Source) -> Mapping[str, int]:
    found = read_file(Path(source.path), source.max_age)
    if found is None:
        raise SourceError("is not there; does the application write it?")
    return found


def read_file(path: Path, max_age_s: float) -> Mapping[str, int] | None:
    """The latency in a file, None where there is none. Raises ValueError; what is too old is refused."""
    data = bounded.read_bytes(path, DOCUMENT_LIMIT_BYTES)
    if data is None:
        return None
    now = time.time()
    with contextlib.suppress(OSError):
        latency.refuse_age("the file", now - os.stat(path, follow_symlinks=False).st_mtime, max_age_s)
    return latency.read_document(bounded.parse_json(data), now, max_age_s)


def _command(source: latency.Source) -> Mapping[str, int]:
    return latency.read_document(bounded.parse_json(run(source)), time.time(), source.max_age)


_ASKERS: dict[str, Callable[[latency.Source], Mapping[str, int]]] = {
    latency.PROMETHEUS: _prometheus,
    latency.HTTP: _http,
    latency.FILE: _file,
    latency.COMMAND: _command,
}


# --- bounded input and output ------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token to where no one meant it to go."""

    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        return None


def fetch(source: latency.Source, url: str, errors: tuple[int, ...] = ()) -> bytes:
    """The body of a URL, of at most DOCUMENT_LIMIT_BYTES, within the source's time; also of a status in `errors`."""
    return within(source.timeout, lambda: _fetch(source, url, errors))


def _fetch(source: latency.Source, url: str, errors: tuple[int, ...]) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if url.startswith("https:"):
        try:
            handlers.append(urllib.request.HTTPSHandler(context=_trust(source.ca_file)))
        except OSError as error:
            raise SourceError(f"ca_file {source.ca_file}: {error.strerror or error}") from error
    request = urllib.request.Request(url, headers=_headers(source))
    try:
        answer = urllib.request.build_opener(*handlers).open(request, timeout=source.timeout)
    except urllib.error.HTTPError as error:
        if error.code not in errors:
            raise SourceError(f"answers {error.code} {error.reason}") from error
        answer = error
    except urllib.error.URLError as error:
        raise SourceError(f"cannot be reached ({error.reason})") from error
    with answer:
        return _body(answer)


def _headers(source: latency.Source) -> dict[str, str]:
    if not source.token_file:
        return {"Accept": "application/json"}
    token = bounded.read_text(Path(source.token_file), TOKEN_LIMIT_BYTES)
    words = (token or "").split()
    if len(words) != 1 or not words[0].isprintable() or not words[0].isascii():
        raise SourceError(f"token_file {source.token_file}: must hold one word, the bearer token")
    return {"Accept": "application/json", "Authorization": f"Bearer {words[0]}"}


def _body(answer: Any) -> bytes:
    data = bytes(answer.read(DOCUMENT_LIMIT_BYTES + 1))
    if len(data) > DOCUMENT_LIMIT_BYTES:
        raise SourceError(f"answers with more than {DOCUMENT_LIMIT_BYTES} bytes")
    return data


def _trust(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file or None)


def within(seconds: float, call: Callable[[], bytes]) -> bytes:
    """What `call` returns, or SourceError once the time is over, however slowly it gets its bytes.

    A thread that hangs in a read is left behind; it ends with the process.
    """
    found: list[bytes] = []
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except Exception as error:
            wrong.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if found:
        return found[0]
    if wrong:
        error = wrong[0]
        known = isinstance(error, SourceError)
        raise SourceError(str(error) if known else f"cannot be read ({error})") from error
    raise SourceError(f"did not answer within {seconds:g} s")


def run(source: latency.Source) -> bytes:
    """What the command prints, bounded and within the source's time; it ends with all its children."""
    try:
        process = subprocess.Popen(
            list(source.argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise SourceError(f"cannot be run: {error.strerror}") from error
    try:
        data = within(source.timeout, lambda: _printed(process))
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if len(data) > DOCUMENT_LIMIT_BYTES:
        raise SourceError(f"prints more than {DOCUMENT_LIMIT_BYTES} bytes")
    return data


def _printed(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    data = process.stdout.read(DOCUMENT_LIMIT_BYTES + 1)
    if len(data) <= DOCUMENT_LIMIT_BYTES and process.wait() != 0:
        raise SourceError(f"ended with {process.returncode}; run it on the host to see why")
    return data
