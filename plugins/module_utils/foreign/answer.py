# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers, what of it is believed, and the one verdict over all hosts. Pure."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import Target, command
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope, verdict

Json = Mapping[str, Any]

SCHEMA = "ebpf.fleet/takeoff/v1"
STATUSES = ("planned", "off", "left", "unknown", "released", "released_in_part")
GOOD = ("planned", "off", "released")
NOT_CONCERNED, NO_ANSWER, REFUSED = "not_concerned", "no_answer", "refused"
LINES = 200
_SHOWN = 12
_NUMBER = re.compile(r"[0-9]+")

_LINES = doc.many(doc.text(4096), LINES + 1)
_PROGRAM = doc.record(
    {"id": doc.whole(0, 2**32 - 1), "tag": doc.text(16, r"[0-9a-f]{16}"), "name": doc.text(64), "type": doc.text(64),
     "points": doc.many(doc.text(4096), 4096)},
    ("id", "tag", "name", "type", "points"),
)  # fmt: skip
_FIELDS = {
    "schema": doc.word(SCHEMA),
    "target": doc.text(300),
    "status": doc.word(*STATUSES),
    "plan": _LINES,
    "done": _LINES,
    "left": _LINES,
    "told": _LINES,
    "programs": doc.many(_PROGRAM, 4096),
    "record": doc.text(4096, null=True),
}
RULE = doc.record(_FIELDS, tuple(_FIELDS))


def made(
    target: Target, status: str, changed: bool, plan: Sequence[str] = (), done: Sequence[str] = (),
    left: Sequence[str] = (), told: Sequence[str] = (), programs: Sequence[Json] = (), record: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the module returns: `changed`, and the document of docs/formats/takeoff.md as `takeoff`."""
    shown = [{name: one[name] for name in ("id", "tag", "name", "type", "points")} for one in programs]
    document = {
        "schema": SCHEMA, "target": target.text, "status": status, "plan": _bounded(plan), "done": _bounded(done),
        "left": _bounded(left), "told": _bounded(told), "programs": shown[:4096], "record": record,
    }  # fmt: skip
    return {"changed": changed, "takeoff": document}


def _bounded(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - LINES} more"] if len(lines) > LINES else []
    return [printable(line, 2000) for line in [*lines[:LINES], *more]]


def diff(document: Json) -> dict[str, str]:
    """The steps as Ansible shows a difference."""
    steps = "".join(f"{line}\n" for line in document["plan"])
    return {"before": "", "after": steps, "after_header": document["target"]}


class Read(NamedTuple):
    """A host's document, printable, or None and why there is none."""

    document: Any
    problem: str


def read(host: str, result: Any) -> Read:
    """What the result of the module on `host` is worth; raises for nothing that a host can say."""
    if not isinstance(result, Mapping) or not isinstance(result.get("takeoff"), Mapping):
        return Read(None, f"no usable answer from {printable(host, 200)}")
    judged = doc.usable(result["takeoff"], RULE)
    if judged.faults:
        return Read(None, doc.no_usable_answer(host, judged.faults))
    return Read(judged.document, "")


def summary(
    results: Mapping[str, Any], given: object, state: str, check: bool = False, allow_unconcerned: bool = False
) -> dict[str, Any]:
    """Every host's status with its details, who fails, and the verdict in lines.

    `results`: what the module returned, by the name of every host that was chosen.
    """
    wanted = scope.read_foreign(given)
    hosts = {name: _host(name, result) for name, result in results.items()}
    by: dict[str, list[str]] = {}
    for name in sorted(hosts):
        by.setdefault(hosts[name]["status"], []).append(name)
    concerned = sorted(name for name, one in hosts.items() if one["status"] in STATUSES)
    failed = sorted(name for name, one in hosts.items() if one["status"] not in (*GOOD, NOT_CONCERNED))
    unmeant = not concerned and not failed and not allow_unconcerned
    if unmeant:
        failed = sorted(hosts)
    lines = verdict.wrapped(f"scope={wanted.text}, {state}: {len(hosts)} host{'s' * (len(hosts) != 1)} asked.", "")
    for status, words in _WORDS.items():
        lines += _group(by.get(status, []), hosts, words, check)
    words, typed = _next(by, wanted, state, check, unmeant)
    next_step = verdict.wrapped(f"Next: {words}", "") + ([f"  {typed}"] if typed else [])
    return {"hosts": hosts, "concerned": concerned, "failed": failed, "numbers": {key: len(by[key]) for key in by},
            "told": lines, "verdict": lines + next_step, "ok": not failed and bool(hosts)}  # fmt: skip


_WORDS = {
    "planned": "would do this", "off": "off, by the kernel's own word", "released": "put back",
    "released_in_part": "PUT BACK IN PART", "left": "NOT OFF", "unknown": "NOT KNOWN to be off, so it counts as on",
    REFUSED: "REFUSED there, so it counts as on", NO_ANSWER: "NO USABLE ANSWER, so it counts as on",
    NOT_CONCERNED: "not concerned",
}  # fmt: skip


_REASONS = {"EF_TAKEOFF_ABSENT": NOT_CONCERNED, "EF_TAKEOFF_PROTECTED": REFUSED, "EF_TAKEOFF_RECORD": REFUSED,
            "EF_ARGUMENT": REFUSED}  # fmt: skip


def _host(name: str, result: Any) -> dict[str, Any]:
    found = read(name, result)
    if found.document is not None:
        one = found.document
        detail = "; ".join(one["left"] or one["told"]) or one["status"]
        return {**one, "detail": printable(detail, 1000)}
    told = result if isinstance(result, Mapping) else {}
    words = printable(" ".join(str(told.get("msg") or found.problem).split()), 1000)
    status = _REASONS.get(str(told.get("reason_code")), NO_ANSWER)
    return {"status": status, "detail": words.replace("EF_TAKEOFF_ABSENT: ", "", 1),
            "plan": [], "done": [], "left": [], "told": [], "programs": [], "record": None}  # fmt: skip


def _group(names: Sequence[str], hosts: Mapping[str, Json], words: str, check: bool) -> list[str]:
    """A few lines for each set of hosts that say the same."""
    if not names:
        return []
    said = [f"{words}: {len(names)}"]
    groups: dict[str, list[str]] = {}
    of: dict[str, list[str]] = {}
    for name in names:
        one = hosts[name]
        lines = [*one["left"], *one["told"]]
        lines = [*one["plan"], *lines] if check and one["status"] == "planned" else lines
        lines = lines or ([] if one["status"] in GOOD else [one["detail"]])
        # Answers that differ only in numbers, as in those of programs and processes, are one.
        key = _NUMBER.sub("#", "\n".join(lines))
        groups.setdefault(key, []).append(name)
        of.setdefault(key, lines)
    for key, some in list(groups.items())[:_SHOWN]:
        shown = of[key]
        said += verdict.wrapped(hostnames.some_of(some), "  ")
        for line in shown[:_SHOWN]:
            said += verdict.wrapped(line, "    ")
        said += [f"    and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return said + ([f"  and {len(groups) - _SHOWN} more kinds of answer"] if len(groups) > _SHOWN else [])


def _next(
    by: Mapping[str, Sequence[str]], wanted: scope.Wanted, state: str, check: bool, unmeant: bool
) -> tuple[str, str]:
    """What to do, and the command in one piece, as it is to be typed."""
    if unmeant:
        sentence = "no host has it: give the right name. Add -e allow_unconcerned=true where nothing is to be found."
        return sentence, ""
    if any(by.get(status) for status in ("left", "unknown", "released_in_part", REFUSED, NO_ANSWER)):
        return "do what stands beside these hosts, and run the same command again until it exits with 0.", ""
    if check:
        return "to do it write:", command(wanted, state)
    if state == "engaged":
        return "it stays off until it is put back with:", command(wanted, "released")
    return "nothing is left to do here.", ""
