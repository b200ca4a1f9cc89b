# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Concurrent controls: hosts that a batch is compared with, what they are asked, and what their answer says. Pure.

A control is a host that this rollout has not changed yet. It is asked by POSIX sh alone, for its own counters and its
application's latency, at the beginning and the end of the very windows in which the batch is measured. One that does
not answer, or not usably, is one control less, and never a failure of the batch.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import latency, observation, status_schema

DEFAULT_MOST = 20
# A batch for which fewer hosts of its own strata stand by is compared with others, too.
ENOUGH = 5
MARK = "ebpf-fleet-control 1"
DOCUMENT_LIMIT_BYTES = 8 << 10
# Every architecture's user space counts in hundredths of a second; only their ratio is used.
TICKS_PER_SECOND = 100
_SECTION = re.compile(r"^@(\w+)$", re.MULTILINE)
_STAT = re.compile(r"cpu(?: +[0-9]{1,18})+", re.ASCII)
_UPTIME = re.compile(r"([0-9]{1,12})\.([0-9]{2}) ", re.ASCII)


def choose(
    strata: Mapping[str, str], batches: Sequence[Mapping[str, Any]], spare: Iterable[str], most: int = DEFAULT_MOST
) -> dict[int, list[str]]:
    """{number of a batch: its controls}: hosts of later batches, and `spare` ones that no batch changes.

    Of each stratum of the batch the same number as far as there are, at most `most` in all; where fewer than ENOUGH
    are of its strata, hosts of other strata fill up. Which hosts of a stratum are taken changes with the batch, so that
    no host is asked for all of them; the same plan gives the same hosts.
    """
    waiting = set(spare)
    found: dict[int, list[str]] = {}
    for batch in sorted(batches, key=lambda one: -one["number"]):
        found[batch["number"]] = _sample(batch, sorted(waiting), strata, most)
        waiting.update(batch["hosts"])
    return found


def _sample(batch: Mapping[str, Any], waiting: Sequence[str], strata: Mapping[str, str], most: int) -> list[str]:
    wanted = {strata.get(host) for host in batch["hosts"]}
    order = {host: hashlib.sha256(f"{batch['number']}/{host}".encode()).hexdigest() for host in waiting}
    groups: dict[str | None, list[str]] = {}
    others = []
    for host in sorted(waiting, key=order.__getitem__):
        if strata.get(host) in wanted:
            groups.setdefault(strata.get(host), []).append(host)
        else:
            others.append(host)
    longest = max((len(group) for group in groups.values()), default=0)
    turns = [group[turn] for turn in range(min(longest, most)) for _name, group in sorted(groups.items(), key=_by_name)
             if turn < len(group)]  # fmt: skip
    taken = turns[:most]
    return taken if len(taken) >= ENOUGH else [*taken, *others][:most]


def _by_name(item: tuple[Any, list[str]]) -> str:
    return str(item[0])


# --- what they are asked -----------------------------------------------------------------------------


def script(sources: Mapping[str, latency.Source]) -> str:
    """The command for all controls: their counters, and the latency of the host that it runs on.

    `sources` are those that are asked on the host, by inventory name. All hosts get one command, so a latency is asked
    for where all of them have the same source; else these controls are not measured in it.
    """
    lines = [
        "exec 2>/dev/null",
        f"echo {shlex.quote(MARK)}",
        "echo @uptime; cat /proc/uptime",
        "echo @stat; head -n 1 /proc/stat",
        "echo @meminfo; grep -E '^Mem(Total|Available):' /proc/meminfo",
        *(f"echo @psi_{kind}; head -n 1 /proc/pressure/{kind}" for kind in ("cpu", "memory", "io")),
    ]
    kinds = {_ask(one) for one in sources.values()}
    if len(kinds) == 1:
        lines.append(kinds.pop())
    lines.append("echo @end")
    return "sh -c " + shlex.quote("\n".join(lines))


def _ask(source: latency.Source) -> str:
    """Print the application's document, bounded in time and size; nothing where it cannot be had."""
    bound = f"head -c {DOCUMENT_LIMIT_BYTES + 1}"
    limit = f"timeout {source.timeout:g}"
    if source.source == latency.FILE:
        path = shlex.quote(source.path)
        return (
            f"if [ -f {path} ] && [ ! -L {path} ]; then echo @written; stat -c %Y {path}; date +%s; "
            f"echo @application; {bound} {path}; echo; fi"
        )
    if source.source == latency.COMMAND:
        words = " ".join(map(shlex.quote, source.argv))
        return f"echo @now; date +%s; echo @application; {limit} {words} </dev/null | {bound}; echo"
    if source.token_file:
        # A token on a command line could be read by every user of the host.
        return ":"
    trust = f" --cacert {shlex.quote(source.ca_file)}" if source.ca_file else ""
    url = shlex.quote(source.url)
    return (
        f"echo @now; date +%s; echo @application; "
        f"{limit} curl -fsS --proto =http,https --max-time {source.timeout:g}{trust} -- {url} | {bound}; echo"
    )


# --- what they answer --------------------------------------------------------------------------------


def snapshot(text: str, max_age_s: float = latency.DEFAULT_MAX_AGE_SECONDS) -> dict[str, Any] | None:
    """The part of an observation's snapshot that a control tells; None for an answer that is not whole."""
    first, _line, body = text.replace("\r\n", "\n").partition("\n")
    parts = _SECTION.split(body)
    found = {name: said.strip("\n") for name, said in zip(parts[1::2], parts[2::2])}
    uptime = _UPTIME.match(found.get("uptime", ""))
    if first.strip() != MARK or "end" not in found or uptime is None:
        return None
    stat = found.get("stat", "")
    # Only the line of all CPUs was asked for, so their number is not known.
    host: dict[str, int | None] = {
        **observation.parse_cpu(stat if _STAT.fullmatch(stat) else "", TICKS_PER_SECOND),
        "cpus": None,
    }
    host.update(observation.parse_memory(found.get("meminfo", "")))
    for kind in ("cpu", "memory", "io"):
        host[f"psi_{kind}_some_us"] = observation.parse_pressure(found.get(f"psi_{kind}", ""))
    application, wrong = _application(found, max_age_s)
    return {
        "boottime_ns": int(uptime[1]) * 1_000_000_000 + int(uptime[2]) * 10_000_000,
        "host": host,
        "unit": None,
        "status": None,
        "status_age_ns": None,
        "application": application,
        "application_error": wrong,
    }


def _application(found: Mapping[str, str], max_age_s: float) -> tuple[dict[str, int] | None, str | None]:
    if "application" not in found:
        return None, None
    try:
        times = [int(word) for word in found.get("written", found.get("now", "")).split()]
        if "written" in found:
            written, now = times
            latency.refuse_age("the file", now - written, max_age_s)
        now = times[-1]
        return dict(latency.read_document(bounded.parse_json(found["application"]), now, max_age_s)), None
    except (ValueError, IndexError) as error:
        return None, f"the control's application: {error}"


def observe(start: Any, end: Any, max_age_s: float = latency.DEFAULT_MAX_AGE_SECONDS) -> dict[str, Any] | None:
    """An observation of a control, of fan_out's two answers; None where one of them is not usable."""
    ends = [snapshot(said, max_age_s) for said in map(_printed, (start, end)) if said is not None]
    if len(ends) != 2 or None in ends:
        return None
    first, last = (one or {} for one in ends)
    window = last["boottime_ns"] - first["boottime_ns"]
    if window <= 0:
        return None  # it was started again in between
    found = {"schema": observation.SCHEMA, "window_ns": window, "start": first, "end": last}
    # What a host says is data: a number that none can be would be refused by the gate, which then holds.
    return found if status_schema.observation_fault(found) is None else None


def _printed(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or answer.get("rc") != 0 or answer.get("unreachable"):
        return None
    said = answer.get("stdout")
    return said if isinstance(said, str) else None


def records(answers: Mapping[str, Any], ages: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """{host: {"before", "after"}} of the controls that were measured at all four moments.

    `answers` has under `before_start`, `before_end`, `after_start` and `after_end` what fan_out returned as `hosts`;
    `ages` the most seconds that a host's latency may be old.
    """
    moments = [answers.get(name) or {} for name in ("before_start", "before_end", "after_start", "after_end")]
    found = {}
    for host in sorted(set(moments[0]).intersection(*moments[1:])):
        age = ages.get(host, latency.DEFAULT_MAX_AGE_SECONDS)
        before = observe(moments[0][host], moments[1][host], age)
        after = observe(moments[2][host], moments[3][host], age)
        if before is not None and after is not None:
            found[host] = {"before": before, "after": after}
    return found
