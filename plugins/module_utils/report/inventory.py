# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a fleet in lines to read at night: who is silent, what is new, conflicts, the table. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import NOT_MEASURED, counted
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.fleet import summary

Json = Mapping[str, Any]

ROWS = 40
_NAMES = 4
_WIDTHS = (34, 44, 30)
_HEAD = ("WHOSE", "ATTACHED AT", "PROGRAMS", "HOSTS", "RUNS", "ns/RUN", "MEMORY")
NO_OWNER = "unknown"


def inventory_lines(fleet: Json) -> list[str]:
    """The document of `fleet.fleet_inventory` in lines, at most `ROWS` rows of a kind."""
    lines = [_head(fleet)]
    lines += [
        f"NO ANSWER {name}: {why or 'nothing was reported of it'}" for name, why in _some(fleet["silent_reasons"])
    ]
    lines += _beyond(fleet["silent"], "hosts that did not answer")
    lines += _change_lines(fleet["changes"])
    lines += [f"CONFLICT{_guess(one)} {one['sentence']} [{_hosts(one)}]" for one in fleet["conflicts"][:ROWS]]
    lines += _beyond(fleet["conflicts"], "conflicts")
    lines += _table(fleet["groups"]) if fleet["hosts"] else []
    return lines + _unknown_lines(fleet["incomplete"])


def _head(fleet: Json) -> str:
    total = summary(fleet)
    parts = [counted(total[kind], kind[:-1]) for kind in ("programs", "links", "maps", "pins")]
    silent = f"{len(fleet['silent'])} did not answer" if fleet["silent"] else "every one that was asked answered"
    parts[-1] += f"; {counted(len(fleet['conflicts']), 'conflict')}"
    return f"{counted(total['hosts'], 'host')}, {silent}: {', '.join(parts)}"


def _unknown_lines(incomplete: Json) -> list[str]:
    """One line for each kind of thing that is not known, with the hosts and one of their sentences."""
    rows: dict[str, dict[str, Any]] = {}
    for host, sentences in incomplete.items():
        for sentence in sentences:
            row = rows.setdefault(sentence.partition(":")[0], {"sentence": sentence, "hosts": []})
            if host not in row["hosts"]:
                row["hosts"].append(host)
    kinds = [rows[kind] for kind in sorted(rows)]
    return [f"NOT KNOWN {row['sentence']} [{_hosts(row)}]" for row in kinds[:ROWS]] + _beyond(kinds, "kinds of unknown")


def _some(found: Json) -> Sequence[tuple[str, Any]]:
    return list(found.items())[:ROWS]


def _more(found: Sequence[Any], shown: int) -> str:
    return f" and {len(found) - shown} more" if len(found) > shown else ""


def _beyond(found: Sequence[Any], what: str) -> list[str]:
    return [f"… {len(found) - ROWS} more {what} are in the document"] if len(found) > ROWS else []


def _hosts(row: Json) -> str:
    return ", ".join(row["hosts"][:_NAMES]) + _more(row["hosts"], _NAMES)


def _guess(row: Json) -> str:
    return " (guess)" if row["guess"] else ""


def _change_lines(changed: Json) -> list[str]:
    if changed["since"] is None:
        return ["Not compared with an earlier inventory: there is not one, or it does not say its time"]
    lines = []
    for word, rows in (("NEW", changed["new"]), ("GONE", changed["gone"])):
        for one in rows[:ROWS]:
            places = ", ".join(one["points"][:2]) + _more(one["points"], 2) if one["points"] else "no attachment found"
            whose = one["owner"] or NO_OWNER
            lines.append(f"{word} {one['name'] or one['tag']} ({one['type']}) of {whose} at {places} [{_hosts(one)}]")
        lines += _beyond(rows, word.lower())
    lines += [f"REPLACED {one['sentence']} [{_hosts(one)}]" for one in changed["replaced_xdp"][:ROWS]]
    if not lines:
        lines = [f"Nothing is new or gone since {changed['since']}"]
    else:
        lines.insert(0, f"Since {changed['since']}:")
    if changed["unsure"]:
        names = list(changed["unsure"])
        lines.append(f"UNSURE, since not every program is listed: {', '.join(names[:_NAMES])}{_more(names, _NAMES)}")
    if changed["not_compared"]:
        names = list(changed["not_compared"])
        lines.append(f"Not compared, since they did not answer then: {', '.join(names[:_NAMES])}{_more(names, _NAMES)}")
    return lines


def _table(groups: Sequence[Json]) -> list[str]:
    if not groups:
        return ["No eBPF program is loaded on any host that answered"]
    rows = [_HEAD, *(_cells(one) for one in groups[:ROWS])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return lines + _beyond(groups, "rows")


def _cells(row: Json) -> tuple[str, ...]:
    whose = row["owner"] or NO_OWNER
    whose = f"{whose} (ours)" if row["ours"] else f"{whose}?" if row["guess"] else whose
    names = ", ".join(name or "(no name)" for name in row["names"][:2]) + _more(row["names"], 2)
    texts = [_cut(text, width) for text, width in zip((whose, row["point"], names), _WIDTHS)]
    hosts = str(len(row["hosts"]))
    memory = NOT_MEASURED if row["memory_bytes"] is None else f"{row['memory_bytes'] // 1024} KiB"
    return (*texts, hosts, *_cost(row), memory)


def _cost(row: Json) -> tuple[str, str]:
    if row["run_cnt"] is None or row["run_time_ns"] is None:
        return NOT_MEASURED, NOT_MEASURED
    return str(row["run_cnt"]), str(row["run_time_ns"] // row["run_cnt"]) if row["run_cnt"] else "-"


def _cut(text: str, width: int) -> str:
    """The begin and the end of a text that is longer than its column: ends tell cgroups apart."""
    return text if len(text) <= width else f"{text[: width // 3]}…{text[-(width - width // 3 - 1) :]}"
