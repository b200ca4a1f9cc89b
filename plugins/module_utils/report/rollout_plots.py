# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plots of a rollout's report: inline SVG whose places are percents, so that they are as wide as the page. Pure.

Each plot stands beside the same numbers as text, or has them in its title; none says anything by a colour alone.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.report.figures import amount
from ansible_collections.ebpf.fleet.plugins.module_utils.report.page import html_text
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout import UNKNOWN, Batch, Family, Report

Json = Mapping[str, Any]
Ends = Sequence["int | None"]

# So many hosts have a line of their own in a plot; the others are told by their number.
MOST_CHANGED, MOST_CONTROLS = 12, 8


class Kind(NamedTuple):
    """A size that is plotted: its name in a record, words, unit, and where its limit is.

    `own` is the check of single hosts, `all` the one of all hosts together; `relative` says that the limit is a share
    of the value before.
    """

    name: str
    words: str
    unit: str
    own: str
    all: str
    relative: bool = False


KINDS = (
    Kind("host_cpu_ppm", "Host CPU, busy share", "ppm", "host_cpu_delta", "host_cpu_shift"),
    Kind("memory_used_bytes", "Host memory in use", "bytes", "host_memory_delta", "host_memory_shift"),
    Kind("pressure_cpu_ppm", "CPU pressure", "ppm", "", "pressure_cpu_shift"),
    Kind("pressure_memory_ppm", "Memory pressure", "ppm", "", "pressure_memory_shift"),
    Kind("pressure_io_ppm", "I/O pressure", "ppm", "", "pressure_io_shift"),
    Kind("application_p95_ns", "Application, p95", "ns", "application_p95", "application_p95_shift", True),
    Kind("application_p99_ns", "Application, p99", "ns", "application_p99", "application_p99_shift", True),
)


class Limit(NamedTuple):
    """How much of growth is allowed, in the unit of the limit, and whether it is one of single hosts."""

    value: int
    single: bool
    relative: bool

    def place(self, before: int) -> float:
        """The value at which a host that was there before is over it."""
        return before + (before * self.value / 1_000_000 if self.relative else self.value)


def limit_of(kind: Kind, checks: Sequence[Json]) -> Limit | None:
    """The limit of single hosts where there is one, else that of all together; None without any."""
    for check, single in ((kind.own, True), (kind.all, False)):
        for one in checks:
            value = one.get("limit")
            if check and one.get("check") == check and isinstance(value, int) and not isinstance(value, bool):
                return Limit(value, single, kind.relative)
    return None


def comparison(kind: Kind, record: Json) -> str:
    """Every changed host and control before and after, with the limit; empty where no host has that size at all."""
    found = record.get("before_after") or {}
    changed, controls = (_of(kind, found.get(side)) for side in ("changed", "controls"))
    if not changed:
        return ""
    limit = limit_of(kind, record.get("checks") or [])
    rows = [*_some(changed, MOST_CHANGED, "changed"), *_some(controls, MOST_CONTROLS, "control")]
    values = [one for _side, _host, ends in rows for one in ends if one is not None]
    places = [limit.place(ends[0]) for _side, _host, ends in rows if limit and ends[0] is not None]
    scale = _Scale([*values, *places])
    lines = [_row(kind, one, scale, limit) for one in rows]
    head = "".join(f'<th scope="col">{one}</th>' for one in ("host", "before", "after", "growth", "plot"))
    return (
        f'<section class="compare"><h4>{html_text(kind.words)}</h4>'
        f"<p><small>{html_text(_note(kind, changed, controls, limit))}</small></p>"
        f'<table class="plot"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></section>'
    )


def _of(kind: Kind, side: Any) -> dict[str, Ends]:
    """{host: [before, after]} of the hosts that have that size; what is not a number is None."""
    found: dict[str, Ends] = {}
    for host, sizes in (side or {}).items():
        ends = sizes.get(kind.name)
        if isinstance(ends, (list, tuple)) and len(ends) == 2:
            found[str(host)] = [one if isinstance(one, int) and not isinstance(one, bool) else None for one in ends]
    return found


def _growth(ends: Ends) -> int | None:
    return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]


def _some(hosts: Mapping[str, Ends], most: int, side: str) -> list[tuple[str, str, Ends]]:
    """The hosts that are shown: those that are unknown and those that grew most first."""

    def order(host: str) -> tuple[bool, int]:
        growth = _growth(hosts[host])
        return growth is not None, -(growth or 0)

    return [(side, host, hosts[host]) for host in sorted(hosts, key=order)[:most]]


def _note(kind: Kind, changed: Mapping[str, Ends], controls: Mapping[str, Ends], limit: Limit | None) -> str:
    parts = []
    for hosts, most, words in ((changed, MOST_CHANGED, "changed host"), (controls, MOST_CONTROLS, "control")):
        grown = sorted(one for one in map(_growth, hosts.values()) if one is not None)
        text = counted(len(hosts), words)
        if grown:
            low, middle, high = (_signed(grown[place], kind) for place in (0, len(grown) // 2, -1))
            text += f", growth {low} to {high}, median {middle}"
        parts.append(text + (f" (the {most} that grew most are shown)" if len(hosts) > most else ""))
    if not controls:
        parts[1] = "no controls"
    if limit is None:
        return "; ".join([*parts, "no limit is set"])
    size = amount(limit.value, "ppm" if kind.relative else kind.unit)
    of = (
        "each host, less what the controls grew" if limit.single else "all changed hosts together, against the controls"
    )
    return "; ".join([*parts, f"limit: {size} of growth, of {of}"])


def _signed(value: int, kind: Kind) -> str:
    return ("+" if value > 0 else "") + amount(value, kind.unit)


class _Scale:
    """From values to percents of the width, with some room on both sides."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low: float = min(values, default=0)
        self.high: float = max(values, default=1)
        if self.low == self.high:
            self.low, self.high = self.low - 1, self.high + 1

    def __call__(self, value: float) -> str:
        return f"{3 + 94 * (value - self.low) / (self.high - self.low):.2f}%"


def _row(kind: Kind, row: tuple[str, str, Ends], scale: _Scale, limit: Limit | None) -> str:
    side, host, (before, after) = row
    growth = _growth((before, after))
    cells = [UNKNOWN if one is None else amount(one, kind.unit) for one in (before, after)]
    cells.append(UNKNOWN if growth is None else _signed(growth, kind))
    over = before is not None and after is not None and limit is not None and after > limit.place(before)
    marks = []
    if before is not None and limit is not None:
        place = scale(limit.place(before))
        marks.append(f'<line class="limit" x1="{place}" x2="{place}" y1="1" y2="19"/>')
    if before is not None and after is not None:
        marks.append(f'<line class="way" x1="{scale(before)}" x2="{scale(after)}" y1="10" y2="10"/>')
    marks += [f'<circle class="before" cx="{scale(before)}" cy="10" r="4"/>'] if before is not None else []
    marks += [f'<circle class="after" cx="{scale(after)}" cy="10" r="4"/>'] if after is not None else []
    title = f"{host}: before {cells[0]}, after {cells[1]}" + (", over the limit" if over else "")
    plot = f'<svg role="img" width="100%" height="20"><title>{html_text(title)}</title>{"".join(marks)}</svg>'
    text = "".join(
        f'<td data-name="{name}">{html_text(cell)}</td>' for name, cell in zip(("before", "after", "growth"), cells)
    )
    word = f"{side}, over the limit" if over else side
    head = f'<th scope="row">{html_text(host)} <small>{word}</small></th>'
    return f'<tr class="{side}{" over" if over else ""}">{head}{text}<td class="marks">{plot}</td></tr>'


def _sign(mark: str) -> str:
    return f'<svg width="22" height="20" aria-hidden="true">{mark}</svg>'


_BEFORE = _sign('<circle class="before" cx="11" cy="10" r="4"/>')
_AFTER = _sign('<circle class="after" cx="11" cy="10" r="4"/>')
_LIMIT = _sign('<line class="limit" x1="11" x2="11" y1="1" y2="19"/>')
LEGEND = (
    f'<p class="legend">{_BEFORE} before {_AFTER} after {_LIMIT} limit of that host; unknown: it was not measured</p>'
)


def reach(family: Family) -> str:
    """How much of a family the rollout reached, as one bar."""
    parts = (("verified", family.verified), ("back", family.back), ("open", family.open))
    found, at = [], 0.0
    for name, count in parts:
        wide = 100 * count / family.all if family.all else 0
        if count:
            found.append(f'<rect class="{name}" x="{at:.2f}%" width="{wide:.2f}%" y="2" height="16"/>')
        at += wide
    title = f"{family.verified} verified, {family.back} back, {family.open} open, of {family.all}"
    return (
        f'<svg role="img" width="100%" height="20"><title>{title}</title>'
        f'<rect class="all" x="0" width="100%" y="2" height="16"/>{"".join(found)}</svg>'
    )


def lane(batch: Batch, report: Report) -> str:
    """A batch on the line of time: from its begin to its end, its measurements, and its verdicts."""
    whole = max(report.seconds, 1)
    if batch.begun is None:
        return '<svg role="img" width="100%" height="20"><title>was not begun</title></svg>'
    end = batch.ended if batch.ended is not None else report.seconds
    at, wide = 100 * batch.begun / whole, max(0.4, 100 * (end - batch.begun) / whole)
    marks = [f'<rect class="time {batch.outcome}" x="{at:.2f}%" width="{min(wide, 100 - at):.2f}%" y="4" height="12"/>']
    for one in batch.measured:
        marks.append(f'<line class="seen" x1="{100 * one / whole:.2f}%" x2="{100 * one / whole:.2f}%" y1="4" y2="16"/>')
    for one, verdict, _sentence, _reasons in batch.judged:
        marks.append(f'<circle class="verdict {verdict}" cx="{100 * one / whole:.2f}%" cy="10" r="5"/>')
    title = f"from {batch.begun:.0f} s to {end:.0f} s, {batch.outcome}"
    return f'<svg role="img" width="100%" height="20"><title>{html_text(title)}</title>{"".join(marks)}</svg>'
