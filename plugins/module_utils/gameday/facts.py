# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a host at one moment: its unit, its loader's word, the kernel's account, and the audit since. Pure.

What was not measured is None.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc

Json = Mapping[str, Any]
Facts = Dict[str, Any]

_COUNT = doc.whole(null=True)
_NAME = doc.text(256, null=True)
_FLAG = doc.truth(null=True)
_FEATURE = doc.record(
    {"state": doc.text(32), "profile": _NAME, "variant": _NAME, "reason_code": _NAME, "step": _NAME, "why": _NAME,
     "measured": _COUNT, "limit": _COUNT, "sample_every": _COUNT, "dropped": _COUNT, "thinned": _COUNT, "fair": _FLAG,
     "sources": _COUNT, "unwritten": _COUNT, "behind": _FLAG},
    ("state", "step", "why", "measured", "limit", "dropped", "thinned", "fair", "sources", "unwritten", "variant",
     "profile", "reason_code"),
)  # fmt: skip
RULE = doc.record(
    {
        "boottime_ns": doc.whole(),
        "boot_id": _NAME,
        "active_state": _NAME,
        "n_restarts": _COUNT,
        "main_pid": _COUNT,
        "exit_status": _COUNT,
        "state": _NAME,
        "reason_code": _NAME,
        "btf": _NAME,
        "lease": _FLAG,
        "kills": doc.many(doc.text(256), 64),
        "held": _COUNT,
        "ended_by": _NAME,
        "features": doc.table(_FEATURE, r"[A-Za-z0-9_.-]{1,128}", 256),
        "codes": doc.table(doc.whole(), r"[a-z]{1,20} EF_[A-Z_]{1,60}", 256),
    },
    ("boottime_ns", "boot_id", "active_state", "n_restarts", "main_pid", "exit_status", "state", "reason_code", "btf",
     "lease", "kills", "held", "ended_by", "features", "codes"),
)  # fmt: skip


def facts(
    boottime_ns: int, unit: Json | None, status: Json | None, witness: Json, codes: Json, ended_by: str | None
) -> Facts:
    """From what `observation.meet_once` read, and what the audit has since the begin."""
    unit = unit or {}
    # A status that another process left says nothing of the one that runs now.
    told = status if status and status.get("pid") == unit.get("main_pid") else {}
    return {
        "boottime_ns": boottime_ns,
        "boot_id": witness.get("boot_id"),
        **{name: unit.get(name) for name in ("active_state", "n_restarts", "main_pid", "exit_status")},
        "state": told.get("state"),
        "reason_code": told.get("reason_code"),
        "btf": (told.get("kernel") or {}).get("btf"),
        "lease": None if told.get("lease") is None else (told["lease"] or {}).get("expired"),
        "kills": [one["scope"] for one in told.get("kills") or []],
        "held": _held(unit, witness),
        "ended_by": ended_by,
        "features": {name: _feature(one) for name, one in (told.get("features") or {}).items()},
        "codes": dict(codes),
    }


def _held(unit: Json, witness: Json) -> int | None:
    """How many programs the unit's processes hold by the kernel's account; a unit without a process holds none."""
    loader = witness.get("loader")
    if loader is None:
        return None
    if loader.get("programs") is not None:
        return len(loader["programs"])
    gone = unit.get("active_state") in ("failed", "inactive") and not unit.get("main_pid")
    return 0 if gone and not loader.get("pids") else None


def _feature(one: Json) -> Facts:
    degraded = one.get("degraded") or {}
    counters = one.get("counters") or {}
    fairness = one.get("fairness") or {}
    consumer = one.get("consumer") or {}
    return {
        **{name: one.get(name) for name in ("state", "profile", "variant", "reason_code", "sample_every")},
        "step": degraded.get("step"),
        "why": degraded.get("reason_code"),
        "measured": _whole(degraded.get("measured")),
        "limit": _whole(degraded.get("limit")),
        "dropped": counters.get("dropped"),
        "thinned": fairness.get("thinned"),
        "fair": fairness.get("active"),
        "sources": len(fairness["top"]) if isinstance(fairness.get("top"), list) else None,
        "unwritten": consumer.get("unwritten"),
        "behind": (consumer.get("backpressure") or {}).get("active"),
    }


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def codes_since(text: str, since_ns: int, boot_id: str) -> dict[str, int]:
    """{"event EF_CODE": how often} of audit records of this boot from a time on; a torn line counts for nothing."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        record = _record(line)
        if record is None or record.get("boot_id") != boot_id:
            continue
        at, event, code = record.get("boottime_ns"), record.get("event"), record.get("reason_code")
        if not isinstance(at, int) or at < since_ns or not isinstance(event, str) or not isinstance(code, str):
            continue
        name = f"{event} {code}"
        if len(name) <= 80 and (name in found or len(found) < 200):
            found[name] = found.get(name, 0) + 1
    return found


def _record(line: str) -> Json | None:
    # No record of ours is nested deep, and the loader's user may write what they like.
    if line.count("{") + line.count("[") > 200:
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
