# SPDX-License-Identifier: GPL-3.0-or-later
"""An application's latency from each kind of source: what is read, and that nothing else passes for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import latency, latency_sources
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import observation as obs

from tests.support import httpserver

GOOD = {"p95_ns": 1_000, "p99_ns": 2_000}
PROMETHEUS = {"source": "prometheus", "url": "http://127.0.0.1:9/", "unit": "s", "queries": {"p95": "a", "p99": "b"}}


def source(**fields: Any) -> latency.Source:
    found = latency.read_source("x", fields)
    assert found is not None
    return found


# --- documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "read"),
    [
        ({"p95_ns": 1, "p99_ns": 1}, (1, 1)),
        ({"p95_ns": 1.25e6, "p99_ns": 2e6}, (1_250_000, 2_000_000)),
        ({"p95_ns": 1.5, "p99_ns": 2.0000001}, (2, 3)),
        ({"p95_us": 1.5, "p99_ms": 2}, (1_500, 2_000_000)),
        ({"p95_s": 0.25, "p99_s": 3600}, (250_000_000, 3_600 * 10**9)),
        ({"p95_s": 1e-9, "p99_ns": 1}, (1, 1)),
        ({"p95_ns": "1", "p99_ns": "1.5"}, (1, 2)),
        ({**GOOD, "requests": 1, "service": "shop", "p": 1, "time_unix_s": 0}, (1_000, 2_000)),
    ],
)
def test_a_document_is_read_with_its_units(document: Any, read: tuple[int, int]) -> None:
    assert latency.read_document(document) == {"p95_ns": read[0], "p99_ns": read[1]}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([1], "the document: is"),
        (None, "the document: is nothing"),
        ({}, "p95: is not there; give one of p95_ns, p95_us, p95_ms, p95_s"),
        ({"p95_ns": 1}, "p99: is not there"),
        ({"p95_ns": 1, "p99_ns": None}, "p99_ns: is nothing"),
        ({"p95": 1, "p99_ns": 1}, "p95: is p95; give one of p95_ns"),
        ({"p95_min": 1, "p99_ns": 1}, "p95: is p95_min"),
        ({"p95_ns": 1, "p95_ms": 1, "p99_ns": 1}, "p95: is p95_ms, p95_ns"),
        ({"p95_ns": True, "p99_ns": 1}, "p95_ns: is True (a truth value)"),
        ({"p95_ns": [1], "p99_ns": 1}, "p95_ns: is [1] (a list)"),
        ({"p95_ns": "fast", "p99_ns": 1}, "p95_ns: is 'fast' (text)"),
        ({"p95_ns": -1, "p99_ns": 1}, "p95_ns: is -1"),
        ({"p95_ns": 0, "p99_ns": 1}, "is the unit right?"),
        ({"p95_ns": 0.99, "p99_ns": 1}, "is the unit right?"),
        ({"p95_s": 1, "p99_s": 3600.1}, "p99_s: is 3600.1 (a number); as a latency"),
        ({"p95_ns": float("nan"), "p99_ns": 1}, "p95_ns: is nan"),
        ({"p95_ns": 1, "p99_ns": float("inf")}, "p99_ns: is inf"),
        ({"p95_ns": 2, "p99_ns": 1}, "p95 is 2 ns, more than p99, 1 ns; are they exchanged?"),
        ({**GOOD, "requests": 0}, "requests: is 0 (a number); nothing was measured"),
        ({**GOOD, "requests": "many"}, "requests: is 'many'"),
        ({**GOOD, "time_unix_s": "noon"}, "time_unix_s: is 'noon'"),
    ],
)
def test_another_document_is_refused_by_its_field(document: Any, named: str) -> None:
    with pytest.raises(RefusedValueError) as raised:
        latency.read_document(document, 100.0, 60.0)
    assert named in str(raised.value)


@pytest.mark.parametrize(("written", "fine"), [(40, True), (39.9, False), (160, True), (160.1, False), (100, True)])
def test_a_stale_document_is_refused(written: float, fine: bool) -> None:
    with contextlib.nullcontext() if fine else pytest.raises(RefusedValueError, match="time_unix_s: is 60 s"):
        latency.read_document({**GOOD, "time_unix_s": written}, 100.0, 60.0)


# --- Prometheus' answers -----------------------------------------------------------------------------


def vector(*values: Any) -> dict[str, Any]:
    result = [{"metric": {}, "value": [1.0, one]} for one in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def scalar(value: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "scalar", "result": [1.0, value]}}


def test_samples_are_read_in_their_unit() -> None:
    assert latency.read_samples({"p95": vector("0.012"), "p99": scalar("0.0480000001")}, "s") == {
        "p95_ns": 12_000_000, "p99_ns": 48_000_001}  # fmt: skip
    assert latency.read_samples({"p95": vector("1e3"), "p99": vector("1e3")}, "us")["p99_ns"] == 1_000_000


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (vector(), "the query for p99: gave 0 samples; is there such a series"),
        (vector("1", "2"), "the query for p99: gave 2 samples; aggregate them to one"),
        (vector("NaN"), "the query for p99: gave NaN; was there a request within its range?"),
        (vector("+Inf"), "the query for p99: gave +Inf"),
        (vector("0"), "the query for p99: is 0.0 (a number); as a latency"),
        (vector("-1"), "the query for p99: is -1.0"),
        (vector("1e9"), "is the unit right?"),
        (vector("x"), "the query for p99: is 'x' (text); its sample must be a number"),
        (vector(5), "gave no sample with a value"),
        (vector("0.001"), "more than p99"),
        ({"status": "error", "error": "parse error"}, "Prometheus refused it (parse error)"),
        ({"status": "success"}, "Prometheus refused it"),
        (None, "Prometheus refused it"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "gave 'matrix' (text); ask for a"),
        ({"status": "success", "data": {"resultType": "vector", "result": [1]}}, "gave no sample"),
        ({"status": "success", "data": {"resultType": "vector", "result": {}}}, "gave 'vector' (text); ask for"),
    ],
)
def test_other_answers_are_refused(answer: Any, named: str) -> None:
    with pytest.raises(RefusedValueError) as raised:
        latency.read_samples({"p95": vector("0.01"), "p99": answer}, "s")
    assert named in str(raised.value)


# --- what a variable may say -------------------------------------------------------------------------


def test_a_source_is_read_whole() -> None:
    found = source(**PROMETHEUS, timeout="2.5", max_age=30, token_file="/etc/token")
    assert (found.asked_from, found.url, found.timeout, found.max_age) == ("controller", "http://127.0.0.1:9", 2.5, 30)
    assert source(source="http", url="http://h/x").asked_from == "host"
    assert source(source="http", url="https://h/x", **{"from": "controller"}).asked_from == "controller"
    assert source(source="command", argv='["/bin/echo", "{}"]').argv == ("/bin/echo", "{}")
    assert (source(source="file", path="/a").timeout, source(source="file", path="/a").max_age) == (5, 60)
    assert latency.read_source("x", {}) is None and latency.read_source("x", "") is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"source": "graphite"}, "x.source: is 'graphite' (text); give one of prometheus, http, file, command"),
        ({"url": "http://h"}, "x.source: is nothing"),
        ({"source": "file"}, "x.path: is missing; the source file needs it"),
        ({"source": "file", "path": "/a", "pth": 1}, "x.pth: is not a field of the source file; did you mean 'path'"),
        ({"source": "file", "path": "a"}, "x.path: is 'a' (text); give an absolute path"),
        ({"source": "file", "path": "/a", "url": "http://h"}, "x.url: is not a field of the source file"),
        ({"source": "http", "url": "ftp://h/"}, "x.url: is 'ftp://h/'"),
        ({"source": "http", "url": "http://h/a b"}, "x.url"),
        ({"source": "http", "url": "http://h", "from": "there"}, "x.from: is 'there'"),
        ({**PROMETHEUS, "unit": "m"}, "x.unit: is 'm' (text); give one of 'ns', 'us', 'ms', 's'"),
        ({**PROMETHEUS, "queries": {"p95": "a"}}, "x.queries: is"),
        ({**PROMETHEUS, "queries": {"p95": "a", "p99": 1}}, "x.queries.p99: is 1"),
        ({**PROMETHEUS, "from": "host"}, "x.from: is not a field of the source prometheus"),
        ({"source": "command", "argv": "/bin/true --x"}, "x.argv: is '/bin/true --x' (text); give a list"),
        ({"source": "command", "argv": ["true"]}, "x.argv: is ['true'] (a list); give a list whose first word is the"),
        ({"source": "command", "argv": []}, "x.argv: is [] (a list)"),
        ({"source": "command", "argv": ["/bin/true", 1]}, "x.argv[1]: is 1"),
        ({"source": "file", "path": "/a", "timeout": 0.05}, "x.timeout: is 0.05"),
        ({"source": "file", "path": "/a", "timeout": 60.5}, "x.timeout: is 60.5"),
        ({"source": "file", "path": "/a", "max_age": 0}, "x.max_age: is 0"),
    ],
)
def test_a_source_that_cannot_be_is_refused_by_its_field(fields: Any, named: str) -> None:
    with pytest.raises(RefusedValueError) as raised:
        latency.read_source("x", fields)
    assert named in str(raised.value)


# --- files -------------------------------------------------------------------------------------------


def test_a_file_is_read_while_it_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    asked = source(source="file", path=str(path), max_age=60)
    assert latency_sources.ask(asked) == (None, f"{path}: is not there; does the application write it?")
    path.write_text(json.dumps(GOOD))
    assert latency_sources.ask(asked) == (GOOD, None)
    for age, fine in ((50, True), (70, False), (-70, False)):
        os.utime(path, (time.time() - age,) * 2)
        found, wrong = latency_sources.ask(asked)
        assert (found == GOOD, wrong is None) == (fine, fine)
    # A busy machine comes to read it later.
    told = re.search(r"the file: is (\d+) s in the future, at most 60 s are allowed", wrong or "")
    assert told and 60 < int(told[1]) <= 70


def test_the_observations_own_file_is_held_to_the_same(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(GOOD))
    old = time.time() - 61
    os.utime(path, (old, old))
    found, wrong = obs.read_application(path)
    told = re.match(rf"{re.escape(str(path))}: the file: is (\d+) s old", wrong or "")
    assert found is None and told and 61 <= int(told[1]) <= time.time() - old + 1


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/etc/hostname"),
                                  lambda path: path.write_bytes(b"[" * 100), lambda path: path.write_bytes(b""),
                                  lambda path: path.write_bytes(b" " * (64 << 10) + b"{}")])  # fmt: skip
def test_what_is_no_such_file_is_said_and_never_waited_for(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    path = tmp_path / "latency.json"
    make(path)
    found, wrong = latency_sources.ask(source(source="file", path=str(path)))
    assert found is None and wrong is not None and wrong.startswith(str(path))


# --- commands ----------------------------------------------------------------------------------------


def asked(*argv: str, timeout: float = 5) -> tuple[Any, str]:
    found, wrong = latency_sources.ask(source(source="command", argv=list(argv), timeout=timeout))
    return found, wrong or ""


def test_a_command_is_run_without_a_shell() -> None:
    assert asked("/bin/echo", json.dumps(GOOD)) == (GOOD, "")
    assert asked("/bin/echo", '{"p95_ns": "$HOME"}')[0] is None


def test_a_command_that_fails_hangs_or_floods_is_said(tmp_path: Path) -> None:
    assert "/bin/false: ended with 1; run it on the host" in asked("/bin/false")[1]
    assert "/no/such: cannot be run: No such file" in asked("/no/such")[1]
    begun = time.monotonic()
    mark = tmp_path / "alive"
    # The child of the command is ended, too.
    said = asked("/bin/sh", "-c", f"(sleep 2; touch {mark}) & sleep 30", timeout=0.5)[1]
    assert "did not answer within 0.5 s" in said and time.monotonic() - begun < 5
    time.sleep(2)
    assert not mark.exists()
    assert "prints more than 65536 bytes" in asked("/usr/bin/yes")[1]
    children = [path.read_text() for path in Path(f"/proc/self/task/{os.getpid()}/").glob("children")]
    names = [Path(f"/proc/{pid}/comm").read_text() for one in children for pid in one.split()]
    assert "yes\n" not in names, "it is waited for too"


def padded(length: int) -> str:
    return json.dumps(GOOD).ljust(length)


@pytest.mark.parametrize("end", [0, 3])
@pytest.mark.parametrize("more", [0, 1])
def test_a_command_may_print_64_kib_and_no_more(tmp_path: Path, more: int, end: int) -> None:
    (tmp_path / "text").write_text(padded(65_536 + more))
    found = asked("/bin/sh", "-c", f"cat {tmp_path}/text; exit {end}")
    ended = "/bin/sh: ended with 3; run it on the host to see why"
    few = (None, ended) if end else (GOOD, "")
    assert found == ((None, "/bin/sh: prints more than 65536 bytes") if more else few)


def test_a_file_may_have_64_kib_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    for more, fine in ((0, True), (1, False)):
        path.write_text(padded(65_536 + more))
        found, wrong = latency_sources.ask(source(source="file", path=str(path)))
        assert (found == GOOD, wrong is None) == (fine, fine)


# --- HTTP --------------------------------------------------------------------------------------------


Answer = Callable[[str, Any], tuple[int, Any, dict[str, str]]]


def written(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    """(status, parts of the body, headers), each part sent as it comes."""
    status, body, more = answer(request.path, request.headers)
    request.send_response(status)
    for name, value in more.items():
        request.send_header(name, value)
    request.end_headers()
    with contextlib.suppress(OSError):
        for part in body:
            request.wfile.write(part)
            request.wfile.flush()


def serving(answer: Answer) -> contextlib.AbstractContextManager[str]:
    return httpserver.serving(lambda request: written(request, answer))


def test_an_endpoint_is_asked_with_its_token(tmp_path: Path) -> None:
    seen = []

    def answer(path: str, headers: Any) -> tuple[int, Any, dict[str, str]]:
        seen.append((path, headers.get("Authorization")))
        return 200, [json.dumps(GOOD).encode()], {}

    token = tmp_path / "token"
    token.write_text("secret\n")
    with serving(answer) as url:
        assert latency_sources.ask(source(source="http", url=url + "/latency")) == (GOOD, None)
        assert latency_sources.ask(source(source="http", url=url, token_file=str(token))) == (GOOD, None)
        token.write_text("two words")
        wrong = latency_sources.ask(source(source="http", url=url, token_file=str(token)))[1]
    assert seen == [("/latency", None), ("/", "Bearer secret")]
    assert wrong is not None and "must hold one word" in wrong and "two" not in wrong


def slowly() -> Iterator[bytes]:
    while True:
        yield b" "
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("status", "body", "more", "named"),
    [
        (500, [b"{}"], {}, "answers 500"),
        (404, [b"{}"], {}, "answers 404"),
        (302, [b""], {"Location": "/elsewhere"}, "answers 302"),
        (200, [b""], {}, "is not JSON"),
        (200, [b'{"p95_ns": 1}'], {}, "p99: is not there"),
        (200, [b'{"p95_ns": NaN}'], {}, "NaN"),
        (200, [b" " * 70_000], {}, "more than 65536 bytes"),
        (200, slowly(), {}, "did not answer within 1 s"),
        (200, [b'{"p95_ns": 1, "p99'], {"Content-Length": "100"}, "is not JSON: Unterminated"),
    ],
)
def test_an_endpoint_that_answers_otherwise_is_said_within_its_time(
    status: int, body: Any, more: dict[str, str], named: str
) -> None:
    begun = time.monotonic()
    with serving(lambda _path, _headers: (status, body, more)) as url:
        found, wrong = latency_sources.ask(source(source="http", url=url, timeout=1))
    assert found is None and wrong is not None and named in wrong and wrong.startswith(url)
    assert time.monotonic() - begun < 10


def test_an_endpoint_may_answer_with_64_kib_and_no_more() -> None:
    for more, fine in ((0, True), (1, False)):
        body = padded(65_536 + more).encode()
        with serving(lambda _path, _headers, body=body: (200, [body], {})) as url:
            found, wrong = latency_sources.ask(source(source="http", url=url))
        assert (found, wrong) == ((GOOD, None) if fine else (None, f"{url}: answers with more than 65536 bytes"))


@pytest.mark.parametrize(("text", "fine"), [("secret", True), (" secret \n", True), ("", False), ("a b", False),
                                            ("s\u00e9cret", False), ("a\x01", False), (None, False)])  # fmt: skip
def test_a_token_is_one_word_of_ascii(tmp_path: Path, text: str | None, fine: bool) -> None:
    assert latency_sources._headers(source(source="http", url="http://h")) == {"Accept": "application/json"}
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    asked = source(source="http", url="http://h", token_file=str(path))
    if fine:
        assert latency_sources._headers(asked) == {"Accept": "application/json", "Authorization": "Bearer secret"}
        return
    with pytest.raises(latency_sources.SourceError, match=f"token_file {path}: must hold one word, the bearer token"):
        latency_sources._headers(asked)


def test_an_endpoint_that_is_not_there_is_said() -> None:
    found, wrong = latency_sources.ask(source(source="http", url="http://127.0.0.1:9/x"))
    assert found is None and wrong is not None and "cannot be reached" in wrong
    found, wrong = latency_sources.ask(source(source="http", url="https://127.0.0.1:9/x", ca_file="/no/such.pem"))
    assert found is None and wrong is not None and "ca_file /no/such.pem: No such file" in wrong


def test_prometheus_is_asked_for_fresh_samples_only() -> None:
    seen = []

    def answer(path: str, _headers: Any) -> tuple[int, Any, dict[str, str]]:
        seen.append(path)
        return 200, [json.dumps(vector("0.25")).encode()], {}

    with serving(answer) as url:
        given = {**PROMETHEUS, "url": url + "/prom/", "max_age": 20}
        assert latency_sources.ask(source(**given)) == ({"p95_ns": 250_000_000, "p99_ns": 250_000_000}, None)
    assert seen == [f"/prom/api/v1/query?query={one}&timeout=5s&lookback_delta=20s" for one in "ab"]


def test_many_hosts_are_asked_at_once_and_within_a_time_for_all(tmp_path: Path) -> None:
    many = {f"h{at}": source(source="command", argv=["/bin/sleep", "0.3"]) for at in range(16)}
    begun = time.monotonic()
    found = latency_sources.ask_all(many)
    assert set(found) == set(many) and time.monotonic() - begun < 4
    assert all(one["application"] is None and "is not JSON" in one["application_error"] for one in found.values())
    late = latency_sources.ask_all(many, seconds=0)
    assert all("was not asked, 0 s for all hosts were over" in one["application_error"] for one in late.values())
