# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the capability matrix: which kernel runs what, as it was tried. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import NOT_MEASURED, counted, version_order
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.compatibility import (
    family_of,
    features_in,
    hosts_in_order,
    release_of,
)
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
)


def matrix_markdown(doc: Json) -> str:
    """The capability matrix (ebpf.fleet/matrix/v1) as a Markdown page."""
    features = features_in(doc)
    parts = ["# Which kernel runs what", markdown_text(_matrix_summary(doc)), markdown_text(bundle_line(doc))]
    parts += [f"> **Differs:** {markdown_text(line)}" for line in _difference_lines(doc)]
    parts += [LEGEND, markdown_table("kernel", features, matrix_rows(doc))]
    rows = [[*row[:-1], ", ".join(row[-1])] for row in _reason_rows(doc)]
    parts += ["## Why not in full", markdown_grid(_REASON_COLUMNS, rows)] if rows else []
    parts += ["## Variants and the verifier's figures", markdown_grid(_VERDICT_COLUMNS, _verdict_rows(doc))]
    return "\n\n".join(parts) + "\n"


def matrix_html(doc: Json) -> str:
    """The capability matrix (ebpf.fleet/matrix/v1) as an HTML page that needs nothing else."""
    body = [f"<p>{html_text(_matrix_summary(doc))} {html_text(bundle_line(doc))}</p>"]
    body += [f'<p class="alarm">Differs: {html_text(line)}</p>' for line in _difference_lines(doc)]
    body.append(f"<p><small>{html_text(LEGEND)}</small></p>")
    body.append(html_table("kernel", features_in(doc), matrix_rows(doc)))
    rows = [[*map(html_text, row[:-1]), html_names(row[-1])] for row in _reason_rows(doc)]
    body += ["<h2>Why not in full</h2>", html_grid(_REASON_COLUMNS, rows)] if rows else []
    rows = [[html_text(cell) for cell in row] for row in _verdict_rows(doc)]
    body += ["<h2>Variants and the verifier's figures</h2>", html_grid(_VERDICT_COLUMNS, rows)]
    return html_page("Which kernel runs what", body)


def _matrix_summary(doc: Json) -> str:
    families = sorted({family_of(doc, name) for name in doc["hosts"]}, key=version_order)
    count = len(doc.get("differences") or [])
    equal = (
        "every prediction was reached"
        if not count
        else f"{counted(count, 'prediction')} differed from what was reached"
    )
    return f"{counted(len(doc['hosts']), 'kernel')} of families {', '.join(families)}; {equal}."


def _difference_lines(doc: Json) -> list[str]:
    return [
        "{}, {}: predicted {}, reached {}".format(
            one["host"], one["feature"], _prediction_text(one["predicted"]), _prediction_text(one["reached"])
        )
        for one in doc.get("differences") or []
    ]


def _prediction_text(one: Any) -> str:
    if not isinstance(one, Mapping):
        return NOT_MEASURED
    return "{} ({}, {})".format(one.get("profile"), one.get("variant") or "no variant", one.get("reason_code"))


def matrix_rows(doc: Json) -> list[Row]:
    """A row for each kernel, grouped by family; a cell is the variant that was reached and why."""
    rows = []
    for name in hosts_in_order(doc):
        host = doc["hosts"][name]
        note = f"{release_of(doc, name)}, {host.get('distro') or 'distro unknown'}, BTF {host.get('btf') or 'unknown'}"
        title = f"{family_of(doc, name)} {host.get('flavour') or ''}".strip() + f" · {name}"
        rows.append(Row(title, note, [_matrix_cell(host["features"].get(one)) for one in features_in(doc)]))
    return rows


def _matrix_cell(found: Json | None) -> list[Chip]:
    if not found:
        return []
    reached = found.get("reached")
    if not isinstance(reached, Mapping):
        return [Chip("unknown", NOT_MEASURED)]
    text = f"{reached['profile']}: {reached['variant']}" if reached["variant"] else str(reached["profile"])
    why = "" if reached["reason_code"] == "EF_OK" else f"{reached['reason_code']}: {_short(reached['reason'])}"
    chips = [Chip(reached["profile"], text, why)]
    if not found.get("equal"):
        chips.append(Chip("unknown", "predicted " + _prediction_text(found.get("predicted"))))
    return chips


def _short(reason: Any) -> str:
    """The beginning of a reason, as a cell has room for; the whole is in the table below."""
    text = " ".join(str(reason).split())
    return text if len(text) <= _ROOM else text[: _ROOM - 1].rstrip() + "…"


_ROOM = 90
_REASON_COLUMNS = ("feature", "reached", "reason code", "reason", "kernels")


def _reason_rows(doc: Json) -> list[list[Any]]:
    """Each reason in full, once, with the kernels that it is true of."""
    lines = []
    for feature in features_in(doc):
        for name in hosts_in_order(doc):
            reached = (doc["hosts"][name]["features"].get(feature) or {}).get("reached")
            if isinstance(reached, Mapping) and reached["reason_code"] != "EF_OK":
                cells = [feature, reached_text(reached), str(reached["reason_code"]), str(reached["reason"])]
                lines.append((cells, name))
    return by_hosts(lines)


_VERDICT_COLUMNS = (
    "kernel", "feature", "variant", "loads", "attaches", "verdict", "program", "instructions",
    "processed by the verifier", "stack, bytes",
)  # fmt: skip


def _verdict_rows(doc: Json) -> list[list[str]]:
    rows = []
    for host in hosts_in_order(doc):
        for feature, found in sorted(doc["hosts"][host]["features"].items()):
            for variant, tried in (found.get("variants") or {}).items():
                start = [f"{family_of(doc, host)} · {host}", feature, variant]
                start += [_answer(tried.get("loads")), _answer(tried.get("attaches")), _verdict_text(tried)]
                rows += [start + one for one in _program_cells(tried)]
    return rows


def _answer(value: Any) -> str:
    return NOT_MEASURED if value is None else "yes" if value else "no"


def _verdict_text(tried: Json) -> str:
    code = str(tried.get("reason_code"))
    return code if code == "EF_OK" else f"{code}: {tried.get('reason')}"


def _program_cells(tried: Json) -> list[list[str]]:
    """Name, instructions, processed instructions and stack of each program; one line where there is none."""
    names = ("name", "insns", "processed_insns", "stack_bytes")
    programs = [
        [NOT_MEASURED if one.get(name) is None else str(one[name]) for name in names]
        for one in tried.get("programs") or []
    ]
    return programs or [["–"] * len(names)]
