# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a fleet: how many hosts reach which profile, and why not more. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted, version_order
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES
from ansible_collections.ebpf.fleet.plugins.module_utils.report.page import (
    LEGEND,
    Chip,
    Json,
    Row,
    bundle_line,
    by_hosts,
    html_grid,
    html_names,
    html_page,
    html_table,
    html_text,
    markdown_grid,
    markdown_table,
    markdown_text,
    reached_text,
    sign,
)


def census_markdown(doc: Json) -> str:
    """The census of `census.capability_census` as a Markdown page."""
    parts = ["# What this fleet can run", markdown_text(_census_summary(doc)), markdown_text(bundle_line(doc))]
    parts += [
        f"> **No answer from {markdown_text(one)}.** Nothing is known of what it can run." for one in _silent_lines(doc)
    ]
    parts.append(LEGEND)
    if doc["features"]:
        parts += ["## Features by kernel family, machine and distribution"]
        parts.append(markdown_table("stratum", sorted(doc["features"]), census_rows(doc)))
    parts += _census_sections_markdown(doc)
    return "\n\n".join(parts) + "\n"


def _census_sections_markdown(doc: Json) -> list[str]:
    parts = []
    for title, columns, rows in _census_sections(doc):
        parts += [f"## {title}", markdown_grid(columns, [[*row[:-1], ", ".join(row[-1])] for row in rows])]
    return parts


class Section(NamedTuple):
    """A table below the first one; the last cell of each row is a list of host names."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def _census_sections(doc: Json) -> list[Section]:
    """Those that have something to say."""
    sections = [
        Section("What changes at next boot", _NEXT_COLUMNS, next_rows(doc)),
        Section("Policy features", _POLICY_COLUMNS, _policy_rows(doc)),
        Section("Why not in full", _WHY_COLUMNS, _why_rows(doc)),
        Section("Hosts", _HOST_COLUMNS, _host_rows(doc)),
    ]
    return [section for section in sections if section.rows]


def census_html(doc: Json) -> str:
    """The census of `census.capability_census` as an HTML page that needs nothing else."""
    body = [f"<p>{html_text(_census_summary(doc))} {html_text(bundle_line(doc))}</p>"]
    for one in _silent_lines(doc):
        body.append(f'<p class="alarm">No answer from {html_text(one)}. Nothing is known of what it can run.</p>')
    body.append(f"<p><small>{html_text(LEGEND)}</small></p>")
    if doc["features"]:
        body.append("<h2>Features by kernel family, machine and distribution</h2>")
        body.append(html_table("stratum", sorted(doc["features"]), census_rows(doc)))
    return html_page("What this fleet can run", body + _census_sections_html(doc))


def _census_sections_html(doc: Json) -> list[str]:
    body = []
    for title, columns, rows in _census_sections(doc):
        cells = [[*map(html_text, row[:-1]), html_names(row[-1])] for row in rows]
        body += [f"<h2>{html_text(title)}</h2>", html_grid(columns, cells)]
    return body


def _census_summary(doc: Json) -> str:
    answered, silent = len(doc["hosts"]), len(doc["silent"])
    text = f"{counted(answered, 'host')} answered"
    text += f", {silent} did not." if silent else ", every one that was asked."
    if doc.get("time"):
        text += f" Asked at {doc['time']}."
    return text


def _silent_lines(doc: Json) -> list[str]:
    reasons = doc.get("silent_reasons") or {}
    return [f"{name} ({reasons[name]})" if reasons.get(name) else name for name in doc["silent"]]


def census_rows(doc: Json) -> list[Row]:
    """A row for each stratum, a cell of counts for each feature."""
    rows = []
    for stratum in sorted(doc["strata"], key=version_order):
        cells = [_census_cell(doc["features"][name], stratum) for name in sorted(doc["features"])]
        rows.append(Row(stratum, counted(len(doc["strata"][stratum]), "host"), cells))
    return rows


def _census_cell(feature: Json, stratum: str) -> list[Chip]:
    counts = feature["strata"].get(stratum, {})
    reasons = feature["reasons"].get(stratum, [])
    chips = []
    for profile in PROFILES:
        if counts.get(profile):
            codes = sorted({one["reason_code"] for one in reasons if one["profile"] == profile and profile != "full"})
            chips.append(Chip(profile, f"{counts[profile]} {profile}", ", ".join(codes)))
    return chips


_WHY_COLUMNS = ("feature", "stratum", "profile", "reason code", "reason", "hosts")


def _why_rows(doc: Json) -> list[list[Any]]:
    """What is not full, each reason once, with the hosts that it is true of."""
    rows = []
    for name in sorted(doc["features"]):
        reasons = doc["features"][name]["reasons"]
        for stratum in sorted(reasons, key=version_order):
            for one in reasons[stratum]:
                if one["profile"] != "full":
                    said = f"{sign(one['profile'])} {one['profile']} ({one['variant'] or 'no variant'})"
                    rows.append([name, stratum, said, one["reason_code"], one["reason"], one["hosts"]])
    return rows


_NEXT_COLUMNS = ("runs", "boots next", "feature", "change", "why", "hosts")


def next_rows(doc: Json) -> list[list[Any]]:
    """A row for each change that the next kernel brings, and one that says so where it brings none."""
    lines = []
    for name in sorted(doc["hosts"]):
        after = doc["hosts"][name].get("next_kernel")
        if after:
            runs = str((doc["hosts"][name].get("kernel") or {}).get("release"))
            lines += [([runs, *cells], name) for cells in _next_cells(after)]
    return by_hosts(lines)


def _next_cells(after: Json) -> list[list[str]]:
    boots = str(after["release"] or "unknown")
    if not after["changes"]:
        return [[boots, "all", _no_change(after), _next_evidence(after)]]
    return [
        [
            boots,
            one["feature"],
            "{} → {}".format(reached_text(one["from"]), reached_text(one["to"])),
            f"{one['reason_code']}: {one['sentence']}",
        ]
        for one in after["changes"]
    ]


def _no_change(after: Json) -> str:
    if after["release"] is None:
        return "unknown"
    return "none is foreseen" if after["profiles"] else "not asked: no bundle was given"


def _next_evidence(after: Json) -> str:
    return f"chosen by {after['chosen_by']}; BTF: {after['btf']['evidence']}"


_POLICY_COLUMNS = ("feature", "answer", "reason", "hosts")


def _policy_rows(doc: Json) -> list[list[Any]]:
    lines = []
    for name in sorted(doc["hosts"]):
        for one in doc["hosts"][name].get("policy") or []:
            answer = "may be rolled out" if one["ready"] else f"refused: {one['reason_code']}"
            lines.append(([one["feature"], answer, one["reason"]], name))
    return by_hosts(lines)


_HOST_COLUMNS = ("stratum", "kernel", "BTF", "asked as root", "hosts")


def _host_rows(doc: Json) -> list[list[Any]]:
    lines = []
    for name in sorted(doc["hosts"], key=lambda one: (version_order(doc["hosts"][one]["stratum"]), one)):
        host = doc["hosts"][name]
        release = (host.get("kernel") or {}).get("release") or "unknown"
        asked = {True: "yes", False: "no: few answers"}.get(host.get("privileged"), "unknown")
        lines.append(([host["stratum"], release, host.get("btf") or "unknown", asked], name))
    return by_hosts(lines)
