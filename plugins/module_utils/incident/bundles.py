# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of a fleet: where each host's goes, what came of it, and what is said of it. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.module_utils.incident.evidence import FILES, NOTHING_CAME, Bundle

SCHEMA = "ebpf.fleet/forensics/v1"
NAME_BYTES = 100
# What no bundle has, and why; the format's page and the run itself say it.
REDACTED = (
    "private keys, passwords, tokens and credentials in addresses: whoever reads a bundle would have them",
    "names of people (home folders, mail addresses, user=NAME): a user's number says who it was to those who may know",
    "names of other processes (comm): what runs on the host is not what is asked",
    "the kernel's own command line: it may hold a secret",
)
NEVER_READ = (
    "command lines, environment and memory of any process",
    "records of events, which hold users' programs and files",
    "trust files, keys and the bundle",
)

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def folder_of(host: str) -> str:
    """The folder of a host, for any name: letters that a path could read otherwise are written as %XX, two names
    never share one, and what is too long is cut and has a part of its SHA-256."""
    if _PLAIN.fullmatch(host) and len(host) <= NAME_BYTES:
        return host
    data = host.encode("utf-8", "surrogatepass")
    plain = "".join(
        chr(one) if chr(one).isascii() and (chr(one).isalnum() or chr(one) in "_-") else f"%{one:02X}" for one in data
    )
    if len(plain) <= NAME_BYTES:
        return plain
    return f"{plain[:NAME_BYTES]}%.{hashlib.sha256(data).hexdigest()[:16]}"


def entry(host: str, result: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """What is said of one host: `complete` only where nothing is wrong with what it sent and how it ended."""
    faults = list(bundle.faults)
    if result.get("failed"):
        # Why nothing came is then known better.
        faults = [one for one in faults if one != NOTHING_CAME]
        faults.insert(0, printable(result.get("msg") or "it did not end well", 300))
    kept = {name: one for name, one in bundle.files.items() if one.text}
    return {
        "complete": not faults,
        "folder": folder_of(host) if kept else None,
        "family": bundle.family or None,
        "distro": bundle.distro or None,
        "python": bundle.python,
        "seconds_ms": _milliseconds(result.get("seconds")),
        "faults": faults,
        "files": {
            name: {"bytes": len(one.text), "sha256": one.sha256, "cut": one.cut, "why": one.why}
            for name, one in bundle.files.items()
        },
    }


def _milliseconds(seconds: Any) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    return int(seconds * 1000)


def document(hosts: Mapping[str, Mapping[str, Any]], time: str, limits: Mapping[str, int]) -> dict[str, Any]:
    """The document of a run; `hosts` has one entry for each host that was asked."""
    return {
        "schema": SCHEMA,
        "time": time,
        "limits": dict(limits),
        "redacted": list(REDACTED),
        "never_read": list(NEVER_READ),
        "complete": sorted(name for name, one in hosts.items() if one["complete"]),
        "partial": sorted(name for name, one in hosts.items() if not one["complete"] and one["folder"]),
        "missing": sorted(name for name, one in hosts.items() if not one["complete"] and not one["folder"]),
        "hosts": {name: dict(hosts[name]) for name in sorted(hosts)},
    }


def reason(found: Mapping[str, Any]) -> str:
    """Why a host's evidence is not complete, in one line."""
    return "; ".join(found["faults"][:3]) + (
        f" and {len(found['faults']) - 3} more" if len(found["faults"]) > 3 else ""
    )


def lines(found: Mapping[str, Any], folder: str) -> list[str]:
    """What is printed when everything else was: who gave what, what was cut, what is missing and what to do."""
    hosts = found["hosts"]
    count = len(hosts)
    said = [
        f"evidence of {len(found['complete'])} of {count} host{'s' if count != 1 else ''} in {printable(folder, 300)}"
    ]
    cut = sorted(
        {name for one in hosts.values() for name, file in one["files"].items() if file["cut"]}, key=list(FILES).index
    )
    if cut:
        said.append(f"cut to its limit on some host: {', '.join(cut)}; forensics.json says where")
    for title, names in (("PARTLY", found["partial"]), ("NOTHING CAME", found["missing"])):
        if names:
            said.append(f"{title}: {len(names)}")
            said += _by_reason(hosts, names)
    if found["partial"] or found["missing"]:
        said.append("Next: what came is kept; run the same command with --limit for these hosts.")
    else:
        said.append("Next: check it anywhere with: cd FOLDER/HOST && sha256sum -c SHA256SUMS")
    return said


def _by_reason(hosts: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(reason(hosts[name]), []).append(name)
    ordered = sorted(groups.items(), key=lambda one: (-len(one[1]), one[1][0]))
    shown = [f"  {hostnames.some_of(some, 6)}: {why}" for why, some in ordered[:12]]
    more = sum(len(some) for _why, some in ordered[12:])
    return [*shown, f"  and {more} more hosts"] if more else shown
