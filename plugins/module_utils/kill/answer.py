# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a host answered to a kill order or to the order back to its previous release. Pure.

Both scripts end with one line, MARK and a JSON document. A host may print anything: whatever is
not one complete answer that says yes is not a yes, is told for that host only, and raises nothing.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded, host_document
from ansible_collections.ebpf.fleet.plugins.module_utils.base.host_document import Fault
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import verdict as kill_verdict

Json = Mapping[str, Any]

MARKS = (rollback.MARK, killscript.MARK)

# What is read of a host's output is its end; an answer has some 200 characters.
OUTPUT_LIMIT = 64 * 1024
LINE_LIMIT = 4096
DETAIL_LIMIT = 300
DEPTH_LIMIT = 4
# How raw and fan_out say that a command failed, beside what the host printed.
ENDED = ("non-zero return code", "ended with status")
NO_ORDER = kill_verdict.Order()
DAY_MS = 24 * 60 * 60 * 1000

_ID = host_document.whole(0, 2**32 - 1)
_HOLDER = host_document.record({"pid": _ID, "uid": _ID}, needed=("pid", "uid"))
_PIN_FIELDS: dict[str, host_document.Rule] = {
    "id": _ID,
    "tag": host_document.text(16, r"[0-9a-f]+"),
    "name": host_document.text(128),
    "path": host_document.text(300),
}
_PIN = host_document.record(_PIN_FIELDS, needed=tuple(_PIN_FIELDS))
_FIELDS: dict[str, host_document.Rule] = {
    "ok": host_document.truth(),
    "changed": host_document.truth(null=True),
    "host_ms": host_document.whole(0, DAY_MS, null=True),
    "left": host_document.whole(0, 1_000_000, null=True),
    "persisted": host_document.truth(null=True),
    "escalated": host_document.truth(null=True),
    # By what the host was searched, and who else holds what is still there.
    "witness": host_document.word("", "kallsyms", "python3", "bpftool", "descriptors", null=True),
    "holders": host_document.many(_HOLDER, 100, null=True),
    # Files in a bpffs that hold what is left.
    "pins": host_document.many(_PIN, 10, null=True),
    # Whether the order lies on the host, whether it concerns the host, and what the host has instead.
    "placed": host_document.truth(null=True),
    "concerned": host_document.truth(null=True),
    "family": host_document.text(64, r"[A-Za-z0-9._-]*", null=True),
    "features": host_document.many(host_document.text(32, r"[a-z][a-z0-9_]*"), 40, null=True),
    "orders": host_document.many(host_document.text(64, r"[A-Za-z0-9._-]+"), 20, null=True),
    "digest": host_document.text(64, r"[0-9a-f]{64}|", null=True),
    "detail": host_document.text(LINE_LIMIT),
}
_RULE = host_document.record(_FIELDS, needed=("ok",))
_NOTHING: dict[str, Any] = {name: None for name in _FIELDS if name not in ("ok", "detail")}


def parse_answer(result: Any, marks: Sequence[str] = MARKS, host: str = "") -> dict[str, Any]:
    """One host's answer: every field of the answer's format, null where it did not say; `detail` is never empty.

    `result` is what a task over SSH registered (`stdout`, `stderr`, `rc`, `msg`, `unreachable`,
    `skipped`), or only its stdout. `host` is named where the answer cannot be used.
    """
    if isinstance(result, str):
        return _of_output(result, marks, host)
    if not isinstance(result, Mapping):
        return _no(_unusable(host, [Fault("the answer", "is not there")]))
    if result.get("unreachable"):
        return _no("unreachable: " + _line(result.get("msg"), "no answer"))
    if result.get("skipped"):
        return _no("was not asked, as check mode asks nothing; run it without --check")
    output = result.get("stdout", "")
    if not isinstance(output, str):
        return _no(_unusable(host, [Fault("stdout", "is not text")]))
    answer = _of_output(output, marks, host, _instead(result))
    return _exit_agrees(answer, result.get("rc", 0))


def _exit_agrees(answer: dict[str, Any], rc: Any) -> dict[str, Any]:
    if not answer["ok"] or (rc == 0 and isinstance(rc, int) and not isinstance(rc, bool)):
        return answer
    detail = f"exit status {printable(rc, 20)} in spite of: {answer['detail']}"
    return {**answer, "ok": False, "detail": printable(detail, DETAIL_LIMIT)}


def _instead(result: Json) -> str:
    """What came instead of an answer: the reason that was found, else what the host said before it closed."""
    reason = result.get("msg")
    if isinstance(reason, str) and reason.strip() and not reason.startswith(ENDED):
        return printable(reason.strip(), 250)
    told = (result.get("stderr"), result.get("stdout"))
    words = next((" / ".join(one.split("\n")[-3:]) for one in map(_stripped, told) if one), "")
    return f"it said: {printable(words[-200:], 200)} (exit status {printable(result.get('rc'), 20)})" if words else ""


def _stripped(words: Any) -> str:
    return words[-1000:].strip().replace("\r", "") if isinstance(words, str) else ""


def _of_output(output: str, marks: Sequence[str], host: str, instead: str = "") -> dict[str, Any]:
    lines = _answer_lines(output, marks)
    if not lines and _mark_within(output, marks):
        return _no(_unusable(host, [Fault("the answer", "a mark is there, but not at the begin of a line")]))
    if not lines and instead:
        return _no(f"no usable answer{' from ' + printable(host, 200) if host else ''}: {instead}")
    if not lines:
        return _no(_unusable(host, [Fault("the answer", "no line of the output is one, and nothing else was said")]))
    if len(set(lines)) > 1:
        return _no(_unusable(host, [Fault("the answer", f"{len(lines)} different ones were given; one is expected")]))
    return _of_line(lines[-1], host)


def _answer_lines(output: str, marks: Sequence[str]) -> list[str]:
    """What follows the mark in each line that begins with one. An echo of our command does not begin with it."""
    end = output[-OUTPUT_LIMIT:]
    # The first line of a cut output is a part of one: what looks like its begin is not.
    lines = end.split("\n")[len(output) > OUTPUT_LIMIT :]
    return list(_marked(lines, marks))


def _marked(lines: Sequence[str], marks: Sequence[str]) -> Iterator[str]:
    for line in lines:
        for mark in marks:
            if line.startswith(mark):
                yield line[len(mark) :].rstrip("\r")


def _mark_within(output: str, marks: Sequence[str]) -> bool:
    return any(mark in output[-OUTPUT_LIMIT:] for mark in marks)


def _of_line(line: str, host: str) -> dict[str, Any]:
    if len(line) > LINE_LIMIT:
        return _no(_unusable(host, [Fault("the answer", f"has {len(line)} characters; at most {LINE_LIMIT} are read")]))
    try:
        document = bounded.parse_json(line, DEPTH_LIMIT)
    except ValueError as error:
        return _no(_unusable(host, [Fault("the answer", str(error))]))
    found, faults = host_document.usable(document, _RULE)
    if faults:
        return _no(_unusable(host, faults))
    detail = printable(found.get("detail") or _silent_detail(found["ok"]), DETAIL_LIMIT)
    return {**_NOTHING, **{name: found[name] for name in _FIELDS if name in found}, "detail": detail}


def _silent_detail(ok: bool) -> str:
    return "the host confirmed" if ok else "the host did not confirm"


def _no(detail: str) -> dict[str, Any]:
    return {**_NOTHING, "ok": False, "detail": printable(detail, DETAIL_LIMIT)}


def _unusable(host: str, faults: Sequence[Fault]) -> str:
    if host:
        return str(host_document.no_usable_answer(host, faults))
    return f"no usable answer: {host_document.told(faults)}"


def _line(words: Any, default: str) -> str:
    return words.strip() if isinstance(words, str) and words.strip() else default


def summary(
    answers: Mapping[str, Any], marks: Sequence[str] = MARKS, order: kill_verdict.Order = NO_ORDER
) -> dict[str, Any]:
    """Who confirmed an order and who did not.

    ``answers`` maps every host that was addressed to its result. The result has ``hosts`` (each
    host's parsed answer), ``confirmed`` and ``missing`` (names, sorted), ``numbers``, ``concerned``
    and ``off`` (names), ``failed`` (whom a playbook must fail), ``slowest_ms`` (null when no host
    confirmed), a ``sentence`` and the ``verdict`` in lines. No host at all is not a success.
    """
    hosts = {name: parse_answer(answer, marks, name) for name, answer in answers.items()}
    found = kill_verdict.told(hosts)
    confirmed = sorted(set(hosts) - set(found.missing))
    times = [hosts[name]["host_ms"] for name in confirmed if hosts[name]["host_ms"] is not None]
    slowest = max(times) if times else None
    return {
        "hosts": hosts,
        "confirmed": confirmed,
        "missing": found.missing,
        "failed": kill_verdict.failed(found, order, hosts),
        "numbers": kill_verdict.numbers(found),
        "concerned": found.concerned,
        "off": found.off,
        "slowest_ms": slowest,
        "sentence": kill_verdict.sentence(hosts, found, order, slowest),
        "verdict": kill_verdict.lines(hosts, found, order, slowest),
    }
