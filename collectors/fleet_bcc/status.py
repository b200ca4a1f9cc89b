# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collector tells of itself: status.json, the list of programs, metrics.prom and the compatibility event."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.collectors.fleet_bcc import metrics
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import ENGINE, VERSION, Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Bundle
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.desired import Desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.feature import Feature
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.files import write_atomic
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.journal import say
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import boot_id, resident_bytes
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import Orders


class Present(NamedTuple):
    """What there is to tell of, at one moment."""

    kernel: dict[str, Any]
    started_ns: int | None
    bundle: Bundle | None
    refusal: Reason | None
    stopping: bool
    orders: Orders
    desired: Desired
    with_stats: bool
    features: Sequence[Feature]


def overall(now: Present) -> tuple[str, Reason]:
    """The state of the collector as a whole, and why."""
    order = now.orders.everything()
    if now.refusal:
        return "refused", now.refusal
    if now.stopping:
        return "idle", Reason("EF_OK", "the collector was stopped")
    if order:
        return "killed", Reason(order.code, f"kill order {order.path}; remove it to release")
    if any(feature.state == "attached" for feature in now.features):
        return "running", Reason("EF_OK", "running")
    for state in ("killed", "disabled"):
        for feature in now.features:
            if feature.wanted and feature.state == state:
                return ("killed" if state == "killed" else "idle"), feature.reason
    return "idle", now.desired.error or Reason("EF_NOT_WANTED", "nothing is wanted of BCC")


def cost(now: Present, features: dict[str, Any]) -> dict[str, Any]:
    """Our own CPU with that of the compilers that ended, memory with the one that works."""
    own = [resident_bytes(os.getpid())]
    own += [resident_bytes(feature.job.process.pid) or 0 for feature in now.features if feature.job]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    maps = [each["memory_bytes"] for feature in features.values() for each in feature["maps"]]
    return {
        "cpu_ns": time.process_time_ns() + int((used.ru_utime + used.ru_stime) * 1e9),
        "rss_bytes": None if own[0] is None else sum(each or 0 for each in own),
        "map_memory_bytes": None if None in maps else sum(maps),
    }


def document(now: Present, compatibility: dict[str, Any] | None) -> dict[str, Any]:
    """status.json."""
    state, reason = overall(now)
    features = {feature.name: feature.describe(now.with_stats) for feature in now.features}
    return {
        "schema": "ebpf.fleet/status/v1",
        "engine": ENGINE,
        "time_unix_ns": time.time_ns(),
        "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "boot_id": boot_id(),
        "pid": os.getpid(),
        "started_boottime_ns": now.started_ns,
        "loader_version": VERSION,
        "bundle": now.bundle.about if now.bundle else None,
        "kernel": now.kernel,
        "state": state,
        "reason_code": reason.code,
        "reason": reason.text,
        "kills": [order._asdict() for order in now.orders.orders],
        "kill_unknown": now.orders.unknown,
        "desired_error": now.desired.error.text if now.desired.error else None,
        "stats_enabled": now.with_stats,
        "loader": cost(now, features),
        "features": features if now.bundle else None,
        "compatibility": compatibility,
    }


class Publisher:
    """Writes the files of the state folder, and says a new compatibility event in the journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compatibility: dict[str, Any] | None = None

    def publish(self, now: Present) -> None:
        """programs first, then status.json, then metrics.prom."""
        self.compatibility = self._compatibility(now)
        status = document(now, self.compatibility)
        lines = [
            f"{program['id']} {program['tag']} {name} {program['name']}\n"
            for name, feature in (status["features"] or {}).items()
            for program in feature["programs"]
        ]
        write_atomic(self.folder, "programs", "".join(lines).encode("ascii"))
        text = json.dumps(status, sort_keys=True, separators=(",", ":")) + "\n"
        write_atomic(self.folder, "status.json", text.encode("ascii"))
        signals = [(feature.source.signal("histogram"), feature) for feature in now.features]
        histograms = [
            (signal_doc, feature.hist(), feature.hist(weighted=True)) for signal_doc, feature in signals if signal_doc
        ]
        write_atomic(self.folder, "metrics.prom", metrics.render(status, histograms).encode("utf-8"))

    def _compatibility(self, now: Present) -> dict[str, Any] | None:
        """The compatibility event; the one before while nothing changed."""
        if not now.bundle:
            return None
        features = {
            feature.name: {
                "profile": feature.profile,
                "variant": ENGINE if feature.live else None,
                "reason_code": feature.reason.code,
                "reason": feature.reason.text,
            }
            for feature in now.features
        }
        if self.compatibility and self.compatibility["features"] == features:
            return self.compatibility
        event = {
            "schema": "ebpf.fleet/compatibility/v1",
            "event": "compatibility",
            "engine": ENGINE,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": now.kernel,
            "bundle": now.bundle.about,
            "features": features,
        }
        if not any(feature.job for feature in now.features):
            say(6, json.dumps(event, sort_keys=True, separators=(",", ":")), "")
        return event
