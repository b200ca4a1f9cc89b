# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host may meet a drill, by its facts. Pure. The default is no."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.gameday.drills import Drill

Json = Mapping[str, Any]


def feature_of(drill: Drill, now: Json) -> str:
    """The feature that is watched: the first of the drill's that is attached; empty where there is none or no need."""
    for name in drill.features:
        if (now["features"].get(name) or {}).get("state") == "attached":
            return name
    return ""


def refusal(drill: Drill, now: Json, leased: bool, running: bool) -> str:
    """Why this host may not meet it, as a sentence part; empty where it may."""
    if running:
        return "another injection runs on this host: wait for its end, or run gameday with state=ended"
    if now["active_state"] != "active" or now["state"] != "running":
        return (
            f"the loader does not run here as it should (unit {now['active_state'] or 'unknown'}, state"
            f" {now['state'] or 'unknown'}): put that right first"
        )
    if now["kills"]:
        return f"kill orders stand here ({', '.join(now['kills'][:5])}): take them back when their cause is gone"
    if leased or now["lease"] is not None:
        return "the host is on probation (lease.json): a rollout is to confirm it first"
    if now["n_restarts"] is None or now["held"] is None:
        return "systemd or the kernel does not tell what is so here, so nothing could be judged"
    if drill.features and not feature_of(drill, now):
        return f"it runs none of {', '.join(drill.features)}"
    down = [name for name, one in now["features"].items() if one["step"] is not None]
    if down:
        return f"{', '.join(down)} is degraded already: wait until it has recovered"
    if drill.name == "missing_btf" and now["btf"] != "vmlinux":
        return "the loader uses no BTF of the kernel's here as it is"
    if not any(one["state"] == "attached" for one in now["features"].values()):
        return "no feature is attached here"
    return ""
