# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node_exporter's textfile collector gets of a visit to the kill list. Pure."""

from __future__ import annotations

from typing import Any, Mapping

# (name behind our prefix, help, field of the status, what its number is divided by); what is null has no sample.
SERIES = (
    ("pull_ok", "1 where the last visit found a fresh kill list and followed it, else 0.", "ok", 1),
    ("pull_visit_timestamp_seconds", "When the last visit was, since 1970.", "time_unix_ns", 10**9),
    ("pull_sequence", "Sequence of the newest kill list that was taken.", "sequence", 1),
    ("pull_expires_timestamp_seconds", "When the kill list expires, since 1970.", "expires", 1),
    ("pull_lease_left_seconds", "How long the policy waits for a fresh list.", "lease_left_s", 1),
    ("pull_orders", "Kill orders on this host that the pull channel placed.", "pulled", 1),
)


def render_metrics(status: Mapping[str, Any]) -> bytes:
    """The page of a status, as Prometheus' text format has it."""
    lines = []
    for ending, words, field, per in SERIES:
        name, value = f"ebpf_fleet_{ending}", status[field]
        if value is None:
            continue
        number = len(value) if isinstance(value, list) else int(value)
        lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge", f"{name} {_text(number, per)}"]
    return ("\n".join(lines) + "\n").encode("ascii")


def _text(number: int, per: int) -> str:
    return str(number) if per == 1 else f"{number / per:.3f}"
