# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host's answer can be judged at all. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    Finding,
    get,
    number,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.status_schema import observation_fault

# Stands in the place of an observation that could not even be read, with the reason.
MALFORMED = "malformed"


def judge_answer(host: str, record: Any) -> Finding | None:
    """Is there an observation, and is it what it must be? None where it can be judged."""
    malformed = fault_of_record(record)
    if malformed is not None:
        return unusable(host, FAIL, malformed)
    wrong = what_is_wrong(get(record, "after"))
    return None if wrong is None else Finding(INCONCLUSIVE, None, None, f"{host}: {wrong}")


def judge_control(host: str, record: Any) -> Finding | None:
    """As `judge_answer`, of a host that was not changed: it holds, and one that is missing is left to the checks."""
    malformed = fault_of_record(record)
    return None if malformed is None else unusable(host, INCONCLUSIVE, malformed)


def unusable(host: str, verdict: str, wrong: str) -> Finding:
    """The answer is malformed; the sentence names the host, the field and why."""
    return Finding(verdict, None, None, f"no usable answer from {host}: {printable(wrong)}")


def fault_of_record(record: Any) -> str | None:
    """What is malformed in a host's observations, each held against the schema by itself; None if nothing is.

    An answer that is not a document at all counts as none: the host was not observed.
    """
    for end in ("after", "before"):
        document = get(record, end)
        if isinstance(document, Mapping) and set(document) == {MALFORMED}:
            return str(document[MALFORMED])
        wrong = observation_fault(document) if isinstance(document, Mapping) and document else None
        if wrong is not None:
            return f"{end}: {wrong}"
    return None


def lacks_status_alone(record: Any) -> bool:
    """Is all there but the loader's status at the end, as of a loader that ended?"""
    after = get(record, "after")
    if fault_of_record(record) is not None or not isinstance(after, Mapping) or get(after, "end", "status") is not None:
        return False
    return isinstance(after.get("start"), Mapping) and isinstance(after.get("end"), Mapping)


def what_is_wrong(observation: Any) -> str | None:
    """Why an observation cannot be judged, or None."""
    if not isinstance(observation, Mapping):
        return "was not observed after the change; is it reachable?"
    if not isinstance(observation.get("start"), Mapping) or not isinstance(observation.get("end"), Mapping):
        return "its observation has no start and end; pass what observation_info returned"
    if (number(observation, "window_ns") or 0) <= 0:
        return "its observation has no window, so there are no rates; observe with window > 0"
    if get(observation, "end", "status") is None:
        reason = get(observation, "end", "status_error")
        return f"has no status from the loader ({reason or 'is it installed and running?'})"
    return None
