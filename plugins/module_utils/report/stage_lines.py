# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of a rollout for a terminal or a log: stages, checks against their limits, waits, and what went wrong. Pure.

Every text may have come from a host: each line is printable, and holds no sequence that a terminal obeys.
"""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import remedy_of
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import NOT_MEASURED, counted
from ansible_collections.ebpf.fleet.plugins.module_utils.report.figures import amount

Json = Mapping[str, Any]

# What a line is: the plugin gives each its colour where there are colours.
PLAIN, HEAD, GOOD, BAD, NOTE, CHANGED = "plain", "head", "good", "bad", "note", "changed"
PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"

_SHOWN = 12
_NEAREST = 8
_BAR = 20
# Nothing of a failure is cut; this only bounds a host that never ends.
_TEXT_LIMIT = 200_000
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CODE = re.compile(r"EF_[A-Z0-9_]+", re.ASCII)


class Line(NamedTuple):
    """One line without its end, and what it is."""

    text: str
    tone: str = PLAIN


class Wait(NamedTuple):
    """What a task is known to wait for, in seconds: a bake, then a measurement; or a person."""

    bake: float = 0
    window: float = 0
    person: float = 0


def clean(text: Any) -> list[str]:
    """Text as printable lines; every line break but the last makes a line, a tab is four blanks."""
    whole = text if isinstance(text, str) else str(text)
    whole = whole.replace("\r\n", "\n").expandtabs(4)
    return [printable(one, _TEXT_LIMIT) for one in whole.rstrip("\n").split("\n")]


def names(hosts: Sequence[str], most: int = _SHOWN) -> str:
    """Names of hosts, the first ones where they are many."""
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(printable(one, 255) for one in hosts[:most]) + more


def duration(seconds: float) -> str:
    """Seconds as a person says them: 48 s, 2 min 5 s, 3 h 20 min."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def bar(done: int, of: int) -> str:
    """How far it is, of 20 signs; full only where all are done."""
    full = done * _BAR // of if of > 0 else 0
    return "[" + "#" * full + "." * (_BAR - full) + "]"


def progress(done: int, of: int) -> str:
    return f"{bar(done, of)} {done} of {counted(of, 'host')} done"


# --- stages and batches ---


def stage_head(batch: Json, plan: Json) -> Line:
    """The line with which a stage begins."""
    stage: Json = next((one for one in plan.get("stages") or [] if one.get("name") == batch.get("stage")), {})
    hosts, batches = stage.get("hosts") or batch["hosts"], stage.get("batches") or [batch["hosts"]]
    bake = f", bake {duration(stage['bake'])}" if isinstance(stage.get("bake"), int) else ""
    size = f"{counted(len(hosts), 'host')} in {len(batches)} {'batch' if len(batches) == 1 else 'batches'}{bake}"
    return Line(f"Stage {printable(batch['stage'])}: {size}", HEAD)


def batch_head(batch: Json, plan: Json, done: int) -> Line:
    """The line with which a batch begins."""
    of = len(plan.get("batches") or [])
    hosts = batch["hosts"]
    where = progress(done, total(plan))
    return Line(f"  batch {batch['number']} of {of}  {where}  now {counted(len(hosts), 'host')}: {names(hosts)}")


def total(plan: Json) -> int:
    """Hosts of the whole plan, also of the part of a resumed one that is done."""
    resumed = plan.get("resumed") or {}
    return len(plan.get("hosts") or []) + len(resumed.get("done") or [])


# --- the gate ---


def verdict_lines(verdict: Json, width: int) -> list[Line]:
    """What the gate said: a line of counts, every check that stands in the way, then what is nearest to its limit."""
    checks = [one for one in verdict.get("checks") or [] if isinstance(one, Mapping) and "verdict" in one]
    held = [one for one in verdict.get("reasons") or [] if isinstance(one, Mapping)]
    count = {name: sum(one["verdict"] == name for one in checks) for name in (PASS, FAIL, INCONCLUSIVE)}
    other = len(checks) - sum(count.values())
    found = str(verdict.get("verdict"))
    tone = {PASS: GOOD, FAIL: BAD}.get(found, NOTE)
    told = f"{count[PASS]} pass, {count[FAIL]} fail, {count[INCONCLUSIVE]} could not be judged, {other} not exercised"
    lines = [Line(f"  checks: {printable(found)} ({told})", tone)]
    for one in held:
        lines += _check_lines(one, "x" if one.get("verdict") == FAIL else "?", width)
    for one in verdict.get("dry_run") or []:
        lines += _check_lines(one, "dry run", width)
    lines += [
        Line(f"      {one}", NOTE) for step in verdict.get("next") or [] for one in _wrapped(f"next: {step}", width)
    ]
    return lines + [Line(f"    {text}") for text in _wrapped(nearest(checks), width - 4)]


def _check_lines(check: Json, sign: str, width: int) -> list[Line]:
    tone = BAD if check.get("verdict") == FAIL else NOTE
    values = ""
    if check.get("limit") is not None or check.get("measured") is not None:
        measured, limit = (value_of(check.get(name), check.get("unit")) for name in ("measured", "limit"))
        values = f" [measured {measured}, limit {limit if check.get('limit') is not None else 'not set'}]"
    text = f"{sign} {check.get('check', 'check')}: {check.get('sentence', 'no sentence')}{values}"
    return [Line(f"    {one}", tone) for one in _wrapped(text, width - 4)]


def value_of(value: Any, unit: Any) -> str:
    """A measured value or limit; what is null was not measured, or is not set."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return amount(value, unit if isinstance(unit, str) else None)
    # Of a digest so much as tells it from others.
    return f"{value[:12]}…" if isinstance(value, str) and _DIGEST.fullmatch(value) else printable(value, 60)


def nearest(checks: Iterable[Json]) -> str:
    """Of each check with numbers the host that is nearest to its limit; empty where there is not one."""
    worst: dict[str, tuple[float, Json]] = {}
    for one in checks:
        near = nearness(one)
        if near is not None and (one["check"] not in worst or near > worst[one["check"]][0]):
            worst[one["check"]] = (near, one)
    first = sorted(worst.items(), key=lambda item: -item[1][0])
    more = f" | {len(first) - _NEAREST} more checks are further from it" if len(first) > _NEAREST else ""
    told = " | ".join(f"{name} {against(one)}{_where(one)}" for name, (_near, one) in first[:_NEAREST])
    return f"measured of limit, nearest first: {told}{more}" if told else ""


def against(check: Json) -> str:
    """What was measured of the limit: 12 of 50 millicores."""
    measured, limit, unit = value_of(check["measured"], check.get("unit")), check["limit"], check.get("unit")
    of = value_of(limit, unit)
    # The unit once where both have it.
    if measured.rpartition(" ")[2] == of.rpartition(" ")[2] and " " in measured:
        measured = measured.rpartition(" ")[0]
    return f"{measured} of {of}"


def nearness(check: Json) -> float | None:
    """Part of its limit that was measured; None of what is not a number against an upper limit in a unit."""
    measured, limit = check.get("measured"), check.get("limit")
    for one in (measured, limit):
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            return None
    if not check.get("unit") or str(check.get("check", "")).startswith("witness"):
        return None
    return float(measured) / float(limit) if limit else (float(measured) and float("inf"))  # type: ignore[arg-type]


def _where(check: Json) -> str:
    place = [printable(one, 128) for one in (check.get("host"), check.get("feature")) if one]
    return f" ({', '.join(place)})" if place else ""


# --- waits ---


def wait_text(wait: Wait | None, elapsed: float) -> str:
    """What is waited for, and how long still."""
    if wait is None:
        return f"since {duration(elapsed)}"
    if wait.person:
        left = wait.person - elapsed
        return f"waits for a person, {duration(left)} left of this part: ebpf.fleet.promote or ebpf.fleet.abort"
    if elapsed < wait.bake:
        then = f", then {duration(wait.window)} of measuring" if wait.window else ""
        return f"bakes, {duration(wait.bake - elapsed)} left{then}"
    if elapsed < wait.bake + wait.window:
        return f"measures, {duration(wait.bake + wait.window - elapsed)} left"
    return f"awaits answers, {duration(elapsed - wait.bake - wait.window)} beyond the time that was asked for"


# --- what went wrong ---

# Where a long sentence of ours has a place of its own for each part.
_PARTS = re.compile(r"\s+(?=(?:Why|On this host|It now|Next): )")
_OWN = ("On this host", "It now")


def failure_lines(task: str, kind: str, results: Mapping[str, Json], ignored: bool = False) -> list[Line]:
    """Everything that the hosts of one task told of its failure; equal answers are told once, with all their hosts.

    `kind` is "failed" or "unreachable".
    """
    groups: dict[str, tuple[list[str], list[Line]]] = {}
    for host, result in results.items():
        told = _told(result)
        groups.setdefault(repr(told), ([], told))[0].append(host)
    word = f"{kind.upper()}{' (ignored)' if ignored else ''}"
    if len(groups) > 1 and all(str(one.get("msg", "")).startswith("EF_ROLLOUT_STOPPED: ") for one in results.values()):
        return _stopped(task, results)
    lines = []
    for hosts, told in groups.values():
        lines.append(Line(f"{word}: {printable(task)} on {names(hosts, len(hosts))}", BAD))
        lines += told
    return lines


def _told(result: Json) -> list[Line]:
    """One answer: message with its code, the remedy, and every other field that is not of a known answer."""
    message = result.get("msg")
    lines = [Line(f"    {one}", BAD) for part in _PARTS.split(str(message)) for one in clean(part)] if message else []
    code = str(result.get("reason_code") or "") or (_CODE.match(str(message or "")) or [""])[0]
    remedy = result.get("remedy") or (remedy_of(code) if code else None)
    if remedy:
        lines += [Line(f"    remedy: {one}", NOTE) for one in clean(remedy)]
    if not remedy_of(code):
        lines += [
            Line(f"    {one}")
            for key, value in sorted(result.items())
            if key not in _KNOWN
            for one in _field(key, value)
        ]
    return lines or [Line("    no message came with it")]


_KNOWN = {
    "msg", "changed", "failed", "unreachable", "reason_code", "remedy", "invocation", "exception", "warnings",
    "deprecations",
}  # fmt: skip


def _field(key: str, value: Any) -> list[str]:
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, str):
        first, *more = clean(value)
        return [f"{printable(key)}: {first}", *(f"  {one}" for one in more)]
    return [f"{printable(key)}: {printable(_json(value), _TEXT_LIMIT)}"]


def _stopped(task: str, results: Mapping[str, Json]) -> list[Line]:
    """The end of a rollout, of which each host tells its own: what they share once, then each host's."""
    shared: dict[str, None] = {}
    own: dict[tuple[str, ...], list[str]] = {}
    for host, result in results.items():
        parts = _PARTS.split(str(result["msg"]))
        mine = tuple(one for one in parts if one.startswith(tuple(f"{name}: " for name in _OWN)))
        shared.update(dict.fromkeys(one for one in parts if one not in mine))
        own.setdefault(mine, []).append(host)
    lines = [Line(f"FAILED: {printable(task)} on {names(list(results), len(results))}", BAD)]
    lines += [Line(f"    {text}", BAD) for one in shared for text in clean(one)]
    for mine, hosts in own.items():
        lines.append(Line(f"    {names(hosts, len(hosts))}", BAD))
        lines += [Line(f"      {text}") for one in mine for text in clean(one)]
    return lines


def message_lines(value: Any) -> list[str]:
    """What a task prints for a person: a text, a list of texts, or another document."""
    if isinstance(value, (list, tuple)):
        return [line for one in value for line in message_lines(one)]
    return clean(value if isinstance(value, str) else _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, sort_keys=True)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` signs, broken at blanks; a word that is longer stays whole."""
    if not text:
        return []
    flat = printable(text, _TEXT_LIMIT)
    return textwrap.wrap(flat, max(40, width), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
