# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages that a person reads at a glance: the fleet's census and the capability matrix. Pure.

Each page is one file without scripts or outside resources. Every text that comes from a host
passes through `_e` (HTML) or `_m` (Markdown) before it stands in a page. A profile is always a
word with a sign, never a colour alone.
"""

from __future__ import annotations

import html
import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

Json = Mapping[str, Any]

PROFILES = ("full", "reduced", "disabled")
SIGNS = {"full": "●", "reduced": "◐", "disabled": "○"}
NOT_MEASURED = "not measured"

# Above this many, names are folded away; the JSON beside the page has them all in the open.
_NAMES_IN_THE_OPEN = 8

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #c9d0d8; --soft: #f2f4f7;
  --full: #d7f0dc; --full-ink: #0b4a1c; --reduced: #fdeeb5; --reduced-ink: #5b4300;
  --disabled: #f9d3d0; --disabled-ink: #7a120b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --paper: #14181d; --line: #3b434d; --soft: #1d232a;
  --full: #143d20; --full-ink: #b5ecc2; --reduced: #4a3a08; --reduced-ink: #ffe08a;
  --disabled: #561a16; --disabled-ink: #ffc9c4; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 1.8rem 0 .5rem; }
p { margin: .3rem 0; max-width: 75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border: 1px solid var(--line); padding: .35rem .55rem; text-align: left; vertical-align: top; }
thead th { background: var(--soft); } tbody th { background: var(--soft); white-space: nowrap; }
small, .why { font-size: .85em; } .why { max-width: 24rem; overflow-wrap: anywhere; }
.chip { display: block; white-space: nowrap; font-weight: 600; border-radius: .25rem; padding: .05rem .4rem; }
.chip + .chip, .chip + .why, .why + .chip { margin-top: .2rem; }
.full { background: var(--full); color: var(--full-ink); }
.reduced { background: var(--reduced); color: var(--reduced-ink); }
.disabled { background: var(--disabled); color: var(--disabled-ink); }
.alarm { border: 2px solid var(--disabled-ink); background: var(--disabled); color: var(--disabled-ink);
  padding: .5rem .8rem; border-radius: .3rem; font-weight: 600; }
.names { overflow-wrap: anywhere; max-width: 32rem; }
@media print { body { margin: 0; font-size: 9pt; } .wide { overflow: visible; } thead { display: table-header-group; }
  tr { break-inside: avoid; } .chip { border: 1px solid; } }
"""


class Chip(NamedTuple):
    """One profile in a cell: how it reads, and why (empty where there is nothing to say)."""

    profile: str
    text: str
    why: str = ""


class Row(NamedTuple):
    """One line of a table: its heading, a smaller line below it, and a list of chips for each column."""

    title: str
    note: str
    cells: Sequence[Sequence[Chip]]


# --- text --------------------------------------------------------------------------------------


# A cell may hold the names of a whole fleet; a host's own texts are bounded long before.
_TEXT_LIMIT = 4_000_000


def _e(text: Any) -> str:
    return html.escape(printable(text, _TEXT_LIMIT), quote=True)


def _m(text: Any) -> str:
    """Text in one cell of a Markdown table: no line break, no column, no markup of its own."""
    plain = printable(" ".join(str(text).split()), _TEXT_LIMIT)
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Many readers make a link of a bare address.
    plain = plain.replace("://", "&#58;//").replace("www.", "www&#46;")
    for sign in "\\`*[]|~":
        plain = plain.replace(sign, "\\" + sign)
    return _OUTER_UNDERSCORE.sub(r"\\_", plain)


# Within a word an underscore is no markup, and names are easier to read without a backslash in them.
_OUTER_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_])")


def _s(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _sign(profile: str) -> str:
    return SIGNS.get(profile, "?")


def version_order(text: str) -> list[Any]:
    """A key that sorts 5.10 behind 5.4: numbers by value, the rest as text."""
    parts = "".join(" " if sign in "./-+" else sign for sign in text).split()
    return [(0, int(part), "") if _NUMBER.fullmatch(part) else (1, 0, part) for part in parts]


_NUMBER = re.compile(r"[0-9]{1,18}")


def _bundle_line(doc: Json) -> str:
    bundle = doc.get("bundle")
    if not bundle:
        return "No bundle was asked for: facts only, no profiles."
    digest = str(doc.get("digest") or "")[:12] or "no digest"
    return "Bundle {} {} (sequence {}, {}).".format(
        bundle.get("name"), bundle.get("version"), bundle.get("sequence"), digest
    )


# --- pages -------------------------------------------------------------------------------------


def _page(title: str, body: Iterable[str]) -> str:
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_e(title)}</title><style>{_STYLE}</style></head><body>"
    )
    return "\n".join([head, f"<h1>{_e(title)}</h1>", *body, "</body></html>"]) + "\n"


def _html_chip(chip: Chip) -> str:
    kind = chip.profile if chip.profile in PROFILES else "none"
    why = f'<div class="why">{_e(chip.why)}</div>' if chip.why else ""
    return f'<span class="chip {kind}">{_sign(chip.profile)} {_e(chip.text)}</span>{why}'


def _html_table(corner: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f'<th scope="col">{_e(name)}</th>' for name in (corner, *columns))
    lines = [f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>']
    for row in rows:
        cells = "".join("<td>{}</td>".format("".join(map(_html_chip, cell)) or "–") for cell in row.cells)
        lines.append(f'<tr><th scope="row">{_e(row.title)}<br><small>{_e(row.note)}</small></th>{cells}</tr>')
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def _html_grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table; the cells are HTML already."""
    head = "".join(f'<th scope="col">{_e(name)}</th>' for name in columns)
    lines = ["<tr>{}</tr>".format("".join(f"<td>{cell}</td>" for cell in row)) for row in rows]
    return "\n".join(
        [f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>', *lines, "</tbody></table></div>"]
    )


def _html_names(names: Sequence[str]) -> str:
    text = f'<span class="names">{_e(", ".join(names))}</span>'
    if len(names) <= _NAMES_IN_THE_OPEN:
        return text
    return f"<details><summary>{_e(_s(len(names), 'host'))}</summary>{text}</details>"


def _markdown_table(corner: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [_markdown_line([corner, *columns]), "|" + " --- |" * (len(columns) + 1)]
    for row in rows:
        title = f"**{_m(row.title)}**" + (f"<br>{_m(row.note)}" if row.note else "")
        cells = ["<br>".join(map(_markdown_chip, cell)) or "–" for cell in row.cells]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines)


def _markdown_chip(chip: Chip) -> str:
    text = f"{_sign(chip.profile)} {_m(chip.text)}"
    return f"{text}: {_m(chip.why)}" if chip.why else text


def _markdown_line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(_m(cell) for cell in cells) + " |"


def _markdown_grid(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    ruler = "|" + " --- |" * len(columns)
    return "\n".join([_markdown_line(columns), ruler, *(_markdown_line(row) for row in rows)])


_LEGEND = "● full: all that the contract asks for · ◐ reduced: a lesser variant · ○ disabled: does not run, and why"


# --- census ------------------------------------------------------------------------------------


def census_markdown(doc: Json) -> str:
    """The census of `census.capability_census` as a Markdown page."""
    parts = ["# What this fleet can run", _m(_census_summary(doc)), _m(_bundle_line(doc))]
    parts += [f"> **No answer from {_m(one)}.** Nothing is known of what it can run." for one in _silent_lines(doc)]
    parts.append(_LEGEND)
    if doc["features"]:
        parts += ["## Features by kernel family, machine and distribution"]
        parts.append(_markdown_table("stratum", sorted(doc["features"]), census_rows(doc)))
    parts += _census_sections_markdown(doc)
    return "\n\n".join(parts) + "\n"


def _census_sections_markdown(doc: Json) -> list[str]:
    parts = []
    for title, columns, rows in _census_sections(doc):
        parts += [f"## {title}", _markdown_grid(columns, [[*row[:-1], ", ".join(row[-1])] for row in rows])]
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


def _by_hosts(lines: Iterable[tuple[Sequence[str], str]]) -> list[list[Any]]:
    """Rows with the hosts that they are true of: equal (cells, host) lines become one row."""
    found: dict[tuple[str, ...], list[str]] = {}
    for cells, host in lines:
        found.setdefault(tuple(cells), []).append(host)
    return [[*cells, hosts] for cells, hosts in found.items()]


def census_html(doc: Json) -> str:
    """The census of `census.capability_census` as an HTML page that needs nothing else."""
    body = [f"<p>{_e(_census_summary(doc))} {_e(_bundle_line(doc))}</p>"]
    for one in _silent_lines(doc):
        body.append(f'<p class="alarm">No answer from {_e(one)}. Nothing is known of what it can run.</p>')
    body.append(f"<p><small>{_e(_LEGEND)}</small></p>")
    if doc["features"]:
        body.append("<h2>Features by kernel family, machine and distribution</h2>")
        body.append(_html_table("stratum", sorted(doc["features"]), census_rows(doc)))
    return _page("What this fleet can run", body + _census_sections_html(doc))


def _census_sections_html(doc: Json) -> list[str]:
    body = []
    for title, columns, rows in _census_sections(doc):
        cells = [[*map(_e, row[:-1]), _html_names(row[-1])] for row in rows]
        body += [f"<h2>{_e(title)}</h2>", _html_grid(columns, cells)]
    return body


def _census_summary(doc: Json) -> str:
    answered, silent = len(doc["hosts"]), len(doc["silent"])
    text = f"{_s(answered, 'host')} answered"
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
        rows.append(Row(stratum, _s(len(doc["strata"][stratum]), "host"), cells))
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
                    said = f"{_sign(one['profile'])} {one['profile']} ({one['variant'] or 'no variant'})"
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
    return _by_hosts(lines)


def _next_cells(after: Json) -> list[list[str]]:
    boots = str(after["release"] or "unknown")
    if not after["changes"]:
        return [[boots, "all", _no_change(after), _next_evidence(after)]]
    return [
        [
            boots,
            one["feature"],
            "{} → {}".format(_reached_text(one["from"]), _reached_text(one["to"])),
            f"{one['reason_code']}: {one['sentence']}",
        ]
        for one in after["changes"]
    ]


def _reached_text(reached: Json) -> str:
    return f"{_sign(reached['profile'])} {reached['profile']} ({reached['variant'] or 'no variant'})"


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
    return _by_hosts(lines)


_HOST_COLUMNS = ("stratum", "kernel", "BTF", "asked as root", "hosts")


def _host_rows(doc: Json) -> list[list[Any]]:
    lines = []
    for name in sorted(doc["hosts"], key=lambda one: (version_order(doc["hosts"][one]["stratum"]), one)):
        host = doc["hosts"][name]
        release = (host.get("kernel") or {}).get("release") or "unknown"
        asked = {True: "yes", False: "no: few answers"}.get(host.get("privileged"), "unknown")
        lines.append(([host["stratum"], release, host.get("btf") or "unknown", asked], name))
    return _by_hosts(lines)


# --- matrix ------------------------------------------------------------------------------------


def matrix_markdown(doc: Json) -> str:
    """The capability matrix (ebpf.fleet/matrix/v1) as a Markdown page."""
    features = _matrix_features(doc)
    parts = ["# Which kernel runs what", _m(_matrix_summary(doc)), _m(_bundle_line(doc))]
    parts += [f"> **Differs:** {_m(line)}" for line in _difference_lines(doc)]
    parts += [_LEGEND, _markdown_table("kernel", features, matrix_rows(doc))]
    rows = [[*row[:-1], ", ".join(row[-1])] for row in _reason_rows(doc)]
    parts += ["## Why not in full", _markdown_grid(_REASON_COLUMNS, rows)] if rows else []
    parts += ["## Variants and the verifier's figures", _markdown_grid(_VERDICT_COLUMNS, _verdict_rows(doc))]
    return "\n\n".join(parts) + "\n"


def matrix_html(doc: Json) -> str:
    """The capability matrix (ebpf.fleet/matrix/v1) as an HTML page that needs nothing else."""
    body = [f"<p>{_e(_matrix_summary(doc))} {_e(_bundle_line(doc))}</p>"]
    body += [f'<p class="alarm">Differs: {_e(line)}</p>' for line in _difference_lines(doc)]
    body.append(f"<p><small>{_e(_LEGEND)}</small></p>")
    body.append(_html_table("kernel", _matrix_features(doc), matrix_rows(doc)))
    rows = [[*map(_e, row[:-1]), _html_names(row[-1])] for row in _reason_rows(doc)]
    body += ["<h2>Why not in full</h2>", _html_grid(_REASON_COLUMNS, rows)] if rows else []
    rows = [[_e(cell) for cell in row] for row in _verdict_rows(doc)]
    body += ["<h2>Variants and the verifier's figures</h2>", _html_grid(_VERDICT_COLUMNS, rows)]
    return _page("Which kernel runs what", body)


def _matrix_features(doc: Json) -> list[str]:
    return sorted({name for host in doc["hosts"].values() for name in host["features"]})


def _matrix_hosts(doc: Json) -> list[str]:
    """Hosts by kernel family, and by release and name within it."""

    def key(name: str) -> tuple[list[Any], list[Any], str]:
        return version_order(_family(doc, name)), version_order(_release(doc, name)), name

    return sorted(doc["hosts"], key=key)


def _family(doc: Json, name: str) -> str:
    return str(doc["hosts"][name].get("family") or "unknown")


def _release(doc: Json, name: str) -> str:
    return str((doc["hosts"][name].get("kernel") or {}).get("release") or "unknown")


def _matrix_summary(doc: Json) -> str:
    families = sorted({_family(doc, name) for name in doc["hosts"]}, key=version_order)
    count = len(doc.get("differences") or [])
    equal = "every prediction was reached" if not count else f"{_s(count, 'prediction')} differed from what was reached"
    return f"{_s(len(doc['hosts']), 'kernel')} of families {', '.join(families)}; {equal}."


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
    for name in _matrix_hosts(doc):
        host = doc["hosts"][name]
        note = f"{_release(doc, name)}, {host.get('distro') or 'distro unknown'}, BTF {host.get('btf') or 'unknown'}"
        title = f"{_family(doc, name)} {host.get('flavour') or ''}".strip() + f" · {name}"
        rows.append(Row(title, note, [_matrix_cell(host["features"].get(one)) for one in _matrix_features(doc)]))
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
    for feature in _matrix_features(doc):
        for name in _matrix_hosts(doc):
            reached = (doc["hosts"][name]["features"].get(feature) or {}).get("reached")
            if isinstance(reached, Mapping) and reached["reason_code"] != "EF_OK":
                cells = [feature, _reached_text(reached), str(reached["reason_code"]), str(reached["reason"])]
                lines.append((cells, name))
    return _by_hosts(lines)


_VERDICT_COLUMNS = (
    "kernel", "feature", "variant", "loads", "attaches", "verdict", "program", "instructions",
    "processed by the verifier", "stack, bytes",
)  # fmt: skip


def _verdict_rows(doc: Json) -> list[list[str]]:
    rows = []
    for host in _matrix_hosts(doc):
        for feature, found in sorted(doc["hosts"][host]["features"].items()):
            for variant, tried in (found.get("variants") or {}).items():
                start = [f"{_family(doc, host)} · {host}", feature, variant]
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


# --- what a release says of its kernels --------------------------------------------------------


def compatibility_of(matrix: Json) -> dict[str, Any]:
    """The manifest's `compatibility` of a release that was tested with this matrix.

    `summary` is one line a kernel family. `known_disabled` holds a feature of a family only
    where no host of that family reached it; what some reached is told in the summary.
    """
    families: dict[str, list[str]] = {}
    for name in _matrix_hosts(matrix):
        families.setdefault(_family(matrix, name), []).append(name)
    disabled = []
    for family, hosts in families.items():
        for feature in _matrix_features(matrix):
            codes = _codes_if_disabled(matrix, hosts, feature)
            disabled += [{"family": family, "feature": feature, "reason_code": code} for code in codes]
    return {
        "summary": [_family_line(matrix, family, hosts) for family, hosts in families.items()],
        "known_disabled": disabled,
    }


def _all_reached(matrix: Json, hosts: Iterable[str], feature: str) -> list[Json]:
    found = [matrix["hosts"][name]["features"].get(feature) or {} for name in hosts]
    return [one["reached"] for one in found if isinstance(one.get("reached"), Mapping)]


def _codes_if_disabled(matrix: Json, hosts: Iterable[str], feature: str) -> list[str]:
    reached = _all_reached(matrix, hosts, feature)
    if any(one["profile"] != "disabled" for one in reached):
        return []
    return sorted({str(one["reason_code"]) for one in reached})


def _family_line(matrix: Json, family: str, hosts: Sequence[str]) -> str:
    said = [f"{one} {_reached_words(_all_reached(matrix, hosts, one))}" for one in _matrix_features(matrix)]
    return f"{family} ({_s(len(hosts), 'kernel')}): {', '.join(said)}"


def _reached_words(reached: Sequence[Json]) -> str:
    """`full`, or `full or disabled (EF_NO_BTF)` where the kernels of a family differ."""
    if not reached:
        return NOT_MEASURED
    words = []
    for profile in PROFILES:
        codes = sorted({str(one["reason_code"]) for one in reached if one["profile"] == profile} - {"EF_OK"})
        if any(one["profile"] == profile for one in reached):
            words.append(f"{profile} ({' '.join(codes)})" if codes else profile)
    return " or ".join(words)
