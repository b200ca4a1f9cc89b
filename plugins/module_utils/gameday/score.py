# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The score of one drill on one host: detected, degraded, off, recovered, and what the pages say of it. Pure."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import judge
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday.drills import Drill, Step

Json = Mapping[str, Any]
PASS, FAIL, INCONCLUSIVE, REFUSED = "pass", "fail", "inconclusive", "refused"
YES, NO, UNKNOWN = "yes", "no", "unknown"
NS_IN_MS = 1_000_000


class Met(NamedTuple):
    """What a host answered at each step; None where it gave no usable answer, and then `why` says so.

    `killed` is the host's part of a kill's census, None where no order was given.
    """

    begun: Json | None = None
    watched: Json | None = None
    killed: Json | None = None
    ended: Json | None = None
    why: Mapping[str, str] = {}


def score(drill: Drill, host: str, met: Met, limit_ms: int) -> dict[str, Any]:
    """The score; what was not measured is unknown, and never a pass."""
    if met.begun is None:
        return _none(drill, host, met.why.get("begin", "no answer"))
    parts = {
        "detected": _detected(drill, met),
        "degraded": _degraded(drill, met),
        "off": _off(drill, met, limit_ms),
        "recovered": _recovered(met),
        "runbook": [_step(drill, step, met) for step in drill.runbook],
    }
    return {
        "drill": drill.name,
        "host": host,
        "verdict": verdict(parts),
        "why": "; ".join(f"{name}: {said}" for name, said in sorted(met.why.items())),
        "feature": (met.watched or met.begun)["feature"],
        **parts,
        "facts": {"before": met.begun["before"], "during": (met.watched or {}).get("facts"),
                  "after": (met.ended or {}).get("facts")},
    }  # fmt: skip


def _none(drill: Drill, host: str, why: str) -> dict[str, Any]:
    return {"drill": drill.name, "host": host, "verdict": REFUSED, "why": why, "feature": "", "detected": None,
            "degraded": None, "off": None, "recovered": None, "runbook": [],
            "facts": {"before": None, "during": None, "after": None}}  # fmt: skip


def verdict(parts: Json) -> str:
    """What the parts of a score come to: a no fails, an unknown holds."""
    answers = [parts[name]["answer"] for name in ("detected", "degraded", "recovered")]
    answers += [parts["off"]["answer"]] if parts["off"] else []
    answers += [one["answer"] for one in parts["runbook"]]
    if NO in answers:
        return FAIL
    return INCONCLUSIVE if UNKNOWN in answers else PASS


def _after_ms(since: int | None, at: int | None) -> int | None:
    return None if since is None or at is None else max(0, at - since) // NS_IN_MS


def _detected(drill: Drill, met: Met) -> dict[str, Any]:
    if met.watched is None:
        return {"answer": UNKNOWN, "after_ms": None, "by": []}
    seen = {sign: met.watched["seen"][sign] for sign in drill.detected if sign in met.watched["seen"]}
    first = min(seen.values(), default=None)
    return {
        "answer": YES if seen else _not_seen(drill, drill.detected, met),
        "after_ms": _after_ms(met.begun["begun_boottime_ns"] if met.begun else None, first),
        "by": [judge.SAYS[sign] for sign in seen],
    }


def _not_seen(drill: Drill, signs: tuple[str, ...], met: Met) -> str:
    """Of signs of which none was seen: no, where each could be measured at the end of the watch."""
    if met.watched is None or met.begun is None:
        return UNKNOWN
    at = judge.Moment(drill, met.watched["feature"], met.begun["before"], met.watched["facts"])
    return NO if all(judge.ask(sign, at) is not None for sign in signs) else UNKNOWN


def _degraded(drill: Drill, met: Met) -> dict[str, Any]:
    found: dict[str, Any] = {
        "answer": UNKNOWN,
        "after_ms": None,
        "seen": [],
        "missing": [],
        "documented": drill.documented,
    }
    if met.watched is None:
        return {**found, "missing": [judge.SAYS[sign] for sign in drill.degraded]}
    seen = met.watched["seen"]
    missing = tuple(sign for sign in drill.degraded if sign not in seen)
    last = max((seen[sign] for sign in drill.degraded if sign in seen), default=None)
    return {
        **found,
        "answer": _not_seen(drill, missing, met) if missing else YES,
        "after_ms": None if missing else _after_ms(met.begun["begun_boottime_ns"] if met.begun else None, last),
        "seen": [judge.SAYS[sign] for sign in drill.degraded if sign in seen],
        "missing": [judge.SAYS[sign] for sign in missing],
    }


def _off(drill: Drill, met: Met, limit_ms: int) -> dict[str, Any] | None:
    """None where the drill has no kill order."""
    if not drill.kill:
        return None
    killed = met.killed
    if killed is None:
        return {"answer": UNKNOWN, "ms": None, "limit_ms": limit_ms, "why": met.why.get("kill", "no order was given")}
    if met.ended is not None and met.ended["facts"]["ended_by"] == "timeout":
        late = "the fault ended by itself at its bound, so the order may not have met it; give a larger bound"
        return {"answer": UNKNOWN, "ms": killed.get("host_ms"), "limit_ms": limit_ms, "why": late}
    why = str(killed.get("detail") or "")
    took = killed.get("host_ms")
    if killed.get("ok") is not True or killed.get("concerned") is not True:
        return {
            "answer": NO if killed.get("concerned") is not False else UNKNOWN,
            "ms": took,
            "limit_ms": limit_ms,
            "why": why,
        }
    answer = UNKNOWN if took is None else YES if took <= limit_ms else NO
    return {"answer": answer, "ms": took, "limit_ms": limit_ms, "why": why}


def _recovered(met: Met) -> dict[str, Any]:
    if met.ended is None:
        return {"answer": UNKNOWN, "after_ms": None, "ended_by": None}
    at = met.ended["seen"].get("as_before")
    return {
        "answer": NO if at is None else YES,
        "after_ms": _after_ms(met.ended["ended_boottime_ns"], at),
        "ended_by": met.ended["facts"]["ended_by"],
    }


def _step(drill: Drill, step: Step, met: Met) -> dict[str, Any]:
    found = met.ended if step.when == "after" else met.watched
    return {"page": step.page, "section": step.section, "says": step.says, "when": step.when,
            "answer": _held(drill, step, met, found), "told": judge.SAYS[step.sign]}  # fmt: skip


def _held(drill: Drill, step: Step, met: Met, found: Json | None) -> str:
    if found is None or met.begun is None:
        return UNKNOWN
    if step.sign in found["seen"]:
        return YES
    at = judge.Moment(drill, found["feature"], met.begun["before"], found["facts"])
    return UNKNOWN if judge.ask(step.sign, at) is None else NO


def failed(scores: list[Json]) -> list[str]:
    """What did not pass, a line each."""
    return [f"{one['drill']} on {one['host']}: {one['verdict']}" for one in scores if one["verdict"] != PASS]
