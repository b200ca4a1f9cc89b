# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages that a person reads at a glance: the fleet's census and the capability matrix. Pure.

Each page is one file without scripts or outside resources. Every text that comes from a host
passes through `html_text` (HTML) or `markdown_text` (Markdown) before it stands in a page. A profile is always a
word with a sign, never a colour alone.
"""

from __future__ import annotations

import html
import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES

Json = Mapping[str, Any]

SIGNS = {"full": "●", "reduced": "◐", "disabled": "○"}

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


# Text

# A cell may hold the names of a whole fleet; a host's own texts are bounded long before.
_TEXT_LIMIT = 4_000_000


def html_text(text: Any) -> str:
    return html.escape(printable(text, _TEXT_LIMIT), quote=True)


def markdown_text(text: Any) -> str:
    """Text in one cell of a Markdown table: no line break, no column, no markup of its own."""
    plain = printable(" ".join(str(text).split()), _TEXT_LIMIT)
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Many readers make a link of a bare address.
    plain = plain.replace("://", "&#58;//").replace("www.", "www&#46;")
    for sign in "\\`*[]|~":
        plain = plain.replace(sign, "\\" + sign)
    return _OUTER_UNDERSCORE.sub(r"\\_", plain)


# Within a word an underscore is not markup, and names are easier to read without a backslash in them.
_OUTER_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_])")


def sign(profile: str) -> str:
    return SIGNS.get(profile, "?")


def bundle_line(doc: Json) -> str:
    bundle = doc.get("bundle")
    if not bundle:
        return "No bundle was asked for: facts only, no profiles."
    digest = str(doc.get("digest") or "")[:12] or "no digest"
    return "Bundle {} {} (sequence {}, {}).".format(
        bundle.get("name"), bundle.get("version"), bundle.get("sequence"), digest
    )


# Pages


def html_page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole page; `style` is what it needs beside the style of all pages."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html_text(title)}</title><style>{_STYLE}{style}</style></head><body>"
    )
    return "\n".join([head, f"<h1>{html_text(title)}</h1>", *body, "</body></html>"]) + "\n"


def _html_chip(chip: Chip) -> str:
    kind = chip.profile if chip.profile in PROFILES else "none"
    why = f'<div class="why">{html_text(chip.why)}</div>' if chip.why else ""
    return f'<span class="chip {kind}">{sign(chip.profile)} {html_text(chip.text)}</span>{why}'


def html_table(corner: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f'<th scope="col">{html_text(name)}</th>' for name in (corner, *columns))
    lines = [f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>']
    for row in rows:
        cells = "".join("<td>{}</td>".format("".join(map(_html_chip, cell)) or "–") for cell in row.cells)
        lines.append(
            f'<tr><th scope="row">{html_text(row.title)}<br><small>{html_text(row.note)}</small></th>{cells}</tr>'
        )
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def html_grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table; the cells are HTML already."""
    head = "".join(f'<th scope="col">{html_text(name)}</th>' for name in columns)
    lines = ["<tr>{}</tr>".format("".join(f"<td>{cell}</td>" for cell in row)) for row in rows]
    return "\n".join(
        [f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>', *lines, "</tbody></table></div>"]
    )


def html_names(names: Sequence[str]) -> str:
    text = f'<span class="names">{html_text(", ".join(names))}</span>'
    if len(names) <= _NAMES_IN_THE_OPEN:
        return text
    return f"<details><summary>{html_text(counted(len(names), 'host'))}</summary>{text}</details>"


def markdown_table(corner: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [_markdown_line([corner, *columns]), "|" + " --- |" * (len(columns) + 1)]
    for row in rows:
        title = f"**{markdown_text(row.title)}**" + (f"<br>{markdown_text(row.note)}" if row.note else "")
        cells = ["<br>".join(map(_markdown_chip, cell)) or "–" for cell in row.cells]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines)


def _markdown_chip(chip: Chip) -> str:
    text = f"{sign(chip.profile)} {markdown_text(chip.text)}"
    return f"{text}: {markdown_text(chip.why)}" if chip.why else text


def _markdown_line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"


def markdown_grid(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    ruler = "|" + " --- |" * len(columns)
    return "\n".join([_markdown_line(columns), ruler, *(_markdown_line(row) for row in rows)])


LEGEND = "● full: all that the contract asks for · ◐ reduced: a lesser variant · ○ disabled: does not run, and why"


def by_hosts(lines: Iterable[tuple[Sequence[str], str]]) -> list[list[Any]]:
    """Rows with the hosts that they are true of: equal (cells, host) lines become one row."""
    found: dict[tuple[str, ...], list[str]] = {}
    for cells, host in lines:
        found.setdefault(tuple(cells), []).append(host)
    return [[*cells, hosts] for cells, hosts in found.items()]


def reached_text(reached: Json) -> str:
    return f"{sign(reached['profile'])} {reached['profile']} ({reached['variant'] or 'no variant'})"
