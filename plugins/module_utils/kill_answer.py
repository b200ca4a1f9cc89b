# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Read what a host answered to a kill order or to the order back to its previous release. Pure.

Both scripts end with one line, MARK and a JSON document. A host may print anything: whatever is
not one complete answer that says yes is not a yes, is told for that host only, and raises nothing.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils import bounded, host_document, killscript, rollback
from ansible_collections.ebpf.fleet.plugins.module_utils.host_document import Fault
from ansible_collections.ebpf.fleet.plugins.module_utils.printable import printable

Json = Mapping[str, Any]

MARKS = (rollback.MARK, killscript.MARK)

# What is read of a host's output is its end; an answer has some 200 characters.
OUTPUT_LIMIT = 64 * 1024
LINE_LIMIT = 4096
DETAIL_LIMIT = 300
DEPTH_LIMIT = 4
ANSIBLES_WORDS = "non-zero return code"  # of raw, beside what the host printed
DAY_MS = 24 * 60 * 60 * 1000

_ID = host_document.whole(0, 2**32 - 1)
_HOLDER = host_document.record({"pid": _ID, "uid": _ID}, needed=("pid", "uid"))
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
    answer = _of_output(output, marks, host, _remark(result))
    return _exit_agrees(answer, result.get("rc", 0))


def _exit_agrees(answer: dict[str, Any], rc: Any) -> dict[str, Any]:
    if not answer["ok"] or (rc == 0 and isinstance(rc, int) and not isinstance(rc, bool)):
        return answer
    detail = f"exit status {printable(rc, 20)} in spite of: {answer['detail']}"
    return {**answer, "ok": False, "detail": printable(detail, DETAIL_LIMIT)}


def _remark(result: Json) -> str:
    """What came instead of an answer: exit status, and the reason that was found, else the end of what was printed."""
    reason = result.get("msg")
    told = [None if reason == ANSIBLES_WORDS else reason, result.get("stderr"), result.get("stdout")]
    words = next((one.strip()[-200:] for one in told if isinstance(one, str) and one.strip()), "")
    return f" (rc {printable(result.get('rc'), 20)}{': ' + words if words else ''})"


def _of_output(output: str, marks: Sequence[str], host: str, remark: str = "") -> dict[str, Any]:
    lines = _answer_lines(output, marks)
    if not lines:
        where = "; a mark is there, but not at the begin of a line" if _mark_within(output, marks) else ""
        return _no(_unusable(host, [Fault("the answer", "no line of the output is one" + where)]) + remark)
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


def census(answers: Mapping[str, Any], marks: Sequence[str] = MARKS) -> dict[str, Any]:
    """Who confirmed an order and who did not.

    ``answers`` maps every host that was addressed to its result. The result has ``hosts`` (each
    host's parsed answer), ``confirmed`` and ``missing`` (names, sorted), ``slowest_ms`` (null
    when no host confirmed) and a ``sentence``. No host at all is not a success.
    """
    hosts = {name: parse_answer(answer, marks, name) for name, answer in answers.items()}
    confirmed = sorted(name for name, host in hosts.items() if host["ok"])
    missing = sorted(set(hosts) - set(confirmed))
    times = [hosts[name]["host_ms"] for name in confirmed if hosts[name]["host_ms"] is not None]
    return {
        "hosts": hosts,
        "confirmed": confirmed,
        "missing": missing,
        "slowest_ms": max(times) if times else None,
        "sentence": _sentence(hosts, confirmed, missing, times),
    }


def _sentence(hosts: Mapping[str, Json], confirmed: Sequence[str], missing: Sequence[str], times: Sequence[int]) -> str:
    if not hosts:
        return "No host was addressed: check the inventory and the pattern."
    slowest = f"; the slowest took {max(times)} ms on the host" if times else ""
    if not missing:
        return f"All {len(confirmed)} hosts confirmed{slowest}."
    named = "; ".join(f"{name} ({hosts[name]['detail']})" for name in missing)
    confirm = f"{len(confirmed)} of {len(hosts)} hosts confirmed. NOT confirmed: {named}."
    return f"{confirm} Run this playbook again until all have."
