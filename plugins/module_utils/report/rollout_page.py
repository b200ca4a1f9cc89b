# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a rollout as one HTML page that needs nothing else. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import NOT_MEASURED, counted
from ansible_collections.ebpf.fleet.plugins.module_utils.report import rollout_plots as plots
from ansible_collections.ebpf.fleet.plugins.module_utils.report.page import (
    by_hosts,
    html_grid,
    html_names,
    html_page,
    html_text,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout import Batch, Event, Family, Report, lost_hosts
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout_style import STYLE
from ansible_collections.ebpf.fleet.plugins.module_utils.report.stage_lines import duration, nearness, value_of

Json = Mapping[str, Any]

# A verdict is a word with a sign; the colours are those of profiles.
VERDICTS = {
    "pass": ("full", "✓"),
    "fail": ("disabled", "✗"),
    "inconclusive": ("reduced", "?"),
    "not_exercised": ("none", "–"),
}
OUTCOMES = {
    "promoted": ("full", "✓ promoted"), "rolled_back": ("disabled", "✗ went back"),
    "held": ("reduced", "? held for a person"),
    "in hand": ("reduced", "… in hand"), "not begun": ("none", "– not begun"),
}  # fmt: skip
STATES = {"complete": "full", "stopped": "disabled", "aborted": "disabled", "interrupted": "disabled"}
# Rows of one table; what is more is told by its number, and is in the record.
MOST_ROWS = 200


def rollout_html(report: Report, written: str) -> str:
    """The page; `written` is when, as text."""
    body = [
        _headline(report),
        _facts(report, written),
        "<h2>How far it reached, by kernel family</h2>",
        _families(report.families),
    ]
    body += _why(report)
    body += ["<h2>Batches</h2>", _batches(report)]
    body += _comparisons(report)
    body += _checks(report)
    body += ["<h2>What happened</h2>", _events(report.events)]
    body += _left_out(report)
    body.append(f"<p><small>{html_text(_source(report))}</small></p>")
    return html_page(f"Rollout of {report.version}: {report.state}", body, STYLE)


def _tag(kind: str, text: str) -> str:
    return f'<span class="chip tag {kind}">{html_text(text)}</span>'


def _verdict(verdict: str) -> str:
    kind, sign = VERDICTS.get(verdict, ("none", "?"))
    return _tag(kind, f"{sign} {verdict.replace('_', ' ')}")


def _headline(report: Report) -> str:
    return f'<p class="outcome {STATES.get(report.state, "reduced")}"><strong>{html_text(report.headline)}</strong></p>'


def _facts(report: Report, written: str) -> str:
    rows = [
        ("rollout", report.id), ("release", f"{report.version} ({report.digest[:12]})"),
        ("begun", f"{_clock(report.started)} by {report.who} on {report.controller}"),
        ("last entry after", duration(report.seconds)), ("next", report.next), ("page written", written),
    ]  # fmt: skip
    return '<dl class="facts">{}</dl>'.format(
        "".join(f"<div><dt>{html_text(name)}</dt><dd>{html_text(text)}</dd></div>" for name, text in rows)
    )


def _clock(time: str) -> str:
    """A time of the ledger to the second."""
    return f"{time[:10]} {time[11:19]} UTC"


# --- blast radius ---


def _families(families: Sequence[Family]) -> str:
    rows = [
        [
            f"{html_text(one.name)}",
            *map(str, (one.all, one.changed, one.verified, one.back, one.open)),
            plots.reach(one),
        ]
        for one in families
    ]
    columns = ("kernel family", "hosts", "changed", "verified", "rolled back", "open", "share of its hosts")
    note = "Verified: runs the release and passed. Open: changed, and neither verified nor known to be back."
    return f'<div class="reach">{_table(columns, rows)}</div><p><small>{note}</small></p>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names its row; the cells are HTML already."""
    head = "".join(f'<th scope="col">{html_text(name)}</th>' for name in columns)
    lines = [
        '<tr><th scope="row">{}</th>{}</tr>'.format(first, "".join(f"<td>{cell}</td>" for cell in cells))
        for first, *cells in rows
    ]
    return '<div class="wide"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'.format(
        head, "".join(lines)
    )


# --- why it stopped, and what was judged ---


def _why(report: Report) -> list[str]:
    """The checks that stood in the way of the last batch that was judged otherwise than pass."""
    last = next((one for one in reversed(report.batches) if one.begun is not None), None)
    if last is None or not last.judged or last.judged[-1][1] == "pass":
        return []
    parts = [f"<h2>What stood in the way, batch {last.number} ({html_text(last.stage)})</h2>"]
    reasons = (last.record or {}).get("reasons")
    if not isinstance(reasons, list):
        return [*parts, "<ul>{}</ul>".format("".join(f"<li>{html_text(one)}</li>" for one in last.judged[-1][3]))]
    parts.append(_check_table(reasons))
    steps = (last.record or {}).get("next") or []
    if steps:
        parts += ["<h3>What to do</h3>", "<ul>{}</ul>".format("".join(f"<li>{html_text(one)}</li>" for one in steps))]
    return parts


def _check_table(checks: Sequence[Json]) -> str:
    rows = [
        [html_text(one.get("check")), html_text(_place(one)), _verdict(str(one.get("verdict"))),
         html_text(value_of(one.get("measured"), one.get("unit"))), html_text(_limit(one)),
         _words(one)]
        for one in checks[:MOST_ROWS]
    ]  # fmt: skip
    more = f"<p>and {len(checks) - MOST_ROWS} more, in the batch's record</p>" if len(checks) > MOST_ROWS else ""
    return _table(("check", "host, feature", "verdict", "measured", "limit", "in words"), rows) + more


def _words(check: Json) -> str:
    return f'<span class="words">{html_text(check.get("sentence"))}</span>'


def _place(check: Json) -> str:
    return ", ".join(str(one) for one in (check.get("host"), check.get("feature")) if one) or "all hosts"


def _limit(check: Json) -> str:
    return "no limit" if check.get("limit") is None else value_of(check["limit"], check.get("unit"))


def _checks(report: Report) -> list[str]:
    found = [one for one in report.batches if one.judged]
    parts = ["<h2>Checks: measured against limit</h2>"] if found else []
    for one in found:
        title = f"Batch {one.number} ({html_text(one.stage)}) {_verdict(one.judged[-1][1])}"
        inner = (
            f"<p>{html_text(one.record_fault)}</p>" if one.record is None else _by_check(one.record.get("checks") or [])
        )
        parts.append(_folded(title, inner, one.judged[-1][1] != "pass"))
    return parts


def _by_check(checks: Sequence[Json]) -> str:
    """A row for each check: how often it passed, and the host that is nearest to its limit or over it."""
    groups: dict[str, list[Json]] = {}
    for one in checks:
        groups.setdefault(str(one.get("check")), []).append(one)
    rows = []
    for name, found in groups.items():
        worst = max(found, key=_badness)
        counts = " ".join(
            f"{_verdict(one)} {count}" for one in VERDICTS if (count := sum(row.get("verdict") == one for row in found))
        )
        rows.append([html_text(name), counts, html_text(value_of(worst.get("measured"), worst.get("unit"))),
                     html_text(_limit(worst)), html_text(_place(worst)), _words(worst)])  # fmt: skip
    return _table(("check", "verdicts", "measured, worst", "limit", "host, feature", "in words"), rows)


def _badness(check: Json) -> tuple[int, float]:
    place = ("not_exercised", "pass", "inconclusive", "fail")
    near = nearness(check)
    verdict = str(check.get("verdict"))
    return place.index(verdict) if verdict in place else 0, -1.0 if near is None else near


# --- batches ---


def _batches(report: Report) -> str:
    rows = []
    for one in report.batches:
        kind, words = OUTCOMES.get(one.outcome, ("none", one.outcome))
        words = "✗ not all went back" if lost_hosts(one.returned) else words
        verdict = _verdict(one.judged[-1][1]) if one.judged else html_text("–")
        rows.append([str(one.number), html_text(one.stage), html_names(one.hosts), _tag(kind, words), verdict,
                     html_text(_span(one)), plots.lane(one, report)])  # fmt: skip
    columns = ("batch", "stage", "hosts", "outcome", "verdict", "time", f"from the begin to {duration(report.seconds)}")
    legend = "A bar is a batch from its begin to its end, a stroke in it a measurement, a dot a verdict."
    return f'<div class="lanes">{_table(columns, rows)}</div><p><small>{legend}</small></p>'


def _span(batch: Batch) -> str:
    if batch.begun is None:
        return "–"
    return f"from {duration(batch.begun)} on" + (
        "" if batch.ended is None else f", {duration(batch.ended - batch.begun)}"
    )


def _comparisons(report: Report) -> list[str]:
    """Before and after of each batch that was judged, the newest first and open, the others folded."""
    judged = [one for one in report.batches if one.judged]
    parts = ["<h2>Changed hosts against controls</h2>", plots.LEGEND] if judged else []
    for place, one in enumerate(reversed(judged)):
        title = f"Batch {one.number} ({html_text(one.stage)}): {html_text(counted(len(one.hosts), 'host'))}"
        parts.append(_folded(title, _comparison(one), place == 0))
    return parts


def _comparison(batch: Batch) -> str:
    if batch.record is None:
        return f"<p>{html_text(batch.record_fault)}</p>"
    found = [text for one in plots.KINDS if (text := plots.comparison(one, batch.record))]
    return f'<div class="compares">{"".join(found)}</div>' if found else f"<p>{NOT_MEASURED} on any host</p>"


def _folded(title: str, inner: str, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}><summary><h3>{title}</h3></summary>{inner}</details>"


# --- what happened ---


def _events(events: Sequence[Event]) -> str:
    rows = [[html_text(_clock(one.time)), html_text(f"+{duration(one.seconds)}"),
             _verdict(one.tone) if one.tone else "", html_text(one.text)]
            for one in events]  # fmt: skip
    return f'<div class="events">{html_grid(("when", "after", "verdict", "what"), rows)}</div>'


def _left_out(report: Report) -> list[str]:
    if not report.left_out:
        return ["<h2>Hosts left out</h2>", "<p>No host of this rollout was left out.</p>"]
    lines = [((reason, why), host) for host, reason, why in report.left_out]
    rows = [
        [html_text(reason), html_text(why), str(len(hosts)), html_names(hosts)]
        for reason, why, hosts in by_hosts(lines)
    ]
    return ["<h2>Hosts left out</h2>", html_grid(("reason", "why", "number", "hosts"), rows)]


def _source(report: Report) -> str:
    wrong = [one.number for one in report.batches if one.record_fault]
    records = f"; records that are missing or differ: batch {', '.join(map(str, wrong))}" if wrong else ""
    return f"Of the fleet's ledger and the records of its batches{records}. What is shown as unknown was not measured."
