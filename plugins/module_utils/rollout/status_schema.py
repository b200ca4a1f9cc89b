# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a status document and an observation must look like (docs/formats/status.md, observation.md). Pure.

Both are written by what is watched. Nothing of them is used before it was held against this.
"""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.base.host_document import (
    Fault,
    Rule,
    many,
    record,
    table,
    text,
    told,
    truth,
    usable,
    whole,
    word,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES

STATUS_SCHEMA = "ebpf.fleet/status/v1"
OBSERVATION_SCHEMA = "ebpf.fleet/observation/v1"

FEATURES_LIMIT = 256
PID_LIMIT = 1 << 22

LIST_LIMIT = 1_024
FEATURE_NAME = r"[A-Za-z0-9_.-]{1,128}"
DIGEST = r"[0-9a-f]{64}"


def maybe(rule: Rule) -> Rule:
    """The rule, or null for what was not measured or is not there."""

    def judge(field: str, value: Any) -> Iterator[Fault]:
        if value is not None:
            yield from rule(field, value)

    return judge


def items(rule: Rule, limit: int = LIST_LIMIT) -> Rule:
    """A list of at most `limit` values."""
    return many(rule, limit)


def having(required: dict[str, Rule], optional: dict[str, Rule] | None = None) -> Rule:
    """A mapping with the required fields. Others may stand beside them: a later release tells more."""
    return record({**required, **(optional or {})}, needed=tuple(required))


COUNT: Rule = whole()
# What a feature may be in (bpf/loader/feature/state.c; tests/unit/test_words_agree.py).
STATES = ("off", "attached", "killed", "disabled", "shed")
# Why a feature sees nothing (bpf/loader/feature/unobserved.c; tests/unit/test_words_agree.py).
GAPS = ("attaching", "down", "reboot", "handover", "kill", "hold", "budget", "unable")

MEASURED: Rule = maybe(COUNT)
PID: Rule = whole(1, PID_LIMIT)
ID: Rule = whole(0, (1 << 32) - 1)
NAME: Rule = text(256)
NOTE: Rule = text(4_096, null=True)
FLAG: Rule = truth()

PROGRAM = having(
    {"name": NAME, "id": maybe(ID)},
    {"tag": maybe(text(64)), "run_cnt": MEASURED, "run_time_ns": MEASURED, "verified_insns": MEASURED},
)
MAP = having(
    {"name": NAME, "type": NAME, "memory_bytes": MEASURED},
    {"id": maybe(ID), "max_entries": MEASURED, "entries": MEASURED},
)
COUNTERS = having(dict.fromkeys(("produced", "delivered", "dropped", "sampled_out", "in_flight"), MEASURED))
CONSUMER = having(
    {"lag_bytes": MEASURED, "ring_bytes": MEASURED},
    {"lag_ns": MEASURED, "lost": MEASURED, "unwritten": MEASURED, "backpressure": maybe(having({}))},
)
DEGRADED = having({"step": NAME, "reason_code": NAME, "reason": NOTE, "steps": COUNT})
FEATURE = having(
    {
        "wanted": FLAG,
        "state": word(*STATES),
        "profile": word(*PROFILES),
        "programs": items(PROGRAM),
        "counters": maybe(COUNTERS),
        "consumer": maybe(CONSUMER),
    },
    {
        "variant": maybe(NAME),
        "reason_code": NAME,
        "reason": NOTE,
        "sample_every": COUNT,
        "links": items(maybe(ID)),
        "maps": items(MAP),
        "series": maybe(having({}, dict.fromkeys(("entries", "max_entries", "unkept"), MEASURED))),
        "degraded": maybe(DEGRADED),
        "weighted": MEASURED,
        "unobserved_ns": having({}, dict.fromkeys(GAPS, COUNT)),
    },
)
COST = having(dict.fromkeys(("cpu_ns", "rss_bytes", "map_memory_bytes"), MEASURED))
COLLECTOR = having(
    {"pid": PID, "boottime_ns": COUNT, "loader": COST, "cost": COST, "features": items(text(128), FEATURES_LIMIT)},
    {"started_boottime_ns": MEASURED, "boot_id": NAME},
)
STATUS = having(
    {
        "schema": word(STATUS_SCHEMA),
        "boot_id": NAME,
        "boottime_ns": COUNT,
        "pid": PID,
        "started_boottime_ns": MEASURED,
        "state": word("running", "idle", "killed", "refused"),
        "bundle": maybe(having({"digest": text(64, DIGEST)}, {"name": NAME, "version": NAME, "sequence": COUNT})),
        "features": maybe(table(FEATURE, FEATURE_NAME, FEATURES_LIMIT)),
        "loader": COST,
    },
    {
        "time_unix_ns": COUNT,
        "loader_version": NAME,
        "kernel": maybe(having({})),
        "reason_code": NAME,
        "reason": NOTE,
        "kills": items(having({"scope": text(1_000)}, {"path": text(4_096)})),
        "kill_unknown": items(text(4_096)),
        "desired_error": NOTE,
        "policy_error": NOTE,
        "stats_enabled": FLAG,
        "audit_lost": COUNT,
        "shipping": maybe(having({})),
        "trust": maybe(having({}, {"ok": FLAG, "reason_code": NAME, "reason": NOTE})),
        "clock_known": FLAG,
        "lease": maybe(having({}, {"expired": maybe(FLAG)})),
        "privileges": maybe(having({})),
        "collector": COLLECTOR,
    },
)

HOST = having({}, dict.fromkeys(
    (
        "cpus",
        "cpu_busy_ns",
        "cpu_total_ns",
        "memory_total_bytes",
        "memory_available_bytes",
        "psi_cpu_some_us",
        "psi_memory_some_us",
        "psi_io_some_us",
        "load1_milli",
    ),
    MEASURED,
))  # fmt: skip
UNIT = having(
    {"active_state": maybe(NAME), "n_restarts": MEASURED, "main_pid": MEASURED},
    {"exit_status": MEASURED, "control_group": maybe(text(4_096))},
)
APPLICATION = having({}, {"p95_ns": MEASURED, "p99_ns": MEASURED})

WHY = table(text(4_096), FEATURE_NAME, 64)
SEEN_PROGRAM = having(
    {"id": ID, "name": NAME, "type": NAME, "links": items(ID), "run_cnt": COUNT, "run_time_ns": COUNT},
    {"tag": text(64)},
)
MAIN = having(
    {
        "pid": PID,
        "state": text(1),
        "cpu_ns": COUNT,
        "children_cpu_ns": COUNT,
        "started_boottime_ns": COUNT,
        "rss_bytes": COUNT,
        "uids": maybe(items(ID, 4)),
        "exe": maybe(text(4_096)),
        "exe_is_installed": maybe(FLAG),
    }
)
SEEN_UNIT = having(
    {
        "unit": NAME,
        "main_pid": MEASURED,
        "pids": maybe(items(PID)),
        "main": maybe(MAIN),
        "cpu_ns": MEASURED,
        "cpu_source": maybe(word("cgroup", "cpuacct", "processes")),
        "rss_bytes": MEASURED,
        "memory_bytes": MEASURED,
        "programs": maybe(items(SEEN_PROGRAM)),
        "links": maybe(items(ID, 4_096)),
        "why": WHY,
    }
)
WITNESS = having(
    {
        "boottime_ns": COUNT,
        "boot_id": maybe(NAME),
        "installed_digest": maybe(text(64, DIGEST)),
        "loader": maybe(SEEN_UNIT),
        "collector": maybe(SEEN_UNIT),
        "why": WHY,
    }
)
SNAPSHOT = having(
    {"host": HOST, "unit": maybe(UNIT), "status": maybe(STATUS), "status_age_ns": MEASURED},
    {
        "time_unix_ns": COUNT,
        "boottime_ns": COUNT,
        "status_error": NOTE,
        "application": maybe(APPLICATION),
        "application_error": NOTE,
        "witness": maybe(WITNESS),
    },
)
OBSERVATION = having(
    {"schema": word(OBSERVATION_SCHEMA), "window_ns": COUNT, "start": SNAPSHOT, "end": SNAPSHOT},
    {"host": text(1_000), "boot_id": maybe(NAME)},
)


def status_fault(document: Any) -> str | None:
    """Why a status cannot be used, with the fields' names; None if it can."""
    return _fault(document, STATUS)


def observation_fault(document: Any) -> str | None:
    """Why an observation cannot be used, with the fields' names; None if it can."""
    return _fault(document, OBSERVATION)


def _fault(document: Any, rule: Rule) -> str | None:
    faults = usable(document, rule).faults
    return str(told(faults)) if faults else None
